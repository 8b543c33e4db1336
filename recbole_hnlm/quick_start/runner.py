"""One run: data, LLM stages where the model uses them, training, evaluation, and the record of it all."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole.utils import init_seed, set_color

from recbole_hnlm import __version__
from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import LoadedData, load_data
from recbole_hnlm.evaluator.false_negatives import FalseNegativeCounter
from recbole_hnlm.model.building import build_model, naming_missing_packages, naming_wrong_keys
from recbole_hnlm.quick_start.fusing import load_parts, train_parts
from recbole_hnlm.semantics.attach import Semantics, attach_hnlm_data, semantics_of
from recbole_hnlm.trainer.checkpoint import load_weights, read_checkpoint
from recbole_hnlm.trainer.factory import get_trainer_class
from recbole_hnlm.trainer.fusion_weights import has_open_weights
from recbole_hnlm.trainer.resumable import read_resumable
from recbole_hnlm.utils.environment import package_versions, peak_rss_bytes, source_digest
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.given_paths import output_folder
from recbole_hnlm.utils.logger import init_logger
from recbole_hnlm.utils.registry import model_names
from recbole_hnlm.utils.results import RunResult, Stopwatch, new_run_id, write_result
from recbole_hnlm.utils.showing import shown
from recbole_hnlm.utils.values import split_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["collector_of_test", "evaluate_checkpoint", "load_checkpoint", "prepare_run", "run", "train_and_validate"]


def prepare_run(config: Config, run_id: str | None = None) -> Path:
    """Seed, name the run and start its log; returns the log file."""
    config["run_id"] = run_id or new_run_id(config["model"], config["dataset"])
    _make_folders(config)
    init_seed(config["seed"], config["reproducibility"])
    log_file = init_logger(config)
    logging.getLogger().info(f"recbole-hnlm {__version__}, run {config['run_id']}")
    logging.getLogger().info(config)
    return log_file


def _make_folders(config: Config) -> None:
    """Make the folders that a run writes into, so that a failure comes now and not after training."""
    for folder in [output_folder(config[key], key, ArtifactError) for key in ("results_dir", "checkpoint_dir", "log_dir")]:
        folder.mkdir(parents=True, exist_ok=True)


def run(
    config: Config,
    *,
    saved: bool = True,
    run_id: str | None = None,
    callback_fn: Callable[[int, float], None] | None = None,
    on_test: Callable[[Any, Any], None] | None = None,
) -> RunResult:
    """Train and evaluate one model, and write ``results/<run_id>.json``.

    Seeding follows RecBole's ``run_recbole`` (before the data and again before the model), so that RecBole's own models give
    RecBole's own numbers. RecBole's count of floating-point operations is left out: it copies the model and runs it.

    Args:
        config: the configuration; ``run_id`` is added to it.
        saved: keep checkpoints and test the best model; otherwise test the last one.
        run_id: name of the run; None makes a new one.
        callback_fn: called after each evaluated epoch with the epoch and its validation score.
        on_test: called after the test evaluation with the trainer and the test loader.

    Returns:
        the record of the run. Under data parallelism only the first rank writes the file.

    Raises:
        HNLMError: anything the user can fix.
    """
    with _training(config, run_id) as training:
        training.fit(saved, callback_fn)
        test_result = training.test(load_best_model=saved)
        if on_test is not None:
            on_test(training.trainer, training.data.test)
        return _write(config, training.record(test_result, saved))


def train_and_validate(
    config: Config,
    *,
    saved: bool = True,
    run_id: str | None = None,
    callback_fn: Callable[[int, float], None] | None = None,
) -> RunResult:
    """Train one model and choose its epoch on the validation split; the test split is never evaluated.

    This is the objective of a search over keys: test metrics of a candidate cannot leak into the choice, since there are none.
    Evaluate the chosen one alone on the test split, with :func:`evaluate_checkpoint`.

    Args:
        config: the configuration; ``run_id`` is added to it.
        saved: keep checkpoints.
        run_id: name of the run; None makes a new one.
        callback_fn: called after each evaluated epoch with the epoch (from 0) and its validation score. An exception that it
            raises ends the run and reaches the caller as it is; checkpoints of the epochs before are kept.

    Returns:
        the record of the run, also in ``results/<run_id>.json``, with ``test_result`` None.

    Raises:
        ConfigError: the configuration has no validation, so that there is nothing to choose by.
        HNLMError: anything else that the user can fix.
    """
    if config["eval_step"] <= 0:
        raise ConfigError(f"eval_step {config['eval_step']} asks for no validation, by which models are chosen: give 1 or more")
    with _training(config, run_id) as training:
        if not training.data.valid:
            raise ConfigError(
                f"dataset {config['dataset']} has no validation split, by which models are chosen: give eval_args a part for "
                "it, such as split: {'RS': [0.8, 0.1, 0.1]}"
            )
        training.fit(saved, callback_fn)
        return _write(config, training.record(None, saved))


class _Training:
    """A model ready to be trained, its data and what is recorded of it."""

    def __init__(self, config: Config, run_id: str | None) -> None:
        self.config, self.clock = config, Stopwatch()
        train_parts(config, run)
        self.log_file = prepare_run(config, run_id)
        if config["resume"]:
            # Hours of LLM work may lie between here and the training.
            read_resumable(config["resume"])
        self.data = load_data(config, self.clock)
        self.semantics = semantics_of(config, self.data.train)
        self.train_data = attach_hnlm_data(config, self.data.train, self.semantics)
        parts = load_parts(config, self.data.train, load_checkpoint)
        model = build_model(config, self.train_data)
        if parts:
            model.add_parts(parts)
        logging.getLogger().info(model)
        self.trainer = get_trainer_class(config.model_class, config)(config, model)
        if config.settings.count_false_negatives and hasattr(self.trainer, "false_negatives"):
            held_out = [self.data.valid._dataset, self.data.test._dataset]
            self.trainer.false_negatives = FalseNegativeCounter.of_splits(held_out)
        self.best_score: float | None = None
        self.best_result: dict[str, float] | None = None
        self.valid_scores: list[tuple[int, float]] = []

    def fit(self, saved: bool, callback_fn: Callable[[int, float], None] | None) -> None:
        config = self.config

        def keep(epoch: int, score: float) -> None:
            self.valid_scores.append((epoch, float(score)))
            if callback_fn is not None:
                callback_fn(epoch, score)

        with self.clock.measure("train"), naming_missing_packages(config["model"]), naming_wrong_keys(config):
            score, self.best_result = self.trainer.fit(
                self.train_data,
                self.data.valid,
                saved=saved,
                show_progress=self.config["show_progress"],
                callback_fn=keep,
            )
        self.best_score = score if self.best_result is not None else None
        logging.getLogger().info(set_color("best valid ", "yellow") + f": {self.best_result}")

    def test(self, *, load_best_model: bool) -> Any:
        self.trainer.eval_collector.keep_items()
        with self.clock.measure("evaluate"):
            result = self.trainer.evaluate(
                self.data.test, load_best_model=load_best_model, show_progress=self.config["show_progress"]
            )
        logging.getLogger().info(set_color("test result", "yellow") + f": {result}")
        return result

    def record(self, test_result: Any, saved: bool) -> dict[str, Any]:
        return {
            **_common_record(self.config, self.clock, self.log_file),
            **_training_record(self.trainer),
            "data": _data_record(self.data),
            "valid_scores": self.valid_scores,
            "best_valid_score": self.best_score,
            "best_valid_result": self.best_result,
            "test_result": test_result,
            "checkpoint": self.trainer.saved_model_file if saved else None,
            **_semantic_record(self.semantics),
        }


@contextmanager
def _training(config: Config, run_id: str | None) -> Iterator[_Training]:
    """Make everything ready for training; however it ends, files of TensorBoard are closed."""
    training = _Training(config, run_id)
    try:
        yield training
    finally:
        training.trainer.tensorboard.close()


def _common_record(config: Config, clock: Stopwatch, log_file: Path) -> dict[str, Any]:
    return {
        "run_id": config["run_id"],
        "version": __version__,
        "source": source_digest(),
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "seconds": {stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
        "peak_rss_bytes": peak_rss_bytes(),
        "log_file": str(log_file),
        "versions": package_versions(),
        "given": config.external_config_dict,
        "config": config.final_config_dict,
    }


def _training_record(trainer: Any) -> dict[str, Any]:
    losses = trainer.train_loss_dict
    return {
        "epochs": len(losses),
        "train_loss": [losses[epoch] for epoch in sorted(losses)],
        "epoch_seconds": [round(seconds, 3) for seconds in trainer.epoch_seconds],
        "best_epoch": trainer.best_epoch,
        "split_fingerprint": trainer.split_fingerprint,
        "resumed_from": trainer.resumed_from,
        "false_negative_rates": getattr(getattr(trainer, "false_negatives", None), "rates", None),
        "hardness": trainer.hardness.record() if getattr(trainer, "hardness", None) is not None else None,
        **_fusion_record(trainer),
    }


def _fusion_record(trainer: Any) -> dict[str, Any]:
    """The weights of texts and other models in the ranking (null without), and the validation score of each that was tried."""
    model = trainer.model
    parts = getattr(model, "fused_parts", [])
    tried = [[list(pair) for pair in scores.items()] or None for scores in trainer.tried_weights]
    of_parts, of_texts = tried[: len(parts)] or [None] * len(parts), tried[len(parts) :]
    fused = [
        {"model": type(part.model).__name__, "checkpoint": part.path, "weight": weight, "weights": scores}
        for part, weight, scores in zip(parts, getattr(model, "part_weights", []), of_parts, strict=True)
    ]
    return {
        "text_score_weight": getattr(model, "text_weight", None) if getattr(model, "text_scorer", None) is not None else None,
        "text_score_weights": of_texts[0] if of_texts else None,
        "fused_with": fused or None,
    }


def _data_record(data: LoadedData) -> dict[str, int]:
    """Users and items after the filters (the padding id is none), and the interactions of each split."""
    loaders = {"train": data.train, "valid": data.valid, "test": data.test}
    splits = {name: len(loader._dataset) if loader else 0 for name, loader in loaders.items()}
    return {"users": data.dataset.user_num - 1, "items": data.dataset.item_num - 1, **splits}


def _semantic_record(semantics: Semantics | None) -> dict[str, Any]:
    """Coverage and what is missing, null where no LLM was used; the stages' seconds are merged by :func:`_write`."""
    if semantics is None:
        return {"semantic_coverage": None, "missing": None, "stages": None}
    return {
        "semantic_coverage": semantics.vectors.coverage,
        "missing": {report.name: report.missing for report in semantics.reports},
        "stages": {report.name: asdict(report) for report in semantics.reports},
    }


def _write(config: Config, record: dict[str, Any]) -> RunResult:
    stages = record.get("stages") or {}
    record["seconds"] = {**record["seconds"], **{name: round(stage["seconds"], 3) for name, stage in stages.items()}}
    if config["local_rank"] != 0:
        return RunResult(run_id=record["run_id"], path=Path(config["results_dir"]) / f"{record['run_id']}.json", record=record)
    return write_result(config["results_dir"], record)


def _model_of(checkpoint: dict[str, Any], path: str | Path, model: str | type[Any] | None) -> str | type[Any]:
    """Return the model to build: the caller's choice, or the checkpoint's where its name needs no code from elsewhere.

    Raises:
        ArtifactError: the checkpoint is of a model from outside, and the caller does not say which code that is.
    """
    if model is not None:
        return model
    name = str(checkpoint["model"])
    if name not in model_names():
        raise ArtifactError(
            f"checkpoint {path} is of model {name}, which is neither built in nor installed, and a checkpoint cannot make us "
            f"import code: name it by --model=package.module:{name}, or in Python load_checkpoint(path, model={name})"
        )
    return name


def _config_of(
    checkpoint: dict[str, Any],
    path: str | Path,
    config_dict: Mapping[str, Any] | None,
    argv: tuple[str, ...],
    model: str | type[Any] | None,
) -> Config:
    given = {**(config_dict or {}), **split_argv(argv)}
    if str(given.get("dataset", checkpoint["dataset"])) != str(checkpoint["dataset"]):
        raise ConfigError(
            f"dataset is {shown(given['dataset'])}, but checkpoint {path} is of dataset {checkpoint['dataset']}: leave it out, "
            "and say by --data_path where the files are"
        )
    chosen = _model_of(checkpoint, path, model if model is not None else split_argv(argv).get("model"))
    config = Config(chosen, checkpoint["dataset"], None, config_dict, argv, saved=checkpoint["config"])
    if config["resume"]:
        raise ConfigError("resume is for training; a trained model is named by --checkpoint, or by its path in Python")
    train_parts(config, run)
    return config


def load_checkpoint(
    path: str | Path,
    config_dict: Mapping[str, Any] | None = None,
    argv: tuple[str, ...] = (),
    *,
    model: str | type[Any] | None = None,
) -> tuple[Config, Any, Any, Any, Any, Any]:
    """Build the configuration, the data and the model of a checkpoint again.

    Args:
        path: a checkpoint that recbole-hnlm wrote.
        config_dict: keys that replace the checkpoint's.
        argv: the same as command-line tokens; they win.
        model: class, or ``package.module:Class``, of a model that is neither built in nor installed as an entry point.

    Returns:
        ``(config, model, dataset, train_data, valid_data, test_data)``, the model with the checkpoint's weights, in
        evaluation mode. Only vectors that ranking items reads are built, so the training data carry none of the others.

    Raises:
        ArtifactError: the file is missing, damaged or foreign, or does not fit the data.
    """
    checkpoint = read_checkpoint(path)
    config = _config_of(checkpoint, path, config_dict, argv, model)
    config["run_id"] = new_run_id(config["model"], config["dataset"])
    data, restored, _ = _restore(config, checkpoint, path)
    if has_open_weights(restored):
        _trainer_of(config, restored, data).tensorboard.close()
    return (config, restored, *data)


def collector_of_test(config: Config, model: Any, data: LoadedData) -> Any:
    """Evaluate a loaded model on the test split once more; returns the collector, with the lists of all users in it.

    Args:
        config: of :func:`load_checkpoint`.
        model: the same.
        data: the same: the dataset and its loaders.
    """
    trainer = _trainer_of(config, model, data)
    trainer.eval_collector.keep_items()
    try:
        trainer.evaluate(data.test, load_best_model=False, show_progress=config["show_progress"])
    finally:
        trainer.tensorboard.close()
    return trainer.eval_collector


def _trainer_of(config: Config, model: Any, data: LoadedData) -> Any:
    """Return a trainer that evaluates a loaded model; weights of texts and other models that are still open are chosen here."""
    trainer = get_trainer_class(config.model_class, config)(config, model)
    trainer.eval_collector.data_collect(data.train)
    if has_open_weights(model):
        trainer.choose_weights(data.valid)
    return trainer


def _restore(config: Config, checkpoint: dict[str, Any], path: str | Path) -> tuple[LoadedData, Any, Semantics | None]:
    data = load_data(config)
    # Hours of LLM work are for training; what ranking reads of them is in the weights.
    semantics = semantics_of(config, data.train, for_scoring=True)
    data = data._replace(train=attach_hnlm_data(config, data.train, semantics))
    parts = load_parts(config, data.train, load_checkpoint)
    model = build_model(config, data.train)
    if parts:
        model.add_parts(parts)
    load_weights(model, checkpoint, path, for_scoring=True)
    if hasattr(model, "learn_text_metric"):
        model.learn_text_metric()
    model.eval()
    return data, model, semantics


def evaluate_checkpoint(path: str | Path, argv: tuple[str, ...] = ()) -> RunResult:
    """Evaluate a checkpoint on the validation and test splits and write a results file.

    Args:
        path: a checkpoint that recbole-hnlm wrote.
        argv: keys that replace the checkpoint's, such as ``--topk=20``; ``--model=package.module:Class`` names the code of a
            model that is neither built in nor installed as an entry point.

    Raises:
        HNLMError: as :func:`load_checkpoint`.
    """
    clock = Stopwatch()
    checkpoint = read_checkpoint(path)
    config = _config_of(checkpoint, path, None, argv, None)
    log_file = prepare_run(config)
    with clock.measure("load"):
        data, model, semantics = _restore(config, checkpoint, path)
    trainer = _trainer_of(config, model, data)
    with clock.measure("evaluate"):
        valid, test = (
            trainer.evaluate(split, load_best_model=False, show_progress=config["show_progress"])
            for split in (data.valid, data.test)
        )
    record = {
        **_common_record(config, clock, log_file),
        "best_valid_score": valid[config["valid_metric"].lower()] if valid else None,
        "best_valid_result": valid,
        "test_result": test,
        "epochs": 0,
        "train_loss": [],
        "best_epoch": checkpoint["epoch"],
        "resumed_from": None,
        "checkpoint": str(path),
        **_fusion_record(trainer),
        **_semantic_record(semantics),
    }
    trainer.tensorboard.close()
    return _write(config, record)

"""Training that can be stopped at any moment and continued as if it had never stopped."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from recbole.utils import init_seed, set_color

from recbole_hnlm import __version__
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.evaluator.collector import RepairedCollector
from recbole_hnlm.evaluator.registry import MetricEvaluator, recboles_metrics_only
from recbole_hnlm.trainer.block_evaluation import BlockEvaluation
from recbole_hnlm.trainer.checkpoint import (
    changed_counters,
    decode,
    encode,
    load_counters,
    load_weights,
    model_counters,
    read_checkpoint,
    restore_rng_state,
    restoring,
    rng_state,
    write_checkpoint,
)
from recbole_hnlm.trainer.checkpoint_checks import not_numbers
from recbole_hnlm.trainer.ddp import wait_for_all
from recbole_hnlm.trainer.fusion_weights import check_validation, choose_weights, has_open_weights
from recbole_hnlm.trainer.tensorboard import tensorboard_can_write
from recbole_hnlm.utils.errors import ArtifactError, HNLMError
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.values import plain, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole_hnlm.evaluator.false_negatives import FalseNegativeCounter
    from recbole_hnlm.evaluator.hardness import HardnessRecorder

__all__ = ["LAST_SUFFIX", "ResumableTraining", "best_beside", "read_resumable"]

LAST_SUFFIX = ".last.pth"
_TRAINING_STATE = (
    *("optimizers", "current_optimizer", "rng", "loader", "counters", "train_loss", "cur_step"),
    *("best_epoch", "best_valid_score", "best_valid_result"),
)


def best_beside(last: str | Path) -> Path:
    """Return the path of the best checkpoint that belongs to a ``.last.pth`` checkpoint."""
    path = Path(last)
    return path.with_name(path.name.removesuffix(LAST_SUFFIX) + ".pth") if path.name.endswith(LAST_SUFFIX) else path


def read_resumable(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint to continue from, after checking it and the best model that belongs to it.

    Raises:
        ArtifactError: either is missing, damaged or without training state, or they are of different runs.
    """
    file = Path(path)
    checkpoint = read_checkpoint(file, map_location)
    if missing := [name for name in _TRAINING_STATE if name not in checkpoint]:
        raise ArtifactError(
            f"checkpoint {file} holds a model but no training state ({missing[0]} is missing): resume from a {LAST_SUFFIX} file"
        )
    if (endless := not_numbers(checkpoint["optimizers"], "optimizers", infinite=True)) is not None:
        raise ArtifactError(
            f"checkpoint {file}: the tensor {shown(endless)} holds numbers that are not finite: training had diverged; "
            "train again with a lower learning_rate"
        )
    best = best_beside(file)
    if not best.is_file():
        raise ArtifactError(f"checkpoint {file} has no best model next to it: {best} does not exist; train again")
    if best != file:
        _check_best(read_checkpoint(best), best, checkpoint, file)
    return checkpoint


class ResumableTraining(BlockEvaluation):
    """Mixin over any of RecBole's trainers.

    Two files per run: ``<run_id>.pth`` holds the best model by validation, ``<run_id>.last.pth`` the state after the last
    evaluated epoch, from which training continues exactly (single process): weights, optimizers, epoch, early-stopping
    counters, the global random generators and the loader's. With ``nproc`` > 1 only the first rank's generators are kept.

    Attributes:
        best_epoch: epoch (from 0) of the best validation score, or None before any.
        resumed_from: the checkpoint from which training continued, or None.
        epoch_seconds: seconds of each epoch that this process trained, without validation.
        split_fingerprint: names the training split; None before :meth:`fit`.
        tried_weights: weight to its score on validation, for each place of ``model.fusion_weights`` whose weight was chosen.
    """

    config: Any
    model: Any
    optimizer: Any
    epochs: int
    eval_step: int
    false_negatives: FalseNegativeCounter | None = None
    hardness: HardnessRecorder | None = None

    def __init__(self, config: Any, model: Any) -> None:
        with recboles_metrics_only(config.final_config_dict), tensorboard_can_write(self, config):
            super().__init__(config, model)  # type: ignore[call-arg]
        self.evaluator = MetricEvaluator(config)
        # RecBole caps eval_step before its trainer of models that are counted, not trained, sets its one epoch: Pop would
        # never be evaluated.
        self.eval_step = min(self.eval_step, self.epochs)
        folder = Path(config["checkpoint_dir"])
        self.saved_model_file = str(folder / f"{config['run_id']}.pth")
        self.last_model_file = str(folder / f"{config['run_id']}{LAST_SUFFIX}")
        self.eval_collector = RepairedCollector(config)
        self.best_epoch: int | None = None
        self.resumed_from: str | None = None
        self._initial_counters = model_counters(model)
        self.epoch_seconds: list[float] = []
        self._train_data: Any = None
        self.split_fingerprint: str | None = None
        self._latest_valid_result: Any = None
        self.tried_weights: list[dict[float, float]] = []

    # --- training ----------------------------------------------------------------------------------------------------

    def fit(  # noqa: PLR0917 - RecBole's trainers pass these by position
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, Any]:
        """Train as RecBole does, keeping a ``.last.pth`` after each evaluated epoch; continues from ``config['resume']``.

        Returns:
            best validation score and the metrics it belongs to.

        Raises:
            ArtifactError: the checkpoint to resume from is missing, damaged or of another run, or one cannot be written.
        """
        chooses_weights = has_open_weights(self.model)
        if chooses_weights:
            check_validation(valid_data)
        self._train_data = train_data
        self.split_fingerprint = TrainingInteractions.from_dataset(train_data._dataset).split_fingerprint
        if self.config["resume"]:
            self.resume_checkpoint(self.config["resume"])
        if hasattr(self.model, "learn_text_metric"):
            self.model.learn_text_metric()

        def after_evaluation(epoch: int, score: float) -> None:
            # RecBole has updated its early-stopping counters by now; 0 means that this epoch is the best so far.
            if self.cur_step == 0:
                self.best_epoch = epoch
            if saved:
                self._write(self.last_model_file, epoch)
            if callback_fn is not None:
                callback_fn(epoch, score)

        best = super().fit(train_data, valid_data, verbose, saved, show_progress, after_evaluation)  # type: ignore[misc]
        if chooses_weights:
            return self._weigh(valid_data, saved, show_progress)
        return best

    def _weigh(self, valid_data: Any, saved: bool, show_progress: bool) -> tuple[float, Any]:
        """Choose the weights of texts and other models for the best model, put them into the checkpoint, and evaluate so."""
        if saved:
            wait_for_all(self.config)
            best = read_checkpoint(self.saved_model_file, map_location=self.config["device"])
            load_weights(self.model, best, self.saved_model_file)
        self.choose_weights(valid_data)
        self.best_valid_result = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        self.best_valid_score = self.best_valid_result[self.config["valid_metric"].lower()]
        if saved and (self.config["single_spec"] or self.config["local_rank"] == 0):
            other = {"other_parameter": encode(self.model.other_parameter())}
            write_checkpoint(self.saved_model_file, {**best, **other, "best_valid_result": plain(self.best_valid_result)})
        return self.best_valid_score, self.best_valid_result

    def choose_weights(self, valid_data: Any) -> None:
        """Give the model's ranking the weights with the best ``valid_metric`` on validation.

        The scores of all that were tried are kept in ``tried_weights`` for the record.

        Raises:
            ConfigError: there is no validation in full ranking.
        """
        check_validation(valid_data)
        start = time.perf_counter()
        self.tried_weights = choose_weights(self, valid_data)
        self.logger.info(  # type: ignore[attr-defined]
            "weights %s of other models and texts, by %s on validation (%.1f s)",
            ", ".join(f"{weight:g}" for weight in self.model.fusion_weights),
            self.config["valid_metric"],
            time.perf_counter() - start,
        )

    def _train_epoch(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        losses = super()._train_epoch(*args, **kwargs)  # type: ignore[misc]
        self.epoch_seconds.append(time.perf_counter() - start)
        return losses

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, Any]:
        score, result = super()._valid_epoch(valid_data, show_progress=show_progress)  # type: ignore[misc]
        self._latest_valid_result = result
        return score, result

    def _check_nan(self, loss: torch.Tensor) -> None:
        """Stop at a loss that is not a finite number; what was saved before is untouched.

        Raises:
            HNLMError: names the learning rate to lower and where the last good state is.
        """
        if torch.isfinite(loss).all():
            return
        last = Path(self.last_model_file)
        kept = f"the state after the last evaluated epoch is in {last}" if last.is_file() else "no epoch was finished"
        raise HNLMError(
            f"the training loss became {float(loss.detach().sum())}: "
            f"lower learning_rate (now {self.config['learning_rate']}) or set clip_grad_norm; {kept}"
        )

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Keep the best model; RecBole calls this when validation improves, or each epoch without validation."""
        if epoch < 0 and self.resumed_from is not None:
            # Nothing is left to train: the best model of the resumed run is already in place.
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        self._write(path, epoch, best_valid_result=plain(self._latest_valid_result))
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")  # type: ignore[attr-defined]

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Keep a pre-trained model (RaCT) in the safe format, under RecBole's file name."""
        self._write(saved_model_file, epoch)
        self.saved_model_file = saved_model_file

    def _write(self, path: str, epoch: int, **changes: Any) -> None:
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        write_checkpoint(path, {**self._content(epoch), **changes})

    def _content(self, epoch: int) -> dict[str, Any]:
        optimizers = {name: item for name, item in vars(self).items() if isinstance(item, torch.optim.Optimizer)}
        # Some trainers let `optimizer` point to one of several; the target is stored by name, its state once.
        current = next((name for name, item in optimizers.items() if name != "optimizer" and item is self.optimizer), None)
        if current is not None:
            del optimizers["optimizer"]
        losses: dict[int, float] = self.train_loss_dict
        return {
            "version": __version__,
            "run_id": str(self.config["run_id"]),
            "model": type(self.model).__name__,
            "dataset": str(self.config["dataset"]),
            "config": self.config.to_saved(),
            "split_fingerprint": self.split_fingerprint,
            "epoch": int(epoch),
            "best_epoch": self.best_epoch,
            "cur_step": int(self.cur_step),
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": plain(self.best_valid_result),
            "train_loss": {int(key): float(loss) for key, loss in losses.items()},
            "state_dict": self.model.state_dict(),
            "other_parameter": encode(self.model.other_parameter()),
            "counters": changed_counters(self._initial_counters, model_counters(self.model)),
            "optimizers": {name: item.state_dict() for name, item in optimizers.items()},
            "current_optimizer": current,
            "rng": rng_state(),
            "loader": _loader_state(self._train_data),
            "false_negative_rates": self.false_negatives.rates if self.false_negatives is not None else None,
            "hardness": self.hardness.record() if self.hardness is not None else None,
        }

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Restore the state of a checkpoint; called by :meth:`fit` for the key ``resume``.

        Raises:
            ArtifactError: missing, damaged, of another model, dataset or split, or without its best checkpoint next to it.
        """
        path = Path(resume_file)
        checkpoint = read_resumable(path, map_location=self.config["device"])
        self._check_same_run(checkpoint, path)
        load_weights(self.model, checkpoint, path)
        with restoring(path, "counters"):
            load_counters(self.model, checkpoint["counters"])
        self._load_optimizers(checkpoint, path)
        self.start_epoch = checkpoint["epoch"] + 1
        self.cur_step = checkpoint["cur_step"]
        self.best_epoch = checkpoint["best_epoch"]
        self.best_valid_score = checkpoint["best_valid_score"]
        self.best_valid_result = checkpoint["best_valid_result"]
        self.train_loss_dict = dict(checkpoint["train_loss"])
        self.resumed_from = str(path)
        self._copy_best(path)
        if self.config["single_spec"]:
            with restoring(path, "random state"):
                restore_rng_state(checkpoint["rng"])
        else:
            # One rank's generators are stored; restored on all ranks they would draw the same negatives everywhere.
            init_seed(self.config["seed"] + self.config["local_rank"] + 1000 * self.start_epoch, self.config["reproducibility"])
        with restoring(path, "state of the loader"):
            _restore_loader(self._train_data, checkpoint["loader"])
        self._restore_rates(checkpoint, path)
        if self.hardness is not None:
            with restoring(path, "record of hardness"):
                self.hardness.recall(checkpoint.get("hardness"), self.start_epoch)
        if self.cur_step > self.stopping_step:  # type: ignore[attr-defined]
            # The stopped run had ended by itself; training on would differ from it.
            self.epochs = self.start_epoch
        self.logger.info(f"Resuming {path} at epoch {self.start_epoch}")  # type: ignore[attr-defined]

    def _check_same_run(self, checkpoint: dict[str, Any], path: Path) -> None:
        if checkpoint["dataset"] != self.config["dataset"]:
            raise ArtifactError(f"checkpoint {path} is of dataset {checkpoint['dataset']}, not of {self.config['dataset']}")
        if checkpoint.get("split_fingerprint") != self.split_fingerprint:
            raise ArtifactError(
                f"checkpoint {path} was trained on another split of {self.config['dataset']} (other seed, filters, eval_args "
                "or files): use the keys it was trained with"
            )

    def _restore_rates(self, checkpoint: dict[str, Any], path: Path) -> None:
        if self.false_negatives is None:
            return
        rates = checkpoint.get("false_negative_rates")
        if rates is None:
            raise ArtifactError(
                f"checkpoint {path} was trained without counting false negatives, so the rates of its epochs are unknown: "
                "resume with --count_false_negatives=False"
            )
        self.false_negatives.rates = list(rates)

    def _load_optimizers(self, checkpoint: dict[str, Any], path: Path) -> None:
        with restoring(path, "optimizer"):
            if checkpoint["current_optimizer"] is not None:
                self.optimizer = getattr(self, checkpoint["current_optimizer"])
            for name, state in checkpoint["optimizers"].items():
                getattr(self, name).load_state_dict(state)

    def _copy_best(self, path: Path) -> None:
        """Give the continued run its own copy of the best model so far: no run overwrites another's files."""
        if self.config["single_spec"] or self.config["local_rank"] == 0:
            with replacing(self.saved_model_file) as partial:
                shutil.copyfile(best_beside(path), partial)

    # --- evaluation --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> Any:
        """Evaluate as RecBole does, reading the best model safely; the ranks of a parallel run agree on every metric.

        Raises:
            ArtifactError: the checkpoint is missing, damaged or of another model.
        """
        if not eval_data:
            return None
        if load_best_model:
            wait_for_all(self.config)
            path = model_file or self.saved_model_file
            load_weights(self.model, read_checkpoint(path, map_location=self.config["device"]), path)
        self.eval_collector.expect_rows(eval_data)
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def _map_reduce(self, result: Any, num_sample: int) -> Any:
        """Keep the result: every rank has computed it from the rows of all ranks.

        RecBole averages the ranks' metrics weighted by a constant per batch, over users of which some are counted twice.
        """
        return result


def _check_best(best: dict[str, Any], best_path: Path, last: dict[str, Any], path: Path) -> None:
    """Refuse a best model of another run, which would be tested as this one's at the end."""
    wrong = [name for name in ("model", "dataset", "split_fingerprint") if best.get(name) != last.get(name)]
    # A run that was killed between its two files has a newer best model, which training makes again.
    if not wrong and last["best_epoch"] not in {None, best["epoch"]} and best["epoch"] <= last["epoch"]:
        wrong = ["epoch"]
    if wrong:
        name = wrong[0]
        expected = last["best_epoch"] if name == "epoch" else last.get(name)
        raise ArtifactError(
            f"checkpoint {best_path} is not the best model of {path}: its {name} is {shown(best.get(name))}, expected "
            f"{shown(expected)}; put the two files of one run next to each other"
        )


def _loader_state(loader: Any) -> Any:
    """Return the random state of a training loader: its own ``state_dict`` where it has one, and its generator."""
    own = encode(loader.state_dict()) if hasattr(loader, "state_dict") else None
    generator = getattr(loader, "generator", None)
    return {"own": own, "generator": generator.get_state() if isinstance(generator, torch.Generator) else None}


def _restore_loader(loader: Any, state: dict[str, Any]) -> None:
    if state["own"] is not None:
        loader.load_state_dict(decode(state["own"]))
    if state["generator"] is not None:
        loader.generator.set_state(state["generator"].cpu())

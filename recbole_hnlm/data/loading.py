"""Loading and splitting data through RecBole's own classes, without its pickled caches."""

from __future__ import annotations

from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from recbole.data.dataset import Dataset
from recbole.data.utils import create_samplers, get_dataloader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.sampler import Sampler
from recbole.utils import init_seed

from recbole_hnlm.config.atomic_headers import SOURCES
from recbole_hnlm.config.checks import check_dataset, interaction_files
from recbole_hnlm.data.download import ensure_dataset
from recbole_hnlm.data.row_checks import bad_cells, check_rows
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.results import Stopwatch
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.config import Config

__all__ = ["LoadedData", "load_data"]

# Their full_sort_predict builds a tensor of users x items x embedding size, so that many users at once exhaust the memory.
_HUNGRY_FULL_SORT = frozenset({"ENMF"})
_PHASES = ("train", "valid", "test")


class LoadedData(NamedTuple):
    """A filtered dataset and the loaders of its three splits."""

    dataset: Any
    train: Any
    valid: Any
    test: Any


def load_data(config: Config, clock: Stopwatch | None = None) -> LoadedData:
    """Load, filter and split a dataset exactly as RecBole does for the same seed, but for times that float32 confuses.

    ``split_seed`` takes the place of ``seed`` here where it is set; the training loader and the model keep ``seed``.

    RecBole's ``create_dataset`` and ``data_preparation`` are not called, because they unpickle whatever lies in
    ``checkpoint_dir`` under the expected name; their steps are the same. With ``order: TO`` rows are sorted by their exact
    times, where RecBole sorts by times rounded to 128 seconds.

    Args:
        config: ``eval_batch_size`` is set here, unless given, so that ``eval_users_per_batch`` users are scored together.
        clock: takes the seconds of ``load`` and ``split``.

    Raises:
        DataError: a download that failed, a file that cannot be parsed, a dataset that RecBole cannot split, filters that
            leave nothing, or a user who leaves no item to draw as a negative.
        ConfigError: ``topk`` beyond the number of items.
    """
    clock = clock or Stopwatch()
    split_seed = config.settings.split_seed
    init_seed(config["seed"] if split_seed is None else split_seed, config["reproducibility"])
    with clock.measure("load"):
        dataset = _read_dataset(config)
    getLogger().info(dataset)
    _check_topk(config, dataset)
    _set_eval_batch_size(config, dataset)
    with clock.measure("split"):
        _order_by_exact_time(config, dataset)
        try:
            built = dataset.build()
            samplers = _create_samplers(config, dataset, built)
        except (ValueError, NotImplementedError, ArithmeticError) as error:
            raise DataError(
                f"dataset {config['dataset']}: RecBole cannot split it or sample negatives: {type(error).__name__}: "
                f"{_reason(error)}; check eval_args and the filters"
            ) from error
        _check_labels(config, built)
        loaders = [
            get_dataloader(config, phase)(config, part, sampler, shuffle=config["shuffle"] if phase == "train" else False)
            for phase, part, sampler in zip(_PHASES, built, samplers, strict=True)
        ]
    if len(loaders[0]._dataset) == 0:
        raise DataError(f"dataset {config['dataset']}: the training split is empty; loosen the filters or eval_args split")
    return LoadedData(dataset, *loaders)


def _download_if_absent(config: Config) -> None:
    """Download a dataset that RecBole knows, in place of RecBole's own download, and check its files as those of any other.

    Raises:
        DataError: the download failed.
        ConfigError: the files lack columns that the configuration names.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    expected = interaction_files(name, config.final_config_dict)
    if ensure_dataset(name, folder, expected, show_progress=bool(config["show_progress"])):
        problems = check_dataset(name, {**config.final_config_dict, "data_path": str(folder.parent)}, config.model_class)
        if problems:
            raise ConfigError("; ".join(problems))


def _read_dataset(config: Config) -> Any:
    _download_if_absent(config)
    for file in _loaded_files(config):
        check_rows(file, config["encoding"], config["field_separator"])
    try:
        dataset = getattr(config.model_class, "dataset_class", Dataset)(config)
    except (ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        raise DataError(f"dataset {config['dataset']}: {_reading_problem(config, error)}") from error
    _refuse_infinite(config, dataset)
    return dataset


def _loaded_files(config: Config) -> list[Path]:
    """Return the atomic files that RecBole reads with this configuration, and that exist."""
    folder, name, load = Path(config["data_path"]), config["dataset"], config["load_col"]
    files = [folder / file for file in interaction_files(name, config.final_config_dict)]
    suffixes = [*SOURCES[1:], *(config["additional_feat_suffix"] or [])]
    files += [folder / f"{name}.{suffix}" for suffix in suffixes if load is None or load.get(suffix)]
    return [file for file in files if file.is_file()]


def _bad_cell(config: Config) -> str | None:
    """Return what is wrong with the first cell in a number column that holds no finite number."""
    form = (config["encoding"], config["field_separator"], config["seq_separator"])
    return next((problem for file in _loaded_files(config) for problem in bad_cells(file, *form)), None)


def _reading_problem(config: Config, error: Exception) -> str:
    """Say in one line what RecBole stumbled over while it read and filtered: file, line and column where it is a cell."""
    reason = _reason(error)
    if "Some feat is empty" in reason:
        return "no row is left of a file; loosen val_interval or the *_inter_num_interval keys"
    return _bad_cell(config) or (
        f"RecBole cannot read or filter the files in {config['data_path']}: {type(error).__name__}: {reason}"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")


def _refuse_infinite(config: Config, dataset: Any) -> None:
    """Refuse number columns in which an infinite cell, or not one number, has made other cells infinite or undefined.

    RecBole fills empty cells with the mean of their column, and scales columns by their largest and smallest cell.
    """
    for feat in (dataset.inter_feat, dataset.user_feat, dataset.item_feat):
        for column in [] if feat is None else feat.columns:
            if pd.api.types.is_float_dtype(feat[column]) and not np.isfinite(feat[column]).all():
                cause = _bad_cell(config) or f"column {column} has no number in any row: leave it out with load_col"
                raise DataError(f"dataset {config['dataset']}: {cause}")


class _UncheckedSampler(Sampler):
    """RecBole's sampler without its refusal of users who hold every item."""

    def get_used_ids(self) -> Any:
        """Return phase to sets of the items that it excludes, by internal user id (RecBole's layout)."""
        self.item_num += 1  # RecBole refuses who holds item_num - 1 items; nobody holds one more
        used = super().get_used_ids()
        self.item_num -= 1
        return used


def _users_with_every_item(parts: list[Any]) -> NDArray[np.int64]:
    """Return the internal ids of the users whose interactions in these parts of a dataset hold every item, ascending."""
    users = np.concatenate([np.asarray(part.inter_feat[part.uid_field]) for part in parts])
    items = np.concatenate([np.asarray(part.inter_feat[part.iid_field]) for part in parts])
    wanted = parts[0].item_num - 1  # the padding id is no item
    busy = np.flatnonzero(np.bincount(users) >= wanted)
    return np.array([user for user in busy if len(np.unique(items[users == user])) == wanted], dtype=np.int64)


def _create_samplers(config: Config, dataset: Any, built: list[Any]) -> Any:
    """Create RecBole's samplers of the three phases, also where a user holds every item.

    RecBole refuses a user who holds every item in the three splits together. Yet training excludes training items alone, and
    ranking all items draws nothing: only a user without an item left in a phase that draws has to be refused.

    Raises:
        DataError: such a user.
        ValueError: whatever else RecBole refuses.
    """
    full = _users_with_every_item(built)
    if not len(full) or config["repeatable"]:
        return create_samplers(config, dataset, built)
    sampling = {phase: config[f"{phase}_neg_sample_args"] for phase in _PHASES}
    without = [
        _users_with_every_item(built[: _PHASES.index(phase) + 1])
        for phase, args in sampling.items()
        if "none" not in {args["distribution"], args["sample_num"]}
    ]
    refused = next((users for users in without if len(users)), None)
    users = full if refused is None else refused
    rows = np.concatenate([np.asarray(part.inter_feat[part.uid_field]) for part in built])
    who = (
        f"dataset {config['dataset']}: user {shown(str(dataset.id2token(dataset.uid_field, users[0])))}"
        f"{f' and {len(users) - 1:,} more' if len(users) > 1 else ''} interacted with all {dataset.item_num - 1:,} items"
    )
    remedy = f"leave such users out with --user_inter_num_interval=[0,{np.bincount(rows)[users].min()})"
    if refused is not None:
        raise DataError(f"{who}, which leaves none to draw as a negative: {remedy}")
    getLogger().warning(f"{who}: they train against items that they hold out, and rank nothing else; {remedy}")
    alpha = 1.0 if sampling["train"]["distribution"] == "none" else sampling["train"]["alpha"]
    return [
        None
        if args["distribution"] == "none"
        else _UncheckedSampler(list(_PHASES), built, args["distribution"], alpha).set_phase(phase)
        for phase, args in sampling.items()
    ]


def _order_by_exact_time(config: Config, dataset: Any) -> None:
    """Sort by time before RecBole casts times to float32, where those of today are 128 seconds apart.

    RecBole then sorts the rounded times stably, which leaves this order: rounding is monotone. Its ``val_interval`` needs no
    such care, because it filters before the cast. Rows of equal times stay in the order of the file.
    """
    time_field = dataset.time_field
    if config["eval_args"]["order"] != "TO" or dataset.benchmark_filename_list is not None:
        return
    if time_field in dataset.inter_feat and pd.api.types.is_float_dtype(dataset.inter_feat[time_field]):
        dataset.inter_feat.sort_values(time_field, kind="stable", inplace=True, ignore_index=True)


def _check_topk(config: Config, dataset: Any) -> None:
    most = dataset.item_num - 1
    if max(config["topk"]) > most:
        raise ConfigError(f"topk {max(config['topk'])} is beyond the {most} items of dataset {config['dataset']}")
    for phase in _PHASES[1:]:
        drawn = config[f"{phase}_neg_sample_args"]["sample_num"]
        if isinstance(drawn, int) and drawn > most:
            raise ConfigError(
                f"eval_args mode {config['eval_args']['mode'][phase]} draws more negatives than the {most} items of dataset "
                f"{config['dataset']}: use mode full"
            )


def _check_labels(config: Config, built: list[Any]) -> None:
    """Refuse labels of one kind where AUC is to tell two kinds apart; its NaN would be found only after training."""
    if "auc" not in {str(metric).lower() for metric in config["metrics"]}:
        return
    for phase, part in zip(_PHASES[1:], built[1:], strict=True):
        if config["eval_args"]["mode"][phase] != "labeled" or not len(part):
            continue
        kinds = np.unique(np.asarray(part.inter_feat[config["LABEL_FIELD"]]))
        if len(kinds) == 1:
            raise DataError(
                f"dataset {config['dataset']}: every row of the {phase} split is labelled {kinds[0]:g}, and AUC needs both "
                "labels: change threshold or val_interval, evaluate with mode uniN, or use --metrics=LogLoss"
            )


def _set_eval_batch_size(config: Config, dataset: Any) -> None:
    model_class = config.model_class
    scores_all_items = model_class.full_sort_predict is not AbstractRecommender.full_sort_predict
    if (
        "eval_batch_size" not in config.external_config_dict
        and "full" in config["eval_args"]["mode"].values()
        and scores_all_items
        and config["model"] not in _HUNGRY_FULL_SORT
    ):
        # RecBole divides this key by the number of items to get the users of a batch.
        config["eval_batch_size"] = dataset.item_num * config.settings.eval_users_per_batch
        getLogger().info(f"eval_batch_size = {config['eval_batch_size']} (scores of eval_users_per_batch users)")

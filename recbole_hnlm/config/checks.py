"""Checks of a configuration before any work starts; each returns its problems as lines, so that one error reports them all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recbole
from recbole.utils import EvaluatorType, ModelType

from recbole_hnlm.config.atomic_headers import loaded_columns
from recbole_hnlm.config.data_checks import check_columns, check_labels
from recbole_hnlm.config.data_forms import check_forms
from recbole_hnlm.config.eval_args import check_eval_args
from recbole_hnlm.config.model_keys import lacks_negatives
from recbole_hnlm.config.normalize import PATH_KEYS
from recbole_hnlm.config.renamed import RENAMED
from recbole_hnlm.evaluator.registry import metric_classes
from recbole_hnlm.utils.addresses import looks_secret, parse_addresses
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.given_paths import input_file, path_fault
from recbole_hnlm.utils.names import closest
from recbole_hnlm.utils.paths import recbole_downloads
from recbole_hnlm.utils.registry import is_checkpoint
from recbole_hnlm.utils.values import NESTED_KEYS, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "LAUNCHER_KEYS",
    "UNLISTED_KEYS",
    "check_dataset",
    "check_keys",
    "check_metrics",
    "check_model",
    "check_paths",
    "check_pickled_caches",
    "check_servers",
    "dataset_folder",
    "interaction_files",
    "nearest",
]

LAUNCHER_KEYS = frozenset({"nproc", "ip", "port", "world_size", "offset", "local_rank"})

# Keys that RecBole 1.2.1 reads although none of its YAML files or argument lists names them.
UNLISTED_KEYS = frozenset({"encoding", "eta", "norm", "tail_ratio", "token_num_threshold", "xgb_early_stopping_rounds"})

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# RecBole lists these among its arguments but reads them nowhere: a file given this way would be ignored.
_DEAD_KEYS = frozenset({"config_file"})

_PICKLED_CACHE_KEYS = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")
_MOST_NAMED = 10
_LONGEST_WORD = 60


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; the nearest valid one is X``, or an empty string when nothing is near."""
    near = closest(word, known)
    return f"; the nearest valid one is {near[0]}" if near else ""


def _hint(key: str, known: Iterable[str]) -> str:
    return f"; {RENAMED[key]}" if key in RENAMED else nearest(key, known)


def _name(key: Any) -> str:
    """Write a key for a message: as it is, unless it is long or has signs that a terminal would obey."""
    text = str(key)
    return text if len(text) <= _LONGEST_WORD and text.isprintable() else shown(text)


def check_keys(external: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Find keys, and sub-keys of RecBole's nested dictionaries, that nothing reads."""
    known = frozenset(known) - _DEAD_KEYS
    # config_files is for the command line, and gone before keys get here; it is still the likely meaning of a misspelling.
    hints = known | {"config_files"}
    unknown = [key for key in external if key not in known]
    problems = [f"unknown key {_name(key)}{_hint(key, hints)}" for key in unknown[:_MOST_NAMED]]
    if len(unknown) > _MOST_NAMED:
        problems.append(f"and {len(unknown) - _MOST_NAMED:,} more unknown keys")
    for key, allowed in NESTED_KEYS.items():
        given = external.get(key)
        if isinstance(given, dict):
            wrong = [sub for sub in given if sub not in allowed]
            problems += [f"unknown key {_name(sub)} in {key}{nearest(sub, allowed)}" for sub in wrong[:_MOST_NAMED]]
        elif key in external and not (given is None and key == "train_neg_sample_args"):
            problems.append(f"{key}: expected a dictionary with keys among {', '.join(sorted(allowed))}, got {shown(given)}")
    return problems


def check_pickled_caches(config: Mapping[str, Any]) -> list[str]:
    """Refuse RecBole's pickled caches: they are loaded stale, and a pickle runs code."""
    given = [key for key in _PICKLED_CACHE_KEYS if config.get(key)]
    if not given:
        return []
    return [f"{' and '.join(given)}: RecBole's pickled caches go stale silently and are not supported; leave the key out"]


def check_servers(config: Mapping[str, Any]) -> list[str]:
    """Refuse addresses that cannot be called or hold a password or key, and a key in place of its variable's name."""
    addresses = config.get("llm_base_url")
    variable = str(config.get("llm_api_key_env"))
    if variable not in os.environ and (not _VARIABLE.fullmatch(variable) or looks_secret(variable)):
        return [
            "llm_api_key_env is not the name of an environment variable, which is expected, such as OPENAI_API_KEY; if it is "
            "the key itself, put the key into that variable (it is not shown here)"
        ]
    try:
        if isinstance(addresses, str):
            parse_addresses(addresses, variable)
    except ConfigError as error:
        return [str(error)]
    return []


def check_paths(config: Mapping[str, Any], data: Path) -> list[str]:
    """Check that something can be where paths lead to, and that the checkpoint to resume from is there, before any work.

    Args:
        config: with paths in their normal form.
        data: folder of the dataset.
    """
    given = {key: config[key] for key in PATH_KEYS if isinstance(config.get(key), str)}
    problems = [f"{key}: {fault}" for key, path in given.items() if key != "resume" and path and (fault := path_fault(path))]
    if not problems and (fault := path_fault(data)):
        problems.append(f"dataset: {fault}")
    problems += [
        f"{key}: expected a folder, got {shown(given[key])}; . is the current one"
        for key in ("artifact_dir", "results_dir", "log_dir")
        if key in given and not given[key].strip()
    ]
    checkpoints = [(given["resume"], "resume: checkpoint", "a .last.pth file that a run wrote")] if "resume" in given else []
    fused = config.get("fuse_with")
    fused = [entry for entry in fused if isinstance(entry, str) and is_checkpoint(entry)] if isinstance(fused, list) else []
    checkpoints += [(path, "fuse_with: checkpoint", "a .pth file that a run wrote") for path in fused]
    for path, what, expected in checkpoints:
        try:
            input_file(path, what, expected, regular=True)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def check_model(model_class: Any, name: str) -> list[str]:
    """Accept general recommenders only."""
    kind = getattr(model_class, "type", None)
    if kind in {ModelType.GENERAL, ModelType.TRADITIONAL}:
        return []
    found = kind.name.lower() if isinstance(kind, ModelType) else repr(kind)
    return [f"model {name} is of kind {found}; recbole-hnlm runs general recommenders only"]


def _is_cut(metric: str) -> bool:
    """Whether a metric is reported per cut-off, as in ``recall@10``."""
    return bool({"rec.topk", "rec.items"} & set(metric_classes()[metric].metric_need))


def _check_topk(topk: Any) -> list[str]:
    is_ranks = isinstance(topk, list) and topk and all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in topk)
    return [] if is_ranks else [f"topk: expected one or more positive integers such as 10 or [10,20], got {shown(topk)}"]


def check_metrics(config: Mapping[str, Any]) -> list[str]:
    """Check that the metrics exist, go together, and contain ``valid_metric`` at one of the cut-offs.

    Args:
        config: with ``metrics`` and ``topk`` already made into lists.
    """
    metrics, topk, valid = config["metrics"], config["topk"], config["valid_metric"]
    problems = _check_topk(topk)
    if not isinstance(metrics, list) or not metrics:
        return [*problems, f"metrics: expected a list such as [Recall,NDCG], got {shown(metrics)}"]
    display = {cls.__name__.lower(): cls.__name__ for cls in metric_classes().values()}
    unknown = [str(name) for name in metrics if str(name).lower() not in metric_classes()]
    problems += [
        f"metrics: there is no metric {_name(name)}{nearest(name, display.values())}" for name in unknown[:_MOST_NAMED]
    ]
    names = [str(name).lower() for name in metrics if str(name) not in unknown]
    if len({metric_classes()[name].metric_type for name in names}) > 1:
        problems.append("metrics: ranking metrics and value metrics (AUC, LogLoss, MAE, RMSE) cannot be mixed")
    if problems:
        return problems
    reported = [f"{display[name]}@{k}" for name in names if _is_cut(name) for k in topk]
    reported += [display[name] for name in names if not _is_cut(name)]
    if str(valid).lower() not in {name.lower() for name in reported}:
        near = nearest(str(valid), reported) or f"; it is one of {', '.join(reported)}"
        problems.append(f"valid_metric {_name(valid)} is not reported with metrics={metrics} and topk={topk}{near}")
    return problems + _check_modes(config, names)


def _check_modes(config: Mapping[str, Any], names: list[str]) -> list[str]:
    eval_args = config.get("eval_args")
    mode = eval_args.get("mode", "full") if isinstance(eval_args, dict) else "full"
    modes = mode.values() if isinstance(mode, dict) else [mode]
    is_value = metric_classes()[names[0]].metric_type == EvaluatorType.VALUE
    if is_value and "full" in modes:
        return ["metrics: value metrics (AUC, LogLoss, MAE, RMSE) need eval_args mode labeled or uniN, got full"]
    if is_value and int(config.get("world_size") or 1) > 1 and set(modes) != {"labeled"}:
        return ["metrics: with nproc > 1 value metrics need eval_args mode labeled"]
    return []


def dataset_folder(dataset: str, data_path: str) -> Path:
    """Return the folder of a dataset's atomic files; RecBole ships ml-100k."""
    if dataset == "ml-100k":
        return Path(recbole.__file__).parent / "dataset_example" / dataset
    return Path(data_path) / dataset


def interaction_files(dataset: str, config: Mapping[str, Any]) -> list[str]:
    """Return the names of a dataset's files of interactions."""
    suffixes = config.get("benchmark_filename")
    return [f"{dataset}.{part}.inter" for part in suffixes] if isinstance(suffixes, list) else [f"{dataset}.inter"]


def check_dataset(dataset: str, config: Mapping[str, Any], model_class: Any) -> list[str]:
    """Check the data keys and, where the files are there, their headers; or that RecBole knows where to download them."""
    problems = check_forms(config)
    if Path(dataset).name != dataset:
        problems.append(
            f"dataset: expected a name, the folder of its files in data_path, got {shown(dataset)}; set --data_path"
        )
    if problems or not config.get("data_path"):
        return problems + check_eval_args(config, None)
    folder = dataset_folder(dataset, str(config["data_path"]))
    names = interaction_files(dataset, config)
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return check_columns(folder, dataset, names, config) or _check_loaded(
            [folder / name for name in names], config, model_class
        )
    downloads = recbole_downloads()
    problems = check_eval_args(config, None)
    if folder.exists() or dataset not in downloads:
        root = Path(str(config["data_path"]))
        here = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
        problems.append(
            f"dataset {_name(dataset)}: no {', '.join(missing)} in {folder.absolute()}"
            f"{nearest(dataset, [*here, *downloads, 'ml-100k'])}; set --data_path to the folder that contains {dataset}{os.sep}"
        )
    return problems


def _check_loaded(files: list[Path], config: Mapping[str, Any], model_class: Any) -> list[str]:
    """Check what has to fit the loaded columns of the interactions: evaluation, labels, training without negatives."""
    try:
        columns = loaded_columns({"inter": files}, config)["inter"]
    except DataError as error:
        return [str(error)]
    return [
        *check_eval_args(config, columns),
        *check_labels(model_class, config, columns),
        *lacks_negatives(model_class, config, columns),
    ]

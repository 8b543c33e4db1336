"""Types and ranges of RecBole's keys and its models', and the packages that training would miss only once it has begun."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.config.normalize import is_whole_key
from recbole_hnlm.utils.errors import DataError
from recbole_hnlm.utils.files import refuse_objects
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_files", "check_packages", "check_training", "check_types"]

_SMALLEST_INTEGER = {
    "epochs": 0,
    "train_batch_size": 1,
    "eval_batch_size": 1,
    "eval_step": 0,
    "stopping_step": 0,
    "seed": 0,
    "worker": 0,
    "metric_decimal_place": 0,
    "loss_decimal_place": 0,
    "pretrain_epochs": 0,
}
_LARGEST_INTEGER = {"seed": 2**32 - 1}
# Sizes and counts of which none at all makes sense; of all others whose default is above 0, at least one is needed.
_MAY_BE_ZERO = frozenset(
    {"n_layers", "hyper_layers", "warm_up_step", "kar_shared_experts", "kar_dedicated_experts", "save_step"}
)
_SIZES = re.compile(r"(?:^|_)(?:sizes?|size_list|dims|layers|channels|kernels|strides)(?:_|$)|dims_dnn")
_COUNTS = re.compile(r"^(?:n|num)_|_num$|^k$")
_SHARES = re.compile(r"dropout|^drop_ratio$|^corruption_ratio$|_mask_ratio$")
_TEMPERATURES = re.compile(r"^(?:(?:cl|ssl)_)?(?:temperature|temp|tau)$")
_FOLDERS = ("data_path", "checkpoint_dir")
_SWITCHES_WITHOUT_DEFAULT = frozenset({"normalize_all"})
_LEVELS = ("debug", "info", "warning", "error", "critical")
_GPU = re.compile(r"-1|[0-9]+|(?:GPU|MIG)-[0-9A-Za-z/-]+")
_NOTHING = (None, "")  # a tuple: values of keys need not be hashable
_DISTRIBUTIONS = ("uniform", "popularity")
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop")
_CLIP_FORM = "a dictionary such as {'max_norm':5}"
# Packages that RecBole's models and loggers import only where they use them; pip's name where it differs.
_PIP_NAMES = {"faiss": "faiss-cpu", "community": "python-louvain", "kmeans_pytorch": "kmeans_pytorch"}


def check_types(external: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Compare the type of each given RecBole value with the type of its default, and numbers with their bounds.

    Args:
        external: keys and values as given, in the form of :func:`recbole_hnlm.config.normalize.normalize`.
        defaults: the shipped values.
    """
    problems = []
    for key, value in external.items():
        # topk is checked with the metrics.
        problems += [] if key == "topk" else _problem(key, value, defaults.get(key))
    problems += _environment_problems(external)
    rate = external.get("learning_rate", 1.0)
    if isinstance(rate, (int, float)) and not rate > 0:
        problems.append(f"learning_rate: expected a number above 0, got {shown(rate)}")
    return problems


def _problem(key: str, value: Any, default: Any) -> list[str]:
    if key in _SMALLEST_INTEGER or is_whole_key(key, default):
        return _whole_problem(key, value, default)
    if isinstance(default, bool) or key in _SWITCHES_WITHOUT_DEFAULT:
        return [] if isinstance(value, (bool, type(None))) else [f"{key}: expected True or False, got {shown(value)}"]
    if isinstance(default, list) and (_SIZES.search(key) if not default else not isinstance(default[0], (str, bool))):
        return _list_problem(key, value, default)
    return _real_problem(key, value) if isinstance(default, (int, float)) else _text_problem(key, value, default)


def _text_problem(key: str, value: Any, default: Any) -> list[str]:
    if key in _FOLDERS and not (isinstance(value, str) and value):
        return [f"{key}: expected a folder such as {shown(default)}, got {shown(value)}"]
    if isinstance(default, str) and isinstance(value, (dict, bool)):
        return [f"{key}: expected a text such as {shown(default)}, got {shown(value)}"]
    return []


def _environment_problems(external: Mapping[str, Any]) -> list[str]:
    """Check what RecBole would take for something else silently: an unknown GPU for no GPU, an unknown level for INFO."""
    problems = []
    gpus, state, transform = external.get("gpu_id"), external.get("state"), external.get("transform")
    names = gpus if isinstance(gpus, (list, tuple)) else str(gpus).split(",")
    if gpus not in _NOTHING and not all(_GPU.fullmatch(str(name).strip()) for name in names):
        problems.append(f"gpu_id: expected numbers of GPUs such as 0 or 0,1 (empty: none), got {shown(gpus)}")
    if state is not None and str(state).lower() not in _LEVELS:
        problems.append(f"state: expected one of {', '.join(level.upper() for level in _LEVELS)}, got {shown(state)}")
    if transform not in (*_NOTHING, "equal"):
        problems.append(f"transform: RecBole's transforms are for sequential models, got {shown(transform)}; leave it out")
    return problems


def _whole_problem(key: str, value: Any, default: Any) -> list[str]:
    lowest, largest = _SMALLEST_INTEGER.get(key), _LARGEST_INTEGER.get(key, 2**63 - 1)
    if lowest is None and (_SIZES.search(key) or _COUNTS.search(key)):
        lowest = 1 if isinstance(default, int) and default > 0 and key not in _MAY_BE_ZERO else 0
    if not isinstance(value, int) or isinstance(value, bool) or (lowest is not None and value < lowest):
        bound = "" if lowest is None else f" of at least {lowest}"
        return [f"{key}: expected an integer{bound}, got {shown(value)}"]
    return [] if value <= largest else [f"{key}: expected an integer of at most {largest}, got {shown(value)}"]


def _list_problem(key: str, value: Any, default: list[Any]) -> list[str]:
    is_list = isinstance(value, list) and all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in value)
    if not (is_list and (value or not default or _SIZES.search(key) is None)):
        return [f"{key}: expected a list of numbers such as {shown(default)}, got {shown(value)}"]
    if all(isinstance(part, int) for part in default) and not all(isinstance(part, int) and part >= 1 for part in value):
        return [f"{key}: expected whole numbers of at least 1 such as {shown(default)}, got {shown(value)}"]
    if not all(math.isfinite(part) for part in value):
        return [f"{key}: expected finite numbers such as {shown(default)}, got {shown(value)}"]
    return []


def _real_problem(key: str, value: Any) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return [f"{key}: expected a finite number, got {shown(value)}"]
    if _SHARES.search(key) and not 0 <= value < 1:
        return [f"{key}: expected a share from 0 to below 1, got {shown(value)}"]
    if _TEMPERATURES.search(key) and not value > 0:
        return [f"{key}: expected a number above 0, by which similarities are divided, got {shown(value)}"]
    if key == "weight_decay" and value < 0:
        return [f"{key}: expected a number of at least 0, got {shown(value)}"]
    return []


def check_training(config: Mapping[str, Any]) -> list[str]:
    """Check what RecBole's trainer reads: optimizer, gradient clipping, mixed precision, negative sampling."""
    problems = []
    learner = config.get("learner")
    if not isinstance(learner, str) or learner.lower() not in _LEARNERS:
        why = " (no model here has sparse gradients)" if str(learner).lower() == "sparse_adam" else ""
        problems.append(f"learner: expected one of {', '.join(_LEARNERS)}, got {shown(learner)}{why}")
    problems += _clipping_problems(config.get("clip_grad_norm"))
    problems += [
        f"{key}: mixed precision needs a GPU, and this run is on the CPU; use --{key}=False"
        for key in ("enable_amp", "enable_scaler")
        if config.get(key) and not (config.get("use_gpu") and torch.cuda.is_available())
    ]
    return problems + _sampling_problems(config.get("train_neg_sample_args"))


def _clipping_problems(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return [f"clip_grad_norm: expected {_CLIP_FORM}, got {shown(value)}; use --clip_grad_norm={{'max_norm':{value}}}"]
    known = {"max_norm", "norm_type", "error_if_nonfinite"}
    if isinstance(value, dict) and set(value) <= known:
        norm, kind = value.get("max_norm"), value.get("norm_type", 2.0)
        numbers = all(isinstance(part, (int, float)) and not isinstance(part, bool) and part > 0 for part in (norm, kind))
        if numbers and isinstance(value.get("error_if_nonfinite", False), bool):
            return []
    return [f"clip_grad_norm: expected {_CLIP_FORM} with a number above 0, or null, got {shown(value)}"]


def _sampling_problems(args: Any) -> list[str]:
    if not isinstance(args, dict):
        return []
    problems = []
    if args.get("distribution") not in _DISTRIBUTIONS:
        expected, found = " or ".join(_DISTRIBUTIONS), shown(args.get("distribution"))
        problems.append(
            f"train_neg_sample_args distribution: expected {expected}, got {found}; samplers of recbole-hnlm are chosen by "
            "--negative_sampler"
        )
    for key, lowest in (("sample_num", 1), ("candidate_num", 0)):
        value = args.get(key, lowest)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            problems.append(f"train_neg_sample_args {key}: expected an integer of at least {lowest}, got {shown(value)}")
    alpha, dynamic = args.get("alpha", 1.0), args.get("dynamic", False)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha < math.inf:
        problems.append(f"train_neg_sample_args alpha: expected a number of at least 0, got {shown(alpha)}")
    if not isinstance(dynamic, bool):
        problems.append(f"train_neg_sample_args dynamic: expected True or False, got {shown(dynamic)}")
    elif dynamic and not problems and args.get("candidate_num", 0) < 1:
        problems.append("train_neg_sample_args dynamic needs candidate_num of at least 1")
    return problems


def check_packages(model: str, config: Mapping[str, Any]) -> list[str]:
    """Look for the packages that are imported only when a model is built or its training starts."""
    needed = {
        "wandb": bool(config.get("log_wandb")) and "log_wandb",
        "faiss": model == "NCL" and "model NCL",
        "kmeans_pytorch": model == "LDiffRec" and config.get("n_cate") != 1 and "model LDiffRec with n_cate above 1",
        "community": model == "NNCF" and config.get("neigh_info_method") == "louvain" and "neigh_info_method louvain",
    }
    return [
        f"{reason} needs the package {package}: pip install {_PIP_NAMES.get(package, package)}"
        for package, reason in needed.items()
        if reason and importlib.util.find_spec(package) is None
    ]


def check_files(model: str, config: Mapping[str, Any], folder: Path) -> list[str]:
    """Check the files from which some of RecBole's models start: they exist and hold no pickled objects.

    Args:
        model: name of the model.
        config: the configuration.
        folder: folder of the dataset.
    """
    if model == "LDiffRec" and config.get("n_cate") != 1 and folder.is_dir():
        vectors = folder / "item_emb.npy"
        if not vectors.is_file():
            return [f"n_cate above 1 needs the items' vectors in {vectors}, which does not exist; use --n_cate=1"]
        try:
            refuse_objects(vectors)
        except DataError as error:
            return [str(error)]
    keys = {
        "ConvNCF": ("pre_model_path",) if config.get("train_method") == "after_pretrain" else (),
        "RaCT": ("pre_model_path",) if config.get("train_stage") != "actor_pretrain" else (),
        "NeuMF": ("mf_pretrain_path", "mlp_pretrain_path") if config.get("use_pretrain") else (),
        "NAIS": ("pretrain_path",) if config.get("pretrain_path") is not None else (),
    }
    problems = []
    for key in keys.get(model, ()):
        path = config.get(key)
        if not isinstance(path, str) or not path or not Path(path).is_file():
            problems.append(f"{key}: expected the file of a trained model, found none at {shown(path)}; set --{key}=PATH")
            continue
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except Exception as error:
            problems.append(f"{key}: {path} is not a checkpoint of tensors alone: {shown(' '.join(str(error).split()))}")
    return problems

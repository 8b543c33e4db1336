"""What is checked of a checkpoint's content before any of it is used: fields, types, numbers, the digest of its state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.config.checkpoint_keys import check_names
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["SEAL", "check_content", "not_numbers", "state_digest"]

SEAL = "state_sha256"
_REQUIRED = ("model", "dataset", "config", "epoch", "state_dict", "other_parameter")
_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "dataset": (str,),
    "config": (dict,),
    "epoch": (int,),
    "state_dict": (dict,),
    "other_parameter": (dict, _NONE),
    "split_fingerprint": (str, _NONE),
    "best_epoch": (int, _NONE),
    "cur_step": (int,),
    "best_valid_score": (int, float),
    "best_valid_result": (dict, _NONE),
    "train_loss": (dict,),
    "counters": (dict,),
    "optimizers": (dict,),
    "current_optimizer": (str, _NONE),
    "rng": (dict,),
    "loader": (dict,),
    "false_negative_rates": (list, _NONE),
    "hardness": (dict, _NONE),
    SEAL: (str,),
}
# All that training wrote. What the digest leaves out is compared with the run (names, split) or taken key by key (config).
_SEALED = (
    *(
        "epoch",
        "best_epoch",
        "cur_step",
        "best_valid_score",
        "best_valid_result",
        "train_loss",
        "state_dict",
        "other_parameter",
    ),
    *("counters", "optimizers", "current_optimizer", "rng", "loader", "false_negative_rates", "hardness"),
)
# Tensors up to this size enter the digest with their numbers, larger ones with type and shape: the archive's own checksums are
# over all bytes, and the digest is for fields that were changed, lost or swapped.
_NUMBERS = 65_536
_DEEPEST = 60


def state_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 in hex over the state that training wrote: every name, type, number and shape.

    Args:
        content: of a checkpoint.

    Raises:
        ValueError: a value is nested deeper than any of ours.
    """
    digest = hashlib.sha256()
    for name in _SEALED:
        if name in content:
            for part in _parts(content[name], name, 0):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, path: str, depth: int) -> Iterator[bytes]:
    if depth > _DEEPEST:
        raise ValueError(f"{path[:80]} is nested more than {_DEEPEST} deep")
    yield path.encode("utf-8", "surrogatepass")
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} {value.layout}".encode()
        if value.layout is torch.strided and 0 < value.numel() <= _NUMBERS and not value.is_meta:
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _parts(item, f"{path}/{type(key).__name__} {key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _parts(item, f"{path}/{place}", depth + 1)
    else:
        yield f"{type(value).__name__} {value!r}".encode("utf-8", "surrogatepass")


def not_numbers(value: Any, path: str = "", *, infinite: bool) -> str | None:
    """Return where a tensor in nested dictionaries and lists holds NaN (with ``infinite`` also infinity), or None."""
    if isinstance(value, torch.Tensor):
        if value.is_meta or not (value.is_floating_point() or value.is_complex()):
            return None
        # Not dense: a damaged shape may be of any size.
        numbers = value if value.layout is torch.strided else value._values() if value.is_sparse else value.values()
        bad = ~torch.isfinite(numbers) if infinite else torch.isnan(numbers)
        return path if bool(bad.any()) else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return next((found for key, item in items if (found := not_numbers(item, f"{path}.{key}", infinite=infinite))), None)


def check_content(content: Mapping[str, Any], file: Path) -> None:
    """Refuse a checkpoint's content that is not what training wrote.

    Raises:
        ArtifactError: a field is absent or of another type, names code or a path, or holds what is not a number; or the
            digest of the state does not fit.
    """
    if absent := [name for name in (*_REQUIRED, SEAL) if name not in content]:
        raise ArtifactError(f"checkpoint {file} lacks {', '.join(absent)}; train again")
    for name, kinds in _KINDS.items():
        if name in content and not (isinstance(content[name], kinds) and not isinstance(content[name], bool)):
            raise ArtifactError(f"checkpoint {file} is damaged: {name} is of type {type(content[name]).__name__}; train again")
    check_names(content["model"], content["dataset"])
    tensors = content["state_dict"]
    if not all(isinstance(key, str) and _is_plain(value) for key, value in tensors.items()):
        raise ArtifactError(f"checkpoint {file} is damaged: state_dict holds something that is not a tensor; train again")
    # Other state may hold infinity, as the distance to what is not there; no part of a model is "not a number".
    endless = next((key for key, value in tensors.items() if not_numbers(value, key, infinite=True)), None)
    try:
        endless = endless or not_numbers(content["other_parameter"], "other_parameter", infinite=False)
        fits = state_digest(content) == content[SEAL]
    except (RecursionError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"checkpoint {file} is damaged: {shown(str(error))}; train again") from error
    if endless is not None:
        raise ArtifactError(f"checkpoint {file}: the tensor {shown(endless)} holds numbers that are not finite; train again")
    if not fits:
        raise ArtifactError(
            f"checkpoint {file} is damaged or was edited: its weights and training state are not those that were written "
            f"(their digest is not {shown(content[SEAL][:12])}...); train again"
        )


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not value.is_meta and not value.is_quantized

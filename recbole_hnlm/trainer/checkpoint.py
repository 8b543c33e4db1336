"""The checkpoint file: tensors and plain values only, written atomically, read with ``weights_only=True``.

RecBole pickles its whole configuration into a checkpoint, which torch >= 2.6 refuses to read back. Here everything is a
tensor or a plain value; NumPy arrays and SciPy sparse matrices that a model keeps outside its parameters (EASE, ItemKNN,
SLIMElastic) are stored as tensors together with their kind.
"""

from __future__ import annotations

import pickle
import random
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch

from recbole_hnlm.trainer.checkpoint_checks import SEAL, check_content, state_digest
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.given_paths import input_file
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "FORMAT",
    "changed_counters",
    "decode",
    "encode",
    "load_counters",
    "load_weights",
    "model_counters",
    "read_checkpoint",
    "restore_rng_state",
    "restoring",
    "rng_state",
    "write_checkpoint",
]

# 2: the state that training wrote has a digest.
FORMAT = "recbole-hnlm-checkpoint-2"
_KIND = "__kind__"
_MAX_COUNTER_NUMBERS = 100_000
# What zipfile and torch's restricted unpickler raise on bytes that are not what they expect; a pickle's own error is apart.
_DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    EOFError,
    MemoryError,
)
_UNREADABLE = (
    *(RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError),
    *(MemoryError, RecursionError, ImportError, struct.error, OSError),
)


def encode(value: Any) -> Any:
    """Turn a value into tensors, plain values, lists and dictionaries; the inverse of :func:`decode`.

    Raises:
        ArtifactError: a value of a type that has no safe form.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value.detach() if isinstance(value, torch.Tensor) else value
    if isinstance(value, np.ndarray):
        return {_KIND: "matrix" if isinstance(value, np.matrix) else "array", "data": torch.from_numpy(np.array(value))}
    if scipy.sparse.issparse(value):
        return _encode_sparse(value)
    if isinstance(value, dict):
        return {_KIND: "dict", "items": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {_KIND: type(value).__name__, "items": [encode(item) for item in value]}
    raise ArtifactError(f"a checkpoint holds tensors, arrays, sparse matrices and plain values, not {type(value).__name__}")


def _encode_sparse(value: Any) -> dict[str, Any]:
    coo = value.tocoo()
    parts = {name: torch.from_numpy(np.array(getattr(coo, name))) for name in ("row", "col", "data")}
    return {_KIND: "sparse", "format": value.format, "shape": list(value.shape), **parts}


def decode(value: Any) -> Any:
    """Undo :func:`encode`.

    Raises:
        ArtifactError: a kind that this version does not know.
    """
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind in {"array", "matrix"}:
        array = value["data"].cpu().numpy()
        return np.asmatrix(array) if kind == "matrix" else array
    if kind == "sparse":
        row, col, data = (value[name].cpu().numpy() for name in ("row", "col", "data"))
        return scipy.sparse.coo_matrix((data, (row, col)), shape=tuple(value["shape"])).asformat(value["format"])
    if kind == "dict":
        return {decode(key): decode(item) for key, item in value["items"]}
    if kind in {"list", "tuple"}:
        items = [decode(item) for item in value["items"]]
        return tuple(items) if kind == "tuple" else items
    raise ArtifactError(
        f"the checkpoint holds a value of unknown kind {shown(kind)}: it was written by a newer version; train again"
    )


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's, PyTorch's and CUDA's global random generators, as tensors and numbers."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - RecBole samples from the global generator
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set the global random generators to what :func:`rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        content: tensors and plain values by name, with what :func:`read_checkpoint` requires.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with replacing(path) as partial:
        torch.save({"format": FORMAT, **content, SEAL: state_digest(content)}, partial)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint; no code in the file is run.

    Raises:
        ArtifactError: missing, truncated, damaged, or not written by recbole-hnlm.
    """
    file = input_file(path, "checkpoint", "a .pth file that a run wrote", ArtifactError, regular=True)
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except _DAMAGED_ZIP as error:
        raise ArtifactError(
            f"checkpoint {file} is truncated or not a PyTorch checkpoint: {shown(str(error))}; train again"
        ) from error
    if damaged is not None:
        raise ArtifactError(f"checkpoint {file} is damaged: the checksum of {shown(damaged)} is wrong; train again")
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"checkpoint {file} holds pickled objects, as RecBole's own checkpoints do, and is not loaded; "
            "train again through recbole-hnlm"
        ) from error
    except _UNREADABLE as error:
        raise ArtifactError(f"checkpoint {file} cannot be read: {shown(str(error))}; train again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ArtifactError(
            f"checkpoint {file} has format {shown(found)}, expected {FORMAT!r}: it is not of this version; train again"
        )
    check_content(content, file)
    return content


@contextmanager
def restoring(path: str | Path, what: str) -> Iterator[None]:
    """Turn what a part of a checkpoint's state runs into, where it does not fit what it is restored into, into one line.

    Raises:
        ArtifactError: names the part.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {shown(str(error))}"
        raise ArtifactError(f"checkpoint {path}: its {what} does not fit this run ({reason}); train again") from error


def load_weights(model: Any, checkpoint: dict[str, Any], path: str | Path, *, for_scoring: bool = False) -> None:
    """Put a checkpoint's parameters and other state into a model.

    Args:
        model: the model.
        checkpoint: what :func:`read_checkpoint` returned.
        path: of the file, for messages.
        for_scoring: let the state that only training reads (``training_only`` of the model's class) differ; of it, what fits
            is taken.

    Raises:
        ArtifactError: the checkpoint is of another model, or of one with other shapes.
    """
    name = type(model).__name__
    if checkpoint["model"] != name:
        raise ArtifactError(f"checkpoint {path} is of model {checkpoint['model']}, not of {name}")
    own, stored = model.state_dict(), checkpoint["state_dict"]
    free = tuple(getattr(model, "training_only", ())) if for_scoring else ()
    differ = {key for key in own.keys() | stored.keys() if _shape(own.get(key)) != _shape(stored.get(key))}
    wrong = sorted(key for key in differ if not key.startswith(free))
    if wrong:
        key = wrong[0]
        raise ArtifactError(
            f"checkpoint {path} does not fit this {name}: {key} has shape {_shape(stored.get(key))} in the file and "
            f"{_shape(own.get(key))} in the model ({len(wrong)} differ); use the configuration it was trained with"
        )
    with restoring(path, "state outside the weights"):
        other = decode(checkpoint["other_parameter"])
    with restoring(path, "model"):
        if not for_scoring:
            model.load_state_dict(stored)
            model.load_other_parameter(other)
            return
        # Names that the model lacks stay in: a projector is made when its weights are loaded.
        model.load_state_dict({key: value for key, value in stored.items() if key not in own.keys() & differ}, strict=False)
        model.load_other_parameter({key: value for key, value in (other or {}).items() if not key.startswith(free)})


def model_counters(model: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """Return the counters that a training model keeps outside its parameters: numbers and small dense tensors, by module.

    Such as MultiVAE's annealing step and DiffRec's loss history; without them a resumed run would differ.
    """
    return {
        name: {key: _copy(value) for key, value in vars(module).items() if _is_counter(key, value)}
        for name, module in model.named_modules()
    }


def changed_counters(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the part of ``now`` that differs from ``before``; both come from :func:`model_counters`.

    What training has not changed is a hyper-parameter, which the configuration of a resumed run sets.
    """
    changed = {
        name: {key: value for key, value in values.items() if not _is_same(before.get(name, {}).get(key), value)}
        for name, values in now.items()
    }
    return {name: values for name, values in changed.items() if values}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and bool(first == second)


def _is_counter(key: str, value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.layout is torch.strided and not value.requires_grad and value.numel() <= _MAX_COUNTER_NUMBERS
    return key != "training" and isinstance(value, (int, float))


def load_counters(model: torch.nn.Module, counters: dict[str, dict[str, Any]]) -> None:
    """Set what :func:`model_counters` returned; names that the model does not have are left out."""
    modules = dict(model.named_modules())
    for name, values in counters.items():
        for key, value in values.items():
            if name in modules and key in vars(modules[name]):
                setattr(modules[name], key, value)


def _shape(tensor: Any) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)

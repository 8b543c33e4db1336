"""Which model is in a folder, without reading all of its weights."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["model_folder_digest"]

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx", ".h5", ".msgpack")


def model_folder_digest(folder: Path) -> str:
    """Hash names and sizes of all files, the whole of small ones and the heads of weight files: 16 hex digits.

    Args:
        folder: a model as ``save_pretrained`` leaves it, subfolders included.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(_header(file) if file.name.endswith(_WEIGHT_SUFFIXES) else file.read_bytes())
    return digest.hexdigest()[:16]


def _header(file: Path) -> bytes:
    """Return the head of a weight file: of safetensors its table of tensors and the first values, which differ by training."""
    with file.open("rb") as handle:
        start = handle.read(8)
        if file.suffix != ".safetensors" or len(start) < 8:
            return start + handle.read(1 << 16)
        length = struct.unpack("<Q", start)[0]
        return handle.read(min(length, 1 << 26) + (1 << 20))

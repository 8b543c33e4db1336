"""Access during training to what the LLM stages made: rows of the pair store and the text vectors of users and items.

Symbols: M rows of a batch with a vector, H the dimension of pair vectors, T that of the text encoder, U users, I items.
Nothing here is a module: tables are neither copied with a model, nor checkpointed, nor broadcast.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["PairVectorReader"]

# Stores up to this size may become resident; memory must not grow with larger ones.
_RESIDENT_MAX_BYTES = 64 * 2**20


class PairVectorReader:
    """Read rows of the memory-mapped store of z_ui, without making the store resident in this process.

    Indexing a large map touches a window of pages around every row: slow, and soon the whole store counts as this process's
    memory. Rows of large stores are therefore read from the map's file into place, through the system's page cache.
    """

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        """Read from ``vectors [N, H]``, any array; small ones and those without a file behind them are indexed."""
        self._vectors = vectors
        self.dim = int(vectors.shape[1])
        self._file, self._start = _file_behind(vectors) if vectors.nbytes > _RESIDENT_MAX_BYTES else (None, 0)

    def __deepcopy__(self, memo: object) -> PairVectorReader:
        """Return itself: a copied model reads the same store."""
        return self

    def gather(self, rows: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        """Return the vectors of ``rows`` (int64 ``[M]``, all >= 0) as float32 ``[M, H]`` on ``device``.

        Raises:
            ArtifactError: if the file ends before a row does.
        """
        wanted = rows.numpy()
        if self._file is None:
            return torch.from_numpy(self._vectors[wanted]).to(device).float()
        out = np.empty((len(wanted), self.dim), dtype=self._vectors.dtype)
        width, target, descriptor = out.strides[0], out.data.cast("B"), self._file.fileno()
        for place, offset in enumerate((wanted * width + self._start).tolist()):
            if os.preadv(descriptor, [target[place * width : (place + 1) * width]], offset) != width:
                raise ArtifactError(
                    f"the store {self._file.name} ends before row {wanted[place]}, expected {len(self._vectors)} rows; "
                    f"it was cut short while in use, build it again"
                )
        return torch.from_numpy(out).to(device).float()


def _file_behind(array: NDArray[np.float16]) -> tuple[BinaryIO | None, int]:
    """Return the file that ``array`` maps and the byte at which the array starts in it; (None, 0) where there is none."""
    root: Any = array
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if root is None or root.filename is None or not array.flags.c_contiguous or not hasattr(os, "preadv"):
        return None, 0
    # numpy maps from the page boundary below the offset that it was given.
    mapped_from = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY
    base_address = np.frombuffer(root.base, dtype=np.uint8).ctypes.data
    return Path(root.filename).open("rb", buffering=0), mapped_from + array.ctypes.data - base_address

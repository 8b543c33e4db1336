"""Form of the vector store: its identity, its keys as integers and the digest of sampled rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["REBUILD_STORE", "StoreIdentity", "StoreKind", "integer_keys", "sampled_digest"]

#: What to do about a store that is refused; to be formatted with its ``folder``.
REBUILD_STORE = "delete {folder} and run `recbole-hnlm encode` with the same keys"
StoreKind = Literal["pairs", "item_texts", "item_profiles", "user_profiles", "finetuned_items"]

_SAMPLED_ROWS = 256


@dataclass(frozen=True)
class StoreIdentity:
    """What the vectors of a store are; opening compares every field.

    Attributes:
        kind: what a key is and which text was encoded.
        model: name of the model that made the vectors.
        revision: its version or content digest.
        prompt_hash: digest of the prompts (or of the text's form) behind the vectors.
        dataset_fingerprint: :attr:`TrainingInteractions.dataset_fingerprint`.
        split_fingerprint: :attr:`TrainingInteractions.split_fingerprint`.
        inputs: digest over every key and text, in order.
    """

    kind: StoreKind
    model: str
    revision: str
    prompt_hash: str
    dataset_fingerprint: str
    split_fingerprint: str
    inputs: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(StoreKind):
            raise ValueError(f"kind is {self.kind!r}, expected one of {', '.join(get_args(StoreKind))}")

    @property
    def key_columns(self) -> int:
        """Number K of tokens in a key."""
        return 2 if self.kind == "pairs" else 1


def sampled_digest(path: Path, count: int, row_bytes: int) -> str:
    """SHA-256 over at most 256 evenly spread rows of ``vectors.npy``; reads, does not map."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        offset = path.stat().st_size - count * row_bytes
        for row in np.unique(np.linspace(0, max(count - 1, 0), min(count, _SAMPLED_ROWS)).astype(np.int64)):
            file.seek(offset + int(row) * row_bytes)
            digest.update(file.read(row_bytes))
    return digest.hexdigest()


def integer_keys(keys: NDArray[np.integer[Any]], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Fold the key columns into one int64 per row, unique for each combination: ``[N, K] -> [N]``."""
    folded = np.zeros(len(keys), dtype=np.int64)
    for column, size in enumerate(sizes):
        folded = folded * np.int64(size) + keys[:, column]
    return folded

"""The vectors of a trained collaborative model, as the fine-tuning of the LLM reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Teacher"]


@dataclass(frozen=True)
class Teacher:
    """Vectors whose inner products score items for users.

    Symbols: U users and I items including the padding id 0, d the embedding size.

    Attributes:
        user_vectors: e_u, float32 ``[U, d]``; row 0 is zeros.
        item_vectors: e_i, float32 ``[I, d]``; row 0 is zeros.
        digest: 16 hex digits over what the vectors were made from: model, its keys, epochs, seed, training split, source.
        model: name of the model.
    """

    user_vectors: NDArray[np.float32]
    item_vectors: NDArray[np.float32]
    digest: str
    model: str

    @cached_property
    def vectors_digest(self) -> str:
        """16 hex digits over the vectors: what is made from them stays valid when the same ones are trained again."""
        tables = (self.user_vectors, self.item_vectors)
        return text_digest([f"{table.shape} {table.tobytes().hex()}" for table in tables])[:16]

    def scores(self, users: ArrayLike) -> NDArray[np.float32]:
        """Return the scores of every item for internal user ids ``[B]``, float32 ``[B, I]``; column 0 is the padding id's."""
        return self.user_vectors[np.asarray(users, dtype=np.int64)] @ self.item_vectors.T

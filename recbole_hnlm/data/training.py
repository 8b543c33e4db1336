"""The training split in the form that every LLM stage and sampler reads.

This is the only door through which interactions reach a prompt: it is built from RecBole's *training* dataset, so nothing
of the validation or test split can leak into profiles, negatives, teachers or fine-tuning.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from recbole.data.dataset import Dataset

__all__ = ["TrainingInteractions", "hash_tokens"]


def hash_tokens(*token_lists: NDArray[np.str_] | list[str]) -> str:
    """Hash lists of raw tokens, order included, into a hex digest that separates the lists and the tokens."""
    digest = hashlib.sha256()
    for tokens in token_lists:
        digest.update(f"{len(tokens)}\n".encode())
        for token in tokens:
            encoded = str(token).encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(4, "little"))
            digest.update(encoded)
    return digest.hexdigest()


@dataclass(frozen=True)
class TrainingInteractions:
    """Training interactions of one split.

    Symbols: U users and I items *including* RecBole's padding id 0; P training interactions.

    Attributes:
        user_tokens: raw user tokens by internal id, ``[U]``; index 0 is RecBole's ``[PAD]``.
        item_tokens: raw item tokens by internal id, ``[I]``; index 0 is ``[PAD]``.
        users: internal user id of each interaction, int64 ``[P]``, in the order of RecBole's training ``inter_feat``.
        items: internal item id of each interaction, int64 ``[P]``.
    """

    user_tokens: NDArray[np.str_]
    item_tokens: NDArray[np.str_]
    users: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def from_dataset(cls, train_dataset: Dataset) -> TrainingInteractions:
        """Read the interactions of RecBole's training dataset (``train_data._dataset``)."""
        uid, iid = train_dataset.uid_field, train_dataset.iid_field
        inter = train_dataset.inter_feat
        return cls(
            user_tokens=np.asarray(train_dataset.field2id_token[uid], dtype=np.str_),
            item_tokens=np.asarray(train_dataset.field2id_token[iid], dtype=np.str_),
            users=np.asarray(inter[uid], dtype=np.int64),
            items=np.asarray(inter[iid], dtype=np.int64),
        )

    @property
    def n_users(self) -> int:
        """Number of user ids, the padding id included."""
        return len(self.user_tokens)

    @property
    def n_items(self) -> int:
        """Number of item ids, the padding id included."""
        return len(self.item_tokens)

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def by_user(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows grouped by user: ``(starts [U + 1], order [P])``; user u's rows are ``order[starts[u]:starts[u + 1]]``."""
        order = np.argsort(self.users, kind="stable")
        starts = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.users, minlength=self.n_users), out=starts[1:])
        return starts, order

    def rows_of(self, user: int) -> NDArray[np.int64]:
        """Return the interaction rows (indices into ``users`` and ``items``) of an internal user id, in split order."""
        starts, order = self.by_user
        return order[starts[user] : starts[user + 1]]

    def history_of(self, user: int) -> NDArray[np.int64]:
        """Return the internal item ids that an internal user id interacted with in training."""
        return self.items[self.rows_of(user)]

    @cached_property
    def dataset_fingerprint(self) -> str:
        """Identify the users and items (not the split): 16 hex digits over counts and raw tokens."""
        return hash_tokens(self.user_tokens, self.item_tokens)[:16]

    @cached_property
    def split_fingerprint(self) -> str:
        """Identify the training split: 16 hex digits over the dataset fingerprint and the sorted (user, item) pairs."""
        keys = np.sort(self.users * np.int64(self.n_items) + self.items)
        digest = hashlib.sha256(self.dataset_fingerprint.encode())
        digest.update(keys.astype("<i8").tobytes())
        return digest.hexdigest()[:16]

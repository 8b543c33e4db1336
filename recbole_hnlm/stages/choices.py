"""Chooses the training rows that a prompt shows and the training pairs that get a semantic negative.

Rows are ranked within their user by a hash of (seed, user token, item token). The rank of a pair depends on nothing else, so
another user changes no choice, and a larger number keeps the earlier choices and adds to them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.utils.hashing import mix64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["choose_rows", "rows_of_chosen_users"]


def _salt(purpose: str, seed: int) -> bytes:
    """What tells the hashes of one choice from those of another."""
    return hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=16).digest()


def _token_hashes(tokens: Sequence[str], salt: bytes) -> NDArray[np.uint64]:
    """64-bit hash of each token."""
    digests = (
        hashlib.blake2b(str(token).encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest() for token in tokens
    )
    return np.frombuffer(b"".join(digests), dtype="<u8")


def choose_rows(
    training: TrainingInteractions,
    per_user: int | None,
    *,
    seed: int,
    purpose: str,
    eligible: NDArray[np.bool_] | None = None,
    priority: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.int64]:
    """Choose training rows of each user, without repeating a (user, item) pair.

    Args:
        training: the training split, P rows.
        per_user: rows for each user at most; None takes every pair.
        seed: seed of the choice.
        purpose: separates choices made with the same seed.
        eligible: which items (by internal id, ``[I]``) may be chosen; None means all.
        priority: ``[P]``, such as ratings: higher ones come first and the hash only breaks ties; None means equal.

    Returns:
        Indices of training rows, int64, grouped by ascending internal user id and in the order of choice within a user.
    """
    salt = _salt(purpose, seed)
    user_hashes = _token_hashes(list(training.user_tokens), salt)
    item_hashes = _token_hashes(list(training.item_tokens), salt[::-1])
    ranks = mix64(mix64(user_hashes)[training.users] ^ item_hashes[training.items])
    first = np.zeros(len(training)) if priority is None else -np.nan_to_num(np.asarray(priority, dtype=np.float64))
    order = np.lexsort((training.items, ranks, first, training.users))
    if eligible is not None:
        order = order[eligible[training.items[order]]]
    pairs = training.users[order] * np.int64(training.n_items) + training.items[order]
    order = order[np.sort(np.unique(pairs, return_index=True)[1])]
    if per_user is None:
        return order
    users = training.users[order]
    starts = np.searchsorted(users, users)  # first place of each row's user
    return order[np.arange(len(order)) - starts < per_user]


def rows_of_chosen_users(
    training: TrainingInteractions, rows: NDArray[np.int64], n_users: int | None, *, seed: int
) -> NDArray[np.int64]:
    """The rows of ``n_users`` users: those whose hash of (seed, user token) is lowest among the users who have a row.

    Args:
        training: the training split.
        rows: indices of training rows, int64.
        n_users: users at most; None keeps every row.
        seed: seed of the choice.

    Returns:
        The rows that stay, int64, in their order. A larger number keeps the users of a smaller one.
    """
    if n_users is None:
        return rows
    users = np.unique(training.users[rows])
    hashes = _token_hashes([str(token) for token in training.user_tokens[users]], _salt("users", seed))
    return rows[np.isin(training.users[rows], users[np.argsort(hashes, kind="stable")[:n_users]])]

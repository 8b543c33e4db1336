"""Negatives that all rows of a batch share: drawing them, and finding those that a row's user interacted with.

Symbols: B rows of the batch, M shared negatives, U users and I items including the padding id 0, P training interactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_hnlm.model.set_losses import Excluded
from recbole_hnlm.utils.kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["SharedNegatives", "top_k_thresholds"]

# Users whose scores of the shared negatives are computed together.
_USERS = 2048


@compiled()
def _link(items: NDArray[np.int64], first: NDArray[np.int32], following: NDArray[np.int32]) -> None:
    """Chain the columns of each item: ``first [I]`` holds an item's first column, ``following [M]`` the next one, -1 none."""
    for column in range(len(items) - 1, -1, -1):
        following[column] = first[items[column]]
        first[items[column]] = column


@compiled()
def _count(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    users: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    first: NDArray[np.int32],
    following: NDArray[np.int32],
    starts: NDArray[np.int64],
) -> None:
    """Write where each row's columns will begin, ``starts [B + 1]``."""
    for row in range(len(users)):
        found = 0
        for place in range(indptr[users[row]], indptr[users[row] + 1]):
            column = first[indices[place]]
            while column >= 0:
                found += 1
                column = following[column]
        starts[row + 1] = starts[row] + found


@compiled()
def _collect(  # noqa: PLR0917
    users: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    first: NDArray[np.int32],
    following: NDArray[np.int32],
    columns: NDArray[np.int64],
) -> None:
    """Write the columns that hold an item of the row's user, row by row."""
    found = 0
    for row in range(len(users)):
        for place in range(indptr[users[row]], indptr[users[row] + 1]):
            column = first[indices[place]]
            while column >= 0:
                columns[found] = column
                found += 1
                column = following[column]


@compiled()
def _kth_largest(
    indptr: NDArray[np.int64],
    own: NDArray[np.float32],
    top: NDArray[np.float32],
    k: int,
    out: NDArray[np.float32],
) -> None:
    """Write the k-th largest of each user's own scores and of ``top [n, k']`` together; -inf where there are fewer."""
    for row in range(len(top)):
        scores = np.concatenate((own[indptr[row] : indptr[row + 1]], top[row]))
        scores.sort()
        out[row] = scores[len(scores) - k] if len(scores) >= k else -np.inf


class SharedNegatives:
    """Knows every user's training items, by rows of sorted users (CSR), 4 bytes each."""

    def __init__(self, training: TrainingInteractions) -> None:
        """Index the training interactions; repeated ones count once."""
        keys = np.unique(training.users * np.int64(training.n_items) + training.items)
        users, items = np.divmod(keys, training.n_items)
        self._indptr = np.zeros(training.n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=training.n_users), out=self._indptr[1:])
        self._indices = items.astype(np.int32)
        self._n_items = training.n_items

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw items uniformly, with replacement and without the padding id, int64 ``[count]`` on the CPU."""
        return torch.randint(1, self._n_items, (count,), generator=generator)

    def of_own(self, users: torch.Tensor, items: torch.Tensor) -> Excluded:
        """Find the places of the negatives that a row's user interacted with in training.

        A map from items to their columns is looked up for each item of a user's history: the work grows with the histories'
        lengths rather than with B x M.

        Args:
            users: internal user ids, int64 ``[B]``.
            items: internal item ids of the negatives, int64 ``[M]`` on the CPU; an item may stand there more than once.
        """
        rows, drawn = users.cpu().numpy(), items.numpy()
        first = np.full(self._n_items, -1, dtype=np.int32)
        following = np.empty(len(drawn), dtype=np.int32)
        _link(drawn, first, following)
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        _count(rows, self._indptr, self._indices, first, following, starts)
        columns = np.empty(starts[-1], dtype=np.int64)
        _collect(rows, self._indptr, self._indices, first, following, columns)
        return Excluded(torch.from_numpy(columns).to(users.device), torch.from_numpy(starts))

    def histories(self, step: int) -> Iterator[tuple[range, NDArray[np.int64], NDArray[np.int32]]]:
        """Yield blocks of users with where their items begin and with their items, in blocks of ``step`` users."""
        n_users = len(self._indptr) - 1
        for start in range(0, n_users, step):
            users = range(start, min(start + step, n_users))
            indptr = self._indptr[start : users.stop + 1]
            yield users, indptr - indptr[0], self._indices[indptr[0] : indptr[-1]]


def top_k_thresholds(
    user_all: torch.Tensor, item_all: torch.Tensor, shared: SharedNegatives, items: torch.Tensor, k: int
) -> torch.Tensor:
    """Return the K-th largest score of each user's training items and of the drawn negatives together, ``[U]``.

    Source: the estimate of the top-K quantile in SL@K (arXiv 2508.05673, section 4). Departure: all of a user's training items
    are read, where the authors' code cuts histories at the 90th percentile of lengths to pad them. -inf where there are fewer
    than K scores: then every positive is among the first K.

    Args:
        user_all: ``[U, d]``, without gradient; of length 1 where scores are cosines.
        item_all: ``[I, d]``, likewise.
        shared: the users' training items.
        items: the drawn negatives, int64 ``[M]`` on the CPU.
        k: K.
    """
    negatives = item_all[items.to(item_all.device)]
    thresholds = user_all.new_empty(len(user_all))
    for users, indptr, own_items in shared.histories(_USERS):
        rows = user_all[users.start : users.stop]
        scores = rows @ negatives.t()  # [n, M]
        excluded = shared.of_own(torch.arange(users.start, users.stop), items)
        scores.view(-1)[excluded.flat(len(items)).to(scores.device)] = -torch.inf
        top = scores.topk(min(k, len(items)), dim=1).values
        owners = torch.repeat_interleave(torch.arange(len(users)), torch.from_numpy(np.diff(indptr))).to(rows.device)
        own = (rows[owners] * item_all[torch.from_numpy(own_items.astype(np.int64)).to(rows.device)]).sum(dim=1)
        kth = np.empty(len(users), dtype=np.float32)
        _kth_largest(indptr, own.float().cpu().numpy(), top.float().cpu().numpy(), k, kth)
        thresholds[users.start : users.stop] = torch.from_numpy(kth).to(thresholds)
    return thresholds

"""The target item of a query in fine-tuning: hard by the teacher's scores, but not among the very hardest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recbole_hnlm.utils.kernels import compiled, run_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["teacher_hard_negatives"]

_ROWS_PER_PIECE = 256
# A share such as 0.29 times 100 is 28.999... in floating point and is meant as 29.
_ROUNDING = 1e-9


@compiled(fastmath=True)
def _dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for index in range(len(left)):
        total += left[index] * right[index]
    return total


@compiled()
def _choose(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    users: NDArray[np.int64],
    candidates: NDArray[np.int64],
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    guard_share: float,
    out: NDArray[np.int64],
) -> None:
    """Write for rows ``start..stop`` the candidate that follows the guarded ones in the ranking."""
    scores = np.empty(candidates.shape[1], dtype=np.float32)
    for row in range(start, stop):
        items = np.sort(candidates[row])
        distinct = 0
        for place in range(len(items)):
            if place == 0 or items[place] != items[place - 1]:
                items[distinct] = items[place]
                scores[distinct] = _dot(user_vectors[users[row]], item_vectors[items[place]])
                distinct += 1
        rank = min(int(np.floor(guard_share * distinct + _ROUNDING)), distinct - 1)
        best = 0
        for _ in range(rank + 1):
            best = 0
            # Items ascend, so that a strict comparison leaves a tie to the lower id.
            for place in range(1, distinct):
                if scores[place] > scores[best]:
                    best = place
            scores[best] = -np.inf
        out[row] = items[best]


def teacher_hard_negatives(
    users: NDArray[np.int64],
    candidates: NDArray[np.int64],
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    guard_share: float,
) -> NDArray[np.int64]:
    """Choose each user's hard negative among the candidates.

    The D distinct candidates of a row are ranked by ``e_u . e_j``, highest first, the lower id first on a tie; the
    ``floor(guard_share * D)`` highest are skipped as likely false negatives and the next one is taken (the last one if the
    guard covers all). A candidate that was drawn twice counts once, and the result does not depend on the order of columns.

    Source: HNLMRec (arXiv 2504.04726) takes the hardest candidate, which ``guard_share`` 0 does. Departure: the guard, known
    from text retrieval as "top-k shifted by N" (Moreira et al., "NV-Retriever", arXiv 2407.15831).

    Symbols: B rows, M candidates of each, U users and I items including the padding id 0, d the teacher's embedding size.

    Args:
        users: internal user ids, int64 ``[B]``.
        candidates: internal item ids, int64 ``[B, M]``, M >= 1.
        user_vectors: float32 ``[U, d]``, finite.
        item_vectors: float32 ``[I, d]``, finite.
        guard_share: share of the distinct candidates to skip, in [0, 1].

    Returns:
        Internal item ids, int64 ``[B]``.
    """
    out = np.empty(len(users), dtype=np.int64)
    bounds = [*range(0, max(len(users), 1), _ROWS_PER_PIECE), len(users)]
    arrays = [np.ascontiguousarray(array) for array in (users, candidates, user_vectors, item_vectors)]
    run_pieces(lambda start, stop: _choose(start, stop, *arrays, guard_share, out), bounds)
    return out

"""Dynamic negative sampling: of K uniform candidates, the one that the model currently scores highest.

Source: Zhang, Chen, Wang and Yu, "Optimizing Top-N Collaborative Filtering via Dynamic Negative Item Sampling", SIGIR 2013,
section 3. Departure: scores come from the embeddings of the training step itself, so that no second propagation is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_hnlm.negative_sampler.base import Negatives, NegativeSampler, stateless
from recbole_hnlm.utils.kernels import compiled, run_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.negative_sampler.base import SelectionInputs

__all__ = ["SAMPLER", "candidate_scores", "hardest_candidates", "select_hardest"]

_ROWS_PER_PIECE = 1024


@compiled(fastmath=True)
def _score_rows(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    users: NDArray[np.int64],
    candidates: NDArray[np.int64],
    user_all: NDArray[np.float32],
    item_all: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write each row's inner products."""
    for row in range(start, stop):
        query = user_all[users[row]]
        for column in range(candidates.shape[1]):
            key = item_all[candidates[row, column]]
            score = np.float32(0)
            for index in range(len(query)):
                score += query[index] * key[index]
            out[row, column] = score


@torch.no_grad()
def candidate_scores(
    users: torch.Tensor, candidates: torch.Tensor, user_all: torch.Tensor, item_all: torch.Tensor
) -> torch.Tensor:
    """Return ``e_u . e_j`` of each user's candidates, float ``[B, K]``, without gradient.

    Args:
        users: int64 ``[B]``.
        candidates: int64 ``[B, K]``.
        user_all: float ``[U, d]``.
        item_all: float ``[I, d]``.
    """
    if user_all.device.type == "cpu" and user_all.dtype == item_all.dtype == torch.float32:
        # The compiled loop reads each row once; the gather below would first write B * K * d floats.
        out = np.empty(candidates.shape, dtype=np.float32)
        arrays = [tensor.detach().contiguous().numpy() for tensor in (users, candidates, user_all, item_all)]
        bounds = [*range(0, max(len(users), 1), _ROWS_PER_PIECE), len(users)]
        run_pieces(lambda start, stop: _score_rows(start, stop, *arrays, out), bounds)
        return torch.from_numpy(out)
    return torch.einsum("bd,bkd->bk", user_all[users], item_all[candidates])


@torch.no_grad()
def hardest_candidates(
    users: torch.Tensor, candidates: torch.Tensor, user_all: torch.Tensor, item_all: torch.Tensor
) -> torch.Tensor:
    """Return ``argmax_j e_u . e_j`` over each user's candidates, the earliest candidate on a tie.

    Args:
        users: int64 ``[B]``.
        candidates: int64 ``[B, K]``.
        user_all: float ``[U, d]``.
        item_all: float ``[I, d]``.

    Returns:
        The chosen item ids, int64 ``[B]``.
    """
    scores = candidate_scores(users, candidates, user_all, item_all)
    return candidates.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)


def select_hardest(inputs: SelectionInputs) -> Negatives:
    """Choose each positive's hardest candidate."""
    return Negatives(items=hardest_candidates(inputs.users, inputs.candidates, inputs.user_all, inputs.item_all))


SAMPLER = NegativeSampler(stateless(select_hardest), least_candidates=2)

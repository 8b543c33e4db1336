r"""Ranking losses that set one positive against many negatives, as pure functions: softmax, BSL, PSL and SL@K.

All negatives of a batch are the same M items, so that their scores are one product ``[B, d] x [d, M]``; pairs of a user and one
of the user's own items are left out. What every loss here needs of them is one number a row, the logarithm of a sum over the
negatives, with a derivative of its own (:class:`_LogSum`): autograd keeps five matrices of B x M and passes over each.

Symbols: B rows of the batch, M shared negatives, d the embedding size; c a score (cosine or inner product); t a temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

__all__ = [
    "Excluded",
    "Surrogate",
    "bilateral_softmax_loss",
    "log_sum_exp_shared",
    "log_sum_psl_shared",
    "mean_exp_of_positives",
    "pairwise_softmax_loss",
    "softmax_at_k_loss",
    "softmax_loss",
    "top_k_weight",
]

Surrogate = Literal["relu", "tanh", "atan"]

# Rows whose scores are computed together: 256 x 1,024 numbers stay in a core's cache through all passes over them.
_ROWS = 256


@dataclass(frozen=True)
class Excluded:
    """Which negatives are left out of which rows: the user's own items.

    Attributes:
        columns: the places among the M negatives, row by row, int64 ``[E]``.
        starts: where each row's places begin, ``B + 1`` ascending numbers, on the CPU; int64.
    """

    columns: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def none(cls, rows: int, device: torch.device | None = None) -> Excluded:
        """Leave nothing out."""
        return cls(torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(rows + 1, dtype=torch.int64))

    def flat(self, width: int) -> torch.Tensor:
        """Return the places in the matrix of B x ``width`` scores, ascending, int64 ``[E]``."""
        rows = torch.repeat_interleave(torch.arange(len(self.starts) - 1), self.starts.diff())
        return rows.to(self.columns.device) * width + self.columns


class _LogSum(torch.autograd.Function):
    r"""``L_r = log sum_m f(c_rm - a_r)`` over the negatives that are not left out, and its derivatives.

    f is ``exp(x / t)`` or PSL's ``s(x / 2) ** (1 / t)``. With ``D_rm = f'(c_rm - a_r) / sum_m f``, ``c = E_u E_v^T`` and g the
    derivative with respect to L: ``dE_u = g D E_v``, ``dE_v = (g D)^T E_u``, ``da = -g sum_m D_rm``. Only the numerators of D
    are kept, B x M numbers once; what belongs to a row is multiplied into the ``[B, d]`` side.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them by position
        ctx: Any,
        users: torch.Tensor,
        negatives: torch.Tensor,
        anchors: torch.Tensor | None,
        excluded: Excluded,
        temperature: float,
        surrogate: Surrogate | None,
    ) -> torch.Tensor:
        rows, width = len(users), len(negatives)
        slopes = users.new_empty((rows, width))
        sums, logs = users.new_empty(rows), users.new_empty(rows)
        places, starts = excluded.flat(width), excluded.starts
        for start in range(0, rows, _ROWS):
            stop = min(start + _ROWS, rows)
            block = slopes[start:stop]
            torch.mm(users[start:stop], negatives.t(), out=block)
            own = places[int(starts[start]) : int(starts[stop])] - start * width
            if surrogate is None:
                block.mul_(1.0 / temperature)
                block.view(-1)[own] = -math.inf
                most = block.amax(dim=1, keepdim=True)
                most.masked_fill_(most == -math.inf, 0.0)
                sums[start:stop] = block.sub_(most).exp_().sum(dim=1)
                logs[start:stop] = most.squeeze(1)
            else:
                values = block if anchors is None else block.sub_(anchors[start:stop, None])
                sums[start:stop], logs[start:stop] = _psl_in_place(values, own, temperature, surrogate)
        empty = sums == 0
        shares = torch.where(empty, 0.0, 1.0 / sums.masked_fill(empty, 1.0))
        if surrogate is None:
            shares = shares / temperature
        ctx.has_anchors = anchors is not None
        ctx.save_for_backward(users, negatives, slopes, shares)
        return logs + sums.log()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        users, negatives, slopes, shares = ctx.saved_tensors
        scaled = (upstream[0] * shares).unsqueeze(1)  # [B, 1]
        to_users = to_negatives = to_anchors = None
        if ctx.needs_input_grad[0]:
            to_users = scaled * (slopes @ negatives)
        if ctx.needs_input_grad[1]:
            to_negatives = slopes.t() @ (scaled * users)
        if ctx.has_anchors and ctx.needs_input_grad[2]:
            to_anchors = -scaled.squeeze(1) * slopes.sum(dim=1)
        return to_users, to_negatives, to_anchors, None, None, None


def _psl_in_place(
    values: torch.Tensor, own: torch.Tensor, temperature: float, surrogate: Surrogate
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn differences x of scores into the slopes of ``s(x/2)^(1/t)``, relative to each row's greatest s.

    Returns:
        Sums of ``(s / s_max)^(1/t)``, and ``log(s_max) / t``, ``[rows]`` each.
    """
    halves = values.mul_(0.5)
    if surrogate == "relu":
        reach, slope = halves.add(1.0).clamp_min_(0.0), None
    elif surrogate == "tanh":
        bent = torch.tanh(halves)
        reach, slope = bent + 1.0, 1.0 - bent.square()
    else:
        reach, slope = torch.atan(halves).add_(1.0).clamp_min_(0.0), 1.0 / (1.0 + halves.square())
    reach.view(-1)[own] = 0.0
    most = reach.amax(dim=1, keepdim=True)
    most.masked_fill_(most == 0, 1.0)
    # Twice as fast as a power; log 0 = -inf, whose exponential is 0 again.
    powers = reach.div(most).log_().mul_(1.0 / temperature).exp_()
    # d/dx s(x/2)^(1/t) = s^(1/t) s'(x/2) / (2 t s); where s is 0 the power is 0 and stays so.
    torch.div(powers, reach.masked_fill(reach == 0, 1.0), out=values)
    values.mul_(0.5 / temperature)
    if slope is not None:
        values.mul_(slope)
    return powers.sum(dim=1), most.squeeze(1).log() / temperature


def log_sum_exp_shared(users: torch.Tensor, negatives: torch.Tensor, excluded: Excluded, temperature: float) -> torch.Tensor:
    """Return ``log sum_m exp(c_rm / t)`` over the negatives of each row, ``[B]``; -inf where none is left.

    Args:
        users: e_u of each row, ``[B, d]``; of length 1 where scores are cosines.
        negatives: e_j of the shared items, ``[M, d]``; an item that was drawn twice stands there twice and counts twice.
        excluded: pairs to leave out.
        temperature: t > 0.
    """
    return cast("torch.Tensor", _LogSum.apply(users, negatives, None, excluded, temperature, None))  # type: ignore[no-untyped-call]


def log_sum_psl_shared(
    users: torch.Tensor,
    negatives: torch.Tensor,
    positive_scores: torch.Tensor,
    excluded: Excluded,
    *,
    temperature: float,
    surrogate: Surrogate,
) -> torch.Tensor:
    """Return ``log sum_m s((c_rm - c_i) / 2)^(1/t)``, ``[B]``, -inf where every term is 0 or none is left.

    Args:
        users: ``[B, d]``.
        negatives: ``[M, d]``.
        positive_scores: c_i, ``[B]``.
        excluded: pairs to leave out.
        temperature: t > 0.
        surrogate: s(x) = max(x + 1, 0), tanh(x) + 1 or max(atan(x) + 1, 0).
    """
    return cast(
        "torch.Tensor",
        _LogSum.apply(users, negatives, positive_scores, excluded, temperature, surrogate),  # type: ignore[no-untyped-call]
    )


def _with_hard(log_sums: torch.Tensor, hard: torch.Tensor | None, weight: float) -> torch.Tensor:
    """Add ``weight * exp(hard)`` to the sums whose logarithms are given."""
    return log_sums if hard is None or weight == 0 else torch.logaddexp(log_sums, hard + math.log(weight))


def _zero_where_empty(log_sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logarithms with 0 for -inf, and where they were finite: a row without negatives has no loss."""
    left = log_sums != -math.inf
    return torch.where(left, log_sums, 0.0), left


def softmax_loss(
    log_sums: torch.Tensor,
    positive_scores: torch.Tensor,
    hard_scores: torch.Tensor | None,
    *,
    temperature: float,
    hard_weight: float,
) -> torch.Tensor:
    r"""Sampled softmax: ``-log( e^{c_i/t} / (e^{c_i/t} + w e^{c_h/t} + sum_m e^{c_m/t}) )`` of each row, ``[B]``.

    Source: Wu et al., "On the Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS 2024 (arXiv 2201.02327).
    Departures: the negatives are shared by the batch; the chosen negative h is one further term.

    Args:
        log_sums: of :func:`log_sum_exp_shared` at the same temperature, ``[B]``.
        positive_scores: c_i, ``[B]``.
        hard_scores: c_h, ``[B]``, or None.
        temperature: t > 0.
        hard_weight: w >= 0; 0 leaves h out.
    """
    own = positive_scores / temperature
    total = _with_hard(log_sums, None if hard_scores is None else hard_scores / temperature, hard_weight)
    return torch.logaddexp(total, own) - own


def mean_exp_of_positives(users: torch.Tensor, positive_scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return ``log mean_{i'} exp(c_i' / t)`` over the rows of the same user in the batch, at each row, ``[B]``.

    Args:
        users: internal user ids, int64 ``[B]``.
        positive_scores: c_i, ``[B]``.
        temperature: t > 0.
    """
    distinct, places, counts = torch.unique(users, return_inverse=True, return_counts=True)
    scaled = positive_scores / temperature
    most = scaled.new_full((len(distinct),), -math.inf).scatter_reduce(0, places, scaled.detach(), "amax")
    sums = scaled.new_zeros(len(distinct)).index_add(0, places, (scaled - most[places]).exp())
    return (most + (sums / counts).log())[places]


def bilateral_softmax_loss(
    log_sums: torch.Tensor,
    positive_terms: torch.Tensor,
    hard_scores: torch.Tensor | None,
    *,
    temperatures: tuple[float, float],
    hard_weight: float,
) -> torch.Tensor:
    r"""BSL: ``-log mean_{i'} e^{c_i'/t_1} + (t_2/t_1) log( w e^{c_h/t_2} + sum_m e^{c_m/t_2} )`` of each row, ``[B]``.

    The mean runs over the user's positives in the batch, so that positives far below the others, which may be noise, weigh
    less. Source: Wu et al., "BSL: Understanding and Improving Softmax Loss for Recommendation", ICDE 2024, divided by t_1.
    Departures: as :func:`softmax_loss`; the expectation over a user's positives is taken within the batch.

    Args:
        log_sums: of :func:`log_sum_exp_shared` at t_2, ``[B]``.
        positive_terms: of :func:`mean_exp_of_positives` at t_1, ``[B]``.
        hard_scores: c_h, ``[B]``, or None.
        temperatures: t_1 of positives and t_2 of negatives.
        hard_weight: w >= 0.
    """
    first, second = temperatures
    total, left = _zero_where_empty(_with_hard(log_sums, None if hard_scores is None else hard_scores / second, hard_weight))
    return torch.where(left, second / first * total - positive_terms, 0.0)


def pairwise_softmax_loss(
    log_sums: torch.Tensor,
    positive_scores: torch.Tensor,
    hard_scores: torch.Tensor | None,
    *,
    temperature: float,
    surrogate: Surrogate,
    hard_weight: float,
) -> torch.Tensor:
    r"""PSL: ``log( w s(d_h/2)^{1/t} + sum_m s(d_m/2)^{1/t} )`` of each row, ``d = c - c_i``, ``[B]``.

    Source: Yang et al., "PSL: Rethinking and Improving Softmax Loss from Pairwise Perspective for Recommendation", NeurIPS
    2024. Departures: as :func:`softmax_loss`.

    Args:
        log_sums: of :func:`log_sum_psl_shared`, ``[B]``.
        positive_scores: c_i, ``[B]``.
        hard_scores: c_h, ``[B]``, or None.
        temperature: t > 0.
        surrogate: s.
        hard_weight: w >= 0.
    """
    if hard_scores is not None and hard_weight > 0:
        half = (hard_scores - positive_scores) / 2
        bent = {"relu": half, "tanh": torch.tanh(half), "atan": torch.atan(half)}[surrogate] + 1.0
        # A reach of 0 has no logarithm: its term is 0 and takes no gradient.
        log_reach = torch.where(bent > 0, bent.clamp_min(torch.finfo(bent.dtype).tiny).log() / temperature, -math.inf)
        log_sums = _with_hard(log_sums, log_reach, hard_weight)
    return _zero_where_empty(log_sums)[0]


def top_k_weight(positive_scores: torch.Tensor, thresholds: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return SL@K's weight of a positive, ``sigmoid((c_i - b_u) / t_w)``, ``[B]``: whether it is among the user's first K.

    Args:
        positive_scores: c_i, ``[B]``.
        thresholds: b_u, the K-th largest score of the row's user, ``[B]``.
        temperature: t_w > 0.
    """
    return torch.sigmoid((positive_scores - thresholds) / temperature)


def softmax_at_k_loss(
    log_sums: torch.Tensor,
    positive_scores: torch.Tensor,
    hard_scores: torch.Tensor | None,
    weights: torch.Tensor,
    *,
    temperature: float,
    hard_weight: float,
) -> torch.Tensor:
    r"""SL@K: ``w_ui log( w e^{d_h/t} + sum_m e^{d_m/t} )`` of each row, ``d = c - c_i``, ``[B]``.

    Source: Yang et al., "Breaking the Top-K Barrier: Advancing Top-K Ranking Metrics Optimization in Recommender Systems", KDD
    2025 (arXiv 2508.05673). Departures: as :func:`softmax_loss`. As in the authors' code the positive is not in the sum, and
    the weight takes gradient.

    Args:
        log_sums: of :func:`log_sum_exp_shared` at t, ``[B]``.
        positive_scores: c_i, ``[B]``.
        hard_scores: c_h, ``[B]``, or None.
        weights: of :func:`top_k_weight`, ``[B]``.
        temperature: t > 0.
        hard_weight: w >= 0.
    """
    total = _with_hard(log_sums, None if hard_scores is None else hard_scores / temperature, hard_weight)
    total, left = _zero_where_empty(total)
    return torch.where(left, weights * (total - positive_scores / temperature), 0.0)

r"""InfoNCE of rows against a table by cosine, without the matrix of both that autograd keeps and passes over many times.

Symbols: m rows x of unit length, n rows y of the table, d their dimension, t(a) the table's row that belongs to row a, w_a its
weight, T the temperature, ``s_ab = x_a . y_b / T``.

Formula: ``sum_a w_a (ln sum_b exp(s_ab) - s_a,t(a))``. With ``p_ab = exp(s_ab) / sum_b' exp(s_ab')`` the derivatives are
``dx_a = w_a / T (sum_b p_ab y_b - y_t(a))`` and ``dy_b = sum_a w_a / T (p_ab - [b = t(a)]) x_a``. All of it is computed in the
forward pass for some rows at a time, whose scores stay in the processor's cache; the backward pass scales it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd.function import once_differentiable

__all__ = ["cosine_contrast", "plain_cosine_contrast"]

_BLOCK_NUMBERS = 1 << 20
_LEAST_ROWS = 32
# exp(s) of a cosine is finite up to here, and so is the sum of a row.
_LARGEST_EXPONENT = 60.0


def plain_cosine_contrast(
    rows: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return what :func:`cosine_contrast` returns, by autograd."""
    similarities = F.normalize(rows, dim=1) @ F.normalize(table, dim=1).t() / temperature  # [m, n]
    return (F.cross_entropy(similarities, targets, reduction="none") * weights).sum()


def cosine_contrast(
    rows: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the formula above of rows ``[m, d]`` and a table ``[n, d]`` of any length, a scalar; by blocks on a CPU.

    Args:
        rows: x before they are given unit length.
        table: y likewise.
        targets: t(a), int64 ``[m]``.
        weights: w_a, ``[m]``.
        temperature: T > 0.
    """
    on_cpu = rows.device.type == "cpu" and rows.dtype == table.dtype == torch.float32
    if not on_cpu or torch.is_autocast_enabled("cpu") or 1.0 / temperature > _LARGEST_EXPONENT:
        return plain_cosine_contrast(rows, table, targets, weights, temperature)
    units = F.normalize(rows, dim=1), F.normalize(table, dim=1)
    return cast("torch.Tensor", _Contrast.apply(*units, targets, weights.float(), temperature))  # type: ignore[no-untyped-call]


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them by position
        ctx: Any, rows: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        learns = rows.requires_grad or table.requires_grad
        scaled, columns = rows / temperature, table.t()
        own = table.index_select(0, targets)  # [m, d]
        row_grad, table_grad = torch.empty_like(rows), torch.zeros_like(table)
        sums = torch.empty_like(weights)
        size = min(len(rows), max(_LEAST_ROWS, _BLOCK_NUMBERS // len(table)))
        buffer = rows.new_empty(size, len(table))
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            scores = torch.mm(scaled[part], columns, out=buffer[: len(scaled[part])]).exp_()
            sums[part] = scores.sum(dim=1)
            if learns:
                factors = (weights[part] / sums[part] / temperature)[:, None]
                torch.mm(scores, table, out=row_grad[part]).mul_(factors)
                table_grad.addmm_(scores.t(), rows[part] * factors)
        if learns:
            shares = (weights / temperature)[:, None]
            row_grad.sub_(shares * own)
            table_grad.index_add_(0, targets, shares * rows, alpha=-1.0)
            ctx.save_for_backward(row_grad, table_grad)
        return (weights * (sums.log() - (scaled * own).sum(dim=1))).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        row_grad, table_grad = ctx.saved_tensors
        return row_grad * grad, table_grad * grad, None, None, None

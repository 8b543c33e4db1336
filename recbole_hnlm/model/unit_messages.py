r"""The end of an NGCF layer, ``normalize(dropout(LeakyReLU(x)))`` by rows, in one pass forwards and one backwards.

Symbols: N nodes, d the width of the layer; h the slope times dropout's factor of each entry, so that ``v = h x`` and
``y = v / max(||v||, eps)``. The derivative is ``dx = h (g - y (y . g)) / ||v||``, and ``h g / eps`` for a length below eps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd.function import once_differentiable

from recbole_hnlm.utils.kernels import compiled, run_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["plain_unit_messages", "unit_messages"]

_SLOPE = 0.2
_EPS = 1e-12


def plain_unit_messages(nodes: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Return what :func:`unit_messages` returns, by autograd."""
    return F.normalize(F.dropout(F.leaky_relu(nodes, _SLOPE), rate, training), dim=1)


def unit_messages(nodes: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Return ``normalize(dropout(LeakyReLU(x)))`` of rows ``[N, d]``; dropout draws what torch's would.

    Args:
        nodes: x.
        rate: of dropout, in [0, 1).
        training: whether anything is dropped.
    """
    if nodes.device.type != "cpu" or nodes.dtype != torch.float32 or not nodes.requires_grad:
        return plain_unit_messages(nodes, rate, training)
    return cast("torch.Tensor", _UnitMessages.apply(nodes, rate if training else 0.0))  # type: ignore[no-untyped-call]


@compiled(fastmath={"reassoc", "contract"})
def _forward(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    nodes: NDArray[np.float32],
    factors: NDArray[np.float32],
    keep: np.float32,
    lengths: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Turn the draws in ``factors`` (1 is kept) into h, and write y and the lengths."""
    width = nodes.shape[1]
    slope = np.float32(_SLOPE)
    for row in range(start, stop):
        own, factor, target = nodes[row], factors[row], out[row]
        squares = np.float32(0.0)
        for column in range(width):
            factor[column] = factor[column] / keep * (np.float32(1.0) if own[column] > 0 else slope)
            value = own[column] * factor[column]
            target[column] = value
            squares += value * value
        lengths[row] = max(np.sqrt(squares), np.float32(_EPS))
        for column in range(width):
            target[column] /= lengths[row]


@compiled(fastmath={"reassoc", "contract"})
def _backward(  # noqa: PLR0917
    start: int,
    stop: int,
    units: NDArray[np.float32],
    factors: NDArray[np.float32],
    lengths: NDArray[np.float32],
    grad: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    width = units.shape[1]
    for row in range(start, stop):
        unit, factor, given, target = units[row], factors[row], grad[row], out[row]
        along = np.float32(0.0)
        if lengths[row] > np.float32(_EPS):
            for column in range(width):
                along += unit[column] * given[column]
        for column in range(width):
            target[column] = factor[column] * (given[column] - unit[column] * along) / lengths[row]


class _UnitMessages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: torch.Tensor, rate: float) -> torch.Tensor:
        nodes = nodes.detach().contiguous()
        factors = torch.empty_like(nodes)
        # torch's dropout draws so; its numbers are RecBole's for the same seed.
        factors = factors.bernoulli_(1.0 - rate) if rate else factors.fill_(1.0)
        out, lengths = torch.empty_like(nodes), nodes.new_empty(len(nodes))
        arrays = (nodes.numpy(), factors.numpy(), np.float32(1.0 - rate), lengths.numpy(), out.numpy())
        run_rows(_forward, len(nodes), *arrays)
        ctx.save_for_backward(out, factors, lengths)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        out, factors, lengths = ctx.saved_tensors
        result, grad = torch.empty_like(out), grad.contiguous()
        run_rows(_backward, len(out), out.numpy(), factors.numpy(), lengths.numpy(), grad.numpy(), result.numpy())
        return result, None

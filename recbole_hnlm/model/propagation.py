"""LightGCN's propagation over the user-item graph, as a symmetric sparse matrix in compressed rows.

Symbols: U users and I items including the padding id 0, N = U + I nodes (users first), L layers, d the embedding size.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_hnlm.utils.kernels import compiled, run_pieces
from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SymmetricAdjacency", "normalized_adjacency", "propagate_hops", "propagate_mean", "propagate_once"]

_PIECES = 16


@compiled(fastmath=True)
def _multiply_add(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    start: int,
    stop: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    dense: NDArray[np.float32],
    base: NDArray[np.float32],
    scale: np.float32,
    out: NDArray[np.float32],
) -> None:
    """Write rows ``start..stop`` of ``scale * (base + A @ dense)``."""
    width = dense.shape[1]
    for row in range(start, stop):
        target, origin = out[row], base[row]
        for column in range(width):
            target[column] = origin[column]
        for place in range(indptr[row], indptr[row + 1]):
            source, value = dense[indices[place]], values[place]
            for column in range(width):
                target[column] += value * source[column]
        for column in range(width):
            target[column] *= scale


@dataclass
class SymmetricAdjacency:
    """The normalised adjacency ``D^-1/2 A D^-1/2`` in compressed sparse rows.

    Deliberately no tensor buffer of a module: it is a function of the data, so it is neither saved nor broadcast.

    Attributes:
        n_users: U.
        n_items: I.
        indptr: int64 ``[N + 1]``.
        indices: int32 ``[nnz]``, ascending within a row.
        values: float32 ``[nnz]``.
        device_matrix: the same matrix as a torch CSR tensor on an accelerator; None on the CPU.
    """

    n_users: int
    n_items: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    device_matrix: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> SymmetricAdjacency:
        """Return the matrix for use on a device; compiled loops serve the CPU, torch's CSR product everything else."""
        if torch.device(device).type == "cpu":
            return self
        matrix = self.as_torch().to(device)
        return SymmetricAdjacency(self.n_users, self.n_items, self.indptr, self.indices, self.values, matrix)

    def as_torch(self) -> torch.Tensor:
        """Return the matrix as torch's CSR tensor, float32 ``[N, N]``, on the CPU."""
        nodes = self.n_users + self.n_items
        # 32-bit row pointers where they fit: cuSPARSE then reads half the index bytes.
        wide = np.int64 if len(self.indices) >= 2**31 else np.int32
        pointers, columns = torch.from_numpy(self.indptr.astype(wide)), torch.from_numpy(self.indices.astype(wide))
        values = torch.from_numpy(self.values)
        with warnings.catch_warnings():
            # Torch announces that its CSR interface may still change; the two calls used here are covered by tests.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(pointers, columns, values, size=(nodes, nodes), check_invariants=False)

    def multiply_add(self, dense: torch.Tensor, base: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Return ``scale * (base + A @ dense)`` without a graph of gradients.

        Args:
            dense: float32 ``[N, d]``.
            base: float32 ``[N, d]``.
            scale: a factor.
        """
        if self.device_matrix is not None:
            return torch.addmm(base, self.device_matrix, dense, beta=scale, alpha=scale)
        out = torch.empty_like(base)
        arrays = (self.indptr, self.indices, self.values, dense.numpy(), base.numpy(), np.float32(scale), out.numpy())
        run_pieces(lambda start, stop: _multiply_add(start, stop, *arrays), self._bounds)
        return out

    @property
    def _bounds(self) -> list[int]:
        """Row boundaries of pieces with about as many non-zeros each; popular items make even splits very uneven."""
        targets = np.linspace(0, self.indptr[-1], _PIECES + 1)
        bounds = np.unique(np.searchsorted(self.indptr, targets, side="left"))
        bounds[0], bounds[-1] = 0, len(self.indptr) - 1
        return bounds.tolist()


def normalized_adjacency(users: NDArray[np.int64], items: NDArray[np.int64], n_users: int, n_items: int) -> SymmetricAdjacency:
    """Build ``D^-1/2 A D^-1/2`` of the bipartite graph, repeated interactions counted once.

    Source: He et al., "LightGCN", SIGIR 2020, section 3.1.2, formula 7-8. As in RecBole, a degree is raised by 1e-7, so that
    a node without an edge has a finite factor; values equal those of RecBole's ``get_norm_adj_mat``.

    Args:
        users: internal user ids of the interactions, ``[P]``.
        items: internal item ids of the interactions, ``[P]``.
        n_users: U.
        n_items: I.
    """
    by_user = pair_matrix(users, items, (n_users, n_items))
    by_item = by_user.T.tocsr()
    degrees = np.concatenate([np.diff(by_user.indptr), np.diff(by_item.indptr)])  # [N]
    factors = np.power(degrees + 1e-7, -0.5)  # [N]
    indptr = np.concatenate([by_user.indptr, by_item.indptr[1:].astype(np.int64) + by_user.nnz])
    indices = np.concatenate([by_user.indices + np.int32(n_users), by_item.indices]).astype(np.int32)
    values = (np.repeat(factors, degrees) * factors[indices]).astype(np.float32)
    return SymmetricAdjacency(n_users, n_items, indptr.astype(np.int64), indices, values)


def _mean_of_powers(adjacency: SymmetricAdjacency, dense: torch.Tensor, n_layers: int) -> torch.Tensor:
    """Return ``1/(L+1) * (E + A E + ... + A^L E)`` by Horner's rule, which needs no layer kept: E + A (E + A (E + ...))."""
    scale, out = 1.0 / (n_layers + 1), dense
    for layer in range(n_layers):
        out = adjacency.multiply_add(out, dense, scale if layer == n_layers - 1 else 1.0)
    return out


class _PropagateMean(torch.autograd.Function):
    """The mean of powers of A is symmetric as A is, so the gradient is the same product applied to the gradient."""

    @staticmethod
    def forward(
        ctx: Any, user_ego: torch.Tensor, item_ego: torch.Tensor, adjacency: SymmetricAdjacency, n_layers: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.adjacency, ctx.n_layers = adjacency, n_layers
        nodes = _mean_of_powers(adjacency, torch.cat([user_ego.detach(), item_ego.detach()]), n_layers)
        return nodes[: adjacency.n_users], nodes[adjacency.n_users :]

    @staticmethod
    def backward(ctx: Any, user_grad: torch.Tensor, item_grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        nodes = _mean_of_powers(ctx.adjacency, torch.cat([user_grad, item_grad]), ctx.n_layers)
        return nodes[: ctx.adjacency.n_users], nodes[ctx.adjacency.n_users :], None, None


def propagate_mean(
    adjacency: SymmetricAdjacency, user_ego: torch.Tensor, item_ego: torch.Tensor, n_layers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Propagate ego embeddings over L layers and average the layers, with gradients.

    Formula: ``E_out = 1/(L+1) * sum_{l=0..L} (D^-1/2 A D^-1/2)^l E``. Source: LightGCN (SIGIR 2020), formulas 4, 7 and 8.

    Args:
        adjacency: of U users and I items, on the embeddings' device.
        user_ego: float32 ``[U, d]``.
        item_ego: float32 ``[I, d]``.
        n_layers: L.

    Returns:
        Users' and items' embeddings, float32 ``[U, d]`` and ``[I, d]``.
    """
    if n_layers == 0:
        return user_ego, item_ego
    # Mixed precision has no sparse product, and rounding would accumulate over layers.
    with torch.autocast(device_type=user_ego.device.type, enabled=False):
        return _PropagateMean.apply(  # type: ignore[no-untyped-call]
            user_ego.float(), item_ego.float(), adjacency, n_layers
        )


class _PropagateOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: torch.Tensor, adjacency: SymmetricAdjacency) -> torch.Tensor:
        ctx.adjacency = adjacency
        return adjacency.multiply_add(nodes.detach().contiguous(), torch.zeros_like(nodes))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.adjacency.multiply_add(grad.contiguous(), torch.zeros_like(grad)), None


def propagate_once(adjacency: SymmetricAdjacency, nodes: torch.Tensor) -> torch.Tensor:
    """Return ``D^-1/2 A D^-1/2 @ nodes`` with gradient, float32 ``[N, d]``; users' rows come before items'."""
    with torch.autocast(device_type=nodes.device.type, enabled=False):
        return _PropagateOnce.apply(nodes.float(), adjacency)  # type: ignore[no-untyped-call]


class _PropagateHops(torch.autograd.Function):
    """Layers 1 to L. A is symmetric, so that the gradients of the layers go back by Horner's rule: A (G_1 + A (G_2 + ...))."""

    @staticmethod
    def forward(
        ctx: Any, user_ego: torch.Tensor, item_ego: torch.Tensor, adjacency: SymmetricAdjacency, n_layers: int
    ) -> tuple[torch.Tensor, ...]:
        ctx.adjacency = adjacency
        nodes = torch.cat([user_ego.detach(), item_ego.detach()])
        nothing, layers = torch.zeros_like(nodes), []
        for _ in range(n_layers):
            nodes = adjacency.multiply_add(nodes, nothing)
            layers += [nodes[: adjacency.n_users], nodes[adjacency.n_users :]]
        return tuple(layers)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        of_layers = [torch.cat(grads[place : place + 2]) for place in range(0, len(grads), 2)]
        nodes = of_layers.pop()
        while of_layers:
            nodes = ctx.adjacency.multiply_add(nodes, of_layers.pop())
        nodes = ctx.adjacency.multiply_add(nodes, torch.zeros_like(nodes))
        return nodes[: ctx.adjacency.n_users], nodes[ctx.adjacency.n_users :], None, None


def propagate_hops(
    adjacency: SymmetricAdjacency, user_ego: torch.Tensor, item_ego: torch.Tensor, n_layers: int
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Propagate ego embeddings over L layers and return every layer, with gradients.

    Formula: ``E_l = (D^-1/2 A D^-1/2)^l E``. Source: LightGCN (SIGIR 2020), formula 7.

    Args:
        adjacency: of U users and I items, on the embeddings' device.
        user_ego: float32 ``[U, d]``.
        item_ego: float32 ``[I, d]``.
        n_layers: L.

    Returns:
        Layers 0 to L of users, float32 ``[U, d]`` each, and of items, float32 ``[I, d]`` each; layer 0 are the arguments.
    """
    if n_layers == 0:
        return (user_ego,), (item_ego,)
    with torch.autocast(device_type=user_ego.device.type, enabled=False):
        layers = _PropagateHops.apply(  # type: ignore[no-untyped-call]
            user_ego.float(), item_ego.float(), adjacency, n_layers
        )
    return (user_ego, *layers[0::2]), (item_ego, *layers[1::2])

"""The graphs of RecBole's own models on every SciPy.

RecBole 1.2.1 fills a sparse matrix by ``dok_matrix._update``, which SciPy removed in version 1.13. Where it is gone, a model is
built from a subclass whose graph comes from the same matrix by the same products, so that every value and its place are
RecBole's. Nothing of RecBole is changed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adjacency_matrix", "laplacian_matrix", "on_current_scipy", "with_own_graph"]

_REMOVED = "_update"


def _edges(model: Any) -> sp.csr_matrix:
    """Return the user-item graph of a model of RecBole's, float32 ``[U + I, U + I]``, users first, repeated edges once."""
    pairs = model.interaction_matrix
    by_user = pair_matrix(pairs.row, pairs.col, (model.n_users, model.n_items))
    return sp.bmat([[None, by_user], [by_user.T, None]], format="csr")


def _powered_degrees(edges: sp.csr_matrix, exponent: float) -> sp.dia_matrix:
    # Raised a little, as in RecBole, for nodes without an edge.
    return sp.diags(np.power(np.diff(edges.indptr) + 1e-7, exponent))


def _as_tensor(matrix: Any) -> torch.Tensor:
    entries = sp.coo_matrix(matrix)
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    return torch.sparse_coo_tensor(places, torch.from_numpy(entries.data).float(), entries.shape, check_invariants=False)


def adjacency_matrix(model: Any) -> torch.Tensor:
    """Return ``D^-1/2 A D^-1/2``, sparse float32 ``[U + I, U + I]``: the ``get_norm_adj_mat`` of LightGCN, NGCF, NCL and GCMC.

    Args:
        model: one of RecBole's, which has set ``interaction_matrix`` (COO ``[U, I]``), ``n_users`` and ``n_items``.
    """
    edges = _edges(model)
    factors = _powered_degrees(edges, -0.5)
    return _as_tensor(factors @ edges @ factors)


def laplacian_matrix(model: Any) -> torch.Tensor:
    """Return ``I - D^-1 A``, sparse float32 ``[U + I, U + I]``: the ``get_laplacian_matrix`` of SpectralCF; see above."""
    edges = _edges(model)
    return model.get_eye_mat(model.n_users + model.n_items) - _as_tensor(_powered_degrees(edges, -1) @ edges)


_GRAPHS: dict[str, Callable[[Any], torch.Tensor]] = {
    "get_norm_adj_mat": adjacency_matrix,
    "get_laplacian_matrix": laplacian_matrix,
}


@cache
def with_own_graph(model_class: type[Any]) -> type[Any]:
    """Return a subclass of the same name without the removed call, or the class itself if its graph does not make it."""
    methods = {name: getattr(getattr(model_class, name, None), "__code__", None) for name in _GRAPHS}
    ours = {name: _GRAPHS[name] for name, code in methods.items() if code is not None and _REMOVED in code.co_names}
    names = {"__doc__": model_class.__doc__, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), {**names, **ours}) if ours else model_class


def on_current_scipy(model_class: Any) -> Any:
    """Return the class to build: RecBole's own where SciPy still has what it calls, else :func:`with_own_graph`."""
    return model_class if hasattr(sp.dok_matrix, _REMOVED) else with_own_graph(model_class)

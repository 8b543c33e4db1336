r"""DTL: MixGCF that prefers candidates near the positive in two trees of items, one of who interacted and one of texts.

Formulas: for a pair (u, i) with candidates j the layer l takes

.. math:: \arg\max_j \; \text{minmax}_j(q_u(l) \cdot e_j(l)) + \alpha_{co} S_{co}(i, j) + \alpha_{te} S_{te}(i, j),

minmax scaling a user's candidates to [0, 1] and ``S(i, j)`` the length of the common beginning of the paths of i and j in a
tree, relative to the shorter path; what is chosen is mixed as in :mod:`recbole_hnlm.negative_sampler.mixgcf`. A tree
splits items by k-means into 4, as long as a node has more than 30; no part may exceed 1.6 times the mean. The first tree is of
Laplacian eigenmaps (32 dimensions) of the items' Jaccard similarity over training users, the second of the items' text vectors
(``alignment_source``).

Source: DTL-NS (arXiv 2602.18249); formulas and constants were read from the public repository w158937299/DTL-NS. Its LLM adds
interactions to the training data by a step that knows the test set (docs/method.md); nothing of that is here. The mixed scores
there have the share of the positive in them, which minmax takes out again. Departures: a part that is too large gives away the
items farthest from its centre, there the last ones; 8 candidates by default (``num_candidates``), there 10; items without text
have no path and no similarity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans

from recbole_hnlm.negative_sampler.base import NegativeSampler, Selector
from recbole_hnlm.negative_sampler.dns import candidate_scores
from recbole_hnlm.negative_sampler.mixgcf import layer_queries, mixed_negatives
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from recbole_hnlm.negative_sampler.base import Negatives, SamplerContext, SelectionInputs

__all__ = ["SAMPLER", "common_share", "eigenmaps", "jaccard", "min_max", "tree_paths"]

_WAYS, _LEAF, _LARGEST, _DIMENSIONS = 4, 30, 1.6, 32


def jaccard(history: sp.csr_matrix) -> sp.csr_matrix:
    """Return ``|users of both| / |users of either|`` of each two different items with a user in common, sparse ``[I, I]``.

    Args:
        history: one where the user has the item, ``[U, I]``.
    """
    both = (history.T @ history).tocoo()
    counts = np.asarray(history.sum(axis=0)).ravel()
    apart = both.row != both.col
    row, col, shared = both.row[apart], both.col[apart], both.data[apart]
    return sp.csr_matrix((shared / (counts[row] + counts[col] - shared), (row, col)), shape=both.shape)


def eigenmaps(similarity: sp.csr_matrix, dimensions: int) -> NDArray[np.float64]:
    """Return the eigenvectors 2, 3, ... of the normalised Laplacian ``I - D^-1/2 S D^-1/2``, the smoothest first, ``[I, d]``.

    Args:
        similarity: S, symmetric, ``[I, I]``.
        dimensions: d at most; fewer where there are no more than d items.
    """
    degree = np.asarray(similarity.sum(axis=1)).ravel()
    scale = sp.diags(1 / np.sqrt(np.where(degree > 0, degree, 1.0)))
    count = min(dimensions + 1, similarity.shape[0] - 1)
    # The Laplacian's smallest eigenvalues are the largest of what it takes away from I.
    _, vectors = eigsh((scale @ similarity @ scale).astype(np.float64), k=count, which="LA", v0=np.ones(len(degree)))
    return vectors[:, ::-1][:, 1:]


def tree_paths(vectors: NDArray[np.floating[Any]], rows: NDArray[np.int64], leaf: int = _LEAF) -> NDArray[np.int8]:
    """Return the way from the root to the leaf of each row in a tree of balanced k-means.

    Args:
        vectors: ``[I, D]``.
        rows: which of them are in the tree, ``[n]``.
        leaf: a node with more rows than this is split.

    Returns:
        Branches 0 to 3, and -1 after the leaf and for rows outside the tree, ``[I, depth]``.
    """
    levels: list[NDArray[np.int8]] = []
    open_nodes = [rows]
    while any(len(node) > leaf for node in open_nodes):
        branches = np.full(len(vectors), -1, dtype=np.int8)
        parts: list[NDArray[np.int64]] = []
        for node in open_nodes:
            if len(node) > leaf:
                branch = _split(np.asarray(vectors[node], dtype=np.float64))
                branches[node] = branch
                parts += [node[branch == way] for way in range(_WAYS)]
        levels.append(branches)
        open_nodes = parts
    return np.stack(levels, axis=1) if levels else np.empty((len(vectors), 0), dtype=np.int8)


def _split(vectors: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return a branch for each of more rows than branches, no branch with more than ``_LARGEST`` times the mean."""
    vectors = vectors + 1e-9 * np.random.default_rng(0).normal(size=vectors.shape)  # equal rows can be told apart
    distances = KMeans(_WAYS, n_init=1, random_state=0).fit(vectors).transform(vectors)  # [n, 4]
    branch = distances.argmin(axis=1)
    largest = max(1, int(_LARGEST * len(vectors) / _WAYS))
    for way in range(_WAYS):
        own = np.flatnonzero(branch == way)
        for row in own[np.argsort(-distances[own, way], kind="stable")][: max(0, len(own) - largest)]:
            branch[row] = np.bincount(branch, minlength=_WAYS).argmin()
    return branch.astype(np.int8)


def common_share(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the length of the common beginning of paths, relative to the shorter one; 0 where one is empty.

    Args:
        first: padded by -1 at the end, ``[B, 1, depth]``.
        second: likewise, ``[B, K, depth]``.

    Returns:
        float32 ``[B, K]``, in [0, 1].
    """
    common = ((first == second) & (first >= 0)).cumprod(dim=2).sum(dim=2)
    shorter = torch.minimum((first >= 0).sum(dim=2), (second >= 0).sum(dim=2))
    return common / shorter.clamp_min(1)


def min_max(scores: torch.Tensor) -> torch.Tensor:
    """Scale each row ``[B, K]`` to [0, 1]; a row of equal values becomes 0."""
    low, high = scores.aminmax(dim=1, keepdim=True)
    return (scores - low) / (high - low).clamp_min(torch.finfo(scores.dtype).tiny)


class DTL(Selector):
    """Holds the paths of items in both trees."""

    def __init__(self, context: SamplerContext) -> None:
        """Build the trees; without text vectors, choosing fails and everything else works."""
        super().__init__()
        settings, training = context.settings, context.training()
        self._weights = (settings.dtl_structure_weight, settings.dtl_text_weight)
        # In a list, so that the module neither saves nor broadcasts what follows from the data.
        self._paths: list[torch.Tensor] = []
        if context.texts is None:
            return
        history = pair_matrix(training.users, training.items, (context.n_users, context.n_items))
        met = np.unique(training.items)
        texts = np.flatnonzero(context.texts.item_mask.cpu().numpy())
        trees = (
            tree_paths(eigenmaps(jaccard(history), _DIMENSIONS), met),
            tree_paths(context.texts.item_vectors.cpu().numpy(), texts),
        )
        self._paths = [torch.from_numpy(paths).to(context.device) for paths in trees]

    def select(self, inputs: SelectionInputs) -> Negatives:
        """Choose a candidate of each layer for every positive, and mix the layers.

        Raises:
            ArtifactError: the model was built without text vectors.
        """
        if not self._paths:
            raise ArtifactError("negative_sampler dtl has no text vectors; build them, or use mixgcf")
        users, candidates = inputs.users, inputs.candidates
        near = sum(
            weight * common_share(paths[inputs.positives][:, None], paths[candidates])
            for weight, paths in zip(self._weights, self._paths, strict=True)
        )
        chosen = []
        for query, layer in layer_queries(inputs.propagated):
            place = (min_max(candidate_scores(users, candidates, query, layer)) + near).argmax(dim=1, keepdim=True)
            chosen.append(candidates.gather(1, place).squeeze(1))
        return mixed_negatives(inputs, chosen)


SAMPLER = NegativeSampler(DTL, least_candidates=2, reads_text=True, reads_hops=True)

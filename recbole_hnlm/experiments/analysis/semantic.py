"""Where the LLM's hard negatives lie: among the real items, among the held-out positives, and beside the embeddings.

Symbols: n pairs of a user and a training item that have a vector z_ui, H its dimension, I items including the padding id 0, S
nearest items.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from scipy.stats import rankdata

from recbole_hnlm.data.nearest import nearest_items
from recbole_hnlm.evaluator.vectors import COSINE_EDGES, described, histogram, row_cosines
from recbole_hnlm.model.building import build_model
from recbole_hnlm.semantics.attach import stage_context_of
from recbole_hnlm.semantics.stores import open_pair_stores
from recbole_hnlm.stages.encode import vectors_by_id
from recbole_hnlm.utils.pairs import PairSet, pair_matrix, pairs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.config import Config
    from recbole_hnlm.data.loading import LoadedData
    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["NEAREST", "SampledPairs", "sampled_pairs", "semantic_negatives", "semantic_shift"]

NEAREST = (1, 10, 100)
"""S: how many of the nearest real items are looked at."""

_TOP = (10, 50, 100)
_PAIRS = 2000
_SEED = 0
_ROWS = 256  # pairs whose users are scored at once


@dataclass(frozen=True)
class SampledPairs:
    """Training pairs with a semantic negative, at most 2,000, and what their vectors are compared with.

    Attributes:
        users: internal ids, int64 ``[n]``.
        positives: internal ids, int64 ``[n]``.
        vectors: z_ui, float32 ``[n, H]``.
        item_vectors: of the real items in the same space, ``[I, H]``.
        item_mask: items that have one, bool ``[I]``.
        total: training pairs with a vector, from which these are drawn.
        config: the run's configuration.
        data: its data.
        training: its training split.
    """

    users: NDArray[np.int64]
    positives: NDArray[np.int64]
    vectors: NDArray[np.float32]
    item_vectors: NDArray[np.floating[Any]]
    item_mask: NDArray[np.bool_]
    total: int
    config: Config
    data: LoadedData
    training: TrainingInteractions

    @cached_property
    def nearest(self) -> NDArray[np.int32]:
        """Real items nearest to z_ui that are new to the user, ``[n, 100]``; 0 where there are no more."""
        return nearest_items(self.vectors, self.users, self.item_vectors, self.item_mask, self.training, max(NEAREST))

    @cached_property
    def random_items(self) -> NDArray[np.int64]:
        """For comparison: an item with a vector that is new to the user, drawn uniformly, ``[n]``; 0 where there is none."""
        generator = np.random.default_rng(_SEED)
        known = np.flatnonzero(self.item_mask)
        free = [np.setdiff1d(known, self.training.history_of(int(user))) for user in self.users]
        return np.array([generator.choice(items) if len(items) else 0 for items in free], dtype=np.int64)


def sampled_pairs(
    config: Config, data: LoadedData, training: TrainingInteractions, encoder: TextEncoder | None = None
) -> SampledPairs:
    """Open the stores of a run's hard negatives and draw pairs.

    Raises:
        ArtifactError: the run used none, or their stores are not there.
    """
    context = stage_context_of(config, data.train._dataset)
    pairs, items = open_pair_stores(context, encoder=encoder)
    rows = pairs.rows_of_pairs(training.user_tokens, training.item_tokens, training.users, training.items)
    known = np.flatnonzero(rows >= 0)
    drawn = np.sort(np.random.default_rng(_SEED).permutation(known)[:_PAIRS])
    item_vectors, item_mask = vectors_by_id(items, training.item_tokens)
    if item_vectors is None or item_mask is None:
        raise ValueError("the items' vectors are needed")
    vectors = pairs.vectors[rows[drawn]].astype(np.float32)
    return SampledPairs(
        training.users[drawn], training.items[drawn], vectors, item_vectors, item_mask, len(known), config, data, training
    )


def semantic_negatives(sample: SampledPairs, model: Any | None) -> dict[str, Any]:
    """Say what the real items nearest to z_ui are: items that the user goes on to choose, or that the model ranks high.

    Args:
        sample: of :func:`sampled_pairs`.
        model: the trained model; None leaves the ranks out.

    Returns:
        See docs/analysis.md.
    """
    held_out = _held_out(sample)
    items = np.column_stack([sample.nearest, sample.random_items]).astype(np.int64)  # [n, 101]
    ranks = None if model is None else _ranks(sample, model, items)

    def placed(columns: slice) -> dict[str, Any]:
        return _placed(sample.users, items[:, columns], held_out, None if ranks is None else ranks[:, columns])

    return {
        "pairs": len(sample.users),
        "pairs_with_vector": sample.total,
        "training_pairs": len(sample.training),
        "items": sample.training.n_items - 1,
        "nearest": {str(count): placed(slice(count)) for count in NEAREST},
        "random": placed(slice(-1, None)),
    }


def _held_out(sample: SampledPairs) -> PairSet:
    splits = (sample.data.valid._dataset, sample.data.test._dataset)
    users, items = (torch.cat(side) for side in zip(*map(pairs_of, splits), strict=True))
    return PairSet(users, items, sample.training.n_items)


def _placed(
    users: NDArray[np.int64], items: NDArray[np.int64], held_out: PairSet, ranks: NDArray[np.float64] | None
) -> dict[str, Any]:
    """Describe items ``[n, S]`` of the pairs' users ``[n]`` and their ranks ``[n, S]``; 0 is no item."""
    there = items > 0
    liked = held_out.contains(torch.from_numpy(users)[:, None], torch.from_numpy(items)).numpy() & there
    found: dict[str, Any] = {"held_out_share": float(liked.sum() / max(there.sum(), 1)), "model_rank": None, "model_top": None}
    if ranks is not None:
        own = ranks[there]
        found["model_rank"] = described(own)
        found["model_top"] = {str(k): float((own <= k).mean()) if len(own) else None for k in _TOP}
    return found


@torch.no_grad()
def _ranks(sample: SampledPairs, model: Any, items: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the trained model's rank of items ``[n, S]`` among all that are new to the user, from 1; ties share theirs."""
    dataset = sample.data.train._dataset
    owned = pair_matrix(sample.training.users, sample.training.items, (sample.training.n_users, sample.training.n_items))
    found = np.zeros(items.shape)
    model.eval()
    for start in range(0, len(items), _ROWS):
        block = slice(start, start + _ROWS)
        users = sample.users[block]
        asked = dataset.join(Interaction({dataset.uid_field: torch.from_numpy(users)})).to(sample.config["device"])
        scores = model.full_sort_predict(asked).view(len(users), -1).float().cpu().numpy().copy()
        scores[:, 0] = -np.inf
        scores[owned[users].nonzero()] = -np.inf
        found[block] = np.take_along_axis(rankdata(-scores, axis=1), items[block], axis=1)
    return found


def semantic_shift(sample: SampledPairs, model: Any | None) -> dict[str, Any]:
    """Return distributions of cosines in the LLM's space and, with a trained model, in the space of its embeddings.

    Args:
        sample: of :func:`sampled_pairs`.
        model: the trained model; None leaves its space out.

    Returns:
        ``edges`` of the histograms and ``distributions`` by name; see docs/analysis.md.
    """
    z, vectors = sample.vectors, sample.item_vectors
    has_positive, has_random = sample.item_mask[sample.positives], sample.random_items > 0
    near = sample.nearest[:, 0]
    cosines = {
        "negative_positive": row_cosines(z[has_positive], vectors[sample.positives[has_positive]]),
        "negative_nearest": row_cosines(z[near > 0], vectors[near[near > 0]]),
        "negative_random": row_cosines(z[has_random], vectors[sample.random_items[has_random]]),
    }
    if model is not None and str(z.shape[1]) in getattr(model, "projectors", {}):
        start = build_model(sample.config, sample.data.train)
        start.projectors.grow([z.shape[1]])
        for when, each in (("before", start), ("after", model)):
            cosines |= {f"{name}_{when}": found for name, found in _in_space_of(each, sample).items()}
    return {
        "edges": [float(edge) for edge in COSINE_EDGES],
        "distributions": {name: {**described(found), "shares": histogram(found)} for name, found in cosines.items()},
    }


@torch.no_grad()
def _in_space_of(model: Any, sample: SampledPairs) -> dict[str, NDArray[np.float64]]:
    """Cosines between h_ui = f(z_ui), the positive e_i and the user e_u, float64 ``[n]`` each."""
    model.eval()
    user_all, item_all = model.propagate_for_scoring()
    h = model.projectors(torch.from_numpy(sample.vectors).to(user_all.device)).cpu().numpy()
    e_u = user_all[torch.from_numpy(sample.users)].cpu().numpy()
    e_i = item_all[torch.from_numpy(sample.positives)].cpu().numpy()
    return {
        "projected_positive": row_cosines(h, e_i),
        "projected_user": row_cosines(h, e_u),
        "user_positive": row_cosines(e_u, e_i),
    }

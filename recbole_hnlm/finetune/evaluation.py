"""How well z_ui finds the teacher's hard negatives of users that fine-tuning never saw, among all items.

Symbols: N held-out users with one pair each, I items including the padding id 0, H the dimension of the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.finetune.inference import encode_items, encode_pairs, order_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.teacher import Teacher
    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.finetune.encoder import HardNegativeEncoder
    from recbole_hnlm.finetune.prompting import PairPrompts
    from recbole_hnlm.finetune.texts import FinetuneTexts
    from recbole_hnlm.finetune.triples import TripleDataset

__all__ = [
    "HeldOut",
    "baselines",
    "choose_heldout_users",
    "evaluate_encoder",
    "heldout_triples",
    "ranking_metrics",
    "target_ranks",
]


def choose_heldout_users(
    training: TrainingInteractions, count: int, seed: int, *, finetuned_here: bool = True
) -> NDArray[np.int64]:
    """Choose users with training interactions to keep out of fine-tuning: ``count``, at most a tenth of all; sorted ids.

    Where nothing is fine-tuned on the dataset, all of its users may be chosen.
    """
    active = np.unique(training.users)
    size = min(count, len(active) // 10 if finetuned_here else len(active))
    return np.sort(np.random.default_rng([seed, 0x4E4C]).choice(active, size=size, replace=False))


@dataclass(frozen=True)
class HeldOut:
    """One triple of each held-out user.

    Attributes:
        users: int64 ``[N]``, ascending.
        items: interacted item, int64 ``[N]``.
        targets: the teacher's hard negative, int64 ``[N]``.
        excluded: items that do not take part in a user's ranking, bool ``[N, I]``: the padding id, items that may not be drawn
            and the user's training items.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    targets: NDArray[np.int64]
    excluded: NDArray[np.bool_]


def heldout_triples(dataset: TripleDataset, training: TrainingInteractions, item_mask: NDArray[np.bool_], seed: int) -> HeldOut:
    """Draw one triple of each user of a dataset that holds the held-out users' rows."""
    users, items, targets = dataset.arrays(np.random.default_rng([seed, 0x4E4D]).permutation(len(dataset)))
    distinct, first = np.unique(users, return_index=True)
    excluded = np.tile(~item_mask, (len(distinct), 1))
    for row, user in enumerate(distinct):
        excluded[row, training.history_of(int(user))] = True
    return HeldOut(distinct, items[first], targets[first], excluded)


def target_ranks(
    scores: NDArray[np.floating[Any]], targets: NDArray[np.int64], excluded: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Rank the target of each row among the items that take part, from 0; items of equal score share their mean rank.

    Args:
        scores: ``[N, I]``, higher is better.
        targets: ``[N]``; never excluded.
        excluded: bool ``[N, I]``.
    """
    rows = np.arange(len(targets))
    own = scores[rows, targets][:, None]
    taking_part = ~excluded
    better = ((scores > own) & taking_part).sum(axis=1)
    equal = ((scores == own) & taking_part).sum(axis=1) - 1
    return better + equal / 2


def ranking_metrics(ranks: NDArray[np.float64]) -> dict[str, float]:
    """Return recall@10, recall@50 and the mean reciprocal rank of ranks from 0."""
    return {
        "recall@10": float((ranks < 10).mean()),
        "recall@50": float((ranks < 50).mean()),
        "mrr": float((1 / (ranks + 1)).mean()),
    }


def baselines(heldout: HeldOut, training: TrainingInteractions, teacher: Teacher, seed: int) -> dict[str, dict[str, float]]:
    """Return the metrics of ranking at random (expected values), by popularity, and by the teacher itself."""
    popularity = np.bincount(training.items, minlength=training.n_items).astype(np.float64)
    generator, shape = np.random.default_rng([seed, 0x4E4E]), heldout.excluded.shape
    # One draw at a time: all of them together would take gigabytes on a large catalogue.
    random = [ranking_metrics(target_ranks(generator.random(shape), heldout.targets, heldout.excluded)) for _ in range(100)]
    by_popularity = np.tile(popularity, (len(heldout.users), 1))
    return {
        "random": {name: float(np.mean([metrics[name] for metrics in random])) for name in random[0]},
        "popularity": ranking_metrics(target_ranks(by_popularity, heldout.targets, heldout.excluded)),
        "teacher": ranking_metrics(target_ranks(teacher.scores(heldout.users), heldout.targets, heldout.excluded)),
    }


def evaluate_encoder(
    encoder: HardNegativeEncoder, prompts: PairPrompts, texts: FinetuneTexts, heldout: HeldOut, budget: int
) -> dict[str, float]:
    """Rank all items by the cosine of their representation to z_ui.

    Returns:
        recall@10, recall@50 and mrr of the teacher's hard negatives, and the mean cosine of z_ui to the hard negative
        (``cos_pos``) and to the interacted item (``cos_neg``).
    """
    training_mode = encoder.training
    shown = np.flatnonzero(~heldout.excluded.all(axis=0))
    needed = np.union1d(shown, np.union1d(heldout.items, heldout.targets))
    vectors = np.zeros((heldout.excluded.shape[1], encoder.dim), dtype=np.float32)
    vectors[needed] = encode_items(encoder, prompts, texts, needed.tolist(), budget)
    pairs = order_pairs(prompts, texts, heldout.users, heldout.items)
    encoded = np.concatenate(list(encode_pairs(encoder, prompts, texts, pairs, budget)))
    queries = np.empty_like(encoded)
    queries[np.searchsorted(heldout.users, pairs.users)] = encoded
    encoder.train(training_mode)
    rows = np.arange(len(queries))
    scores = queries @ vectors.T  # [N, I]
    return {
        **ranking_metrics(target_ranks(scores, heldout.targets, heldout.excluded)),
        "cos_pos": float(scores[rows, heldout.targets].mean()),
        "cos_neg": float(scores[rows, heldout.items].mean()),
    }

"""Do the fine-tuned LLM, or the items' texts, know something of a user's taste that the teacher does not?

This looks ahead of any training on their vectors, because training can pass on only what z_ui holds. Where adding a
source's scores to the teacher's ranks a user's validation items no better than the teacher alone, training has little to gain.

Validation interactions are read here to measure, and nowhere else on the LLM's side: nothing that is fine-tuned or trained sees
them.

Symbols: N held-out users, I items including the padding id 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_hnlm.evaluator.statistics import paired_test
from recbole_hnlm.finetune.inference import encode_items, encode_pairs, order_pairs
from recbole_hnlm.model.text_scorer import TextScorer
from recbole_hnlm.utils.scores import standardise_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.finetune.encoder import HardNegativeEncoder
    from recbole_hnlm.finetune.evaluation import HeldOut
    from recbole_hnlm.finetune.prompting import PairPrompts
    from recbole_hnlm.finetune.run import FinetunedLLM
    from recbole_hnlm.finetune.texts import FinetuneTexts

__all__ = [
    "added_value",
    "llm_scores",
    "measure_added_value",
    "ndcg_per_user",
    "pairs_per_user",
]

_PAIRS = 10  # per user at most; their vectors are averaged
_TOP = 20
# Weights of a source's standardised scores, added to the teacher's.
_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)


def pairs_per_user(
    training: TrainingInteractions, users: NDArray[np.int64], item_mask: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw up to 10 training pairs of each user, of items that ``item_mask`` (bool ``[I]``) allows; ids, int64 ``[P]`` each."""
    generator = np.random.default_rng([seed, 0x4E4F])
    drawn: list[tuple[int, int]] = []
    for user in users:
        items = np.unique(training.history_of(int(user)))
        items = items[item_mask[items]]
        drawn += [(int(user), int(item)) for item in generator.permutation(items)[:_PAIRS]]
    table = np.array(drawn, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def llm_scores(  # noqa: PLR0917 -- what an encoder needs, and what it is to encode
    encoder: HardNegativeEncoder,
    prompts: PairPrompts,
    texts: FinetuneTexts,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    budget: int,
) -> NDArray[np.float64]:
    """Score items for users by the mean, over a user's pairs, of their representations' cosine to z_ui.

    Args:
        encoder: fine-tuned.
        prompts: sequences.
        texts: texts by internal id.
        pairs: users and items of the pairs, int64 ``[P]`` each; every user has one at least.
        users: ascending, int64 ``[N]``.
        items: what is scored, int64 ``[n]``.
        budget: tokens, padding included, of a batch.

    Returns:
        float64 ``[N, n]``.
    """
    vectors = encode_items(encoder, prompts, texts, items.tolist(), budget)
    ordered = order_pairs(prompts, texts, *pairs)
    queries = np.concatenate(list(encode_pairs(encoder, prompts, texts, ordered, budget)))
    places = np.searchsorted(users, ordered.users)
    sums = np.zeros((len(users), queries.shape[1]))
    np.add.at(sums, places, queries)
    # Unit vectors: the mean of the cosines is the product with the mean vector.
    means: NDArray[np.float64] = sums / np.bincount(places, minlength=len(users))[:, None]
    return means @ vectors.T.astype(np.float64)


def ndcg_per_user(scores: NDArray[np.floating[Any]], positives: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """NDCG@k of each row, with gain 1 and ``IDCG = sum_{r <= min(k, positives)} 1 / log2(r + 1)``, as RecBole computes it.

    Args:
        scores: ``[N, I]``; -inf for items that do not take part. Equal scores rank by id.
        positives: bool ``[N, I]``, at least one in every row.
        k: length of the list.

    Returns:
        float64 ``[N]``.
    """
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    discounts = 1 / np.log2(np.arange(2, top.shape[1] + 2))
    gains = np.take_along_axis(positives, top, axis=1) @ discounts
    return gains / np.cumsum(discounts)[np.minimum(positives.sum(axis=1), top.shape[1]) - 1]


def added_value(
    teacher: NDArray[np.floating[Any]],
    other: NDArray[np.floating[Any]],
    heldout: HeldOut,
    validation: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> dict[str, Any] | None:
    """Rank validation items by the teacher, by another source, and by their weighted sum.

    Scores are standardised per user. The other's weight for one half of the users is the one that is best for the other half,
    so that the blend is not measured on what chose it; 0 is among the weights.

    Args:
        teacher: scores, ``[N, I]``.
        other: scores, ``[N, I]``.
        heldout: the N users, and the items that do not take part in their rankings.
        validation: internal user and item ids of the validation split, int64 ``[V]`` each.

    Returns:
        ``users``: how many have validation items that take part; ``teacher``, ``other`` and ``blend``: their mean NDCG@20;
        ``weights``: chosen for the two halves; ``wilcoxon_p`` and ``t_p``: two-sided, paired over users, of blend and teacher.
        None where fewer than four users can be measured.
    """
    positives = np.zeros_like(heldout.excluded)
    rows = np.searchsorted(heldout.users, validation[0])
    known = (rows < len(heldout.users)) & (heldout.users[np.minimum(rows, len(heldout.users) - 1)] == validation[0])
    positives[rows[known], validation[1][known]] = True
    positives &= ~heldout.excluded
    measured = positives.any(axis=1)
    if measured.sum() < 4:
        return None
    positives, excluded = positives[measured], heldout.excluded[measured]
    taking_part = torch.from_numpy(~excluded)
    tables = (torch.from_numpy(scores[measured].astype(np.float64)) for scores in (teacher, other))
    known_scores, own_scores = (standardise_rows(table, taking_part).numpy() for table in tables)

    def ndcg(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return ndcg_per_user(np.where(excluded, -np.inf, scores), positives, _TOP)

    table = np.stack([ndcg(known_scores + weight * own_scores) for weight in _WEIGHTS])  # [weights, users]
    half = np.arange(len(positives)) % 2
    best = [int(table[:, half != side].mean(axis=1).argmax()) for side in (0, 1)]
    blend = table[np.array(best)[half], np.arange(len(positives))]
    test = paired_test(blend, table[0])
    return {
        "users": len(positives),
        "teacher": float(table[0].mean()),
        "other": float(ndcg(own_scores).mean()),
        "blend": float(blend.mean()),
        "weights": [_WEIGHTS[place] for place in best],
        "wilcoxon_p": test.wilcoxon_p,
        "t_p": test.t_p,
    }


def measure_added_value(
    finetuned: FinetunedLLM, encoder: HardNegativeEncoder, validation: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> dict[str, dict[str, Any] | None]:
    """Compare what the fine-tuned LLM (``llm``) and the text encoder alone (``text``) add; see :func:`added_value`."""
    context, heldout, settings = finetuned.context, finetuned.heldout, finetuned.settings
    shown = np.flatnonzero(~heldout.excluded.all(axis=0))
    pairs = pairs_per_user(context.training, heldout.users, context.items_with_text, settings.finetune_seed)
    texts = finetuned.item_text_vectors()
    teacher = context.teacher.scores(heldout.users)
    scorer = TextScorer(texts.vectors, texts.mask, context.training, "mean", 1.0, torch.device("cpu"))
    sources = {
        "llm": llm_scores(
            encoder, finetuned.prompts, finetuned.texts, pairs, heldout.users, shown, settings.finetune_batch_tokens
        ),
        "text": scorer.scores(torch.from_numpy(heldout.users)).numpy()[:, shown],
    }
    found: dict[str, dict[str, Any] | None] = {}
    for name, scores in sources.items():
        table = np.zeros(heldout.excluded.shape)
        table[:, shown] = scores
        found[name] = added_value(teacher, table, heldout, validation)
    return found

"""How a trained model is evaluated."""

from __future__ import annotations

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import AtLeastOne, NonNegative, Section

__all__ = ["EvaluationKeys"]


class EvaluationKeys(Section):
    """Ranking of all items."""

    eval_users_per_batch: AtLeastOne = key(
        256,
        Affects.NOTHING,
        Reader.EVERY_RUN,
        description="Users scored together in full ranking when eval_batch_size is not given.",
    )
    text_score_weight: NonNegative = key(
        0.0,
        Affects.EVALUATION,
        Reader.OURS,
        off=(0,),
        description="Weight of the standardised cosine of texts added to the standardised score when items are ranked; 0 ranks "
        "by embeddings alone.",
    )

"""The stages in their order, and what they hand to training."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from recbole_hnlm.data.nearest import nearest_items
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.finetune.session import FinetuneSession
from recbole_hnlm.finetune.vectors import run_finetune_stage
from recbole_hnlm.semantics.encode import run_encode_stage
from recbole_hnlm.stages.encode import vectors_by_id
from recbole_hnlm.stages.kinds import is_finetuned_kind, kinds_needed
from recbole_hnlm.stages.negatives import run_negatives_stage
from recbole_hnlm.stages.profile import run_profile_stage
from recbole_hnlm.stages.replies import StageReport
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store import VectorStore
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.llm.protocol import LLMBackend
    from recbole_hnlm.stages.context import StageContext

__all__ = ["STAGES", "StageName", "build_semantics", "run_stage", "stages_needed"]

StageName = Literal["profile", "negatives", "finetune", "encode"]
STAGES: tuple[StageName, ...] = get_args(StageName)
_logger = logging.getLogger(__name__)


def stages_needed(settings: HNLMSettings) -> tuple[StageName, ...]:
    """Stages whose output some term of the loss reads, in order."""
    kinds = kinds_needed(settings)
    finetuned = any(is_finetuned_kind(settings, kind) for kind in kinds)
    named = "pairs" in kinds and not finetuned
    profiled = "user_profiles" in kinds or named or (finetuned and settings.finetune_text == "profiles")
    needed = {"profile": profiled, "negatives": named, "finetune": finetuned, "encode": bool(kinds)}
    return tuple(stage for stage in STAGES if needed[stage])


def run_stage(
    context: StageContext, name: str, *, backend: LLMBackend | None = None, encoder: TextEncoder | None = None
) -> StageReport:
    """Run one stage, after building what comes before it where that is missing.

    Args:
        context: what to work on.
        name: one of :data:`STAGES`.
        backend: a language model in place of the configured one.
        encoder: a text encoder in place of the configured one.

    Returns:
        The report of the named stage.

    Raises:
        ConfigError: the name is unknown, or ``negative_route`` is none, so that there is nothing to build.
        HNLMError: text, model, replies or folder are not usable; the message says which and how to mend it.
    """
    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}")
    settings = context.settings
    if settings.negative_route == "none" and not (name == "encode" and kinds_needed(settings)):
        raise ConfigError(f"stage {name} has nothing to build: negative_route is none; choose --negative_route=text")
    if name == "encode" and not kinds_needed(settings):
        raise ConfigError(
            "stage encode has nothing to build: mix_weight, contrast_weight and alignment_weight are all 0; raise one of them"
        )
    needed = stages_needed(settings)
    if name == "negatives" and settings.negative_route == "finetuned":
        raise ConfigError(
            "stage negatives names items for the text route; the fine-tuned route emits vectors: run finetune or encode"
        )
    if name == "finetune" and name not in needed:
        raise ConfigError(
            "stage finetune has nothing to fine-tune for: it needs negative_route finetuned, and semantic_candidates, "
            "mix_weight, contrast_weight or alignment_weight (with alignment_source finetuned) above 0"
        )
    text_route: tuple[StageName, ...] = ("profile", "negatives", "encode")
    last = next(stage for stage in STAGES if stage == name)
    # A stage that the settings do not need can be asked for all the same; it is then one of the text route.
    route = needed if name in needed else text_route
    chain = route[: route.index(last) + 1]
    with FinetuneSession(context, backend, encoder) as session:
        return _run(session, chain)[0][-1]


def build_semantics(
    context: StageContext, *, backend: LLMBackend | None = None, encoder: TextEncoder | None = None
) -> tuple[SemanticVectors, list[StageReport]]:
    """Build or reuse all that training needs, and align it with the context's training split.

    No language model is loaded or asked when no term of the loss reads what it says.

    Args:
        context: what to work on.
        backend: a language model in place of the configured one.
        encoder: a text encoder in place of the configured one.

    Returns:
        The vectors (all empty when the settings use none) and the report of each stage that they needed.

    Raises:
        HNLMError: text, model, replies or folder are not usable; the message says which and how to mend it.
    """
    with FinetuneSession(context, backend, encoder) as session:
        reports, stores = _run(session, stages_needed(context.settings))
    semantics = _aligned(context, stores)
    if "pairs" in stores:
        _logger.info(
            "%s of %s training interactions (%.2f%%) have a semantic negative",
            f"{int((semantics.pair_rows >= 0).sum()):,}",
            f"{len(context.training):,}",
            100 * semantics.coverage,
        )
    return semantics, reports


def _run(session: FinetuneSession, chain: Sequence[StageName]) -> tuple[list[StageReport], dict[StoreKind, VectorStore]]:
    reports: list[StageReport] = []
    stores: dict[StoreKind, VectorStore] = {}
    for name in chain:
        start, declined = time.perf_counter(), 0
        if name == "profile":
            counts = run_profile_stage(session)
        elif name == "negatives":
            counts, declined = run_negatives_stage(session)
        elif name == "finetune":
            session.release_backend()
            counts = run_finetune_stage(session.finetuned)
        else:
            session.release_backend()
            counts, stores = run_encode_stage(session)
        seconds = time.perf_counter() - start
        report = StageReport(name, seconds, counts.total, counts.reused, counts.generated, counts.missing, declined)
        _logger.info("%s", report)
        reports.append(report)
    return reports, stores


def _aligned(context: StageContext, stores: dict[StoreKind, VectorStore]) -> SemanticVectors:
    """Look up every training interaction, item and user in the opened stores."""
    training, settings = context.training, context.settings
    pair_vectors: NDArray[np.float16] = np.zeros((0, 0), dtype=np.float16)
    pair_rows = np.full(len(training), -1, dtype=np.int64)
    if "pairs" in stores:
        store = stores["pairs"]
        pair_vectors = store.vectors
        pair_rows = store.rows_of_pairs(training.user_tokens, training.item_tokens, training.users, training.items)
    kinds: dict[str, StoreKind] = {"profile": "item_profiles", "finetuned": "finetuned_items", "text": "item_texts"}
    item_kind = kinds[settings.alignment_source]
    item_store = stores.get(item_kind) if settings.reads_text_vectors else None
    item_vectors, item_mask = vectors_by_id(item_store, training.item_tokens)
    user_vectors, user_mask = vectors_by_id(stores.get("user_profiles"), training.user_tokens)
    pair_items = _nearest(context, stores, pair_rows) if settings.uses_semantic_candidates else None
    return SemanticVectors(pair_vectors, pair_rows, item_vectors, item_mask, user_vectors, user_mask, pair_items)


def _nearest(context: StageContext, stores: dict[StoreKind, VectorStore], pair_rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """Real items nearest to each vector of the pair store; see :func:`recbole_hnlm.data.nearest.nearest_items`."""
    training, store = context.training, stores["pairs"]
    vectors, mask = vectors_by_id(stores["finetuned_items"], training.item_tokens)
    if vectors is None or mask is None:
        raise ValueError("the items' representations are needed")
    users = np.zeros(len(store.vectors), dtype=np.int64)
    known = pair_rows >= 0
    users[pair_rows[known]] = training.users[known]
    return nearest_items(store.vectors, users, vectors, mask, training, context.settings.semantic_candidates)

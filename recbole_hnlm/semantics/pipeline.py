"""The stages in their order, and what they hand to training."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from recbole_hnlm.data.nearest import nearest_items
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.finetune.session import FinetuneSession
from recbole_hnlm.stages.catalogue import STAGE_CATALOGUE
from recbole_hnlm.stages.encode import vectors_by_id
from recbole_hnlm.stages.kinds import item_kind, kinds_needed, ranking_kind
from recbole_hnlm.stages.report import StageReport
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store import VectorStore
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.llm.protocol import LLMBackend
    from recbole_hnlm.stages.base import Stage
    from recbole_hnlm.stages.context import StageContext

__all__ = ["build_semantics", "run_stage", "stages", "stages_needed"]

_logger = logging.getLogger(__name__)


@cache
def stages() -> dict[str, Stage[FinetuneSession]]:
    """All stages by name, in their order."""
    # By name, so that a new stage is a file and a line of the catalogue.
    return {name: import_module(entry.module).STAGE for name, entry in STAGE_CATALOGUE.items()}


def stages_needed(settings: HNLMSettings, kinds: Sequence[StoreKind] | None = None) -> tuple[str, ...]:
    """Names of the stages whose output vectors of some kinds are made of, in order.

    Args:
        settings: the project's keys.
        kinds: the kinds of vectors that are wanted; None means those that training reads.
    """
    wanted = set(kinds_needed(settings) if kinds is None else kinds)
    return _with_sources(settings, {name for name, stage in stages().items() if wanted & set(stage.feeds(settings))})


def _with_sources(settings: HNLMSettings, names: set[str]) -> tuple[str, ...]:
    """Stages of these names and those whose output they read, in order."""
    for name, stage in reversed(stages().items()):
        if name in names:
            names.update(stage.reads(settings))
    return tuple(name for name in stages() if name in names)


def run_stage(
    context: StageContext, name: str, *, backend: LLMBackend | None = None, encoder: TextEncoder | None = None
) -> StageReport:
    """Run one stage; stages before it run first where their output is missing.

    Args:
        context: what to work on.
        name: one of :data:`recbole_hnlm.stages.catalogue.STAGE_CATALOGUE`.
        backend: a language model in place of the configured one.
        encoder: a text encoder in place of the configured one.

    Returns:
        The report of the named stage.

    Raises:
        ConfigError: the name is unknown, or the settings leave the stage nothing to build.
        HNLMError: text, model, replies or folder cannot be used; the message says which, and what to do.
    """
    if name not in stages():
        raise ConfigError(f"there is no stage {name!r}; the stages are {', '.join(stages())}")
    settings = context.settings
    reason = stages()[name].refusal(settings, kinds_needed(settings))
    if reason is not None:
        raise ConfigError(f"stage {name} has nothing to build: {reason}")
    needed = stages_needed(settings)
    # A stage that training does not need can be asked for all the same.
    chain = needed[: needed.index(name) + 1] if name in needed else _with_sources(settings, {name})
    with FinetuneSession(context, backend, encoder) as session:
        return _run(session, chain)[-1]


def build_semantics(
    context: StageContext,
    kinds: Sequence[StoreKind] | None = None,
    *,
    backend: LLMBackend | None = None,
    encoder: TextEncoder | None = None,
) -> tuple[SemanticVectors, list[StageReport]]:
    """Build or reuse vectors, and align them with the context's training split.

    No language model is loaded or asked when none of the kinds is made of what it says.

    Args:
        context: what to work on.
        kinds: the kinds of vectors that are wanted; None means those that training reads.
        backend: a language model in place of the configured one.
        encoder: a text encoder in place of the configured one.

    Returns:
        The vectors (all empty when no kind is wanted) and the report of each stage that they needed.

    Raises:
        HNLMError: text, model, replies or folder cannot be used; the message says which, and what to do.
    """
    with FinetuneSession(context, backend, encoder, kinds) as session:
        reports = _run(session, stages_needed(context.settings, session.kinds))
    semantics = _aligned(context, session.stores)
    if "pairs" in session.stores:
        _logger.info(
            "%s of %s training interactions (%.2f%%) have a semantic negative",
            f"{int((semantics.pair_rows >= 0).sum()):,}",
            f"{len(context.training):,}",
            100 * semantics.coverage,
        )
    return semantics, reports


def _run(session: FinetuneSession, chain: Sequence[str]) -> list[StageReport]:
    reports = []
    for name in chain:
        start = time.perf_counter()
        counts = stages()[name].run(session)
        report = StageReport(name=name, seconds=time.perf_counter() - start, **asdict(counts))
        _logger.info("%s", report)
        reports.append(report)
    return reports


def _aligned(context: StageContext, stores: dict[StoreKind, VectorStore]) -> SemanticVectors:
    """Look up every training interaction, item and user in the opened stores."""
    training, settings = context.training, context.settings
    pair_vectors: NDArray[np.float16] = np.zeros((0, 0), dtype=np.float16)
    pair_rows = np.full(len(training), -1, dtype=np.int64)
    if "pairs" in stores:
        store = stores["pairs"]
        pair_vectors = store.vectors
        pair_rows = store.rows_of_pairs(training.user_tokens, training.item_tokens, training.users, training.items)
    item_store = stores.get(item_kind(settings)) if settings.reads_text_vectors else None
    item_vectors, item_mask = vectors_by_id(item_store, training.item_tokens)
    user_vectors, user_mask = vectors_by_id(stores.get("user_profiles"), training.user_tokens)
    pair_items = _nearest(context, stores, pair_rows) if "pairs" in stores and settings.uses_semantic_candidates else None
    in_ranking = ranking_kind(settings)
    if in_ranking is not None and settings.reads_text_vectors and in_ranking == item_kind(settings):
        ranking = item_vectors, item_mask
    else:
        ranking = vectors_by_id(None if in_ranking is None else stores.get(in_ranking), training.item_tokens)
    return SemanticVectors(pair_vectors, pair_rows, item_vectors, item_mask, user_vectors, user_mask, pair_items, *ranking)


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

"""From a run's configuration to what its training reads: the stages' context, their vectors, the training loader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.data.atomic_text import AtomicFormat
from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.data.semantics import attach_vectors
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune.teacher import ensure_teacher
from recbole_hnlm.semantics.pipeline import build_semantics
from recbole_hnlm.stages.context import StageContext
from recbole_hnlm.stages.kinds import kinds_for_scoring, kinds_needed

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

    from recbole_hnlm.config import Config
    from recbole_hnlm.data.semantics import SemanticVectors
    from recbole_hnlm.data.store_format import StoreKind

__all__ = ["Semantics", "attach_hnlm_data", "kinds_of", "semantics_of", "stage_context_of"]


class Semantics(NamedTuple):
    """What the LLM stages made for a training split, and their reports."""

    vectors: SemanticVectors
    reports: list[Any]


def stage_context_of(config: Any, train_dataset: Dataset) -> StageContext:
    """Build the stages' context from RecBole's configuration and training dataset (``train_data._dataset``).

    Raises:
        ConfigError: a key of the settings is invalid.
    """
    name = config["dataset"]
    rating_field = config["RATING_FIELD"]
    rated = rating_field is not None and rating_field in train_dataset.inter_feat
    benchmark = config["benchmark_filename"]
    settings, training = settings_of(config), TrainingInteractions.from_dataset(train_dataset)
    return StageContext(
        settings=settings,
        dataset_name=name,
        dataset_dir=Path(config["data_path"]),
        training=training,
        user_id_field=train_dataset.uid_field,
        item_id_field=train_dataset.iid_field,
        rating_field=rating_field if rated else None,
        atomic_format=AtomicFormat.from_config(config),
        device=str(config["device"]),
        ratings=np.asarray(train_dataset.inter_feat[rating_field]) if rated else None,
        inter_name=f"{name}.{benchmark[0]}.inter" if benchmark else None,
        teacher_source=lambda: ensure_teacher(
            config, train_dataset, Path(settings.artifact_dir) / name / training.split_fingerprint
        ),
        show_progress=bool(config["show_progress"]),
    )


def _uses_hnlm_data(config: Config) -> bool:
    return bool(getattr(config.model_class, "uses_hnlm_data", False))


def kinds_of(config: Config, *, for_scoring: bool = False) -> tuple[StoreKind, ...]:
    """Kinds of vectors that a run's model reads when it trains and ranks, or when it only ranks items."""
    trains_on_them = _uses_hnlm_data(config) or config.settings.model_reads_texts
    return kinds_needed(config.settings) if trains_on_them and not for_scoring else kinds_for_scoring(config.settings)


def semantics_of(config: Config, train_data: Any, *, for_scoring: bool = False) -> Semantics | None:
    """Run or reuse the LLM stages of a training split; None where the model reads nothing of theirs.

    Args:
        config: the run's configuration.
        train_data: RecBole's training loader.
        for_scoring: build only what ranking items with a trained model reads.
    """
    kinds = kinds_of(config, for_scoring=for_scoring)
    if not kinds:
        return None
    vectors, reports = build_semantics(stage_context_of(config, train_data._dataset), kinds)
    return Semantics(vectors, list(reports))


def attach_hnlm_data(config: Config, train_data: Any, semantics: Semantics | None) -> Any:
    """Attach the vectors to the training dataset and return the training loader that the model needs.

    Models that take none of our negatives, RecBole's own among them, keep RecBole's loader.
    """
    attach_vectors(train_data._dataset, semantics.vectors if semantics else None)
    return build_train_loader(config, train_data) if _uses_hnlm_data(config) else train_data

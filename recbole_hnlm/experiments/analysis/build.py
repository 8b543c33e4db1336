"""From the record of a run to all analyses of it, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.data.loading import LoadedData, load_data
from recbole_hnlm.experiments.analysis.beyond import beyond_accuracy
from recbole_hnlm.experiments.analysis.groups import by_item_popularity, by_user_activity, overall
from recbole_hnlm.experiments.analysis.lists import lists_of_cell, lists_of_model
from recbole_hnlm.experiments.analysis.semantic import sampled_pairs, semantic_negatives, semantic_shift
from recbole_hnlm.experiments.analysis.sources import Source, checked_training
from recbole_hnlm.quick_start.caller_state import caller_state_kept
from recbole_hnlm.quick_start.runner import load_checkpoint
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recbole_hnlm.config import Config
    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.experiments.analysis.lists import Lists

__all__ = ["SCHEMA", "VERSION", "AnalysisOptions", "analyse"]

SCHEMA = "recbole-hnlm/analysis"
VERSION = 1
_ITEM_SHARES = (0.5, 0.8)
_FROM_RECORD = ("best_epoch", "train_loss", "epoch_seconds", "false_negative_rates", "hardness")


@dataclass(frozen=True)
class AnalysisOptions:
    """How a run is analysed.

    Attributes:
        user_groups: a number of groups of about equally many users, or the inclusive upper ends of all groups but the last.
        item_groups: where head and mid end, as shares of all training interactions.
        resamples: of the bootstrap; 0 makes no intervals.
    """

    user_groups: int | tuple[int, ...] = 4
    item_groups: tuple[float, float] = _ITEM_SHARES
    resamples: int = 1000


@dataclass(frozen=True)
class _Opened:
    """A run's configuration and data, and its trained model where a checkpoint is there."""

    source: Source
    config: Config
    data: LoadedData
    training: TrainingInteractions
    model: Any | None


def analyse(result: str | Path | Source, options: AnalysisOptions | None = None, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Analyse a finished run; docs/analysis.md describes what comes out.

    What a file is missing for is left out (None) and named in ``missing``.

    Args:
        result: ``results/<run_id>.json``, or ``cells/<id>.json`` of a comparison.
        options: None takes the defaults.
        argv: ``--key=value`` tokens that replace the run's keys; places such as ``data_path`` must be given again.

    Returns:
        Plain values, ready for JSON.

    Raises:
        HNLMError: the record cannot be read, or the data are not those of the run.
    """
    options = options or AnalysisOptions()
    source = result if isinstance(result, Source) else Source.read(result)
    record = source.record
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "run_id": source.run_id,
        "label": source.label,
        **{name: record[name] for name in ("model", "dataset", "seed", "test_result")},
        "training": {name: record.get(name) for name in _FROM_RECORD},
        **dict.fromkeys(("users", "overall", "groups", "beyond_accuracy", "semantic_negatives", "semantic_shift")),
        "missing": {},
    }
    with caller_state_kept():
        opened = _open(source, tuple(argv))
        try:
            content |= _of_lists(_lists(opened), options)
        except ArtifactError as error:
            content["missing"] |= dict.fromkeys(("groups", "beyond_accuracy"), str(error))
        try:
            sample = sampled_pairs(opened.config, opened.data, opened.training)
            content["semantic_negatives"] = semantic_negatives(sample, opened.model)
            content["semantic_shift"] = semantic_shift(sample, opened.model)
        except ArtifactError as error:
            content["missing"] |= dict.fromkeys(("semantic_negatives", "semantic_shift"), str(error))
    return content


def _of_lists(lists: Lists, options: AnalysisOptions) -> dict[str, Any]:
    return {
        "users": len(lists.users),
        "overall": overall(lists, options.resamples),
        "groups": {
            "users": by_user_activity(lists, options.user_groups, options.resamples),
            "items": by_item_popularity(lists, options.item_groups, options.resamples),
        },
        "beyond_accuracy": beyond_accuracy(lists),
    }


def _open(source: Source, argv: tuple[str, ...]) -> _Opened:
    if source.checkpoint is None:
        config = source.config(argv)
        data, model = load_data(config), None
    else:
        shown = {"show_progress": source.record["config"].get("show_progress", True)}
        config, model, dataset, *loaders = load_checkpoint(source.checkpoint, shown, argv)
        data = LoadedData(dataset, *loaders)
    return _Opened(source, config, data, checked_training(source, config, data), model)


def _lists(opened: _Opened) -> Lists:
    source = opened.source
    if source.table is not None:
        return lists_of_cell(source, opened.config, opened.data, opened.training)
    if opened.model is None:
        named = source.record.get("checkpoint")
        raise ArtifactError(
            f"the lists of {source.path} are missing: "
            + (f"its checkpoint {named} is not there" if named else "it kept no checkpoint")
            + "; run again, with checkpoints kept, or give a cell of a comparison"
        )
    return lists_of_model(opened.config, opened.model, opened.data, opened.training, source)

"""A search as a picture: the best score so far by trial, and the score by each key."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from recbole_hnlm.experiments.tables import metric_name
from recbole_hnlm.utils.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from recbole_hnlm.experiments.search import Search
    from recbole_hnlm.experiments.space import Dimension

__all__ = ["draw_search"]

_FINISHED, _PRUNED, _BEST = "#3b6ea5", "#b9bfc7", "#d1662f"
_COLUMNS = 3
_LONGEST_LABEL = 14


def draw_search(search: Search, metric: str, importances: Mapping[str, float], path: Path) -> None:
    """Draw the search.

    Args:
        search: the search; at least one trial has finished.
        metric: name of the validation metric.
        importances: share of each key, shown with it.
        path: the PNG file.

    Raises:
        ArtifactError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- only this picture needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    trials = [trial for trial in search.counted() if trial.value is not None]
    dimensions = sorted(search.space.dimensions, key=lambda each: -importances.get(each.key, 0.0))
    rows = 1 + math.ceil(len(dimensions) / _COLUMNS)
    figure = Figure(figsize=(10, 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, _COLUMNS)
    first = figure.add_subplot(grid[0, :])
    _draw_history(first, search, trials, metric_name(metric.lower()))
    limits = _limits([trial for trial in trials if trial.state == TrialState.COMPLETE])
    for place, dimension in enumerate(dimensions):
        axis = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
        _draw_slice(axis, search, dimension, trials)
        share = f" ({importances[dimension.key]:.0%})" if dimension.key in importances else ""
        axis.set_title(f"{dimension.key}{share}", fontsize="medium")
        axis.set_ylim(*limits)
        axis.grid(visible=True, alpha=0.3)
        if place % _COLUMNS == 0:
            axis.set_ylabel(metric_name(metric.lower()))
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _limits(trials: Sequence[FrozenTrial]) -> tuple[float, float]:
    values = [float(trial.value or 0.0) for trial in trials]
    margin = 0.06 * (max(values) - min(values)) or 0.01
    return min(values) - margin, max(values) + margin


def _of_state(trials: Sequence[FrozenTrial]) -> list[tuple[str, str, list[FrozenTrial]]]:
    states = (("pruned, score when ended", _PRUNED, TrialState.PRUNED), ("finished", _FINISHED, TrialState.COMPLETE))
    return [(label, colour, [trial for trial in trials if trial.state == state]) for label, colour, state in states]


def _draw_history(axis: Any, search: Search, trials: Sequence[FrozenTrial], metric: str) -> None:
    for label, colour, mine in _of_state(trials):
        if mine:
            axis.scatter([trial.number for trial in mine], [trial.value for trial in mine], s=18, color=colour, label=label)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    better = max if search.plan.bigger else min
    so_far = list(accumulate((float(trial.value or 0.0) for trial in finished), better))
    numbers = [trial.number for trial in finished]
    # The line goes on to the last trial, which may have been pruned.
    last = max(trial.number for trial in trials)
    axis.step([*numbers, last], [*so_far, so_far[-1]], where="post", color=_BEST, label="best so far")
    axis.set(xlabel="trial", ylabel=f"{metric} on validation")
    failed = sum(trial.state == TrialState.FAIL for trial in search.counted())
    axis.set_title(f"{len(trials)} trials with a score{f', {failed} failed' if failed else ''}", fontsize="medium")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize="small", frameon=False, loc="best")


def _beside(place: int, trial: FrozenTrial) -> float:
    """Return a place a little to the side of a choice's, the same for the same trial."""
    return place + 0.12 * math.sin(7 * trial.number)


def _draw_slice(axis: Any, search: Search, dimension: Dimension, trials: Sequence[FrozenTrial]) -> None:
    values = dimension.all_values()
    is_numeric = dimension.kind != "choice"
    names = [] if values is None else [str(value) for value in values]
    for label, colour, mine in _of_state(trials):
        points = [search.params(trial)[dimension.key] for trial in mine]
        # Choices have places of their own, in the order of the space; a little to the side, so that equal ones show.
        x = points if is_numeric else [_beside(names.index(str(at)), trial) for at, trial in zip(points, mine, strict=True)]
        if label == "finished":
            axis.scatter(x, [trial.value for trial in mine], s=18, color=colour, alpha=0.85)
        else:
            # Ended early, a score is no value of its point: a mark at the edge says where the trial was.
            axis.scatter(x, [0.02] * len(x), marker="|", s=40, color=colour, transform=axis.get_xaxis_transform())
    best = search.best()
    if best is not None:
        point = search.params(best)[dimension.key]
        axis.scatter(
            [point if is_numeric else _beside(names.index(str(point)), best)],
            [best.value],
            s=90,
            facecolors="none",
            edgecolors=_BEST,
        )
    if dimension.kind == "loguniform":
        low, high = (float(bound) for bound in (dimension.probes()[0], dimension.probes()[-1]))
        ticks = [low * (high / low) ** (place / 3) for place in range(4)] if low < high else [low]
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.set_xlim(low * 0.9, high / 0.9)
    if not is_numeric:
        short = [name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…" for name in names]
        turned = sum(map(len, short)) > 30
        axis.set_xticks(range(len(names)), short, rotation=30 if turned else 0, ha="right" if turned else "center")
        axis.set_xlim(-0.5, len(names) - 0.5)

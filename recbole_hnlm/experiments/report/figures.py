"""The plots of a page: numbers in, inline SVG out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, NullFormatter

from recbole_hnlm.experiments.report.svg import FAINT, INK, MARKERS, SERIES, inline_svg, new_figure, style
from recbole_hnlm.experiments.report.text import tidy
from recbole_hnlm.experiments.report.view import Plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["Curve", "bars", "cost_plot", "curves", "grouped", "interval", "scores_by_trial", "slices", "user_differences"]

_POINTS = 120
_BETTER, _WORSE = SERIES[0], SERIES[1]
_LONGEST = 34


class Curve(NamedTuple):
    """A line over epochs: its name, and one series of (epoch, value) for each seed."""

    name: str
    seeds: Sequence[Sequence[tuple[float, float]]]


def _short(name: str, limit: int = _LONGEST) -> str:
    text = tidy(name, 200)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _look(place: int) -> dict[str, Any]:
    dashes = ("-", "--", "-.", ":")
    return {"color": SERIES[place % len(SERIES)], "linestyle": dashes[place // 3 % len(dashes)]}


def interval(mean: float, std: float | None, limits: tuple[float, float], place: int, name: str) -> Markup:
    """Return a dot with whiskers on an axis that all rows of a table share.

    Args:
        mean: the dot.
        std: half of the whiskers; None for none.
        limits: of the axis.
        place: of the row's colour.
        name: for a screen reader.
    """
    low, high = limits
    width = (high - low) or 1.0

    def x(value: float) -> float:
        return 6 + 128 * (value - low) / width

    spread = std or 0.0
    whisker = f'<path class="k-s{place % len(SERIES)}" d="M{x(mean - spread):.1f} 9H{x(mean + spread):.1f}"/>' if spread else ""
    template = (
        '<svg class="interval" viewBox="0 0 140 18" role="img" aria-label="{}"><path class="k-grid" d="M6 9H134"/>'
        + whisker
        + f'<circle class="f-s{place % len(SERIES)}" cx="{x(mean):.1f}" cy="9" r="4"/></svg>'
    )
    return Markup(template).format(f"{tidy(name, 200)}: {mean:.4f}")  # noqa: S704 - numbers alone, the name is escaped


def bars(values: Mapping[str, Mapping[str, tuple[float, float | None]]], colours: Mapping[str, int]) -> Plot:
    """Draw every metric of every method: bars from 0, whiskers of one standard deviation.

    Args:
        values: metric -> method -> (mean, standard deviation).
        colours: place of each method's colour.
    """
    names = list(next(iter(values.values())))
    with style():
        columns = min(3, len(values))
        rows = math.ceil(len(values) / columns)
        figure = new_figure(9.6, (0.75 + 0.3 * len(names)) * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axis in grid.flat[len(values) :]:
            axis.set_visible(False)
        for axis, (metric, found) in zip(grid.flat, values.items(), strict=False):
            means = [found[name][0] for name in names]
            errors = [found[name][1] or 0.0 for name in names]
            axis.barh(
                range(len(names)),
                means,
                xerr=errors if any(errors) else None,
                color=[SERIES[colours[name] % len(SERIES)] for name in names],
                error_kw={"ecolor": INK, "capsize": 2.5, "elinewidth": 1},
                height=0.62,
            )
            shows_names = axis.get_subplotspec().is_first_col()
            axis.set_yticks(range(len(names)), [_short(name, 26) for name in names] if shows_names else [""] * len(names))
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_title(metric, loc="left")
            axis.grid(visible=False, axis="y")
            axis.locator_params(axis="x", nbins=4)
            axis.tick_params(length=0)
            axis.spines["left"].set_visible(False)
    caption = "Mean over seeds on the test split; whiskers are one standard deviation over seeds."
    return Plot("Every metric, by method", inline_svg(figure, "metrics", caption), caption, wide=True)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, math.ceil(len(points) / _POINTS))
    return [*points[:-1:step], points[-1]] if points else []


def curves(
    name: str, title: str, ylabel: str, lines: Sequence[Curve], caption: str, *, colours: Sequence[int] | None = None
) -> Plot | None:
    """Draw a value over epochs: the mean over seeds, and a band from the lowest to the highest; None without values.

    Args:
        name: unique on the page.
        title: heading.
        ylabel: of the axis.
        lines: a curve for each method.
        caption: what to look at.
        colours: places of the curves' colours, in the page's order of methods; None takes their order.
    """
    known = [(place, line) for place, line in enumerate(lines) if any(line.seeds)]
    if not known:
        return None
    with style():
        figure = new_figure(5.4, 3.3 + 0.1 * max(0, len(known) - 4))
        axis: Any = figure.subplots()
        for place, line in known:
            look = _look(colours[place] if colours else place)
            merged: dict[float, list[float]] = {}
            for seed in line.seeds:
                for epoch, value in seed:
                    merged.setdefault(epoch, []).append(value)
            points = _thinned([(epoch, float(np.mean(each))) for epoch, each in sorted(merged.items())])
            x = [epoch for epoch, _ in points]
            if any(len(each) > 1 for each in merged.values()):
                low, high = ([pick(merged[epoch]) for epoch in x] for pick in (min, max))
                axis.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0)
            is_point = len(points) == 1
            axis.plot(x, [value for _, value in points], label=_short(line.name), marker="o" if is_point else None, **look)
        axis.set(xlabel="epoch", ylabel=ylabel)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(lines) > 1:
            axis.legend(fontsize="small", loc="best")
    return Plot(title, inline_svg(figure, name, f"{title}. {caption}"), caption)


def user_differences(panels: Sequence[tuple[str, npt.NDArray[np.float64]]], subject: str, metric: str) -> Plot | None:
    """Draw each user's difference between the subject and a rival, sorted; None without rivals.

    Args:
        panels: name of the rival, and subject minus rival for each user, ``[U]``.
        subject: name of the method that is compared.
        metric: name of the metric.
    """
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    highest = max(float(np.abs(values).max(initial=0.0)) for _, values in panels) or 1.0
    with style():
        figure = new_figure(9.6 if columns > 1 else 5.6, 2.55 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis in grid.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (rival, values) in zip(grid.flat, panels, strict=False):
            shares = np.linspace(0, 1, 161)
            quantiles = np.quantile(values, shares) if len(values) else np.zeros(len(shares))
            axis.fill_between(100 * shares, 0, np.minimum(quantiles, 0), color=_WORSE, linewidth=0, alpha=0.75)
            axis.fill_between(100 * shares, 0, np.maximum(quantiles, 0), color=_BETTER, linewidth=0, alpha=0.75)
            axis.axhline(0, color=FAINT, linewidth=0.8)
            worse, better = float(np.mean(values < 0)), float(np.mean(values > 0))
            axis.set_title(f"against {_short(rival, 26)}", loc="left")
            axis.text(1.5, -0.9 * highest, f"{worse:.0%} worse", color=INK, fontsize="small")
            axis.text(98.5, 0.82 * highest, f"{better:.0%} better", color=INK, fontsize="small", ha="right")
            axis.set(xlim=(0, 100), ylim=(-1.05 * highest, 1.05 * highest))
            if axis.get_subplotspec().is_first_col():
                axis.set_ylabel(f"Δ {metric}")
            if axis.get_subplotspec().is_last_row():
                axis.set_xlabel("% of users, sorted")
    caption = (
        f"{metric} of {tidy(subject, 200)} minus that of each rival, for every test user (averaged over seeds), sorted from "
        "the largest loss to the largest gain. The flat middle are users for whom both are equal."
    )
    return Plot("User by user", inline_svg(figure, "users", caption), caption, wide=True)


def cost_plot(  # noqa: PLR0917 - what a plot says, in reading order
    name: str, title: str, xlabel: str, metric: str, points: Sequence[tuple[str, int, float, float, float | None]], caption: str
) -> Plot | None:
    """Draw quality against cost; None where fewer than two methods have a cost.

    Args:
        name: unique on the page.
        title: heading.
        xlabel: what the cost is.
        metric: what the quality is.
        points: name, place of the colour, cost, mean, standard deviation.
        caption: what to look at.
    """
    if len(points) < 2:
        return None
    with style():
        figure = new_figure(5.4, 3.3)
        axis: Any = figure.subplots()
        costs = [cost for _, _, cost, _, _ in points]
        # A cost of 0 has no place on a logarithmic axis.
        spread = max(costs) / min(costs) if min(costs) > 0 else 1.0
        for label, place, cost, mean, std in points:
            colour = SERIES[place % len(SERIES)]
            axis.errorbar(
                [cost],
                [mean],
                yerr=None if std is None else [std],
                fmt=MARKERS[place % len(MARKERS)],
                color=colour,
                capsize=3,
                elinewidth=1,
                markersize=7,
                label=_short(label),
            )
        if spread > 20:
            _logarithmic(axis)
        axis.set(xlabel=xlabel, ylabel=metric)
        axis.margins(x=0.12, y=0.2)
        axis.legend(fontsize="small", loc="best")
    return Plot(title, inline_svg(figure, name, f"{title}. {caption}"), caption)


def grouped(  # noqa: PLR0917 - what a plot says, in reading order
    name: str,
    title: str,
    ylabel: str,
    groups: Sequence[str],
    lines: Sequence[tuple[str, int, Sequence[Any]]],
    caption: str,
    *,
    wide: bool = False,
) -> Plot:
    """Draw a value by group: a point for each method, with its interval where there is one.

    Args:
        name: unique on the page.
        title: heading.
        ylabel: of the axis.
        groups: names, from left to right.
        lines: name, place of the colour, and (value, low, high) for each group, with None where unknown.
        caption: what to look at.
        wide: over the whole width.
    """
    with style():
        figure = new_figure(9.6 if wide else 5.4, 3.3)
        axis: Any = figure.subplots()
        for number, (label, place, values) in enumerate(lines):
            shift = 0.5 * ((number + 0.5) / len(lines) - 0.5) if len(lines) > 1 else 0.0
            known = [(spot + shift, *each) for spot, each in enumerate(values) if each[0] is not None]
            x, y = [each[0] for each in known], [each[1] for each in known]
            has_interval = bool(known) and all(each[2] is not None for each in known)
            error = [[v - low for _, v, low, _ in known], [high - v for _, v, _, high in known]] if has_interval else None
            look: dict[str, Any] = {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)]}
            axis.errorbar(
                x, y, yerr=error, linestyle="none", capsize=3, elinewidth=1.2, markersize=6, label=_short(label), **look
            )
        axis.set_xticks(range(len(groups)), [_short(group, 22) for group in groups])
        axis.set_xlim(-0.6, len(groups) - 0.4)
        if all(each[0] is None or each[0] >= 0 for _, _, values in lines for each in values):
            axis.set_ylim(bottom=0)
        axis.set_ylabel(ylabel)
        axis.grid(visible=False, axis="x")
        if len(lines) > 1:
            axis.legend(fontsize="small", loc="best")
    return Plot(title, inline_svg(figure, name, f"{title}. {caption}"), caption, wide)


def scores_by_trial(trials: Sequence[tuple[int, float, bool]], metric: str, bigger: bool, chosen: int) -> Plot | None:
    """Draw a search: the score of each trial, and the best so far.

    Args:
        trials: number, score, and whether it was pruned.
        metric: its name.
        bigger: whether bigger scores are better.
        chosen: number of the best trial.
    """
    finished = [(trial, value) for trial, value, pruned in trials if not pruned]
    if not finished:
        return None
    with style():
        figure = new_figure(9.6, 2.9)
        axis: Any = figure.subplots()
        pruned = [(trial, value) for trial, value, was in trials if was]
        if pruned:
            axis.scatter(*zip(*pruned, strict=True), marker="x", s=26, color=FAINT, label="ended early")
        axis.scatter(*zip(*finished, strict=True), s=26, color=SERIES[0], label="finished")
        so_far = (np.maximum if bigger else np.minimum).accumulate([value for _, value in finished])
        last = max(trial for trial, _, _ in trials)
        axis.step(
            [*(trial for trial, _ in finished), last], [*so_far, so_far[-1]], where="post", color=SERIES[1], label="best so far"
        )
        best = dict(finished).get(chosen)
        if best is not None:
            axis.scatter([chosen], [best], s=120, facecolors="none", edgecolors=SERIES[1], linewidths=1.6)
        axis.set(xlabel="trial", ylabel=f"{metric}, validation")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize="small", loc="best")
    caption = "Each trial's score on validation; the ring is the winner."
    return Plot("The search", inline_svg(figure, "search", caption), caption, wide=True)


def slices(keys: Mapping[str, tuple[list[Any], list[float]]], shares: Mapping[str, float], metric: str) -> Plot | None:
    """Draw the score of finished trials by each key, the most important key first; None without trials.

    Args:
        keys: key -> (values, scores) of the finished trials.
        shares: importance of each key, where it is known.
        metric: its name.
    """
    if not keys or not any(values for values, _ in keys.values()):
        return None
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    with style():
        figure = new_figure(9.6, 2.4 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis in grid.flat[len(keys) :]:
            axis.set_visible(False)
        for axis, (key, (values, scores)) in zip(grid.flat, keys.items(), strict=False):
            _slice(axis, values, scores)
            share = f" ({shares[key]:.0%} of the variance)" if key in shares else ""
            axis.set_title(f"{_short(key, 24)}{share}", loc="left")
            if axis.get_subplotspec().is_first_col():
                axis.set_ylabel(metric)
    caption = "The score of every finished trial by the value of each tuned key, the most important key first."
    return Plot("Which keys matter", inline_svg(figure, "slices", caption), caption, wide=True)


def _logarithmic(axis: Any) -> None:
    """Give an axis a logarithmic scale with plain numbers: Matplotlib's own are formulas, which this page does not read."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _slice(axis: Any, values: list[Any], scores: list[float]) -> None:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    distinct = sorted(set(numbers))
    if len(numbers) == len(values) and len(distinct) > 6:
        axis.scatter(numbers, scores, s=22, color=SERIES[0], alpha=0.85, linewidths=0)
        if distinct[0] > 0 and distinct[-1] / distinct[0] > 20:
            _logarithmic(axis)
        return
    names = [f"{value:g}" for value in distinct] if len(numbers) == len(values) else sorted({str(value) for value in values})
    texts = [f"{value:g}" if len(numbers) == len(values) else str(value) for value in values]
    axis.scatter([names.index(text) for text in texts], scores, s=22, color=SERIES[0], alpha=0.85, linewidths=0)
    axis.set_xticks(range(len(names)), [_short(name, 12) for name in names])
    axis.set_xlim(-0.6, len(names) - 0.4)

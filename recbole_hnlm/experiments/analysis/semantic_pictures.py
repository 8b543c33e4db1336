"""Pictures of one run's semantic negatives: what lies near them, and how far they are from what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.experiments.analysis.panels import COLOURS, caption, finished, panels, with_section

if TYPE_CHECKING:
    from recbole_hnlm.experiments.analysis.panels import Methods

__all__ = ["draw_nearest", "draw_shift"]

_LLM_SPACE = {
    "negative_positive": "its positive",
    "negative_nearest": "the nearest new item",
    "negative_random": "a random new item",
}
_MODEL_SPACE = {"projected_positive": "f(z) and the positive", "user_positive": "user and positive"}


def draw_nearest(methods: Methods) -> Any | None:
    """Draw what the real items nearest to z_ui are, for one run that has them; None otherwise."""
    run = _only_run(methods, "semantic_negatives")
    if run is None:
        return None
    found = run["semantic_negatives"]
    kinds = {f"nearest {count}" if count != "1" else "nearest": each for count, each in found["nearest"].items()}
    kinds["random new item"] = found["random"]
    ranked = all(each["model_top"] for each in kinds.values())
    figure, axes = panels(2 if ranked else 1)
    shares = [100 * each["held_out_share"] for each in kinds.values()]
    axes[0].bar(range(len(kinds)), shares, 0.6, color=[COLOURS[place] for place in range(len(kinds))])
    for place, share in enumerate(shares):
        axes[0].text(place, share, f"{share:.3g}", ha="center", va="bottom", fontsize="small")
    axes[0].set(xticks=range(len(kinds)), ylabel="%", ylim=(0, 1.15 * max([*shares, 1e-9])))
    axes[0].set_xticklabels([name.replace(" new", "\nnew") for name in kinds])
    axes[0].set_title("held-out positives among items near z", fontsize="medium")
    if ranked:
        for place, (name, each) in enumerate(kinds.items()):
            tops = each["model_top"]
            axes[1].plot(
                range(len(tops)), [100 * share for share in tops.values()], marker="o", color=COLOURS[place], label=name
            )
        axes[1].set(xticks=range(len(tops)), xticklabels=[f"top {k}" for k in tops], ylabel="%", ylim=(0, None))
        axes[1].set_title("of them, ranked that high by the trained model", fontsize="medium")
        axes[1].legend(fontsize="small", frameon=False)
    return finished(figure, axes, caption(methods, f"{found['pairs']:,} pairs"), 1)


def draw_shift(methods: Methods) -> Any | None:
    """Draw distributions of cosines in the LLM's space and in the model's, for one run that has them; None otherwise."""
    run = _only_run(methods, "semantic_shift")
    if run is None:
        return None
    found = run["semantic_shift"]["distributions"]
    edges = np.array(run["semantic_shift"]["edges"])
    figure, axes = panels(2 if "projected_positive_after" in found else 1, 3.6)
    for place, (name, label) in enumerate(_LLM_SPACE.items()):
        axes[0].stairs(100 * np.array(found[name]["shares"]), edges, color=COLOURS[place], label=label, lw=1.6)
    axes[0].set_title("LLM's space: cosine of z to ...", fontsize="medium")
    for axis in axes[1:]:
        for place, (name, label) in enumerate(_MODEL_SPACE.items()):
            for when, style in (("before", ":"), ("after", "-")):
                shares = 100 * np.array(found[f"{name}_{when}"]["shares"])
                axis.stairs(shares, edges, color=COLOURS[place], ls=style, lw=1.6, label=f"{label}, {when}")
        axis.set_title("model's space: cosines before and after training", fontsize="medium")
    for axis in axes:
        top = (1.45 if axis is axes[0] else 1.65) * axis.get_ylim()[1]  # room for the legend above the curves
        axis.set(xlabel="cosine", ylabel="% of pairs", xlim=(-1, 1), xticks=[-1, -0.5, 0, 0.5, 1], ylim=(0, top))
        axis.legend(fontsize="small", frameon=False, loc="upper left")
    return finished(figure, axes, caption(methods, f"{found['negative_positive']['n']:,} pairs"), 1)


def _only_run(methods: Methods, section: str) -> Any | None:
    kept = [run for runs in with_section(methods, section).values() for run in runs]
    return kept[0] if len(kept) == 1 and sum(map(len, methods.values())) == 1 else None

"""What text a dataset has, and how long the prompts made of it are: counted before any LLM time is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recbole_hnlm.cost.token_count import SAMPLE, TokenCounter, reply_opening
from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.stages.profile import item_prompts, user_prompts
from recbole_hnlm.utils.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from recbole_hnlm.stages.context import StageContext

__all__ = ["Coverage", "coverage_text", "draw_lengths", "field_counts", "measure_coverage"]

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BINS = 40
_FIELDS = ("title", "categories", "city", "description")


@dataclass(frozen=True)
class Coverage:
    """Text of a training split.

    Attributes:
        dataset: its name.
        items: items of the dataset after its filters.
        users: users of the dataset after its filters.
        fields: items with a title, categories, city and description, by field; None where there is no such column.
        any_text: items that say what they are: with title, categories or description.
        reviewed_items: items with a review in the training split; None where there is no such column.
        reviewing_users: users with a review in the training split; None where there is no such column.
        lengths: tokens of the prompts for profiles, by kind (``users``, ``items``), int64 ``[N]``.
        prompts: number of those prompts, by kind; more than ``lengths`` where a sample was counted.
        how: how tokens were counted.
    """

    dataset: str
    items: int
    users: int
    fields: dict[str, int | None]
    any_text: int
    reviewed_items: int | None
    reviewing_users: int | None
    lengths: dict[str, NDArray[np.int64]]
    prompts: dict[str, int]
    how: str


def measure_coverage(context: StageContext, counter: TokenCounter) -> Coverage:
    """Count what text the items of a training split have, and the tokens of the prompts for profiles.

    Raises:
        DataError: the text of the dataset cannot be read; the message says how to fix it.
    """
    training, texts = context.training, context.item_texts.values()
    reviews, report = context.read_reviews_of(np.arange(len(training)))
    has_reviews = report is not None and report.columns["review"] is not None
    opening = reply_opening(profile_format(context.settings))
    prompts = {"users": list(user_prompts(context).values()), "items": list(item_prompts(context).values())}
    return Coverage(
        dataset=context.dataset_name,
        items=training.n_items - 1,
        users=training.n_users - 1,
        fields=field_counts(context),
        any_text=len(texts),
        reviewed_items=len({item for _, item in reviews}) if has_reviews else None,
        reviewing_users=len({user for user, _ in reviews}) if has_reviews else None,
        lengths={kind: counter.lengths(some, opening) for kind, some in prompts.items()},
        prompts={kind: len(some) for kind, some in prompts.items()},
        how=counter.how,
    )


def field_counts(context: StageContext) -> dict[str, int | None]:
    """Count the items with a title, categories, city and description, by field; None where there is no such column.

    Raises:
        DataError: the text of the dataset cannot be read; the message says how to fix it.
    """
    fields = {name: sum(bool(getattr(text, name)) for text in context.all_item_texts.values()) for name in _FIELDS}
    return {name: fields[name] if context.text_columns[name] is not None else None for name in _FIELDS}


def _shares(coverage: Coverage) -> Iterator[tuple[str, int | None, int]]:
    yield from ((name, count, coverage.items) for name, count in coverage.fields.items())
    yield "any of title, categories, description", coverage.any_text, coverage.items
    yield "reviews (in training)", coverage.reviewed_items, coverage.items
    yield "users with reviews (in training)", coverage.reviewing_users, coverage.users


def coverage_text(coverage: Coverage) -> str:
    """Return the report for the terminal: shares, then quantiles of the prompts' lengths."""
    lines = [f"text of {coverage.dataset}: {coverage.items:,} items, {coverage.users:,} users"]
    for name, count, of in _shares(coverage):
        found = "no such column" if count is None else f"{count:>9,} of {of:,} ({count / max(1, of):.1%})"
        lines.append(f"  {name:<38}{found}")
    heads = "".join(f"{name:>8}" for name in ("least", "5%", "25%", "median", "75%", "95%", "most"))
    lines += ["", f"tokens of the prompts for profiles ({coverage.how})", f"  {'':<8}{'prompts':>9}{heads}"]
    for kind, lengths in coverage.lengths.items():
        # "lower" gives lengths that occur.
        cells = np.quantile(lengths, _QUANTILES, method="lower").tolist() if len(lengths) else []
        lines.append(f"  {kind:<8}{coverage.prompts[kind]:>9,}" + "".join(f"{int(cell):>8,}" for cell in cells))
    if any(coverage.prompts[kind] > len(lengths) for kind, lengths in coverage.lengths.items()):
        lines.append(f"  (of each kind at most {SAMPLE:,} prompts, drawn at random, were counted)")
    return "\n".join(lines)


def _edges(lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Edges of at most 40 bins that hold equally many whole numbers each; other edges make spikes that are not in the data."""
    least, most = int(lengths.min()), int(lengths.max())
    width = -(-(most - least + 1) // _BINS)
    return np.arange(least, most + width + 1, width) - 0.5


def draw_lengths(coverage: Coverage, path: Path) -> None:
    """Draw histograms of the prompts' lengths as PNG.

    Raises:
        ArtifactError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 -- only this picture needs it

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, (kind, lengths) in zip(figure.subplots(1, len(coverage.lengths)), coverage.lengths.items(), strict=True):
        if len(lengths):
            axis.hist(lengths, bins=_edges(lengths), color="#4477aa")
            median = int(np.quantile(lengths, 0.5, method="lower"))
            axis.axvline(median, linestyle="--", color="#cc3311", label=f"median {median:,}")
            axis.legend(fontsize="small")
        axis.set(title=f"profiles of {kind}", xlabel="tokens of a prompt", ylabel="prompts")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(visible=True, alpha=0.3)
    estimated = " (tokens estimated from characters)" if "estimate" in coverage.how else ""
    figure.suptitle(f"{coverage.dataset}: lengths of prompts{estimated}", fontsize="medium")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)

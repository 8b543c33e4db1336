"""From finished cells to the numbers of the table: means over seeds, references chosen on validation, paired tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recbole_hnlm.evaluator.statistics import PairedTest, holm, mean_std, paired_test
from recbole_hnlm.utils.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from recbole_hnlm.experiments.methods import Role
    from recbole_hnlm.experiments.store import FinishedCell

__all__ = ["Comparison", "Row", "Table", "summarise"]

_LEAST_SEEDS = 6


@dataclass(frozen=True)
class Comparison:
    """A method against the reference, on one metric.

    Attributes:
        over_users: users' values, each averaged over the seeds that both methods have.
        over_seeds: means over users, one a seed.
        adjusted: Holm-adjusted p of ``users_t``, ``users_wilcoxon``, ``seeds_t``, ``seeds_wilcoxon``, each a separate
            family over the comparisons on that metric.
    """

    over_users: PairedTest
    over_seeds: PairedTest
    adjusted: dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """A method on one metric.

    Attributes:
        label: name of the method.
        role: what it reads, see :func:`recbole_hnlm.experiments.methods.role_of`.
        seeds: seeds that finished.
        values: mean over users for each of them.
        mean: their mean.
        std: their sample standard deviation; None for one seed.
        is_best: whether no mean is higher.
        is_reference: whether it is the method that others are tested against.
        improvement: ``mean / reference mean - 1``; None for the reference, or where there is none or its mean is 0.
        epoch_seconds: mean over seeds of the median epoch, without validation; None where no epoch was timed.
        comparison: tests against the reference, or None where there are none.
        chosen: the point of the grid that it takes, as text; None where rows were not tuned.
        false_negative_rate: share of its negatives that are held-out positives, over epochs and seeds; None where uncounted.
    """

    label: str
    role: Role
    seeds: list[int]
    values: list[float]
    mean: float
    std: float | None
    is_best: bool
    is_reference: bool
    improvement: float | None
    epoch_seconds: float | None
    comparison: Comparison | None
    chosen: str | None = None
    false_negative_rate: float | None = None


@dataclass(frozen=True)
class Table:
    """The whole comparison.

    Attributes:
        dataset: its name.
        metrics: such as ``ndcg@20``; the first is that of ``valid_metric``.
        rows: metric to rows, in the order of the command.
        rival_rows: metric to the strongest rival and the HNLM rows tested against it; empty where the table has no HNLM rows
            beside baselines and rivals.
        users: users of the test split of the first seed.
        notes: what a reader must know.
    """

    dataset: str
    metrics: list[str]
    rows: dict[str, list[Row]]
    rival_rows: dict[str, list[Row]]
    users: int
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def summarise(cells: Sequence[FinishedCell], notes: Sequence[str] = (), chosen: Mapping[str, str] | None = None) -> Table:
    """Build the table of finished cells.

    References are chosen by validation scores, never by test values: see :func:`_references`.

    Args:
        cells: at least one.
        notes: further lines to keep.
        chosen: label of each row to its point of the grid, where rows were tuned.

    Raises:
        DataError: cells of one split seed that saw different data.
    """
    _check_same_data(cells)
    groups: dict[str, list[FinishedCell]] = {}
    for cell in cells:
        groups.setdefault(cell.cell.method.label, []).append(cell)
    first = cells[0]
    metrics, references = list(first.values), _references(groups)
    sides = [
        {
            metric: [replace(row, chosen=(chosen or {}).get(row.label)) for row in _rows(groups, metric, reference)]
            for metric in metrics
        }
        for reference in references
    ]
    rows = sides[0]
    # The second table has the reference and the rows that are tested against it.
    rival_rows = {
        metric: [row for row in each if row.is_reference or row.comparison]
        for side in sides[1:]
        for metric, each in side.items()
    }
    kept = [*notes, *_reference_notes(groups, references), *_notes(groups, rows[metrics[0]])]
    return Table(str(first.record["dataset"]), metrics, rows, rival_rows, len(first.users), kept)


def _check_same_data(cells: Sequence[FinishedCell]) -> None:
    seen: dict[int, FinishedCell] = {}
    for cell in cells:
        other = seen.setdefault(cell.cell.split_seed, cell)
        same_users = np.array_equal(cell.users, other.users)
        if not same_users or cell.record["split_fingerprint"] != other.record["split_fingerprint"]:
            raise DataError(
                f"cells {other.cell.id} and {cell.cell.id} were run on different data or splits: delete the files of the wrong "
                "ones in cells/ and run again"
            )
        if list(cell.values) != list(other.values):
            raise DataError(
                f"cells {other.cell.id} and {cell.cell.id} hold different metrics: use the same topk for every model"
            )


class _Reference(NamedTuple):
    """A row that others are tested against.

    Attributes:
        label: None where no candidate was evaluated on validation.
        what: what it is the strongest of.
        tested: labels of the rows that are tested against it.
    """

    label: str | None
    what: str
    tested: list[str]


def _references(groups: dict[str, list[FinishedCell]]) -> list[_Reference]:
    """Choose the references: of each role but the last that the table has, the strongest row on validation.

    Roles are baseline, rival, hnlm, and a row is tested against the references of the roles before its own. With rows of one
    role only, the strongest of them is the reference of all others.
    """
    labels: dict[Role, list[str]] = {"baseline": [], "rival": [], "hnlm": []}
    for label, cells in groups.items():
        labels[cells[0].cell.method.role].append(label)
    present = [role for role, names in labels.items() if names]
    if len(present) == 1:
        strongest = _strongest(groups, list(groups))
        return [_Reference(strongest, "row", [label for label in groups if label != strongest])]
    return [
        _Reference(_strongest(groups, labels[role]), role, [name for later in present[place + 1 :] for name in labels[later]])
        for place, role in enumerate(present[:-1])
    ]


def _strongest(groups: dict[str, list[FinishedCell]], labels: Sequence[str]) -> str | None:
    """Return the row with the highest validation score, averaged over its seeds; the first of equals."""
    scores = {label: [cell.record["best_valid_score"] for cell in groups[label]] for label in labels}
    means = {label: float(np.mean(each)) for label, each in scores.items() if None not in each}
    return max(means, key=lambda label: means[label], default=None)


def _reference_notes(groups: dict[str, list[FinishedCell]], references: Sequence[_Reference]) -> list[str]:
    notes = []
    for reference in references:
        if reference.label is None:
            notes.append(f"No {reference.what} was evaluated on validation, so that none can be the reference: set eval_step.")
        else:
            notes.append(f"{reference.label} is the strongest {reference.what} on validation, and a reference.")
    absent = [label for label, cells in groups.items() if any(cell.record["best_valid_score"] is None for cell in cells)]
    if absent:
        notes.append(f"Never evaluated on validation, and no candidate for a reference: {', '.join(absent)}.")
    return notes


def _rows(groups: dict[str, list[FinishedCell]], metric: str, reference: _Reference) -> list[Row]:
    values = {label: [float(cell.values[metric].mean(dtype=np.float64)) for cell in cells] for label, cells in groups.items()}
    means = {label: mean_std(numbers) for label, numbers in values.items()}
    name = reference.label
    comparisons = {} if name is None else _comparisons(groups, reference.tested, name, metric)
    base, highest = 0.0 if name is None else means[name][0], max(mean for mean, _ in means.values())
    return [
        Row(
            label=label,
            role=cells[0].cell.method.role,
            seeds=[cell.cell.seed for cell in cells],
            values=values[label],
            mean=means[label][0],
            std=means[label][1],
            is_best=means[label][0] == highest,
            is_reference=label == name,
            improvement=None if label == name or base == 0 else means[label][0] / base - 1,
            epoch_seconds=_epoch_seconds(cells),
            comparison=comparisons.get(label),
            false_negative_rate=_false_negative_rate(cells),
        )
        for label, cells in groups.items()
    ]


def _comparisons(
    groups: dict[str, list[FinishedCell]], tested: Sequence[str], reference: str, metric: str
) -> dict[str, Comparison]:
    pairs = {}
    for label in tested:
        mine, theirs = ({cell.cell.seed: cell for cell in groups[name]} for name in (label, reference))
        seeds = [seed for seed in mine if seed in theirs]
        if seeds:
            one, other = ([cells[seed] for seed in seeds] for cells in (mine, theirs))
            over_users = paired_test(_by_user(one, metric), _by_user(other, metric))
            over_seeds = paired_test(
                *([float(cell.values[metric].mean(dtype=np.float64)) for cell in side] for side in (one, other))
            )
            pairs[label] = (over_users, over_seeds)
    families = {
        "users_t": [users.t_p for users, _ in pairs.values()],
        "users_wilcoxon": [users.wilcoxon_p for users, _ in pairs.values()],
        "seeds_t": [seeds.t_p for _, seeds in pairs.values()],
        "seeds_wilcoxon": [seeds.wilcoxon_p for _, seeds in pairs.values()],
    }
    adjusted = {name: holm(family) for name, family in families.items()}
    return {
        label: Comparison(users, seeds, {name: column[place] for name, column in adjusted.items()})
        for place, (label, (users, seeds)) in enumerate(pairs.items())
    }


def _by_user(cells: Sequence[FinishedCell], metric: str) -> npt.NDArray[np.float64]:
    """Average each user's value over seeds; splits that vary need not test the same users. ``[users of any seed]``."""
    users = np.concatenate([cell.users for cell in cells])
    values = np.concatenate([cell.values[metric] for cell in cells]).astype(np.float64)
    _, place = np.unique(users, return_inverse=True)
    return np.bincount(place, weights=values) / np.bincount(place)


def _epoch_seconds(cells: Sequence[FinishedCell]) -> float | None:
    medians = [float(np.median(cell.record["epoch_seconds"])) for cell in cells if cell.record["epoch_seconds"]]
    return float(np.mean(medians)) if medians else None


def _false_negative_rate(cells: Sequence[FinishedCell]) -> float | None:
    rates = [cell.record.get("false_negative_rates") for cell in cells]
    means = [float(np.mean(each)) for each in rates if each]
    return float(np.mean(means)) if means else None


def _notes(groups: dict[str, list[FinishedCell]], rows: Sequence[Row]) -> list[str]:
    notes = []
    splits = {cell.cell.split_seed for cells in groups.values() for cell in cells}
    if len(splits) > 1:
        notes.append(f"{len(splits)} splits of the data, one per seed: std and tests over seeds include the split.")
    counts = {len(cells) for cells in groups.values()}
    if len(counts) > 1:
        notes.append("Methods have different numbers of seeds; a test uses the seeds that both methods have.")
    if min(counts) == 1:
        notes.append("With one seed there are no standard deviation and no tests over seeds (n/a).")
    elif min(counts) < _LEAST_SEEDS and any(row.comparison for row in rows):
        least = 2.0 ** (1 - min(counts))
        notes.append(
            f"With fewer than {_LEAST_SEEDS} seeds Wilcoxon over seeds cannot reach .05: with {min(counts)} its smallest p is "
            f"{least:.4g}, before Holm."
        )
    at_once = {int(cell.record["cells_at_once"]) for cells in groups.values() for cell in cells}
    if at_once != {1}:
        notes.append(f"Up to {max(at_once)} cells ran at once on a machine, which lengthens seconds per epoch.")
    if any(row.false_negative_rate is not None for row in rows):
        notes.append(
            "FN %: of the negatives chosen in training, those that are held-out positives of the user; over all epochs."
        )
    versions = {str(cell.record["version"]) for cells in groups.values() for cell in cells}
    if len(versions) > 1:
        notes.append(f"Cells were made by different versions of recbole-hnlm: {', '.join(sorted(versions))}.")
    return notes

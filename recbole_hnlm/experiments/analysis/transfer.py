"""What a fine-tuned LLM finds on one or several datasets, from the records of ``finetune --eval``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.analysis.panels import COLOURS, finished, panels
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import replacing, write_json
from recbole_hnlm.utils.results import read_result
from recbole_hnlm.utils.row_files import row_writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["is_finetuning_record", "transfer_rows", "write_transfer"]

# How the items are ranked, in the order of the table.
_RANKINGS = {
    "random": "random order",
    "popularity": "popularity",
    "llm": "the unmodified LLM",
    "before": "before fine-tuning",
    "unrotated": "fine-tuned, not rotated",
    "after": "fine-tuned",
    "teacher": "the teacher's own scores",
}
_METRICS = ("recall@10", "recall@50", "mrr", "cos_pos", "cos_neg")
_COLUMNS: dict[str, type] = {
    **{"dataset": str, "finetuned_on": str, "heldout_users": int, "ranking": str},
    **dict.fromkeys(_METRICS, float),
}


def is_finetuning_record(path: str | Path) -> bool:
    """Whether a record is one of ``finetune --eval``.

    Raises:
        ArtifactError: it is absent, damaged, or no record of a run.
    """
    record = read_result(path).record
    return "heldout_users" in record and isinstance(record.get("after"), dict)


def transfer_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each dataset and ranking of the items.

    Args:
        records: of ``finetune --eval``.

    Returns:
        Rows with ``dataset``, ``finetuned_on`` (another dataset where the LLM was transferred), ``heldout_users``, ``ranking``
        and ``recall@10``, ``recall@50``, ``mrr``, ``cos_pos``, ``cos_neg`` (the last two None where a ranking has no vectors).

    Raises:
        ArtifactError: a record lacks what the table needs.
    """
    rows = []
    for record in records:
        try:
            source = record.get("transferred_from", record)["dataset"]
            about = {"dataset": record["dataset"], "finetuned_on": source, "heldout_users": record["heldout_users"]}
            rows += [
                {**about, "ranking": name, **{metric: record[name].get(metric) for metric in _METRICS}}
                for name in _RANKINGS
                if name in record
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"record {record.get('run_id')} is not of finetune --eval ({error}): measure again") from error
    return rows


def write_transfer(records: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Write ``transfer.json``, ``.csv``, ``.md`` and ``.png``; returns the table in Markdown.

    Raises:
        ArtifactError: a record lacks what the table needs, or a file cannot be written.
    """
    rows = transfer_rows(records)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "transfer.json", {"schema": "recbole-hnlm/transfer", "version": 1, "rows": rows})
    with row_writer(folder / "transfer.csv", _COLUMNS) as append:
        append({name: [row[name] for row in rows] for name in _COLUMNS})
    table = _markdown(rows)
    with replacing(folder / "transfer.md") as partial:
        partial.write_text(table, encoding="utf-8")
    with replacing(folder / "transfer.png") as partial:
        _drawn(rows).savefig(partial, format="png", dpi=130)
    return table


def _by_dataset(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Rows by dataset, with where the LLM was fine-tuned if elsewhere, and by ranking."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        elsewhere = row["finetuned_on"] != row["dataset"]
        name = f"{row['dataset']} (LLM of {row['finetuned_on']})" if elsewhere else str(row["dataset"])
        found.setdefault(name, {})[str(row["ranking"])] = row
    return found


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for name, rankings in _by_dataset(rows).items():
        users = next(iter(rankings.values()))["heldout_users"]
        lines += [
            f"| {name}, {users:,} users | recall@10 | recall@50 | MRR | cos to hard negative | cos to interacted item |",
            "|---|---|---|---|---|---|",
        ]
        for ranking, row in rankings.items():
            cells = ["" if row[metric] is None else f"{row[metric]:.3f}" for metric in _METRICS]
            lines.append(f"| {_RANKINGS[ranking]} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _drawn(rows: Sequence[Mapping[str, Any]]) -> Any:
    datasets = _by_dataset(rows)
    shown = [name for name in _RANKINGS if any(name in rankings for rankings in datasets.values())]
    colours = dict(zip(_RANKINGS, COLOURS, strict=False))  # a ranking has its colour whatever else is shown
    figure, (axis,) = panels(1, 3.6, 2.6 + 2.2 * len(datasets))
    width = 0.84 / len(shown)
    there = [[name for name in shown if name in rankings] for rankings in datasets.values()]
    for name in shown:
        bars = {
            place + (names.index(name) - (len(names) - 1) / 2) * width: float(rankings[name]["recall@50"])
            for place, (names, rankings) in enumerate(zip(there, datasets.values(), strict=True))
            if name in names
        }
        axis.bar(list(bars), list(bars.values()), width, color=colours[name], label=_RANKINGS[name])
        for centre, value in bars.items():
            axis.text(centre, value + 0.015, f"{value:.2f}".removeprefix("0"), ha="center", fontsize="x-small")
    axis.set(xticks=range(len(datasets)), ylabel="recall@50", ylim=(0, 1.1))
    axis.set_xticklabels([name.replace(" (", "\n(") for name in datasets])
    return finished(figure, [axis], "the teacher's hard negative of held-out users, sought among all items", len(shown))

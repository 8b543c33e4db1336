"""The published table: finished comparisons of several datasets on one page.

python tools/main_table.py comparison/ml-100k comparison/amazon-toys --ours="HNLM, fused" --out=results/main.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from recbole_hnlm.utils.errors import ConfigError, HNLMError
from recbole_hnlm.utils.files import replacing

__all__ = ["page", "verdict"]

_TARGETS = {"rival": 0.05, "baseline": 0.20}
_READS = {"rival": "that reads the same texts", "baseline": "that reads no text"}
_COLUMNS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20", "tailpercentage@20")


def _strongest(rows: list[dict[str, Any]], role: str, ours: str) -> dict[str, Any] | None:
    """Return the row of a role with the best validation score; test values play no part."""
    known = [row for row in rows if row["role"] == role and row["label"] != ours and row["valid"] is not None]
    return max(known, key=lambda row: row["valid"], default=None)


def verdict(dataset: str, rows: list[dict[str, Any]], ours: str) -> str:
    """Say in one sentence how far our row is from the strongest rival and baseline, and whether the targets are met.

    Args:
        dataset: its name.
        rows: ``label``, ``role``, ``valid`` (None where it was never evaluated) and ``test`` (metric to mean) of each.
        ours: label of our row.
    """
    own = next((row for row in rows if row["label"] == ours), None)
    if own is None:
        return f"{dataset}: there is no row {ours!r}."
    parts = []
    for role, target in _TARGETS.items():
        other = _strongest(rows, role, ours)
        if other is None:
            parts.append(f"there is no method {_READS[role]}")
            continue
        gain = own["test"]["ndcg@20"] / other["test"]["ndcg@20"] - 1
        met = "met" if gain >= target else "missed"
        parts.append(f"{gain:+.1%} against {other['label']}, the strongest {_READS[role]} (target {target:+.0%}: {met})")
    return f"{dataset}, NDCG@20 of {ours}: {'; '.join(parts)}."


def _rows(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Read a comparison's folder: the dataset and its rows, in the order of the table."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        table = results["table"]
        roles = {row["label"]: row for row in table["rows"][table["metrics"][0]]}
        records: dict[str, list[dict[str, Any]]] = {label: [] for label in roles}
        for identity, label in results["labels"].items():
            if identity not in results["missing"]:
                records[label].append(json.loads((folder / "cells" / f"{identity}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder} holds no finished comparison: {error!r}; run recbole-hnlm compare --out={folder}"
        ) from error
    return table["dataset"], [_row(label, roles[label], cells) for label, cells in records.items() if cells]


def _row(label: str, row: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in _COLUMNS if all(name in cell["test_result"] for cell in cells)]
    values = {name: [float(cell["test_result"][name]) for cell in cells] for name in names}
    scores = [cell["best_valid_score"] for cell in cells]
    seconds = [sum((cell.get("seconds") or {}).values()) for cell in cells]
    return {
        "label": label,
        "role": row["role"],
        "valid": None if None in scores else statistics.fmean(scores),
        "test": {name: statistics.fmean(each) for name, each in values.items()},
        "std": {name: statistics.stdev(each) if len(each) > 1 else None for name, each in values.items()},
        "seeds": len(cells),
        "seconds": statistics.fmean(seconds),
        "chosen": row["chosen"],
    }


def page(folders: list[Path], ours: str, commands: list[str]) -> str:
    """Return the page: the verdict on each dataset first, then a table for each.

    Raises:
        ConfigError: a folder without a finished comparison.
    """
    found = [_rows(folder) for folder in folders]
    lines = ["# Every method on one page", ""]
    lines += [f"- {verdict(dataset, rows, ours)}" for dataset, rows in found]
    lines += ["", "Mean over seeds, ± sample standard deviation; references and keys were chosen on validation.", ""]
    for dataset, rows in found:
        names = [name for name in _COLUMNS if any(name in row["test"] for row in rows)]
        lines += [f"## {dataset}", "", "| method | reads | validation | " + " | ".join(names) + " | seconds | seeds | chosen |"]
        lines += ["|" + "---|" * (len(names) + 6)]
        best = {name: max(row["test"].get(name, float("-inf")) for row in rows) for name in names}
        for row in sorted(rows, key=lambda each: -(each["valid"] or 0.0)):
            cells = [_cell(row, name, best[name]) for name in names]
            valid = "" if row["valid"] is None else _digits(row["valid"])
            reads = {"baseline": "interactions", "rival": "texts"}.get(row["role"], "texts and language model")
            lines.append(
                f"| {row['label']} | {reads} | {valid} | {' | '.join(cells)} | {row['seconds']:,.0f} | {row['seeds']} | "
                f"{row['chosen'] or ''} |"
            )
        lines.append("")
    return "\n".join([*lines, "```bash", *commands, "```", ""])


def _digits(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _cell(row: dict[str, Any], name: str, best: float) -> str:
    if name not in row["test"]:
        return ""
    text = _digits(row["test"][name])
    text += "" if row["std"][name] is None else f" ± {_digits(row['std'][name])}"
    return f"**{text}**" if row["test"][name] == best else text


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of recbole-hnlm compare")
    parser.add_argument("--ours", required=True, metavar="ROW", help="the row that the verdict is about")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE")
    parser.add_argument("--command", action="append", default=[], help="a line for the last block: what repeats the page")
    arguments = parser.parse_args()
    try:
        text = page(arguments.folders, arguments.ours, arguments.command)
    except HNLMError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    with replacing(arguments.out) as partial:
        partial.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

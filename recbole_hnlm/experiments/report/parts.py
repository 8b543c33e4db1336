"""Parts of a page that a run, a comparison and a search have in common."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.report.text import plural, seconds_text, value_text
from recbole_hnlm.experiments.report.view import Cell, Code, Column, Details, Facts, Keys, Note, People, Section, Table
from recbole_hnlm.stages.report import sum_if_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.experiments.report.samples import Samples
    from recbole_hnlm.experiments.report.view import Block

__all__ = [
    "PLACES",
    "config_section",
    "data_blocks",
    "energy_blocks",
    "people_section",
    "repeat_section",
    "run_command",
    "tokens_by_stage",
    "tokens_of_replies",
    "versions",
]

# Keys that say where things are and what is shown: no part of what was run.
PLACES = frozenset({
    *("checkpoint_dir", "results_dir", "log_dir", "data_path", "run_id", "show_progress", "state", "resume", "device"),
})  # fmt: skip
_SPLITS = (("train", "training"), ("valid", "validation"), ("test", "test"))
_FIELDS = {"title": "a title", "categories": "categories", "city": "a city", "description": "a description"}
_SPLIT_WORDS = {"RS": "shares", "LS": "leave one out:"}
_ORDERS = {"RO": "in random order", "TO": "by time"}
_SHOWN_PACKAGES = ("recbole-hnlm", "recbole", "torch", "transformers", "python", "numpy")


def run_command(record: Mapping[str, Any]) -> str:
    """Return the command that repeats a run; empty where the record does not hold the keys that were given."""
    given = record.get("given")
    if not isinstance(given, dict):
        return ""
    keys = {**{key: value for key, value in given.items() if key not in {"model", "dataset", *PLACES - {"data_path"}}}}
    keys.setdefault("seed", record["seed"])
    parts = ["recbole-hnlm", "run", f"--model={record['model']}", f"--dataset={record['dataset']}"]
    return shlex.join(
        [*parts, *(f"--{key}={value if isinstance(value, str) else value_text(value)}" for key, value in keys.items())]
    )


def data_blocks(record: Mapping[str, Any], samples: Samples) -> list[Block]:
    """Say what a run was trained and tested on: users, items, interactions, split, text."""
    config, counts = record["config"], record.get("data")
    pairs = [("dataset", str(record["dataset"]))]
    if isinstance(counts, dict):
        total = sum(counts[name] for name, _ in _SPLITS)
        density = total / max(1, counts["users"] * counts["items"])
        pairs += [
            ("users", f"{counts['users']:,}"),
            ("items", f"{counts['items']:,}"),
            ("interactions", f"{total:,} ({100 * density:.3g} % of all pairs)"),
            *((f"in {label}", f"{counts[name]:,} ({counts[name] / max(1, total):.0%})") for name, label in _SPLITS),
        ]
    if isinstance(config.get("eval_args"), dict):
        pairs.append(("how it was split", _split_text(config["eval_args"])))
    if record.get("split_fingerprint"):
        pairs.append(("fingerprint of the training split", str(record["split_fingerprint"])))
    pairs += _text_facts(record, samples)
    blocks: list[Block] = [Facts(pairs)]
    if not isinstance(counts, dict):
        blocks.append(Note("The counts of users, items and interactions are not in this record: an older version wrote it."))
    return blocks


def _split_text(eval_args: Mapping[str, Any]) -> str:
    """Put RecBole's ``eval_args`` into words."""
    split = eval_args.get("split") or {}
    how = ", ".join(f"{_SPLIT_WORDS.get(key, key)} {value_text(value)}" for key, value in split.items())
    order = _ORDERS.get(str(eval_args.get("order")), str(eval_args.get("order")))
    group = f"within each {eval_args['group_by']}" if eval_args.get("group_by") else ""
    mode = eval_args.get("mode")
    ranked = f"ranking {mode if isinstance(mode, str) else value_text(mode)}" if mode else ""
    return "; ".join(part for part in (how, order, group, ranked) if part)


def _text_facts(record: Mapping[str, Any], samples: Samples) -> list[tuple[str, str]]:
    facts = [
        (f"items with {_FIELDS[name]}", f"{count:,} of {samples.items:,} ({count / max(1, samples.items):.0%})")
        for name, count in samples.coverage.items()
        if count is not None
    ]
    coverage = record.get("semantic_coverage")
    if isinstance(coverage, dict):
        facts += [
            (f"{name.replace('_', ' ')} with a semantic vector", f"{100 * share:.2f} %") for name, share in coverage.items()
        ]
    elif isinstance(coverage, float):
        facts.append(("training pairs with a semantic vector", f"{100 * coverage:.2f} %"))
    for name, stage in (record.get("stages") or {}).items():
        facts.append((f"LLM stage {name}", _stage(stage)))
    return facts


def _stage(stage: Mapping[str, Any]) -> str:
    made, total, seconds = stage["generated"], stage["total"], stage["seconds"]
    counts = f"{total:,} in all, {made:,} made by this run"
    rest = [f"{stage[name]:,} {name}" for name in ("missing", "declined") if stage.get(name)]
    return ", ".join([counts, *rest]) + f" ({seconds_text(seconds)})"


def tokens_by_stage(record: Mapping[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    """Return stage -> tokens that it let the LLM read and write in this run; None where the record does not say."""
    stages = record.get("stages") or {}
    return {name: (stage.get("prompt_tokens"), stage.get("completion_tokens")) for name, stage in stages.items()}


def tokens_of_replies(record: Mapping[str, Any]) -> int | None:
    """Return the tokens, read and written, that made the replies which a run reads, whichever run asked for them.

    None where that is not known: an older version or a server that does not say made some, or they came from the cache.
    """
    return sum_if_known(stage.get("tokens_of_all") for stage in (record.get("stages") or {}).values())


def people_section(samples: Samples) -> Section:
    """Show sample users, or say what is missing."""
    lead = (
        "Users at evenly spaced places of the order by training interactions. Held-out items are shown beside what was "
        "recommended; the LLM never saw them."
    )
    blocks: list[Block] = [Note(line) for line in samples.missing]
    if samples.people:
        blocks.insert(0, People(samples.people))
    return Section("people", "Sample users", lead if samples.people else "", blocks)


def config_section(configs: Mapping[str, Mapping[str, Any]]) -> Section:
    """Show the keys that differ between methods, then all keys of each, folded away.

    Args:
        configs: method -> its configuration.
    """
    names = list(configs)
    keys = sorted({key for config in configs.values() for key in config} - PLACES)
    texts = {key: [value_text(config.get(key)) for config in configs.values()] for key in keys}
    different = [key for key in keys if len(set(texts[key])) > 1]
    blocks: list[Block] = []
    if len(names) > 1:
        rows = [[Cell(key), *(Cell(text) for text in texts[key])] for key in different]
        columns = [Column("key"), *map(Column, names)]
        table = Table("Keys that differ between methods", columns, rows, searchable=len(rows) > 8)
        blocks.append(table if rows else Note("No key differs between the methods but the model itself."))
        common = [(key, texts[key][0]) for key in keys if key not in different]
        blocks.append(Details(f"All {len(common):,} keys that the methods share", [Keys(common)]))
    else:
        blocks.append(Details(f"All {len(keys):,} keys", [Keys([(key, texts[key][0]) for key in keys])]))
    return Section("configuration", "Configuration", "", blocks)


def versions(records: Sequence[Mapping[str, Any]]) -> list[Block]:
    """List versions of packages, and the state of the code; several where records differ."""

    def values(name: str) -> str:
        found = [
            record.get("versions", {}).get(name) or (record.get("version") if name == "recbole-hnlm" else None)
            for record in records
        ]
        return ", ".join(dict.fromkeys(str(each) for each in found if each))

    packages = dict.fromkeys(name for record in records for name in record.get("versions", {}))
    shown = [name for name in _SHOWN_PACKAGES if name in packages or name == "recbole-hnlm"]
    sources = ", ".join(dict.fromkeys(str(record["source"]) for record in records if record.get("source")))
    rest = [(name, values(name)) for name in packages if name not in shown]
    peak = max((int(record.get("peak_rss_bytes") or 0) for record in records), default=0)
    facts = [(name, values(name)) for name in shown if values(name)]
    facts += [("digest of the code", sources)] if sources else []
    facts += [("peak memory", f"{peak / 2**30:.2f} GiB")] if peak else []
    return [Facts(facts), *([Details(f"{plural(len(rest), 'more package')}", [Facts(rest)])] if rest else [])]


def energy_blocks(rows: Sequence[Mapping[str, str]]) -> list[Block]:
    """Show what codecarbon measured, or say how to let it measure."""
    if not rows:
        note = (
            "Energy was not measured. codecarbon writes emissions.csv for a command that it watches; the report shows that "
            "file where it lies beside the results. Offline it sends nothing, and takes the country of the grid from you:"
        )
        watch = "CODECARBON_OUTPUT_DIR=results codecarbon monitor --offline --country-iso-code=FRA"
        return [Note(note, code=f"{watch} -- recbole-hnlm run --model=MODEL --dataset=DATASET")]

    def total(name: str) -> float:
        return sum(float(row.get(name) or 0.0) for row in rows)

    try:
        pairs = [
            ("energy", f"{total('energy_consumed'):.4g} kWh"),
            ("CO₂ equivalents", f"{1000 * total('emissions'):.4g} g"),
            ("duration", seconds_text(total("duration"))),
            ("grid", ", ".join(dict.fromkeys(row["country_name"] for row in rows if row.get("country_name")))),
        ]
    except ValueError:
        return [Note("emissions.csv lies beside the results, but holds no numbers that can be read.", is_warning=True)]
    return [Facts([pair for pair in pairs if pair[1]])]


def repeat_section(
    command: str, records: Sequence[Mapping[str, Any]], energy: Sequence[Mapping[str, str]], why: str
) -> Section:
    """Say how to repeat it, with what versions it was made, and what energy it took."""
    blocks: list[Block] = [Code(command)] if command else [Note(why)]
    blocks += versions(records)
    blocks += energy_blocks(energy)
    return Section("repeat", "Repeat it", "", blocks)

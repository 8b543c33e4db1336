"""Writing ``<name>.inter`` and ``<name>.item`` from a dump: streaming, and both files or none."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, BinaryIO

import psutil

from recbole_hnlm import __version__
from recbole_hnlm.prepare.columns import text_cells
from recbole_hnlm.prepare.lines import FileTally, read_columns
from recbole_hnlm.prepare.registry import SOURCES
from recbole_hnlm.prepare.report import PrepareReport
from recbole_hnlm.prepare.seen import SeenPairs
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.given_paths import input_file, output_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from recbole_hnlm.prepare.source import Source

__all__ = ["MAX_BROKEN_SHARE", "prepare"]

MAX_BROKEN_SHARE = 0.001
"""Share of a file's records that may be unreadable or incomplete unless the caller says otherwise."""

_INTER_COLUMNS = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _write(stream: BinaryIO, rows: Iterable[Sequence[str]]) -> None:
    """Write rows of cells."""
    text = "\n".join(map("\t".join, rows))
    if text:
        stream.write(f"{text}\n".encode())


def _write_inter(stream: BinaryIO, source: Source, report: PrepareReport, limit: float, *, with_reviews: bool) -> SeenPairs:
    """Write the interactions, one per usable record, in the order of the dump."""
    _write(stream, [[*_INTER_COLUMNS, "review:token_seq"] if with_reviews else _INTER_COLUMNS])
    seen = SeenPairs()
    for users, items, ratings, times, reviews in read_columns(report.reviews, "reviews", source.review, source.unusual, limit):
        seen.extend(users, items)
        seconds = list(map(float, times))
        first, last = min(seconds), max(seconds)
        report.first_time = min(report.first_time, first)
        report.last_time = max(report.last_time, last)
        texts = [text_cells(reviews)] if with_reviews else []
        _write(stream, zip(users, items, ratings, times, *texts, strict=True))
    report.interactions, report.items = len(seen), len(seen.items)
    report.users, pairs = seen.distinct()
    report.repeated = report.interactions - pairs
    return seen


def _write_item(stream: BinaryIO, source: Source, report: PrepareReport, limit: float, items: Mapping[str, int]) -> None:
    """Write each item of the interactions once: its first metadata record, or its id alone where it has none."""
    _write(stream, [["item_id:token", *(f"{field}:token_seq" for field in source.item_fields)]])
    described: set[str] = set()
    filled = [0] * len(source.item_fields)
    for ids, *texts in read_columns(report.meta, "metadata", source.item, source.unusual, limit):
        new = []
        for place, item in enumerate(ids):
            if item not in items:
                report.meta_unused += 1
            elif item in described:
                report.meta_repeated += 1
            else:
                described.add(item)
                new.append(place)
        columns = [text_cells([column[place] for place in new]) for column in texts]
        for number, column in enumerate(columns):
            filled[number] += len(new) - column.count("")
        _write(stream, zip([ids[place] for place in new], *columns, strict=True))
    # RecBole drops the interactions of items that a loaded .item lacks (filter_inter_by_user_or_item).
    _write(stream, ([item, *[""] * len(filled)] for item in items if item not in described))
    report.items_without_meta = report.items - len(described)
    report.filled = dict(zip(source.item_fields, filled, strict=True))


def _checked(name: str, out: Path, max_broken_share: float) -> Path:
    """Refuse, before anything is read, what cannot work; return the folder to write."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r}: expected letters, digits, dots, dashes and underscores, as in amazon-toys-18")
    if not 0 <= max_broken_share <= 1:
        raise ConfigError(f"max_broken_share {max_broken_share}: expected a share between 0 and 1")
    folder = out / name
    if (folder / f"{name}.inter").exists() and not _manifest(folder).exists():
        raise ConfigError(
            f"{folder} holds a dataset that recbole-hnlm prepare did not write; choose another --name or --out, or remove it"
        )
    return folder


def _manifest(folder: Path) -> Path:
    return folder / f"{folder.name}.prepare.json"


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed conversions left: temporary files named after a process that is gone."""
    for suffix in ("inter", "item", "prepare.json"):
        for path in folder.glob(f"{folder.name}.{suffix}.*.tmp"):
            process = path.name.split(".")[-2]
            if process.isdigit() and not psutil.pid_exists(int(process)):
                path.unlink(missing_ok=True)


def prepare(
    source: str,
    reviews: str | Path,
    meta: str | Path,
    name: str,
    out: str | Path,
    *,
    with_reviews: bool = False,
    max_broken_share: float = MAX_BROKEN_SHARE,
) -> PrepareReport:
    """Write ``out/name/name.inter`` and ``name.item`` from a published dump.

    Nothing is filtered, since ratings, times and k-cores are RecBole's keys, and one prepared file serves any of them.
    Repeated interactions of a pair are kept as published for the same reason; ``rm_dup_inter: last`` keeps the latest.
    ``.item`` holds every item of the interactions once. Memory: about 12 bytes per interaction, one text per item, and buffers.

    Args:
        source: a name in :data:`~recbole_hnlm.prepare.registry.SOURCES`.
        reviews: the reviews' file, plain or gzip.
        meta: the metadata's file, plain or gzip.
        name: name of the dataset.
        out: RecBole's ``data_path``.
        with_reviews: write the reviews' texts as a column ``review``.
        max_broken_share: share of a file's records that may be unreadable or incomplete.

    Returns:
        What was read and written; ``name.prepare.json`` holds the figures.

    Raises:
        ConfigError: an unknown source, an unusable name, or a foreign dataset in the place of the output.
        DataError: an input that is missing, truncated, damaged, empty or too broken; nothing is written then.
        ArtifactError: the output cannot be written; an earlier one is left as it was.
    """
    if source not in SOURCES:
        raise ConfigError(f"source {source!r}: expected one of {', '.join(SOURCES)}")
    described = SOURCES[source]
    reviews, meta = (
        input_file(path, f"--{option}:", "a dump, plain or gzip; download it first", DataError)
        for path, option in ((reviews, "reviews"), (meta, "meta"))
    )
    folder = _checked(name, output_folder(out, "--out"), max_broken_share)
    _remove_leftovers(folder)
    report = PrepareReport(folder, FileTally(reviews), FileTally(meta))
    with replacing(folder / f"{name}.inter") as inter, replacing(folder / f"{name}.item") as item:
        with inter.open("wb") as stream:
            seen = _write_inter(stream, described, report, max_broken_share, with_reviews=with_reviews)
        with item.open("wb") as stream:
            _write_item(stream, described, report, max_broken_share, seen.items)
        facts = {
            "version": __version__,
            "source": source,
            "with_reviews": with_reviews,
            "inputs": {path.name: path.stat().st_size for path in (reviews, meta)},
            "outputs": {f"{name}.inter": inter.stat().st_size, f"{name}.item": item.stat().st_size},
            "counts": report.counts(),
            "items_with_text": report.filled,
        }
        # Written before the two files take their places, so that no dataset of prepare lacks it.
        with replacing(_manifest(folder)) as manifest:
            manifest.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return report

"""A dataset's size under the paper's setting, next to the published size.

python tools/published_sizes.py --name=paper-toys --data_path=dataset
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_hnlm.utils.errors import ConfigError, DataError, HNLMError
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.values import load_yaml

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PUBLISHED", "Sizes", "check", "interval_mask", "k_core"]

_SEPARATOR = "\t"


class Sizes(NamedTuple):
    """Users, items and interactions."""

    users: int
    items: int
    interactions: int


_TOYS, _CDS = Sizes(22_338, 9_023, 200_511), Sizes(19_385, 8_279, 186_535)
_YELP, _ELECTRONICS = Sizes(29_832, 16_781, 513_976), Sizes(97_570, 44_669, 178_259)

#: Published sizes of the settings in ``properties/dataset/<name>.yaml`` (HNLMRec, arXiv 2504.04726), by that name.
PUBLISHED = {
    "paper-toys": _TOYS,
    "amazon-toys-games-18": _TOYS,
    "paper-cds": _CDS,
    "amazon-cds-vinyl-18": _CDS,
    "paper-yelp2018": _YELP,
    "yelp": _YELP,
    "yelp-2018": _YELP,
    "paper-electronics": _ELECTRONICS,
    "amazon-electronics-23": _ELECTRONICS,
}


def interval_mask(values: NDArray[np.float64], text: str) -> NDArray[np.bool_]:
    """Find which values lie in a union of intervals in RecBole's notation, such as ``[0,1);[5,inf)``; NaN lies in none."""
    inside = np.zeros(len(values), dtype=bool)
    for part in str(text).split(";"):
        low, high = (float(end) for end in part.strip()[1:-1].split(","))
        above = values >= low if part.strip()[0] == "[" else values > low
        inside |= above & (values <= high if part.strip()[-1] == "]" else values < high)
    return inside


def k_core(users: NDArray[np.int64], items: NDArray[np.int64], k: int, *, iterated: bool = True) -> NDArray[np.bool_]:
    """Find which interactions stay when users and items with fewer than ``k`` of them are removed.

    Args:
        users: indices of users, ``[P]``.
        items: indices of items, ``[P]``.
        k: the least number of interactions; both sides are counted before either is removed, as RecBole does.
        iterated: repeat until nothing is removed (RecBole); one pass leaves users and items with fewer.

    Returns:
        ``[P]``, True for an interaction that stays.
    """
    stays = np.ones(len(users), dtype=bool)
    while True:
        enough = (np.bincount(users[stays], minlength=users.max(initial=0) + 1) >= k)[users]
        enough &= (np.bincount(items[stays], minlength=items.max(initial=0) + 1) >= k)[items]
        left = stays & enough
        if not iterated or left.sum() == stays.sum():
            return left
        stays = left


def _sizes(frame: pd.DataFrame, k: int, *, iterated: bool = True) -> Sizes:
    users, items = (np.asarray(pd.factorize(frame[column])[0], dtype=np.int64) for column in frame.columns[:2])
    stays = k_core(users, items, k, iterated=iterated) if k else np.ones(len(users), dtype=bool)
    return Sizes(len(np.unique(users[stays])), len(np.unique(items[stays])), int(stays.sum()))


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read columns by name; ids stay texts, and nothing is taken for quoted or missing among them."""
    if not path.is_file():
        raise DataError(f"{path} is not there: write it with recbole-hnlm prepare, or let a run download it")
    header = path.open(encoding="utf-8").readline().rstrip("\n").split(_SEPARATOR)
    typed = {cell.split(":")[0]: cell for cell in header}
    absent = [column for column in columns if column not in typed]
    if absent:
        raise DataError(f"{path} has no column {', '.join(absent)}; its columns are {', '.join(typed)}")
    names = [typed[column] for column in columns]
    frame = pd.read_csv(
        path, sep=_SEPARATOR, usecols=names, dtype=dict.fromkeys(names, str), quoting=3, keep_default_na=False, encoding="utf-8"
    )[names]
    frame.columns = pd.Index(columns)
    for column in columns[2:]:
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame


def _windowed(frame: pd.DataFrame, windows: dict[str, str], keep: str | None, time: str) -> pd.DataFrame:
    """Apply RecBole's steps in its order: repeated pairs first, windows second."""
    if keep:
        frame = frame.sort_values(time, kind="stable").drop_duplicates(list(frame.columns[:2]), keep=keep)  # type: ignore[call-overload]
    inside = np.ones(len(frame), dtype=bool)
    for column, window in windows.items():
        inside &= interval_mask(frame[column].to_numpy(dtype=np.float64), window)
    return frame[inside]


def _line(what: str, sizes: Sizes, published: Sizes) -> str:
    cells = [f"{ours:>10,} ({ours / theirs - 1:+7.1%})" for ours, theirs in zip(sizes, published, strict=True)]
    return f"{what:<52}" + " ".join(cells)


def check(name: str, data_path: str | Path) -> str:
    """Compare a dataset's size under the paper's setting with the published one, with the choices that the paper leaves open.

    Args:
        name: a key of :data:`PUBLISHED`; its YAML file holds the setting.
        data_path: folder of datasets.

    Returns:
        A table: published, ours, and ours with one choice changed at a time.

    Raises:
        ConfigError: a name without published sizes.
        DataError: the dataset is missing or lacks a column.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"no published sizes of dataset {name!r}; they are known for {', '.join(PUBLISHED)}")
    published = PUBLISHED[name]
    settings: dict[str, Any] = load_yaml(properties_dir() / "dataset" / f"{name}.yaml")
    columns, windows = settings["load_col"]["inter"], settings["val_interval"]
    time, k = columns[3], int(float(settings.get("user_inter_num_interval", "[0,inf)")[1:].split(",")[0]))
    frame = _read(Path(data_path) / name / f"{name}.inter", columns)
    ours = _windowed(frame, windows, settings["rm_dup_inter"], time)
    open_end = windows | {time: windows[time].replace("]", ")")}
    rows = [
        f"{name}{'':<{52 - len(name)}}     users            items         interactions",
        _line("published", published, published),
        _line("ours" + (f": {k}-core iterated" if k else "") + ", end of the window part of it", _sizes(ours, k), published),
        _line("  end of the window not part of it", _sizes(_windowed(frame, open_end, "last", time), k), published),
        _line("  repeated pairs kept", _sizes(_windowed(frame, windows, None, time), k), published),
    ]
    if k:
        rows.append(_line(f"  {k}-core in one pass", _sizes(ours, k, iterated=False), published))
        rows.append(_line("  no core", _sizes(ours, 0), published))
    return "\n".join(rows)


def main() -> None:
    """Print the table for the dataset that the command line names."""
    parser = argparse.ArgumentParser(description="Compare a dataset's size under the paper's setting with its published size.")
    parser.add_argument("--name", required=True, help=", ".join(PUBLISHED))
    parser.add_argument("--data_path", default="dataset", metavar="FOLDER", help="folder of datasets (default %(default)s)")
    given = parser.parse_args()
    try:
        sys.stdout.write(f"{check(given.name, given.data_path)}\n")
    except HNLMError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

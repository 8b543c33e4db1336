"""What the benchmarks share: arguments, data, timing and the table."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    data = os.environ.get("RECBOLE_HNLM_DATA", str(DEFAULT_DATA))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with atomic/<dataset>; generated data otherwise")
    parser.add_argument("--dataset", default="gowalla", help="name of a dataset in it")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats; the median is reported")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--quick", action="store_true", help="a small generated problem, to see that the benchmark works")
    return parser


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Read the arguments that every benchmark takes."""
    arguments = argument_parser(description).parse_args()
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line too
    return arguments


def scratch() -> Path:
    """Return a new folder that is removed when the benchmark ends."""
    folder = tempfile.mkdtemp(prefix="hnlm_bench_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call, after one call that is not counted."""
    function()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def generate_pairs(n_users: int, n_items: int, n_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct (user, item) ids from 1 on, with popularity falling as rank ** -0.8."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, n_items, dtype=np.float64) ** -0.8
    items = rng.choice(np.arange(1, n_items), size=n_pairs, p=shares / shares.sum())
    users = rng.integers(1, n_users, n_pairs)
    keys = np.unique(users * np.int64(n_items) + items)
    return keys // n_items, keys % n_items


def locate_dataset(arguments: argparse.Namespace) -> tuple[str, str, str]:
    """Return (folder, dataset, description): the real dataset where it is, a generated one where it is not."""
    folder, name = arguments.data / "atomic", arguments.dataset
    if not arguments.quick and (folder / name / f"{name}.inter").is_file():
        return str(folder), name, name
    sizes = (1500, 1200, 30_000) if arguments.quick else (29_859, 40_982, 1_100_000)
    users, items = generate_pairs(*sizes, arguments.seed)
    target = scratch() / "generated"
    target.mkdir()
    with (target / "generated.inter").open("w") as stream:
        stream.write("user_id:token\titem_id:token\n")
        stream.writelines(f"{user}\t{item}\n" for user, item in zip(users.tolist(), items.tolist(), strict=True))
    why = "asked for by --quick" if arguments.quick else f"no {name} under {arguments.data}"
    return str(target.parent), "generated", f"generated ({why}): {len(users):,} interactions"


def training_keys(folder: str, seed: int, *, n_layers: int, batch: int) -> dict[str, Any]:
    """Return the keys under which RecBole's LightGCN and ours are timed: d 64, ids alone, files in a new folder."""
    return {
        "data_path": folder,
        "checkpoint_dir": str(scratch()),
        "load_col": {"inter": ["user_id", "item_id"]},
        "gpu_id": "",
        "show_progress": False,
        "embedding_size": 64,
        "n_layers": n_layers,
        "reg_weight": 1e-5,
        "train_batch_size": batch,
        "seed": seed,
    }


def report(title: str, facts: dict[str, Any], rows: list[dict[str, Any]], out: Path | None) -> None:
    """Print one table and write it as JSON when asked.

    Args:
        title: what was measured.
        facts: sizes, seeds, threads.
        rows: dictionaries with the same keys; ``ratio`` and ``target`` are compared.
        out: a JSON file or None.
    """
    facts = {"threads": torch.get_num_threads(), "torch": torch.__version__, **facts}
    print(f"\n{title}")
    print("  " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".tmp")
        partial.write_text(json.dumps({"title": title, "facts": facts, "rows": rows}, indent=2) + "\n")
        partial.replace(out)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""How time and memory grow with the data: generated interactions with power-law degrees, from 10^5 to 10^7.

Each size runs in a process of its own, through the project's own loading, model, trainer, stores and prompts: HNLMLightGCN with
DNS, d = 64, 2 layers, without an LLM. An epoch is the median of at most ``--steps`` steps times the number of steps, which are
all alike; everything else is measured whole. "MiB" is the peak of the resident memory within the part, less what the process
held before the data were loaded. The exponent is the slope of a line through the logarithms.

python benchmarks/bench_scale.py [--quick] [--sizes 100000,1000000,10000000] [--steps 10] [--picture FILE.png] [--out FILE.json]
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import argument_parser, report, scratch, training_keys

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

BATCH, LAYERS, DIMENSION, EVALUATED_TOGETHER = 8192, 2, 576, 256
_WARM = 40_000
PARTS = ("load and split", "graph and model", "epoch", "evaluation", "store, written", "store, opened and read", "prompts")


def write_dataset(folder: Path, n_pairs: int, seed: int) -> None:
    """Write ``scale.inter`` and ``scale.item``: a user for 30 interactions, an item for 100.

    Degrees of users fall as rank ** -0.5, those of items as rank ** -0.8.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = n_pairs // 30, n_pairs // 100
    sides = []
    for count, power in ((n_users, -0.5), (n_items, -0.8)):
        shares = np.arange(1, count + 1, dtype=np.float64) ** power
        sides.append(np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(int(n_pairs * 1.25))).clip(max=count - 1))
    keys = rng.permutation(np.unique(sides[0] * np.int64(n_items) + sides[1]))[:n_pairs]
    folder.mkdir()
    with (folder / "scale.inter").open("w") as stream:
        stream.write("user_id:token\titem_id:token\n")
        for start in range(0, len(keys), 1_000_000):
            part = keys[start : start + 1_000_000]
            stream.writelines(f"u{user}\ti{item}\n" for user, item in zip(part // n_items, part % n_items, strict=True))
    with (folder / "scale.item").open("w") as stream:
        stream.write("item_id:token\ttitle:token_seq\tcategories:token_seq\n")
        stream.writelines(f"i{item}\tThe title of item number {item}\tSome Category\n" for item in range(n_items))


def resident_mib(kind: str) -> float:
    """Return the resident memory of this process: now (``VmRSS``) or at its peak (``VmHWM``)."""
    found = re.search(kind + r":\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 1024 if found else math.nan


@contextmanager
def measured(part: str, figures: dict[str, dict[str, float]], held: float) -> Iterator[dict[str, float]]:
    """Note seconds of a part and its peak memory beyond ``held`` MiB; the block may set other seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
    figures[part] = figure = {}
    start = time.perf_counter()
    yield figure
    figure.setdefault("s", time.perf_counter() - start)
    figure["MiB"] = max(1.0, resident_mib("VmHWM") - held)
    print(f"  {part}: {figure['s']:.2f} s, {figure['MiB']:.0f} MiB", file=sys.stderr, flush=True)


def median_seconds(calls: Iterator[Any], limit: int) -> float:
    """Return the median seconds that an iterator takes for a value, after one that is not counted."""
    next(calls)
    samples = []
    start = time.perf_counter()
    for _ in calls:
        samples.append(time.perf_counter() - start)
        if len(samples) == limit:
            break
        start = time.perf_counter()
    return statistics.median(samples)


def measure_size(folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """Measure every part on the dataset ``scale`` under a folder."""
    from recbole_hnlm.config import Config  # noqa: PLC0415 -- the parent process measures nothing
    from recbole_hnlm.data.loading import load_data  # noqa: PLC0415
    from recbole_hnlm.model.building import build_model  # noqa: PLC0415
    from recbole_hnlm.semantics.attach import attach_hnlm_data, semantics_of, stage_context_of  # noqa: PLC0415
    from recbole_hnlm.stages.profile import item_prompts, user_prompts  # noqa: PLC0415
    from recbole_hnlm.trainer.factory import get_trainer_class  # noqa: PLC0415

    print(folder.name, file=sys.stderr, flush=True)
    figures: dict[str, dict[str, float]] = {}
    gc.collect()
    held = resident_mib("VmRSS")
    keys = training_keys(str(folder), seed, n_layers=LAYERS, batch=BATCH) | {
        "negative_route": "none", "alignment_weight": 0, "artifact_dir": str(folder / "artifacts"), "topk": [20],
        "metrics": ["Recall", "NDCG"], "valid_metric": "NDCG@20", "eval_users_per_batch": EVALUATED_TOGETHER,
    }  # fmt: skip
    config = Config("HNLMLightGCN", "scale", config_dict=keys)
    with measured("load and split", figures, held):
        data = load_data(config)
    with measured("graph and model", figures, held):
        loader = attach_hnlm_data(config, data.train, semantics_of(config, data.train))
        model = build_model(config, loader)
        trainer = get_trainer_class(config.model_class, config)(config, model)

    def train_steps() -> Iterator[None]:
        for batch in loader:
            trainer.optimizer.zero_grad()
            sum(model.calculate_loss(batch)).backward()
            trainer.optimizer.step()
            yield

    with measured("epoch", figures, held) as figure:
        figure["s"] = median_seconds(train_steps(), steps) * len(loader)
    trainer.eval_collector.data_collect(loader)
    with measured("evaluation", figures, held):
        trainer.evaluate(data.test, load_best_model=False)
    training = stage_context_of(config, data.train._dataset).training
    measure_store(folder, training, figures, seed, held)
    texts = Config("HNLMLightGCN", "scale", config_dict=keys | {"negative_route": "text", "semantic_users": None})
    with measured("prompts", figures, held):
        context = stage_context_of(texts, data.train._dataset)
        count = len(user_prompts(context)) + len(item_prompts(context))
    sizes = {"interactions": len(data.dataset.inter_feat), "users": training.n_users - 1, "items": training.n_items - 1}
    return {**sizes, "steps of an epoch": len(loader), "number of prompts": count, "parts": figures}


def measure_store(folder: Path, training: Any, figures: dict[str, dict[str, float]], seed: int, held: float) -> None:
    """Write one vector for each user, open the store, and look a batch of training pairs up."""
    from recbole_hnlm.data.store import VectorStore  # noqa: PLC0415
    from recbole_hnlm.data.store_format import StoreIdentity  # noqa: PLC0415
    from recbole_hnlm.data.store_writer import VectorStoreWriter  # noqa: PLC0415

    tables = [[str(token) for token in side[1:]] for side in (training.user_tokens, training.item_tokens)]
    first = np.unique(training.users, return_index=True)[1]
    identity = StoreIdentity("pairs", "generated", "1", "-", "-", "-", "-")
    rng = np.random.default_rng(seed)
    with measured("store, written", figures, held), VectorStoreWriter(folder / "pairs", identity, tables, DIMENSION) as writer:
        for start in range(0, len(first), 4096):
            rows = first[start : start + 4096]
            keys = np.stack([training.users[rows] - 1, training.items[rows] - 1], axis=1)
            writer.append(keys, rng.standard_normal((len(rows), DIMENSION), dtype=np.float32))
        writer.finish()
    with measured("store, opened and read", figures, held):
        store = VectorStore.open(folder / "pairs", identity)
        found = store.rows_of_pairs(training.user_tokens, training.item_tokens, training.users, training.items)
        np.asarray(store.vectors[np.sort(found[found >= 0][:BATCH])])


def draw(results: list[dict[str, Any]], picture: Path) -> None:
    """Draw seconds and peak memory of every part over the number of interactions."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    sizes = [result["interactions"] for result in results]
    for axis, unit, label in zip(axes, ("s", "MiB"), ("seconds", "peak memory of the part, MiB"), strict=True):
        for part, marker in zip(PARTS, "osD^vPX", strict=True):
            axis.loglog(sizes, [result["parts"][part][unit] for result in results], marker=marker, label=part)
        axis.set_xlabel("interactions")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.savefig(picture, dpi=110)


def exponent(results: list[dict[str, Any]], part: str, unit: str) -> float:
    """Return the slope of the logarithm of a figure over the logarithm of the number of interactions."""
    sizes = np.log([result["interactions"] for result in results])
    return float(np.polyfit(sizes, np.log([result["parts"][part][unit] for result in results]), 1)[0])


def _measure_in_child(n_pairs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one size in a process of its own, which has measured a small one before: imports and compiling do not count."""
    folder = scratch()
    for place, size in ((folder / "warm", _WARM), (folder / "data", n_pairs)):
        place.mkdir()
        write_dataset(place / "scale", size, arguments.seed)
    command = [sys.executable, __file__, "--child", str(folder), "--seed", str(arguments.seed), "--steps", str(arguments.steps)]
    subprocess.run(command, check=True, cwd=folder)
    return json.loads((folder / "figures.json").read_text())


def _measure_here(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure two small sizes in this process."""
    results = []
    for size in (_WARM, 2 * _WARM):
        folder = scratch()
        os.chdir(folder)
        write_dataset(folder / "scale", size, arguments.seed)
        results.append(measure_size(folder, arguments.seed, arguments.steps))
    return results


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--sizes", default="100000,300000,1000000,3000000,10000000", help="interactions, separated by commas")
    parser.add_argument("--steps", type=int, default=10, help="steps of the epoch that are timed at most")
    parser.add_argument("--picture", type=Path, help="also draw the figures into this PNG")
    parser.add_argument("--child", type=Path, help="folder of one size's data; for the benchmark itself")
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    if arguments.child is not None:
        measure_size(arguments.child / "warm", arguments.seed, 1)
        figures = measure_size(arguments.child / "data", arguments.seed, arguments.steps)
        (arguments.child / "figures.json").write_text(json.dumps(figures))
        return
    sizes = [int(size) for size in arguments.sizes.split(",")]
    results = _measure_here(arguments) if arguments.quick else [_measure_in_child(size, arguments) for size in sizes]
    rows = []
    for part in PARTS:
        row: dict[str, Any] = {"part": part}
        for result in results:
            figure = result["parts"][part]
            row[f"{result['interactions']:,}"] = f"{figure['s']:.3g} s, {figure['MiB']:,.0f} MiB"
        rows.append(row | {"exponent s": exponent(results, part, "s"), "exponent MiB": exponent(results, part, "MiB")})
    facts = {f"{result['interactions']:,}": f"{result['users']:,} users x {result['items']:,} items" for result in results}
    facts |= {"batch": BATCH, "layers": LAYERS, "d": 64, "H": DIMENSION, "steps timed": arguments.steps, "seed": arguments.seed}
    report("Growth", facts | {"cores": os.cpu_count()}, rows, arguments.out)
    if arguments.picture:
        draw(results, arguments.picture)


if __name__ == "__main__":
    main()

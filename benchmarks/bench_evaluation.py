"""Full-sort evaluation: ours against RecBole's, with texts in the ranking against without, and the choice of their weight.

One untrained HNLMLightGCN (d 64) is evaluated on validation by RecBole's own ``evaluate`` at its default batch, and by ours;
the metrics have to be equal. Texts are random vectors in clusters. All evaluations take turns in one process. "cpu" columns are
processor time, which other work on the machine disturbs less. "first" holds what is computed once for all later evaluations.

python benchmarks/bench_evaluation.py [--quick] [--data FOLDER] [--dataset gowalla] [--repeats 3] [--no-texts] [--out FILE.json]
"""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from common import argument_parser, locate_dataset, report, scratch
from recbole.trainer.trainer import Trainer

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import LoadedData, load_data
from recbole_hnlm.data.semantics import SemanticVectors, attach_vectors
from recbole_hnlm.model.building import build_model
from recbole_hnlm.trainer.factory import get_trainer_class
from recbole_hnlm.trainer.fusion_weights import score_weights

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_DIMENSION, CLUSTERS, PLACE_OF_TEXTS = 384, 200, 0


def random_texts(n_items: int, seed: int) -> SemanticVectors:
    """Return vectors of texts in clusters, of all items but one in forty."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, TEXT_DIMENSION), dtype=np.float32)
    noise = rng.standard_normal((n_items, TEXT_DIMENSION), dtype=np.float32)
    vectors = (1.5 * centres[rng.integers(0, CLUSTERS, n_items)] + noise).astype(np.float16)
    mask = np.arange(n_items) % 40 != 0
    pairs = np.empty((0, 1), dtype=np.float16), np.empty(0, dtype=np.int64)
    return SemanticVectors(*pairs, ranking_vectors=vectors, ranking_mask=mask)


def trainer_of(folder: str, dataset: str, seed: int, data: LoadedData | None, **keys: Any) -> tuple[Any, LoadedData]:
    """Return a trainer of an untrained model, ready to evaluate, and its data."""
    shared = {"data_path": folder, "checkpoint_dir": str(scratch()), "seed": seed, "use_gpu": False, "show_progress": False}
    shared |= {"load_col": {"inter": ["user_id", "item_id"]}, "embedding_size": 64, "n_layers": 3, "negative_route": "none"}
    config = Config("HNLMLightGCN", dataset, config_dict={**shared, "alignment_weight": 0.0, **keys})
    config["run_id"] = "bench"
    data = data or load_data(config)
    attach_vectors(data.train._dataset, random_texts(data.dataset.item_num, seed) if keys else None)
    trainer = get_trainer_class(config.model_class, config)(config, build_model(config, data.train))
    trainer.eval_collector.data_collect(data.train)
    return trainer, data


def clocked(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall seconds, processor seconds and the result of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--no-texts", action="store_true", help="compare with RecBole alone")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    os.chdir(scratch())  # RecBole writes its tensorboard files here
    folder, dataset, description = locate_dataset(arguments)
    plain, data = trainer_of(folder, dataset, arguments.seed, None)
    valid = data.valid
    config = plain.config
    config["eval_batch_size"] = 4096
    one_by_one = type(valid)(config, valid._dataset, valid._sampler, shuffle=False)
    calls: dict[str, Callable[[], Any]] = {
        "RecBole": lambda: Trainer.evaluate(plain, one_by_one, load_best_model=False),
        "ours": lambda: plain.evaluate(valid, load_best_model=False),
    }
    first = {}
    for form in () if arguments.no_texts else ("mean", "kernel"):
        trainer, _ = trainer_of(folder, dataset, arguments.seed, data, text_score=form, text_score_weight=0.5)
        calls[f"with texts, {form}"] = lambda t=trainer: t.evaluate(valid, load_best_model=False)
        first[f"with texts, {form}"] = clocked(calls[f"with texts, {form}"])[:2]
        calls[f"ten weights, {form}"] = lambda t=trainer: score_weights(t, valid, PLACE_OF_TEXTS)
    calls["ours"]()  # compiles what is not yet in numba's cache
    taken: dict[str, list[tuple[float, float, Any]]] = {name: [] for name in calls}
    for _ in range(arguments.repeats):
        for name, call in calls.items():
            taken[name].append(clocked(call))
    if taken["RecBole"][0][2] != taken["ours"][0][2]:
        raise SystemExit(f"metrics differ: {taken['RecBole'][0][2]} and {taken['ours'][0][2]}")
    medians = {name: tuple(statistics.median(run[clock] for run in runs) for clock in (0, 1)) for name, runs in taken.items()}
    rows = [row("evaluation", "RecBole", medians["RecBole"], medians["ours"], "<= 0.25, one thread 0.5")]
    for name, once in first.items():
        rows.append(row(f"first evaluation {name}", "without texts", medians["ours"], once, ""))
        rows.append(row(f"evaluation {name}", "without texts", medians["ours"], medians[name], "<= 1.3"))
    rows += [row(name, "without texts", medians["ours"], medians[name], "") for name in medians if name.startswith("ten")]
    facts = {"data": description, "users": int(valid.sample_size), "items": data.dataset.item_num, "d": 64}
    report("Full-sort evaluation", facts | {"seed": arguments.seed, "median of": arguments.repeats}, rows, arguments.out)


def row(part: str, against: str, reference: tuple[float, ...], own: tuple[float, ...], target: str) -> dict[str, Any]:
    """Return a row of the table."""
    ratios = {"ratio": own[0] / reference[0], "cpu ratio": own[1] / reference[1]}
    seconds = {"reference s": reference[0], "ours s": own[0], "reference cpu s": reference[1], "ours cpu s": own[1]}
    return {"part": part, "reference": against, **seconds, **ratios, "target": target}


if __name__ == "__main__":
    main()

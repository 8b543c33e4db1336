"""One epoch of each HNLM backbone against RecBole's own, on the same data with uniform negatives and no semantic part.

With ``--steps N`` an epoch ends after N batches, its beginning (views of the graph) included: for a busy machine. Both take
turns; "cpu" columns are processor time, which other work on the machine disturbs less.

python benchmarks/bench_backbones.py [--quick] [--data FOLDER] [--dataset gowalla] [--repeats 2] [--models NGCF,SGL] [--steps 2]
"""

from __future__ import annotations

import itertools
import logging
import os
import statistics
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from bench_training import BATCH, make_config
from common import argument_parser, locate_dataset, report, scratch
from recbole.data.utils import create_dataset, data_preparation
from recbole.model.general_recommender.bpr import BPR
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.model.general_recommender.ngcf import NGCF
from recbole.model.general_recommender.sgl import SGL
from recbole.trainer.trainer import Trainer
from recbole.utils import init_seed

from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import get_model_class
from recbole_hnlm.utils.values import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

# RecBole's NCL clusters on a GPU only, and it has no SimGCL: these stand without a ratio.
PAIRS = (
    ("HNLMBPR", BPR, "<= 1"),
    ("HNLMLightGCN", LightGCN, "<= 0.5"),
    ("HNLMNGCF", NGCF, "<= 0.5"),
    ("HNLMSGL", SGL, "<= 0.4"),
    ("HNLMSimGCL", None, ""),
    ("HNLMXSimGCL", None, ""),
)


class FirstBatches:
    """A training loader that ends early; everything else is the loader's."""

    def __init__(self, loader: Any, steps: int | None) -> None:
        self._loader, self._steps = loader, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._loader), self._steps)


def epoch_seconds(label: str, trainer: Any, loader: Any) -> tuple[float, float]:
    """Return the wall and processor seconds of an epoch."""
    wall, processor = time.perf_counter(), time.process_time()
    trainer._train_epoch(loader, 0)
    taken = time.perf_counter() - wall, time.process_time() - processor
    print(f"{label}: {taken[0]:.2f} s, cpu {taken[1]:.2f} s", file=sys.stderr, flush=True)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.set_defaults(repeats=2)
    parser.add_argument("--models", default="BPR,LightGCN,NGCF,SGL,SimGCL,XSimGCL", help="backbones, separated by commas")
    parser.add_argument("--steps", type=int, help="batches of an epoch; all by default")
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line too
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    os.chdir(scratch())  # RecBole writes its tensorboard files here
    folder, dataset, description = locate_dataset(arguments)
    rows, repeats = [], arguments.repeats
    for name, stock, target in (pair for pair in PAIRS if pair[0][4:] in arguments.models.split(",")):
        model_class = get_model_class(name)
        keys = load_yaml(properties_dir() / "model" / f"{name}.yaml") | {"train_batch_size": BATCH, "n_layers": 3}
        keys |= {"negative_route": "none", "alignment_weight": 0.0, "negative_sampler": "uniform"}
        config = make_config(model_class, folder, dataset, arguments.seed, **keys)
        init_seed(arguments.seed, True)
        train, _, _ = data_preparation(config, create_dataset(config))
        theirs = None if stock is None else Trainer(config, stock(config, train._dataset))
        loader = build_train_loader(config, train)
        model = model_class(config, train._dataset)
        trainer = model_class.trainer_class(config, model)
        model.calculate_loss(next(iter(loader)))  # compiles what is not yet in numba's cache
        taken: dict[str, list[tuple[float, float]]] = {"RecBole": [], "ours": []}
        for _ in range(repeats):
            if theirs is not None:
                taken["RecBole"].append(epoch_seconds(f"RecBole {name[4:]}", theirs, FirstBatches(train, arguments.steps)))
            taken["ours"].append(epoch_seconds(name, trainer, FirstBatches(loader, arguments.steps)))
        reference, own = (
            [statistics.median(run[clock] for run in taken[who]) if taken[who] else float("nan") for clock in (0, 1)]
            for who in ("RecBole", "ours")
        )
        seconds = {"RecBole s": reference[0], "ours s": own[0], "RecBole cpu s": reference[1], "ours cpu s": own[1]}
        ratios = {"ratio": own[0] / reference[0], "cpu ratio": own[1] / reference[1]}
        rows.append({"model": name, **seconds, **ratios, "target": target})
    facts = {"data": description, "batch": BATCH, "d": 64, "layers": 3, "seed": arguments.seed, "median of": repeats}
    facts["batches of an epoch"] = arguments.steps or "all"
    report("Backbones, one epoch", facts, rows, arguments.out)


if __name__ == "__main__":
    main()

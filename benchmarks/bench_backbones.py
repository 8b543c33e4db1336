"""One epoch of each HNLM backbone against RecBole's own, on the same data with uniform negatives and no semantic part.

python benchmarks/bench_backbones.py [--quick] [--data FOLDER] [--dataset gowalla] [--repeats 2] [--out FILE.json]
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from bench_training import BATCH, make_config, timed
from common import locate_dataset, parse_arguments, report, scratch
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

# RecBole's NCL clusters on a GPU only, and it has no SimGCL: these stand without a ratio.
PAIRS = (
    ("HNLMBPR", BPR, "<= 1"),
    ("HNLMLightGCN", LightGCN, "<= 0.5"),
    ("HNLMNGCF", NGCF, "<= 0.7"),
    ("HNLMSGL", SGL, "<= 0.7"),
    ("HNLMSimGCL", None, ""),
    ("HNLMXSimGCL", None, ""),
)


def epoch_seconds(label: str, trainer: Any, loader: Any, repeats: int) -> float:
    """Return the seconds of the fastest epoch."""
    return min(timed(label, lambda: trainer._train_epoch(loader, 0)) for _ in range(repeats))


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments(__doc__)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    os.chdir(scratch())  # RecBole writes its tensorboard files here
    folder, dataset, description = locate_dataset(arguments)
    rows, repeats = [], min(arguments.repeats, 2)
    for name, stock, target in PAIRS:
        model_class = get_model_class(name)
        keys = load_yaml(properties_dir() / "model" / f"{name}.yaml") | {"train_batch_size": BATCH, "n_layers": 3}
        keys |= {"negative_route": "none", "alignment_weight": 0.0, "negative_sampler": "uniform"}
        config = make_config(model_class, folder, dataset, arguments.seed, **keys)
        init_seed(arguments.seed, True)
        train, _, _ = data_preparation(config, create_dataset(config))
        theirs = float("nan")
        if stock is not None:
            theirs = epoch_seconds(f"RecBole {name[4:]}", Trainer(config, stock(config, train._dataset)), train, repeats)
        loader = build_train_loader(config, train)
        model = model_class(config, train._dataset)
        trainer = model_class.trainer_class(config, model)
        model.calculate_loss(next(iter(loader)))  # compiles what is not yet in numba's cache
        own = epoch_seconds(name, trainer, loader, repeats)
        rows.append({"model": name, "RecBole s": theirs, "ours s": own, "ratio": own / theirs, "target": target})
    facts = {"data": description, "batch": BATCH, "d": 64, "layers": 3, "seed": arguments.seed, "best of": repeats}
    report("Backbones, one epoch", facts, rows, arguments.out)


if __name__ == "__main__":
    main()

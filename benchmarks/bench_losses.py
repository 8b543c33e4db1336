"""Losses of shared negatives: seconds of one step's loss against plain autograd, and of an epoch against RecBole's LightGCN.

The epoch of stock LightGCN (BPR, RecBole's loader, sampler and trainer) and those of HNLMLightGCN under each loss run one after
the other in one process, in turns. No semantic part; the chosen negative is left out (``loss_hard_weight 0``) but where said.

python benchmarks/bench_losses.py [--quick] [--data FOLDER] [--dataset amazon-toys] [--repeats 3] [--out FILE.json]
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from common import argument_parser, locate_dataset, report, scratch, seconds, training_keys
from recbole.config import Config
from recbole.data.utils import create_dataset, data_preparation
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.trainer.trainer import Trainer
from recbole.utils import init_seed

from recbole_hnlm.config.settings import HNLMSettings, setting_names
from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.model.set_losses import Excluded, log_sum_exp_shared, softmax_loss

TEMPERATURE, NEGATIVES = 0.15, 512
PLAIN = {"negative_route": "none", "alignment_weight": 0.0, "loss_negatives": NEGATIVES}
METHODS: dict[str, dict[str, Any]] = {
    "bpr, uniform": {"negative_sampler": "uniform"},
    "bpr, dns": {"negative_sampler": "dns"},
    **{name: {"rank_loss": name, "loss_hard_weight": 0.0} for name in ("softmax", "bsl", "psl", "sl_at_k")},
    "softmax and dns": {"rank_loss": "softmax", "negative_sampler": "dns"},
}


def step_rows(rows: int, width: int, size: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Time the softmax of one batch, forwards and backwards, by autograd and by the derivative of our own."""
    draw = torch.Generator().manual_seed(seed)
    users, negatives, positives = (
        F.normalize(torch.randn(count, size, generator=draw), dim=1).requires_grad_() for count in (rows, width, rows)
    )
    left_out = torch.zeros(rows, width, dtype=torch.bool)

    def by_autograd() -> None:
        own = (users * positives).sum(dim=1) / TEMPERATURE
        scores = (users @ negatives.t() / TEMPERATURE).masked_fill(left_out, -torch.inf)
        (torch.logsumexp(torch.cat([own[:, None], scores], dim=1), dim=1) - own).mean().backward()

    def ours() -> None:
        own = (users * positives).sum(dim=1)
        sums = log_sum_exp_shared(users, negatives, Excluded.none(rows), TEMPERATURE)
        softmax_loss(sums, own, None, temperature=TEMPERATURE, hard_weight=0.0).mean().backward()

    stock, own = seconds(by_autograd, repeats), seconds(ours, repeats)
    return [_row(f"softmax of a batch of {rows:,} against {width:,} shared", stock, own, "<= 0.5", "against autograd")]


def epoch_rows(arguments: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time an epoch of each method and of RecBole's LightGCN, the least of ``--repeats`` turns."""
    folder, dataset, description = locate_dataset(arguments)
    os.chdir(scratch())  # RecBole writes its tensorboard files here
    shared = training_keys(folder, arguments.seed, n_layers=2, batch=2048)
    shared |= {name: HNLMSettings.model_fields[name].default for name in setting_names()}
    config = Config(model=LightGCN, dataset=dataset, config_dict=shared)
    init_seed(arguments.seed, True)
    train, _, _ = data_preparation(config, create_dataset(config))
    trainers = {"RecBole": (Trainer(config, LightGCN(config, train._dataset)), train)}
    for name, keys in METHODS.items():
        config = Config(model=HNLMLightGCN, dataset=dataset, config_dict=shared | PLAIN | keys)
        loader = build_train_loader(config, train)
        model = HNLMLightGCN(config, train._dataset)
        model.calculate_loss(next(iter(loader)))  # compiles what is not yet in numba's cache
        trainers[name] = (HNLMLightGCN.trainer_class(config, model), loader)
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(arguments.repeats):
        for name, (trainer, loader) in trainers.items():
            start = time.perf_counter()
            trainer._train_epoch(loader, turn)
            taken[name].append(time.perf_counter() - start)
            print(f"{name}: {taken[name][-1]:.2f} s", file=sys.stderr, flush=True)
    stock = min(taken.pop("RecBole"))
    rows = [_row(f"epoch, {name}", stock, min(times), "<= 1", "against RecBole's LightGCN") for name, times in taken.items()]
    facts = {"data": description, "training interactions": len(train._dataset), "batch": 2048, "d": 64, "layers": 2}
    return rows, facts


def _row(part: str, stock: float, own: float, target: str, note: str) -> dict[str, Any]:
    return {"part": part, "reference s": stock, "ours s": own, "ratio": own / stock, "target": target, "note": note}


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.set_defaults(dataset="amazon-toys", repeats=3)
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line too
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    rows = step_rows(*((512, 256, 16) if arguments.quick else (4096, 1024, 64)), arguments.repeats, arguments.seed)
    epochs, facts = epoch_rows(arguments)
    facts |= {"M": NEGATIVES, "seed": arguments.seed, "best of": arguments.repeats}
    report("Losses", facts, rows + epochs, arguments.out)


if __name__ == "__main__":
    main()

"""LightGCN of Cornac, of RecBole and of this project: seconds an epoch, and NDCG on validation after equally many epochs.

Cornac is what a user might take instead of RecBole; its LightGCN computes with DGL. Same training interactions, d, layers,
batch, learning rate and number of epochs, no regularisation, one uniform negative for each positive; DNS is shown beside. All
embeddings are ranked by the same evaluation. Neither package is among our dependencies:
``pip install cornac==3.0.1 dgl==1.1.3`` (Python 3.11 or older).

python benchmarks/bench_peer.py [--quick] [--data FOLDER] [--dataset amazon-toys] [--epochs 5] [--out FILE.json]
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import argument_parser, locate_dataset, report, scratch, training_keys

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.model.building import build_model
from recbole_hnlm.semantics.attach import attach_hnlm_data, semantics_of
from recbole_hnlm.trainer.factory import get_trainer_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS, BATCH, RATE = 2, 2048, 0.002


class Given:
    """Ranks by given embeddings, as a model of RecBole does."""

    def __init__(self, users: NDArray[np.float32], items: NDArray[np.float32], n_items: int) -> None:
        self.users, self.items, self.n_items = torch.from_numpy(users), torch.from_numpy(items), n_items

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Return the scores of all items."""
        return self.users[interaction["user_id"]] @ self.items.T

    def eval(self) -> None:
        """Nothing changes."""


def train_ours(model: str, folder: str, dataset: str, arguments: Any, **keys: Any) -> tuple[float, Any, Any]:
    """Train one of RecBole's or our models; return seconds an epoch, its trainer and the data."""
    measured = {"learning_rate": RATE, "reg_weight": 0.0, "topk": [20], "valid_metric": "NDCG@20"}
    base = training_keys(folder, arguments.seed, n_layers=LAYERS, batch=BATCH)
    config = Config(model, dataset, config_dict=base | measured | keys)
    data = load_data(config)
    loader = attach_hnlm_data(config, data.train, semantics_of(config, data.train))
    trainer = get_trainer_class(config.model_class, config)(config, build_model(config, loader))
    trainer.eval_collector.data_collect(loader)
    seconds = []
    for epoch in range(arguments.epochs):
        if hasattr(trainer.model, "start_epoch"):
            trainer.model.start_epoch(epoch)
        start = time.perf_counter()
        trainer._train_epoch(loader, epoch)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), trainer, data


def train_cornac(data: Any, arguments: Any) -> tuple[float, Given]:
    """Train Cornac's LightGCN on the same training interactions; return seconds an epoch and its embeddings."""
    from cornac.data import Dataset  # noqa: PLC0415 -- not among our dependencies
    from cornac.models import LightGCN  # noqa: PLC0415

    split = data.train._dataset
    pairs = zip(split.inter_feat[split.uid_field].tolist(), split.inter_feat[split.iid_field].tolist(), strict=True)
    known = Dataset.from_uir([(user, item, 1.0) for user, item in pairs], seed=arguments.seed)
    model = LightGCN(
        emb_size=64, num_epochs=arguments.epochs, learning_rate=RATE, batch_size=BATCH, num_layers=LAYERS, lambda_reg=0.0,
        seed=arguments.seed,
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(known)
    taken = (time.perf_counter() - start) / arguments.epochs
    users, items = (np.zeros((count, 64), dtype=np.float32) for count in (split.user_num, split.item_num))
    for place, known_ids in ((users, known.uid_map), (items, known.iid_map)):
        vectors = model.U if place is users else model.V
        for own, theirs in known_ids.items():
            place[own] = vectors[theirs]
    return taken, Given(users, items, split.item_num)


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.set_defaults(dataset="amazon-toys")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    if importlib.util.find_spec("cornac") is None or importlib.util.find_spec("dgl") is None:
        print("skipped: cornac and dgl are not installed (pip install cornac==3.0.1 dgl==1.1.3)")
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    folder, dataset, description = locate_dataset(arguments)
    os.chdir(scratch())
    plain = {"negative_route": "none", "alignment_weight": 0}
    stock_seconds, trainer, data = train_ours("LightGCN", folder, dataset, arguments)
    rows = [_row("RecBole 1.2.1", stock_seconds, stock_seconds, trainer, data)]
    for name, sampler in (("ours, uniform", "uniform"), ("ours, DNS 8", "dns")):
        seconds, trainer, data = train_ours("HNLMLightGCN", folder, dataset, arguments, negative_sampler=sampler, **plain)
        rows.append(_row(name, seconds, stock_seconds, trainer, data))
    seconds, given = train_cornac(data, arguments)
    trainer.model = given
    rows.append(_row("Cornac 3.0.1", seconds, stock_seconds, trainer, data))
    facts = {"data": description, "training interactions": len(data.train._dataset), "d": 64, "layers": LAYERS, "batch": BATCH}
    report("Peers", facts | {"learning rate": RATE, "epochs": arguments.epochs, "seed": arguments.seed}, rows, arguments.out)


def _row(name: str, seconds: float, stock: float, trainer: Any, data: Any) -> dict[str, Any]:
    result = trainer.evaluate(data.valid, load_best_model=False)
    return {"LightGCN of": name, "s an epoch": seconds, "to RecBole": seconds / stock, "NDCG@20, validation": result["ndcg@20"]}


if __name__ == "__main__":
    main()

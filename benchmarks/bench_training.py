"""One epoch and one full-sort evaluation: HNLMLightGCN on semantic negatives against stock LightGCN, on the same data.

Stock runs through RecBole's own loader, trainer and default evaluation batch. Ours has a vector for every pair (random fp16
vectors in a memory-mapped file), the default negative sampler and number of candidates. The alignment term is measured too:
once without it (gowalla has no text) and once with random text vectors. "RSS" is how much the resident memory of the process
grew during our epoch, as a share of the store's size.

python benchmarks/bench_training.py [--quick] [--data FOLDER] [--repeats 2] [--out FILE.json]
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from typing import Any

import numpy as np
import psutil
from common import locate_dataset, parse_arguments, report, scratch, training_keys
from recbole.config import Config
from recbole.data.utils import create_dataset, data_preparation
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.trainer.trainer import Trainer
from recbole.utils import init_seed

from recbole_hnlm.config.settings import HNLMSettings, setting_names
from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN

STORE_DIMENSION, TEXT_DIMENSION, BATCH = 576, 384, 8192


def make_config(model: type, folder: str, dataset: str, seed: int, **keys: Any) -> Config:
    """Return RecBole's configuration of the benchmark."""
    shared = training_keys(folder, seed, n_layers=3, batch=BATCH)
    ours = {name: HNLMSettings.model_fields[name].default for name in setting_names()}
    return Config(model=model, dataset=dataset, config_dict=shared | ours | keys)


def make_store(rows: int, seed: int) -> np.ndarray:
    """Write random vectors for every pair and map them."""
    path = scratch() / "vectors.npy"
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, STORE_DIMENSION))
    rng = np.random.default_rng(seed)
    for start in range(0, rows, 65_536):
        part = store[start : start + 65_536]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    store.flush()
    return np.load(path, mmap_mode="r")


def timed(label: str, function: Any) -> float:
    """Return the seconds of one call, and say so on stderr: on a large dataset each takes a while."""
    start = time.perf_counter()
    function()
    taken = time.perf_counter() - start
    print(f"{label}: {taken:.1f} s", file=sys.stderr, flush=True)
    return taken


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments(__doc__)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    os.chdir(scratch())  # RecBole writes its tensorboard files here
    folder, dataset, description = locate_dataset(arguments)
    config = make_config(LightGCN, folder, dataset, arguments.seed)
    init_seed(arguments.seed, True)
    loading = time.perf_counter()
    train, valid, _ = data_preparation(config, create_dataset(config))
    loading = time.perf_counter() - loading
    trainer = Trainer(config, LightGCN(config, train._dataset))
    trainer.eval_collector.data_collect(train)
    repeats = min(arguments.repeats, 2)
    stock_epoch = min(timed("RecBole epoch", lambda: trainer._train_epoch(train, 0)) for _ in range(repeats))
    stock_eval = timed("RecBole evaluation", lambda: trainer.evaluate(valid, load_best_model=False))

    n_pairs = len(train._dataset)
    rng = np.random.default_rng(arguments.seed)
    mask = np.ones(train._dataset.item_num, dtype=bool)
    mask[0] = False
    train._dataset.semantic_vectors = SemanticVectors(
        make_store(n_pairs, arguments.seed),
        rng.permutation(n_pairs),
        rng.standard_normal((len(mask), TEXT_DIMENSION), dtype=np.float32).astype(np.float16),
        mask,
    )
    rows, process = [], psutil.Process()
    users_per_batch = HNLMSettings.model_fields["eval_users_per_batch"].default
    for name, weight in (("epoch", 0.0), ("epoch with alignment", HNLMSettings.model_fields["alignment_weight"].default)):
        keys = {"alignment_weight": weight, "eval_batch_size": users_per_batch * len(mask)}
        config = make_config(HNLMLightGCN, folder, dataset, arguments.seed, **keys)
        loader = build_train_loader(config, train)
        model = HNLMLightGCN(config, train._dataset)
        trainer = HNLMLightGCN.trainer_class(config, model)
        trainer.eval_collector.data_collect(loader)
        model.calculate_loss(next(iter(loader)))  # compiles what is not yet in numba's cache
        before = process.memory_info().rss
        own_epoch = min(timed(name, lambda t=trainer, d=loader: t._train_epoch(d, 0)) for _ in range(repeats))
        grown = (process.memory_info().rss - before) / train._dataset.semantic_vectors.pair_vectors.nbytes
        note = f"RSS +{100 * grown:.1f} % of store"
        rows.append(row(name, stock_epoch, own_epoch, "<= 0.7", note))
    valid.update_config(config)
    faster = type(valid)(config, valid._dataset, valid._sampler, shuffle=False)
    own_eval = timed("evaluation", lambda: trainer.evaluate(faster, load_best_model=False))
    rows.append(row("full-sort evaluation", stock_eval, own_eval, "<= 0.5", f"{users_per_batch} users a batch"))
    facts = {"data": description, "training interactions": n_pairs, "batch": BATCH, "d": 64, "layers": 3}
    facts |= {"H": STORE_DIMENSION, "seed": arguments.seed, "best of": repeats, "load and split s": round(loading, 2)}
    report("Training", facts, rows, arguments.out)


def row(part: str, stock: float, own: float, target: str, note: str) -> dict[str, Any]:
    """Return a row of the table."""
    return {"part": part, "RecBole s": stock, "ours s": own, "ratio": own / stock, "target": target, "note": note}


if __name__ == "__main__":
    main()

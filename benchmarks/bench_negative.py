"""Milliseconds of a training step (loss, gradient, optimizer, candidates) under each negative sampler, against uniform.

HNLMLightGCN without its semantic part. Text vectors, which semantic_guard reads, are random.

python benchmarks/bench_negative.py [--quick] [--data FOLDER] [--repeats 5] [--out FILE.json]
"""

from __future__ import annotations

import itertools
import logging
import os
import warnings

import numpy as np
from bench_training import BATCH, TEXT_DIMENSION, make_config
from common import locate_dataset, parse_arguments, report, scratch, seconds
from recbole.data.utils import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.utils.registry import negative_sampler_names

# Neither hard negatives of the LLM nor alignment with texts: the samplers alone differ.
NO_SEMANTICS = {"negative_route": "none", "alignment_weight": 0.0}


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments(__doc__)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    os.chdir(scratch())  # RecBole writes its tensorboard files here
    folder, dataset, description = locate_dataset(arguments)
    config = make_config(HNLMLightGCN, folder, dataset, arguments.seed, **NO_SEMANTICS)
    init_seed(arguments.seed, True)
    train, _, _ = data_preparation(config, create_dataset(config))
    n_items, pairs = train._dataset.item_num, len(train._dataset)
    texts = np.random.default_rng(arguments.seed).standard_normal((n_items, TEXT_DIMENSION), dtype=np.float32)
    mask = np.ones(n_items, dtype=bool)
    train._dataset.semantic_vectors = SemanticVectors(
        np.zeros((0, 0), dtype=np.float16), np.full(pairs, -1, dtype=np.int64), texts, mask
    )
    rows, uniform = [], 0.0
    for name in negative_sampler_names():
        config = make_config(HNLMLightGCN, folder, dataset, arguments.seed, **NO_SEMANTICS, negative_sampler=name)
        init_seed(arguments.seed, True)
        loader = build_train_loader(config, train)
        model = HNLMLightGCN(config, train._dataset)
        optimizer = HNLMLightGCN.trainer_class(config, model).optimizer
        for epoch in range(5):  # srns reads five epochs, which makes its later steps its dearest
            model.start_epoch(epoch)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))

        def step(batches=batches, model=model, optimizer=optimizer) -> None:  # noqa: ANN001
            optimizer.zero_grad()
            sum(model.calculate_loss(next(batches))).backward()
            optimizer.step()

        taken = seconds(step, arguments.repeats)
        uniform = uniform or taken
        rows.append({"negative_sampler": name, "ms a step": 1000 * taken, "ratio to uniform": taken / uniform})
    facts = {"data": description, "training interactions": pairs, "batch": BATCH, "d": 64, "layers": 3}
    facts |= {"num_candidates": config["num_candidates"], "seed": arguments.seed, "repeats": arguments.repeats}
    report("Negative samplers", facts, rows, arguments.out)


if __name__ == "__main__":
    main()

"""Shared pieces of the model tests: tiny datasets on disk, RecBole configurations and semantic vectors."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import torch
from recbole.data.utils import create_dataset, data_preparation
from recbole.utils import init_seed
from stages_recbole import StockConfig

from recbole_hnlm.config.settings import HNLMSettings, setting_names
from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.fused_ranking import fused_ranking
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.model.recbole_graphs import on_current_scipy
from recbole_hnlm.utils.scores import standardise_rows

NO_SEMANTICS = {"negative_route": "none", "alignment_weight": 0.0}
"""No semantic part at all."""

PLAIN = {**NO_SEMANTICS, "negative_sampler": "uniform"}
"""No semantic part, RecBole's kind of negatives."""


@contextlib.contextmanager
def quiet_argv():
    """RecBole's Config reads sys.argv: hide pytest's."""
    saved, sys.argv = sys.argv, ["test"]
    try:
        yield
    finally:
        sys.argv = saved


def make_config(tmp_path, model=HNLMLightGCN, dataset="tiny", **keys):
    defaults = {
        "data_path": str(tmp_path),
        "checkpoint_dir": str(tmp_path / "saved"),
        "load_col": {"inter": ["user_id", "item_id"]},
        "gpu_id": "",
        "use_gpu": False,
        "show_progress": False,
        "embedding_size": 16,
        "n_layers": 2,
        "reg_weight": 1e-3,
        "require_pow": False,
        "train_batch_size": 64,
        "eval_batch_size": 100_000,
        "learning_rate": 0.01,
        "epochs": 2,
        "seed": 7,
    }
    defaults |= {name: HNLMSettings.model_fields[name].default for name in setting_names()}
    with quiet_argv():
        config = StockConfig(model=model, dataset=dataset, config_dict=defaults | keys)
    init_seed(config["seed"], config["reproducibility"])
    return config


def write_interactions(tmp_path, pairs, dataset="tiny"):
    folder = tmp_path / dataset
    folder.mkdir(exist_ok=True)
    lines = [f"u{user}\ti{item}" for user, item in pairs]
    (folder / f"{dataset}.inter").write_text("\n".join(["user_id:token\titem_id:token", *lines]) + "\n")


def write_random(tmp_path, n_users=40, n_items=30, per_user=8, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(n_users) for i in rng.choice(n_items, per_user, replace=False)]
    write_interactions(tmp_path, pairs)


def write_blocks(tmp_path, blocks=3, size=8):
    """Write users and items in blocks, where a user holds all of its block but one item, which must then come first.

    Returns that item of each user, by raw tokens.
    """
    pairs, held_out = [], {}
    for block in range(blocks):
        for position in range(size):
            user = block * size + position
            held_out[f"u{user}"] = f"i{user}"
            pairs += [(user, block * size + other) for other in range(size) if other != position]
    write_interactions(tmp_path, pairs)
    return held_out


def prepare(config):
    return data_preparation(config, create_dataset(config))


def random_vectors(train_dataset, pair_dim=12, text_dim=12, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    training = TrainingInteractions.from_dataset(train_dataset)
    rows = np.arange(len(training), dtype=np.int64)
    rows[rng.random(len(training)) < missing] = -1
    mask = np.ones(training.n_items, dtype=bool)
    mask[0] = False
    return SemanticVectors(
        pair_vectors=rng.normal(size=(len(training), pair_dim)).astype(np.float16),
        pair_rows=rows,
        item_vectors=rng.normal(size=(training.n_items, text_dim)).astype(np.float32),
        item_mask=mask,
        ranking_vectors=rng.normal(size=(training.n_items, text_dim)).astype(np.float32),
        ranking_mask=mask,
    )


def build(config, vectors=None, **vector_options):
    """Return (loader, model, valid loader, test loader) of a configuration; ``vectors`` True makes random ones."""
    train, valid, test = prepare(config)
    if vectors is True:
        vectors = random_vectors(train._dataset, **vector_options)
    train._dataset.semantic_vectors = vectors
    loader = build_train_loader(config, train)
    init_seed(config["seed"], config["reproducibility"])
    model_class = on_current_scipy(config.model_class)
    model_class = model_class if config["text_score"] == "none" else fused_ranking(model_class)
    return loader, model_class(config, train._dataset), valid, test


def text_part(text_scores, known):
    """Standardise texts' scores ``[n, I]`` over the items that have text; ``[n, I - 1]``, 0 for an item without."""
    mask = None if known is None or bool(known[1:].all()) else known[None, 1:]
    return standardise_rows(text_scores[:, 1:], mask)


def fuse_scores(scores, text_scores, weight, known=None):
    """``z(s_u)_i + w * z(s_text)_i``, ``[n, I]``, written down as it is stated; the padding id has 0."""
    return torch.nn.functional.pad(standardise_rows(scores[:, 1:]) + weight * text_part(text_scores, known), (1, 0))

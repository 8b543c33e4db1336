"""Tiny datasets, random vectors, and a model with its loaders and trainer made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import LoadedData, load_data
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.building import build_model
from recbole_hnlm.semantics.attach import Semantics, attach_hnlm_data
from recbole_hnlm.trainer.factory import get_trainer_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = [
    "DATASET",
    "Built",
    "all_scores",
    "build",
    "losses_of_whole_and_resumed",
    "random_vectors",
    "share_of_hits",
    "training_pairs",
    "write_blocks",
    "write_random",
]

DATASET = "tiny"

# What every RecBole model knows; a model's own keys keep its defaults.
_KEYS: dict[str, Any] = {
    "load_col": {"inter": ["user_id", "item_id"]},
    "use_gpu": False,
    "show_progress": False,
    "state": "WARNING",
    "topk": [5],
    "metrics": ["NDCG", "Recall"],
    "valid_metric": "NDCG@5",
    "train_batch_size": 64,
    "learning_rate": 0.01,
    "epochs": 2,
    "seed": 7,
    "split_seed": 7,
}


def _write(folder: Path, pairs: Iterable[tuple[int, int]]) -> None:
    (folder / DATASET).mkdir(exist_ok=True)
    lines = ["user_id:token\titem_id:token", *(f"u{user}\ti{item}" for user, item in pairs)]
    (folder / DATASET / f"{DATASET}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_random(folder: Path, n_users: int = 40, n_items: int = 30, per_user: int = 8) -> None:
    """Write users who hold items drawn at random, as a dataset in a folder."""
    draw = np.random.default_rng(0)
    _write(folder, [(user, int(item)) for user in range(n_users) for item in draw.choice(n_items, per_user, replace=False)])


def write_blocks(folder: Path, blocks: int = 3, size: int = 8) -> dict[str, str]:
    """Write users and items in blocks, where a user holds all of its block but one item, which must then come first.

    Returns:
        That item of each user, by raw tokens.
    """
    pairs = [(b * size + u, b * size + i) for b in range(blocks) for u in range(size) for i in range(size) if u != i]
    _write(folder, pairs)
    return {f"u{user}": f"i{user}" for user in range(blocks * size)}


def random_vectors(training: TrainingInteractions, dim: int = 12) -> SemanticVectors:
    """Make what the LLM stages would: a vector of every training pair, of every item's text and of every user's profile."""
    draw = np.random.default_rng(0)
    users, items = np.ones(training.n_users, dtype=bool), np.ones(training.n_items, dtype=bool)
    users[0] = items[0] = False
    pair_vectors = draw.normal(size=(len(training), dim)).astype(np.float16)
    item_vectors = draw.normal(size=(training.n_items, dim)).astype(np.float32)
    return SemanticVectors(
        pair_vectors=pair_vectors,
        pair_rows=np.arange(len(training), dtype=np.int64),
        item_vectors=item_vectors,
        item_mask=items,
        ranking_vectors=item_vectors,
        ranking_mask=items,
        user_vectors=draw.normal(size=(training.n_users, dim)).astype(np.float32),
        user_mask=users,
    )


@dataclass(frozen=True)
class Built:
    """A configuration and what was built of it.

    Attributes:
        config: the configuration.
        data: the dataset and its loaders; the training loader is the one that the model wants.
        model: the untrained model.
    """

    config: Config
    data: LoadedData
    model: Any

    def trainer(self) -> Any:
        """Return a new trainer of the model, as a run would make it."""
        return get_trainer_class(self.config.model_class, self.config)(self.config, self.model)


def build(folder: Path, model: str | type[Any], run_id: str = "conformance", **keys: Any) -> Built:
    """Configure, load and build as a run does, with random vectors in the place of those that LLM stages make.

    Args:
        folder: holds the dataset, and takes checkpoints.
        model: class, name or ``package.module:Class``.
        run_id: name of the checkpoints.
        keys: keys of the configuration.
    """
    config = Config(
        model,
        DATASET,
        config_dict={**_KEYS, "data_path": str(folder), "checkpoint_dir": str(folder / "saved"), **keys},
        # A kit gives the same keys to models and samplers of which not all read them.
        strict=False,
    )
    config["run_id"] = run_id
    data = load_data(config)
    vectors = random_vectors(TrainingInteractions.from_dataset(data.train._dataset))
    data = data._replace(train=attach_hnlm_data(config, data.train, Semantics(vectors, [])))
    built = Built(config, data, build_model(config, data.train))
    init_seed(config["seed"], config["reproducibility"])
    return built


def training_pairs(built: Built) -> set[tuple[int, int]]:
    """Return the internal ids (user, item) of the training interactions."""
    training = TrainingInteractions.from_dataset(built.data.train._dataset)
    return set(zip(training.users.tolist(), training.items.tolist(), strict=True))


@torch.no_grad()
def all_scores(model: Any) -> torch.Tensor:
    """Return the scores of every real user for every item, float ``[U - 1, I]``, in evaluation mode."""
    model.eval()
    users = torch.arange(1, model.n_users)
    scores: torch.Tensor = model.full_sort_predict(Interaction({model.USER_ID: users})).view(len(users), -1)
    return scores.clone()


def share_of_hits(built: Built, held_out: dict[str, str]) -> float:
    """Return the share of users whose held-out item (raw tokens, by user) comes first among the items that they do not have."""
    scores, dataset = all_scores(built.model), built.data.dataset
    scores[:, 0] = -torch.inf
    for user, item in training_pairs(built):
        scores[user - 1, item] = -torch.inf
    first = dataset.id2token(dataset.iid_field, scores.argmax(dim=1).numpy())
    users = dataset.id2token(dataset.uid_field, range(1, built.model.n_users))
    return float(np.mean([held_out[user] == item for user, item in zip(users, first, strict=True)]))


def losses_of_whole_and_resumed(build_run: Callable[..., Built], folder: Path) -> tuple[dict[int, Any], dict[int, Any]]:
    """Train four epochs in one go, and two and then the rest from a checkpoint; return both runs' losses by epoch.

    Args:
        build_run: builds with a run id and further keys.
        folder: the folder of the checkpoints' folder ``saved``.
    """
    losses = {}
    for kind in ("whole", "first", "rest"):
        resume = str(folder / "saved" / "first.last.pth") if kind == "rest" else None
        built = build_run(kind, epochs=2 if kind == "first" else 4, resume=resume)
        trainer = built.trainer()
        trainer.fit(built.data.train, built.data.valid, verbose=False)
        losses[kind] = trainer.train_loss_dict
    return losses["whole"], losses["rest"]

"""Making a RecBole trainer class safe: checkpoints, metrics and data parallelism are mixed in, nothing is patched."""

from __future__ import annotations

from functools import cache
from typing import Any

from recbole.trainer.trainer import DecisionTreeTrainer, Trainer
from recbole.utils import get_trainer as recbole_get_trainer

from recbole_hnlm.trainer.ddp import DataParallelBase
from recbole_hnlm.trainer.resumable import ResumableTraining
from recbole_hnlm.utils.errors import ConfigError

__all__ = ["get_trainer_class", "safe_trainer"]


@cache
def safe_trainer(base: type[Any]) -> type[Any]:
    """Return ``base`` with safe, resumable checkpoints in front and CPU data parallelism behind.

    Args:
        base: a subclass of RecBole's ``Trainer``; one that is already safe is returned as it is.

    Raises:
        ConfigError: a trainer that does not share RecBole's ``Trainer`` (the decision-tree ones).
    """
    if issubclass(base, ResumableTraining):
        return base
    if not issubclass(base, Trainer) or issubclass(base, DecisionTreeTrainer):
        raise ConfigError(f"trainer {base.__name__} is not one of RecBole's gradient-based trainers and cannot be run")
    return type(base.__name__, (ResumableTraining, base, DataParallelBase), {"__doc__": base.__doc__})


def get_trainer_class(model_class: type[Any], config: Any) -> type[Any]:
    """Return the trainer of a model with safe checkpoints, right metrics and CPU data parallelism mixed in.

    Args:
        model_class: its class attribute ``trainer_class``, where present, names the trainer; else RecBole's rule decides.
        config: read for ``MODEL_TYPE`` and ``model``.
    """
    base = getattr(model_class, "trainer_class", None) or recbole_get_trainer(config["MODEL_TYPE"], config["model"])
    return safe_trainer(base)

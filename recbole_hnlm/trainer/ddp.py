"""Data parallelism on CPUs and GPUs, between RecBole's trainers and its abstract trainer."""

from __future__ import annotations

from typing import Any

import torch
from recbole.trainer.trainer import AbstractTrainer
from torch.nn.parallel import DistributedDataParallel

__all__ = ["DataParallelBase", "wait_for_all"]


class DataParallelBase(AbstractTrainer):
    """Wraps the model for data parallelism on CPUs too; RecBole's own wrapper takes GPU numbers only.

    Meant as the *last* base of a trainer class, so that it sits between RecBole's ``Trainer`` and ``AbstractTrainer`` in the
    method resolution order and replaces the latter's constructor.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        self.config = config
        self.model = model
        if config["single_spec"]:
            return
        if config["device"].type == "cpu":
            self.distributed_model = DistributedDataParallel(model)
        else:
            super().__init__(config, model)


def wait_for_all(config: Any) -> None:
    """Wait until every rank is here; return at once in a single process."""
    if not config["single_spec"]:
        torch.distributed.barrier()

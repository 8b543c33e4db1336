"""Processes that ``torchrun`` or ``accelerate launch`` started together for fine-tuning or encoding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from recbole_hnlm.utils.errors import ConfigError

__all__ = ["Ranks"]

_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the launch.

    Attributes:
        rank: from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read ``RANK`` and ``WORLD_SIZE``, which torchrun and accelerate set; one process where they are absent."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def first(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    def refuse_recbole_launcher(self, what: str, verb: str) -> None:
        """Refuse to work inside the processes of ``--nproc``, which train a recommender together and wait for each other.

        Raises:
            ConfigError: names the verb to run first.
        """
        if self.count == 1 and dist.is_initialized() and dist.get_world_size() > 1:
            raise ConfigError(
                f"{what} does not run under --nproc: run `recbole-hnlm {verb}` with the same keys first (with torchrun for "
                "several GPUs), then this command again"
            )

    def join(self) -> None:
        """Join the process group of the launch, unless that was done; accelerate finds it and makes no other.

        With accelerate's own, of GPUs alone, one process could wait half an hour for another at most.
        """
        if self.count > 1 and not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=_PATIENCE)

    def wait(self) -> None:
        """Wait until every process of the launch gets here."""
        if self.count > 1:
            self.join()
            dist.barrier()

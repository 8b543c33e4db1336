"""Starting a run in this process, or in one process per rank."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.quick_start.runner import prepare_run, run
from recbole_hnlm.semantics.attach import semantics_of
from recbole_hnlm.trainer.resumable import LAST_SUFFIX
from recbole_hnlm.utils import errors
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, ConfigError, HNLMError
from recbole_hnlm.utils.logger import quiet_recbole
from recbole_hnlm.utils.results import RunResult, new_run_id, read_result

__all__ = ["LaunchOptions", "RunRequest", "launch"]


@dataclass(frozen=True)
class RunRequest:
    """What to run, in a form that can be handed to another process.

    Attributes:
        model: name of the model; None takes it from the configuration.
        dataset: name of the dataset; None takes it from the configuration.
        config_files: YAML files, the later ones win.
        argv: ``--key=value`` tokens.
        config_dict: further keys; they lose against ``argv``.
    """

    model: str | None = None
    dataset: str | None = None
    config_files: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    config_dict: dict[str, Any] = field(default_factory=dict)

    def config(self, **keys: Any) -> Config:
        """Build the configuration, with further keys."""
        return Config(self.model, self.dataset, list(self.config_files), {**self.config_dict, **keys}, self.argv)


@dataclass(frozen=True)
class LaunchOptions:
    """RecBole's launcher flags.

    Attributes:
        nproc: processes on this machine.
        world_size: processes on all machines; -1 means ``nproc``.
        ip: address of the first machine.
        port: its port; None takes a free one, which only works on a single machine.
        group_offset: rank of this machine's first process.
    """

    nproc: int = 1
    world_size: int = -1
    ip: str = "localhost"
    port: int | None = None
    group_offset: int = 0

    @property
    def is_single(self) -> bool:
        """Whether no process group is needed."""
        return self.nproc == 1 and self.world_size == -1 and self.group_offset == 0

    def keys(self) -> dict[str, Any]:
        """Return RecBole's configuration keys of the process group.

        Raises:
            ConfigError: numbers that do not describe one.
        """
        world_size = self.nproc if self.world_size == -1 else self.world_size
        if self.nproc < 1 or self.group_offset < 0 or self.group_offset + self.nproc > world_size:
            raise ConfigError(
                f"nproc={self.nproc}, group_offset={self.group_offset} and world_size={world_size} do not fit: "
                "expected nproc >= 1 and group_offset + nproc <= world_size"
            )
        if not self.ip.strip():
            raise ConfigError("ip is empty, expected the address of the first machine, such as localhost")
        if self.port is not None and not 0 < self.port < 1 << 16:
            raise ConfigError(f"port: expected a number from 1 to 65535, got {self.port}")
        if self.port is None and world_size != self.nproc:
            raise ConfigError("several machines need the same --port=NUMBER on each")
        port = self.port if self.port is not None else _free_port()
        return {
            "world_size": world_size,
            "nproc": self.nproc,
            "ip": self.ip,
            "port": port,
            "offset": self.group_offset,
        }


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def launch(request: RunRequest, options: LaunchOptions | None = None) -> RunResult:
    """Run a request to its end.

    Raises:
        HNLMError: anything the user can fix, raised once, whichever rank met it.
        KeyboardInterrupt: with a message that says what is kept and how to go on.
    """
    options = options or LaunchOptions()
    keys = {} if options.is_single else options.keys()
    config = request.config(**keys)
    run_id = new_run_id(config["model"], config["dataset"])
    try:
        return run(config, run_id=run_id) if options.is_single else _spawn(request, config, keys, run_id)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(config, run_id)) from None


def _how_to_go_on(config: Config, run_id: str) -> str:
    last = Path(config["checkpoint_dir"]) / f"{run_id}{LAST_SUFFIX}"
    kept = "finished LLM replies are kept and reused"
    if last.is_file():
        return f"{kept}; continue training with the same command and --resume={last}"
    return f"{kept}; no epoch was finished: run the same command again"


def _spawn(request: RunRequest, config: Config, keys: dict[str, Any], run_id: str) -> RunResult:
    """Run one process per rank and return the first rank's result."""
    if keys["offset"] == 0 and getattr(config.model_class, "uses_hnlm_data", False):
        # Built once, before there are ranks: hours of LLM work would exceed the time-out of a process group.
        prepare_run(config, run_id)
        semantics_of(config, load_data(config).train)
    messages = mp.get_context("spawn").SimpleQueue()
    try:
        spawn(_run_rank, args=(request, keys, run_id, messages), nprocs=keys["nproc"], join=True)  # type: ignore[no-untyped-call]
    except (ProcessExitedException, ProcessRaisedException):
        # The first message is the cause; a rank that lost its peer fails as a consequence.
        if messages.empty():
            raise
    kind, text = messages.get() if not messages.empty() else ("result", None)
    if kind != "result":
        raise getattr(errors, kind)(text)
    path = Path(text) if text else Path(config["results_dir"]) / f"{run_id}.json"
    return read_result(path)


def _run_rank(rank: int, request: RunRequest, keys: dict[str, Any], run_id: str, messages: Any) -> None:
    quiet_recbole()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(keys["nproc"])))
    try:
        result = run(request.config(**keys, local_rank=rank), run_id=run_id)
    except HNLMError as error:
        messages.put((type(error).__name__, str(error)))
        sys.exit(USER_ERROR_EXIT_CODE)
    torch.distributed.destroy_process_group()
    if rank == 0:
        messages.put(("result", str(result.path)))

"""FSDP: whether the launch asks for it, what prevents it, and tensors that are spread over processes.

The work is accelerate's and PyTorch's (``fully_shard``). What is here keeps a launch from running without FSDP where FSDP was
asked for, and moves trained weights between a spread and a whole form.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeGuard

    from torch.distributed.tensor import DTensor

    from recbole_hnlm.config.settings import HNLMSettings

__all__ = ["copy_whole", "fsdp_requested", "require_fsdp", "whole"]

_LAUNCH = "accelerate launch --use_fsdp --fsdp_version=2"


def _on(name: str) -> bool:
    return os.environ.get(name, "false").lower() in {"1", "true", "yes", "on", "y", "t"}


def fsdp_requested() -> bool:
    """Whether the launch asks for FSDP: ``accelerate launch --use_fsdp`` sets ``ACCELERATE_USE_FSDP``."""
    return _on("ACCELERATE_USE_FSDP")


def _takes_fsdp(device: torch.device) -> bool:
    # accelerate silently leaves FSDP out on CPUs (AcceleratorState.__init__ has no MULTI_CPU among its types). PyTorch
    # has it there too, which is how it is tested.
    return device.type != "cpu"


def require_fsdp(settings: HNLMSettings, device: str, processes: int) -> None:
    """Check that fine-tuning under FSDP can do what it was asked for; each layer of the LLM is spread on its own unless said.

    Args:
        settings: ``finetune_quantization`` is read.
        device: torch device of the fine-tuning.
        processes: number of processes of the launch.

    Raises:
        ConfigError: FSDP is not possible on the device, with one process, in version 1, or with layers in 8 bits.
    """
    if not _takes_fsdp(torch.device(device)):
        raise ConfigError(
            f"FSDP was asked for and the device is {device}: accelerate has it on GPUs only and would fine-tune without it; "
            "on a CPU launch with torchrun, which gives every process the whole LLM"
        )
    if processes == 1:
        raise ConfigError(f"FSDP was asked for with one process, which has nothing to share: {_LAUNCH} --num_processes=N")
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(f"FSDP version 1 cannot mix trained and frozen weights of two types: {_LAUNCH}")
    if settings.finetune_quantization == "8bit":
        raise ConfigError("layers in 8 bits cannot be spread by FSDP; use --finetune_quantization=4bit or none, or torchrun")
    if _on("FSDP_ACTIVATION_CHECKPOINTING"):
        raise ConfigError(
            "FSDP's own activation checkpointing renames layers; drop it and use --finetune_gradient_checkpointing=True"
        )
    # Without a policy accelerate makes one piece of the whole LLM, which every process would gather at once.
    os.environ.setdefault("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")


def _is_spread(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    # Not isinstance: the class alone takes seconds to import, in runs that spread nothing.
    return hasattr(tensor, "full_tensor")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as one piece. One that is spread over processes is gathered, so every process must call this."""
    return tensor.full_tensor() if _is_spread(tensor) else tensor


def copy_whole(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a tensor that is one piece over another, of which each process may hold a part.

    Args:
        target: any shape; where it is spread, every process must call this with the same value.
        value: of the same shape, on any device.
    """
    if _is_spread(target):
        from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 -- takes seconds, only FSDP needs it

        # Every process has the value, so nothing is sent.
        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)

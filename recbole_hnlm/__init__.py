"""recbole-hnlm: graph collaborative filtering in RecBole with hard negatives made by a large language model.

What ``__all__`` names is imported when it is first asked for, so that ``import recbole_hnlm`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = (
    "Recommender",
    "export_embeddings",
    "load_data_and_model",
    "objective_function",
    "recommend",
    "run_recbole_hnlm",
)

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604 - all of them are strings

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("recbole_hnlm.quick_start"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

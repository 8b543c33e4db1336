"""One run from data to results file, checkpoints, recommendations; the names that RecBole's users know are imported lazily."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_hnlm.quick_start.api import load_data_and_model, objective_function, run_recbole_hnlm
    from recbole_hnlm.quick_start.exporting import export_embeddings
    from recbole_hnlm.quick_start.recommending import Recommender, recommend

_MODULES = {
    "Recommender": "recommending",
    "export_embeddings": "exporting",
    "load_data_and_model": "api",
    "objective_function": "api",
    "recommend": "recommending",
    "run_recbole_hnlm": "api",
}

__all__ = [
    "Recommender",
    "export_embeddings",
    "load_data_and_model",
    "objective_function",
    "recommend",
    "run_recbole_hnlm",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

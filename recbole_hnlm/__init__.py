"""recbole-hnlm: graph collaborative filtering in RecBole with hard negatives made by a large language model."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"

"""Fixtures shared by all tests."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TINY_USERS, TINY_ITEMS, TINY_PER_USER = 41, 30, 12


def write_tiny_dataset(folder: Path, name: str = "tiny") -> Path:
    """Write a small atomic dataset of two groups of users, each with its own half of the items; returns ``data_path``."""
    draw = random.Random(7)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(TINY_USERS):
        half = [item for item in range(TINY_ITEMS) if item % 2 == user % 2]
        other = [item for item in range(TINY_ITEMS) if item % 2 != user % 2]
        items = draw.sample(half, TINY_PER_USER - 2) + draw.sample(other, 2)
        lines += [f"u{user}\ti{item}\t{draw.randint(1, 5)}\t{1000 + step}" for step, item in enumerate(items)]
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_data_path(tmp_path_factory):
    """A ``data_path`` that holds the dataset ``tiny``."""
    return write_tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty current directory, which RecBole writes into; log files are closed afterwards."""
    from recbole_hnlm.utils.logger import close_logger  # noqa: PLC0415 - keeps collection fast

    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_logger()


@pytest.fixture
def tiny_keys(tiny_data_path):
    """Configuration keys of a one-epoch run on ``tiny``."""
    return {
        "data_path": str(tiny_data_path),
        "epochs": 1,
        "train_batch_size": 64,
        "topk": [5],
        "valid_metric": "MRR@5",
        "show_progress": False,
        "state": "WARNING",
        "use_gpu": False,
    }

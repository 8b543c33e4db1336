"""What is analysed: the record of a run or of a cell, and what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config import Config
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.utils.errors import ArtifactError, DataError
from recbole_hnlm.utils.files import read_json
from recbole_hnlm.utils.registry import get_model_class, model_names
from recbole_hnlm.utils.results import read_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.data.loading import LoadedData

__all__ = ["Source", "checked_training", "sources_of_comparison"]

_TRAINED: dict[str, Any] = {"model": str, "dataset": str, "seed": int, "config": dict, "test_result": (dict, type(None))}


@dataclass(frozen=True)
class Source:
    """A finished run.

    Attributes:
        path: its record.
        record: the content.
        label: name of the method in tables: model, and sampler where the run had one.
    """

    path: Path
    record: dict[str, Any]
    label: str

    @classmethod
    def read(cls, path: str | Path) -> Source:
        """Read ``results/<run_id>.json``, or ``cells/<id>.json`` of a comparison.

        Raises:
            ArtifactError: it is absent, damaged, or no record of a trained model.
        """
        result = read_result(path)
        wrong = [name for name, kind in _TRAINED.items() if not isinstance(result.record.get(name, Path), kind)]
        if wrong:
            raise ArtifactError(
                f"{path} is not the record of a trained model ({', '.join(wrong)} is missing or wrong): give "
                "results/<run_id>.json of a run, or the folder of a comparison by --compare"
            )
        return cls(Path(path), result.record, result.record.get("label") or _label(result.record))

    @property
    def run_id(self) -> str:
        """Name of the run; safe as a folder's name."""
        return str(self.record["run_id"])

    @property
    def checkpoint(self) -> Path | None:
        """The best model, where the record's path leads to it from here, or from the folder that the run was started in."""
        named = self.record.get("checkpoint")
        places = [Path(named), self.path.parent.parent / named] if isinstance(named, str) else []
        return next((place for place in places if place.is_file()), None)

    @property
    def table(self) -> Path | None:
        """Where the arrays per user of a cell lie; None where the record is no cell's."""
        return self.path.with_suffix(".npz") if "cell" in self.record else None

    def config(self, argv: Sequence[str]) -> Config:
        """Build the run's configuration again; keys that name places are the caller's, as for a checkpoint.

        Args:
            argv: ``--key=value`` tokens, which win.
        """
        saved = {"given": self.record["config"], "defaults": {}}
        return Config(self.record["model"], self.record["dataset"], None, None, argv, saved=saved)


def _label(record: dict[str, Any]) -> str:
    """Name a run by its model, and by its negative sampler where the model takes one of ours."""
    model = str(record["model"])
    takes_one = model in model_names() and getattr(get_model_class(model), "uses_hnlm_data", False)
    return f"{model} + {record['config'].get('negative_sampler')}" if takes_one else model


def sources_of_comparison(folder: str | Path) -> list[Source]:
    """Read the finished cells of a comparison, in the order of its table.

    Raises:
        ArtifactError: the folder holds no comparison, or none of its cells is finished.
    """
    root = Path(folder)
    content = read_json(root / "results.json", "give the folder that `recbole-hnlm compare --out` wrote")
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(name, str) and Path(name).name == name for name in cells):
        raise ArtifactError(f"{root / 'results.json'} is not that of a comparison: give the folder that compare --out wrote")
    paths = [root / "cells" / f"{name}.json" for name in cells]
    found = [Source.read(path) for path in paths if path.is_file()]
    if not found:
        raise ArtifactError(f"{root} has no finished cell: run `recbole-hnlm compare` with the same options first")
    return found


def checked_training(source: Source, config: Config, data: LoadedData) -> TrainingInteractions:
    """Return the training split, after making sure that it is the run's.

    Raises:
        DataError: other files, filters or another split than the run had.
    """
    training = TrainingInteractions.from_dataset(data.train._dataset)
    expected = source.record.get("split_fingerprint")
    if expected is not None and training.split_fingerprint != expected:
        raise DataError(
            f"dataset {config['dataset']} is not split as in {source.path} (other files, filters or versions): give the "
            "--data_path and the keys that the run had"
        )
    return training

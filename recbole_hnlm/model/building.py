"""Building a model from its configuration; an error names a missing optional package."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recbole.utils import init_seed

from recbole_hnlm.model.text_ranking import ranking_with_texts
from recbole_hnlm.utils.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recbole_hnlm.config import Config

__all__ = ["build_model", "naming_missing_packages"]

# Packages whose name for pip differs from their name for import.
_PIP_NAMES = {"faiss": "faiss-cpu"}


def build_model(config: Config, train_data: Any) -> Any:
    """Seed again, as RecBole does before the model, and build the model on the configured device."""
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    with naming_missing_packages(config["model"]):
        model_class = config.model_class if config.settings.text_score == "none" else ranking_with_texts(config.model_class)
        return model_class(config, train_data._dataset).to(config["device"])


@contextmanager
def naming_missing_packages(model: str) -> Iterator[None]:
    """Name the optional package that one of RecBole's models imports while it runs, and how to install it.

    Raises:
        MissingDependencyError: instead of the ``ModuleNotFoundError`` of a package that is neither RecBole's nor ours.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"", "recbole", "recbole_hnlm"}:
            raise
        install = _PIP_NAMES.get(package, package)
        raise MissingDependencyError(f"model {model} needs the package {package}: pip install {install}") from error

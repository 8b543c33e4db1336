"""Building a model from its configuration; an error names a missing optional package."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recbole.utils import init_seed

from recbole_hnlm.model.fused_ranking import fused_ranking, is_fused
from recbole_hnlm.model.recbole_graphs import on_current_scipy
from recbole_hnlm.utils.errors import ConfigError, MissingDependencyError, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recbole_hnlm.config import Config

__all__ = ["build_model", "naming_missing_packages", "naming_wrong_keys"]

# What RecBole's models raise where a key does not suit them; NotImplementedError is a RuntimeError.
_STUMBLES = (
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    UnboundLocalError,
)
# Packages whose name for pip differs from their name for import.
_PIP_NAMES = {"faiss": "faiss-cpu"}


def build_model(config: Config, train_data: Any) -> Any:
    """Seed again, as RecBole does before the model, and build the model on the configured device.

    Raises:
        ConfigError: one of RecBole's models refuses its keys, or stumbles over them.
        MissingDependencyError: it needs a package that is not there.
    """
    _check_clusters(config, train_data._dataset)
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model_class = on_current_scipy(config.model_class)
    if is_fused(config.settings):
        model_class = fused_ranking(model_class)
    with naming_missing_packages(config["model"]), naming_wrong_keys(config):
        return model_class(config, train_data._dataset).to(config["device"])


@contextmanager
def naming_wrong_keys(config: Config) -> Iterator[None]:
    """Name the given keys where one of RecBole's models stumbles, which it does over values that do not suit it.

    Raises:
        ConfigError: instead of what the code of the model raised. Errors of our own code are faults of ours and keep their
            traceback; memory is the command line's concern.
    """
    try:
        yield
    except _STUMBLES as error:
        if out_of_memory(error) or not _is_of_recboles_model(config, error):
            raise
        given = [key for key in config.external_config_dict if key not in {"model", "dataset"}]
        raise ConfigError(
            f"RecBole's {config['model']} does not work with these keys: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300] or 'no reason given'}; given were {', '.join(given)[:300]}"
        ) from error


def _is_of_recboles_model(config: Config, error: BaseException) -> bool:
    """Whether an error was raised while code of RecBole's models ran for one of its own models."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    is_recboles = config.model_class.__module__.startswith("recbole.")
    return is_recboles and any(str(frame.f_globals.get("__name__")).startswith("recbole.model.") for frame in frames)


def _check_clusters(config: Config, dataset: Any) -> None:
    """Refuse more clusters of NCL than there are users or items; its k-means would fail after the first epochs."""
    most = min(dataset.user_num, dataset.item_num)
    clusters = config["num_clusters"] if config["model"] == "NCL" else None
    if clusters is not None and clusters > most:
        raise ConfigError(
            f"num_clusters: expected at most {most}, the smaller number of users and items (padding included), got {clusters}"
        )


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

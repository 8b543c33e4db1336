"""A checkpoint's model together with its data, and where functions take it from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_hnlm.quick_start.caller_state import caller_state_kept
from recbole_hnlm.quick_start.runner import load_checkpoint
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.config import Config

__all__ = ["LoadedModel", "loaded_model"]


class LoadedModel(NamedTuple):
    """What RecBole's ``load_data_and_model`` returns, by name and by position.

    Attributes:
        config: the configuration.
        model: the model.
        dataset: the filtered dataset, which knows raw and internal ids.
        train_data: loader of the training split.
        valid_data: loader of the validation split.
        test_data: loader of the test split.
    """

    config: Config
    model: Any
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any


def loaded_model(
    checkpoint_or_model: str | Path | LoadedModel | tuple[Any, ...],
    config_dict: Mapping[str, Any] | None = None,
    argv: tuple[str, ...] = (),
    *,
    model: str | type[Any] | None = None,
) -> LoadedModel:
    """Load a checkpoint, or take what ``load_data_and_model`` has loaded.

    Args:
        checkpoint_or_model: path of a checkpoint, or what ``load_data_and_model`` returned.
        config_dict: keys that replace the checkpoint's.
        argv: the same as command-line tokens; they win.
        model: class, or ``package.module:Class``, of a model from outside.

    Raises:
        ConfigError: something else, such as a model alone; or keys for a model that is loaded already.
        ArtifactError: the file is missing, damaged or foreign, or does not fit the data.
    """
    if isinstance(checkpoint_or_model, (str, Path)):
        with caller_state_kept():
            return LoadedModel(*load_checkpoint(checkpoint_or_model, config_dict, argv, model=model))
    if not isinstance(checkpoint_or_model, tuple) or len(checkpoint_or_model) != len(LoadedModel._fields):
        raise ConfigError(
            f"expected the path of a checkpoint or what load_data_and_model returned, got {shown(checkpoint_or_model)}: "
            "a model alone does not know the raw ids of its users and items"
        )
    if config_dict or argv or model is not None:
        raise ConfigError(
            "keys and a model's class are for loading a checkpoint, but the model is loaded already: leave them out"
        )
    return LoadedModel(*checkpoint_or_model)

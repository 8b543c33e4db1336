"""What is checked of a search before its first trial: its keys, their values, and what they would ask of the LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments

from recbole_hnlm.config.checks import LAUNCHER_KEYS
from recbole_hnlm.config.reading import unread_keys, unread_text
from recbole_hnlm.config.settings import asks_llm_again, changes_data_or_nothing
from recbole_hnlm.cost.planning import plan_stages
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.llm.factory import configured_identity
from recbole_hnlm.semantics.attach import kinds_of, stage_context_of
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from recbole_hnlm.config import Config
    from recbole_hnlm.experiments.space import Space

__all__ = ["check_keys_of", "check_values", "is_of_the_measurement", "llm_lines"]

_NOT_TUNED = {*dataset_arguments, *evaluation_arguments, *general_arguments, *LAUNCHER_KEYS, "model", "dataset"}


def is_of_the_measurement(key: str) -> bool:
    """Whether another value of a key changes what a score is measured on, or nothing that is measured."""
    return key in _NOT_TUNED or changes_data_or_nothing(key)


def check_keys_of(space: Space, given: Collection[str]) -> None:
    """Refuse keys that cannot be tuned, and those that the command line fixes.

    Args:
        space: the tuned keys.
        given: keys of the command line.

    Raises:
        ConfigError: such a key.
    """
    for key in space.keys:
        if is_of_the_measurement(key):
            raise ConfigError(
                f"{space.source}: {key} cannot be tuned: its values change what a validation score is measured on, or nothing "
                "that is measured; give it as --{key}=VALUE".replace("{key}", key)
            )
    both = [key for key in space.keys if key in given]
    if both:
        raise ConfigError(
            f"--{both[0]} is given, and {space.source} tunes it, so that one of them would be ignored: leave out the option, "
            "or give a --params_file without that line"
        )


def check_values(space: Space, config_of: Callable[[Mapping[str, Any]], Config], *, drop_unread: bool) -> Space:
    """Build the configuration of every choice and every bound.

    Args:
        space: the tuned keys.
        config_of: builds the configuration of a point.
        drop_unread: leave out keys that nothing reads with these settings, rather than refuse them: for shipped spaces.

    Returns:
        The space, without keys that were dropped.

    Raises:
        ConfigError: a value that the model does not take; a key that nothing reads; no key left.
    """
    first, *moved = space.probes()
    unread: dict[str, str] = dict.fromkeys(space.keys, "")
    for point in (first, *moved):
        changed = {key: value for key, value in point.items() if value != first[key]} or first
        try:
            config = config_of(point)
        except ConfigError as error:
            where = ", ".join(f"{key}={value}" for key, value in changed.items())
            raise ConfigError(f"{space.source}, at {where}: {error}") from error
        unread_here = unread_keys(config.model_class, config.final_config_dict)
        unread = {key: unread_here[key] for key in unread if key in unread_here}
    if unread and not drop_unread:
        raise ConfigError(f"{space.source}: {'; '.join(unread_text(unread))}")
    kept = space.without(list(unread))
    if not kept.dimensions:
        raise ConfigError(f"{space.source}: no key is left to tune: {'; '.join(unread_text(unread))}")
    return kept


def llm_lines(space: Space, config_of: Callable[[Mapping[str, Any]], Config], *, allow: bool) -> list[str]:
    """Say what a search would ask of the LLM: once for all trials, and again for each value of keys that need its work anew.

    Args:
        space: the tuned keys.
        config_of: builds the configuration of a point.
        allow: whether such keys may be tuned.

    Returns:
        Lines for the user; none where the model reads nothing of an LLM or a text encoder.

    Raises:
        ConfigError: such keys are tuned and not allowed.
        HNLMError: the data or the artefacts cannot be read.
    """
    first, *moved = space.probes()
    asking = [key for key in space.keys if asks_llm_again(key)]
    configs = [(point, config_of(point)) for point in (first, *(moved if asking else []))]
    if not any(kinds_of(config) for _, config in configs):
        return []
    train = load_data(configs[0][1]).train._dataset
    if not asking:
        return [f"the LLM is asked once for all trials: {_work(configs[0][1], train)}"]
    lines = []
    for key in asking:
        by_value = {str(point[key]): config for point, config in configs if point == first or point[key] != first[key]}
        parts = [f"{value}: {_work(config, train)}" for value, config in by_value.items()]
        endless = next(each.all_values() for each in space.dimensions if each.key == key) is None
        lines.append(f"tuning {key} asks the LLM again for every {'trial' if endless else 'value'} ({'; '.join(parts)})")
    if not allow:
        raise ConfigError(f"{'; '.join(lines)}: leave it out of {space.source}, or give --allow_llm_keys")
    return lines


def _work(config: Config, train: Any) -> str:
    """Say how many prompts a configuration's stages would ask, and their other work."""
    if not kinds_of(config):
        return "0 prompts"
    context = stage_context_of(config, train)
    plans = plan_stages(context, configured_identity(context.settings, context.device))
    prompts = sum(len(planned.ask) for plan in plans for planned in plan.replies)
    works = [" ".join(plan.work.split()) for plan in plans if plan.work]
    return "; ".join([f"{prompts:,} prompts", *works])

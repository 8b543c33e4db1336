"""The common part of models that learn from text vectors of users and items: published rivals of the LLM's negatives."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.model.sampled import SampledPairwise
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TextRivalMixin", "count_of", "number_of", "own_randomness"]


class TextRivalMixin(SampledPairwise):
    """A pairwise backbone that reads text vectors of users and items; put it before a backbone in the bases.

    ``alignment_source`` chooses the texts: ``profile`` (what the LLM wrote), ``text`` (items' own text and its mean over a
    user's training items: no LLM) or ``finetuned``. ``negative_sampler`` and its keys work as for HNLM models.
    """

    needs = SemanticNeeds(texts=True)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone and look at the text vectors.

        Without any, a model whose scores read none can be built, loaded and evaluated, but not trained.

        Raises:
            ArtifactError: the training data carries no text vectors and the scores read them, or none of any user or item.
        """
        super().__init__(config, dataset)
        if not self.has_texts and not self.needs.ranks_with_texts:
            return
        if not bool(self.texts.user_mask.any()) or not bool(self.texts.item_mask.any()):
            raise ArtifactError(
                f"{type(self).__name__} reads texts of users and items, but no user or no item has any; check the text columns "
                f"with recbole-hnlm doctor"
            )


def number_of(config: Any, key: str, least: float, most: float = float("inf"), *, above: bool = False) -> float:
    """Return a key of the model as a number in range.

    Args:
        config: RecBole's configuration.
        key: name of the key.
        least: the lower bound.
        most: the upper bound, allowed.
        above: whether the lower bound itself is ruled out.

    Raises:
        ConfigError: it is not a number or is out of range.
    """
    value = config[key]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or (above and value == least):
        upper = "" if most == float("inf") else f" and at most {most:g}"
        raise ConfigError(f"{key} is {value!r}, expected a number {'above' if above else 'of at least'} {least:g}{upper}")
    return float(value)


def count_of(config: Any, key: str, least: int) -> int:
    """Return a key of the model as an integer of at least ``least``.

    Raises:
        ConfigError: it is not an integer or is too small.
    """
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key} is {value!r}, expected an integer of at least {least}")
    return value


@contextmanager
def own_randomness(config: Any) -> Iterator[None]:
    """Draw initial weights from the key ``seed`` without touching the random state that the backbone uses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(config["seed"]))
        yield

"""What a key states about itself: what a change of it changes, which runs read it, and whether it belongs to the machine.

Identities of cells, teachers, adapters and prompts are queries over these facts (:mod:`recbole_hnlm.config.settings`), so that
a new key is part of the right ones as soon as its field says what it does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING, Any

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

__all__ = ["Affects", "Facts", "Reader", "facts_of", "key"]


class Affects(Flag):
    """What another value of a key changes directly; what is built from that changes with it.

    Attributes:
        NOTHING: folders, speed, memory, limits at which a run fails: no number.
        SPLIT: which interactions are training data.
        LLM: which language model works, and in which precision. Artefacts hold the model's own identity, not the key's text.
        REPLIES: what the LLM is asked, about which users, items and pairs, and how it samples.
        QUOTES: how much of the data a prompt quotes; these values are part of the prompt hash.
        VECTORS: vectors of the text encoder.
        TEACHER: vectors of the teacher of the fine-tuned route.
        QUERY: the form of what the fine-tuned LLM reads and how its vector is taken.
        ADAPTER: the fine-tuned weights.
        TRAINING: loss, sampling and steps of the recommender's training.
        EVALUATION: what is computed of a trained model.
    """

    NOTHING = 0
    SPLIT = auto()
    LLM = auto()
    REPLIES = auto()
    QUOTES = auto()
    VECTORS = auto()
    TEACHER = auto()
    QUERY = auto()
    ADAPTER = auto()
    TRAINING = auto()
    EVALUATION = auto()


class Reader(Enum):
    """Which models' runs read a key."""

    EVERY_RUN = "every model"
    OURS = "models that take recbole-hnlm's negative samplers"
    TEXTS = "models that read texts, and any model that ranks with them (text_score)"
    TEXT_MODELS = "models that read texts themselves"
    SEMANTIC = "HNLM models, whose loss has a semantic part"


@dataclass(frozen=True)
class Facts:
    """The facts of one key.

    Attributes:
        affects: what a change of it changes.
        read_by: whose runs read it.
        when: further keys, and the values of them with which this one is read.
        unless: further keys, and the values of them with which this one is not read.
        place: it names a folder, a server, an environment variable or the right to run code; such a key is for whoever owns
            the machine to give and must not be taken from a checkpoint.
        off: values that ask for nothing, which a run that does not read the key fulfils.
    """

    affects: Affects
    read_by: Reader
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unless: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    place: bool = False
    off: tuple[Any, ...] = ()


def key(
    default: Any,
    affects: Affects,
    read_by: Reader,
    *,
    description: str,
    when: Mapping[str, tuple[Any, ...]] | None = None,
    unless: Mapping[str, tuple[Any, ...]] | None = None,
    place: bool = False,
    off: tuple[Any, ...] = (),
) -> Any:
    """Declare a key of a settings section: pydantic's ``Field`` with the facts of :class:`Facts`."""
    facts = Facts(affects, read_by, when or {}, unless or {}, place, off)
    return Field(default, description=description, json_schema_extra={"facts": facts})  # type: ignore[dict-item]


def facts_of(info: FieldInfo) -> Facts:
    """Return the facts that a field was declared with.

    Raises:
        TypeError: it was declared without :func:`key`.
    """
    extra = info.json_schema_extra
    facts = extra.get("facts") if isinstance(extra, dict) else None
    if not isinstance(facts, Facts):
        raise TypeError(f"the field {info.description!r} states no facts: declare it with recbole_hnlm.config.facts.key")
    return facts

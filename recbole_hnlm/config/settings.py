"""The project's own configuration keys: names, types, defaults, ranges and the rules that hold between them.

RecBole's keys stay RecBole's. The keys here are flat, so that YAML files, ``--key=value`` and hyper-parameter tuning reach
them alike; they are declared by concern in :mod:`recbole_hnlm.config.sections`, each with its facts
(:mod:`recbole_hnlm.config.facts`), and combined here. ``properties/overall.yaml`` states the same defaults with RecBole's
``# (type) meaning`` comments, and a test keeps the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import PrivateAttr, ValidationError, model_validator

from recbole_hnlm.config.facts import Affects, facts_of
from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.config.sections.evaluation import EvaluationKeys
from recbole_hnlm.config.sections.files import DataKeys, FileKeys
from recbole_hnlm.config.sections.finetune import FinetuneKeys, TeacherKeys
from recbole_hnlm.config.sections.llm import EMBEDDED_MODEL, LLMKeys, PromptKeys
from recbole_hnlm.config.sections.loss import LossKeys
from recbole_hnlm.config.sections.negatives import NegativeKeys
from recbole_hnlm.config.sections.texts import TextKeys, VectorKeys
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.registry import get_negative_sampler, negative_sampler_keys
from recbole_hnlm.utils.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ASKED_OF_LLM",
    "HNLMSettings",
    "asks_llm_again",
    "changes_data_or_nothing",
    "keys_affecting",
    "place_keys",
    "setting_names",
    "settings_of",
    "validate_settings",
]

ASKED_OF_LLM = Affects.LLM | Affects.REPLIES | Affects.TEACHER | Affects.QUERY | Affects.ADAPTER
"""What takes the LLM's time: replies, fine-tuning (after its teacher), and vectors that the fine-tuned LLM emits."""

_EMBEDDED_MODEL_USERS = 150  # about 450 prompts: two to three minutes of two cores without bfloat16


# The last base comes first in the documented order.
class HNLMSettings(
    EvaluationKeys,
    LossKeys,
    FinetuneKeys,
    TeacherKeys,
    NegativeKeys,
    VectorKeys,
    PromptKeys,
    LLMKeys,
    TextKeys,
    DataKeys,
    FileKeys,
):
    """Every key that recbole-hnlm adds to RecBole's configuration, and what the model declares that it reads of the LLM."""

    _needs: SemanticNeeds = PrivateAttr(SemanticNeeds(pairs=True, alignment=True))
    _sampler_keys: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def sampler_keys(self) -> dict[str, Any]:
        """Values of the keys that a negative sampler from outside brings along, by name."""
        return self._sampler_keys

    def model_post_init(self, context: Any, /) -> None:
        """Take the model's declaration, the validation's context, where there is one."""
        if context is not None:
            self._needs = context

    @model_validator(mode="after")
    def _rules_between_keys(self) -> HNLMSettings:
        problems = [*self.section_problems(), *self._semantic_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _semantic_problems(self) -> list[str]:
        problems = []
        if self.count_false_negatives and not self.reads_chosen_negative:
            problems.append(
                "count_false_negatives counts the negatives that negative_sampler chooses, and loss_hard_weight 0 leaves them "
                "out of the loss; use --count_false_negatives=False or a loss_hard_weight above 0"
            )
        if self.semantic_candidates and self.negative_route != "finetuned":
            problems.append(
                "semantic_candidates needs negative_route finetuned, whose LLM represents items and pairs in one space"
            )
        if self.semantic_candidates and self.negative_sampler not in {"dns", "dns_mn"}:
            problems.append(f"semantic_candidates needs negative_sampler dns or dns_mn, got {self.negative_sampler}")
        if self.alignment_source == "finetuned" and self.negative_route != "finetuned" and self.reads_text_vectors:
            problems.append("alignment_source finetuned needs negative_route finetuned")
        if self.alignment_source == "profile" and self.negative_route == "none" and self.reads_text_vectors:
            problems.append(
                f"{' and '.join(self.text_readers)} with alignment_source profile reads what an LLM wrote, which "
                "negative_route none rules out; use --alignment_source=text or --negative_route=text"
            )
        if self.text_score != "none" and self.text_score_source == "finetuned" and self.negative_route != "finetuned":
            problems.append("text_score_source finetuned needs negative_route finetuned")
        if self.text_score != "none" and self.text_score_source == "profile" and self.negative_route == "none":
            problems.append(
                "text_score_source profile reads what an LLM wrote, which negative_route none rules out; use "
                "--text_score_source=text or --negative_route=text"
            )
        return problems

    @property
    def uses_semantics(self) -> bool:
        """Whether training or ranking reads any vectors, of the LLM's output or of items' text."""
        in_training = self.uses_pair_vectors or self.uses_semantic_candidates or self.reads_text_vectors
        return in_training or self.ranks_with_texts

    @property
    def sampler_in_use(self) -> str:
        """Name of the negative sampler whose choice training reads.

        A loss that leaves the chosen negative out still regularises one item a row besides the positive: a uniform one.
        """
        return self.negative_sampler if self.reads_chosen_negative else "uniform"

    @property
    def mixes(self) -> bool:
        """Whether z_ui is mixed into a negative that the ranking loss reads."""
        return self.mix_weight > 0 and self.reads_chosen_negative

    @property
    def aligns(self) -> bool:
        """Whether the loss aligns embeddings with text vectors."""
        return self._needs.alignment and self.alignment_weight > 0

    @property
    def text_readers(self) -> dict[str, str]:
        """What reads text vectors of users and items, each with the option that switches it off, empty where none does."""
        readers = {
            "this model": ("", self._needs.texts),
            f"alignment_weight {self.alignment_weight:g}": ("--alignment_weight=0", self.aligns),
            f"negative_sampler {self.negative_sampler}": (
                "--negative_sampler=dns",
                get_negative_sampler(self.sampler_in_use).reads_text,
            ),
        }
        return {name: option for name, (option, reads) in readers.items() if reads}

    @property
    def model_reads_texts(self) -> bool:
        """Whether the model reads text vectors at any setting, in training or for its own scores."""
        return self._needs.reads_texts

    @property
    def reads_texts_of_users(self) -> bool:
        """Whether what is written of users is read where texts are, and not those of items alone."""
        return not self._needs.texts_of_items_alone

    @property
    def model_ranks_with_texts(self) -> bool:
        """Whether the model's own scores read text vectors of users and items."""
        return self._needs.ranks_with_texts

    @property
    def ranks_by_cosine(self) -> bool:
        """Whether items are ranked by the cosine of the outputs rather than by their inner product."""
        if self.score == "auto":
            return self.shares_negatives and self.loss_score == "cosine"
        return self.score == "cosine"

    @property
    def ranks_with_texts(self) -> bool:
        """Whether ranking items with the trained model reads text vectors of users and items."""
        return self._needs.ranks_with_texts or self.text_score != "none"

    @property
    def reads_text_vectors(self) -> bool:
        """Whether the model, the loss or the negative sampler reads text vectors of users and items."""
        return bool(self.text_readers)

    @property
    def uses_semantic_candidates(self) -> bool:
        """Whether real items near z_ui join the candidates."""
        wanted = self.semantic_candidates > 0 and self.reads_chosen_negative
        return self._needs.pairs and self.negative_route == "finetuned" and wanted

    @property
    def n_semantic_users(self) -> int | None:
        """Users who get semantic negatives; None means every user.

        ``auto`` asks the embedded LLM about a sample: its negatives add nothing that could be measured (docs/llm-negatives.md),
        while a first run on a CPU waits for each of its replies.
        """
        if self.semantic_users != "auto":
            return self.semantic_users
        embedded = self.llm_backend == "transformers" and self.llm_model == EMBEDDED_MODEL
        return _EMBEDDED_MODEL_USERS if embedded and self.negative_route == "text" else None

    @property
    def profiles_are_for_all(self) -> bool:
        """Whether every item with text and every user gets a profile, rather than those of pairs with a semantic negative."""
        sources = [self.alignment_source, *([] if self.text_score == "none" else [self.text_score_source])]
        return self.profile_items == "all" or "profile" in sources or self.negative_route == "finetuned"

    @property
    def uses_pair_vectors(self) -> bool:
        """Whether the loss reads z_ui."""
        return self._needs.pairs and self.negative_route != "none" and (self.mixes or self.contrast_weight > 0)


def setting_names() -> tuple[str, ...]:
    """Names of all keys of :class:`HNLMSettings`, in their documented order."""
    return tuple(HNLMSettings.model_fields)


def keys_affecting(affects: Affects) -> tuple[str, ...]:
    """Names of the keys of which another value changes any of these directly, in their documented order."""
    return tuple(name for name, info in HNLMSettings.model_fields.items() if facts_of(info).affects & affects)


def place_keys() -> frozenset[str]:
    """Names of the keys that belong to the machine: folders, servers, environment variables, the right to run code.

    They are for whoever owns the machine to give, and never to be taken from a file that came from elsewhere.
    """
    return frozenset(name for name, info in HNLMSettings.model_fields.items() if facts_of(info).place)


def asks_llm_again(key: str) -> bool:
    """Whether two values of a key need the LLM's work twice: other replies, another fine-tuning, or other emitted vectors.

    A tuner that tries such a key waits for the LLM at every point. Other keys, RecBole's among them, reuse what is there; at
    most the first value that needs the LLM at all, such as a weight above 0, waits for it. ``split_seed`` asks again because
    a user's prompt shows training items; of RecBole's keys, those that change the split do so too.
    """
    return key in keys_affecting(ASKED_OF_LLM | Affects.SPLIT)


def changes_data_or_nothing(key: str) -> bool:
    """Whether one of our keys is none to tune: its values change the data that a score is measured on, or no number at all."""
    info = HNLMSettings.model_fields.get(key)
    return info is not None and (not facts_of(info).affects or bool(facts_of(info).affects & Affects.SPLIT))


def validate_settings(values: Mapping[str, Any], needs: SemanticNeeds | None = None) -> HNLMSettings:
    """Build the settings from a mapping, reporting every problem at once.

    Args:
        values: our keys only; a key that is left out takes its default.
        needs: the model's declaration; None stands for that of the HNLM models.

    Raises:
        ConfigError: one line that lists each wrong key with what was found and what was expected.
    """
    try:
        return HNLMSettings.model_validate(dict(values), context=needs)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = ".".join(str(part) for part in detail["loc"])
            message = detail["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {message}, got {shown(detail['input'])}" if key else message)
        raise ConfigError("invalid settings: " + "; ".join(problems)) from error


def settings_of(config: Any) -> HNLMSettings:
    """Return the validated settings of a configuration: those that it holds (``Config``), or built from its ``in`` and ``[]``.

    They include what the configuration's ``model_class`` declares as its ``needs``; a model that declares none reads nothing.

    Raises:
        ConfigError: as :func:`validate_settings`.
    """
    built = getattr(config, "built_settings", None)
    if built is not None:
        return cast("HNLMSettings", built)
    needs = getattr(config.model_class, "needs", SemanticNeeds()) if hasattr(config, "model_class") else None
    settings = validate_settings({name: config[name] for name in setting_names() if name in config}, needs)
    settings.sampler_keys.update({key: config[key] for key in negative_sampler_keys(settings.negative_sampler)})
    return settings

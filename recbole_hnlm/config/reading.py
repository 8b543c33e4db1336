"""Which of our keys a run reads: by its model, and by the values of other keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.facts import Affects, Facts, Reader, facts_of
from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.config.settings import ASKED_OF_LLM, HNLMSettings
from recbole_hnlm.utils.registry import model_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["given_unread", "has_semantic_part", "read_keys", "unread_keys", "unread_text"]


def has_semantic_part(model_class: Any) -> bool:
    """Whether a model's own loss has our semantic part, rather than a published rival's use of texts."""
    needs = getattr(model_class, "needs", SemanticNeeds())
    return needs.pairs or needs.alignment


def unread_keys(model_class: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Return our keys that nothing in a run reads, and why.

    A weight of 0 leaves the keys of its term read, so that a grid or an ablation may pass through 0.

    Args:
        model_class: the run's model.
        values: the run's keys, of any validity.

    Returns:
        Key to the reason, as the rest of the sentence "KEY has no effect ...".
    """
    facts = {name: facts_of(info) for name, info in HNLMSettings.model_fields.items()}
    readers = {Reader.EVERY_RUN}
    needs, is_ours = getattr(model_class, "needs", SemanticNeeds()), getattr(model_class, "uses_hnlm_data", False)
    if is_ours:
        readers.add(Reader.OURS)
    if is_ours or needs.reads_texts:
        readers |= {Reader.TEXTS, Reader.TEXT_MODELS}
    if values["text_score"] != "none":
        readers.add(Reader.TEXTS)
    if has_semantic_part(model_class):
        readers.add(Reader.SEMANTIC)
    # Once, because it looks up every model there is, and a model of RecBole's leaves nearly all of our keys unread.
    of_model = _reason_of_model(model_class.__name__) if readers != set(Reader) else ""
    reasons = {name: _reason(values, each) if each.read_by in readers else of_model for name, each in facts.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(values: Mapping[str, Any], facts: Facts) -> str:
    for key, allowed in facts.when.items():
        if values[key] not in allowed:
            return f"here: it is read with {key} {' or '.join(map(str, allowed))}, not {values[key]}"
    for key, ruled_out in facts.unless.items():
        if values[key] in ruled_out:
            return f"here: {key} {values[key]} does not read it"
    return ""


def _reason_of_model(name: str) -> str:
    variants = [known for known in model_names() if known.startswith("HNLM")]
    if f"HNLM{name}" in variants:
        return f"on {name}; leave it out, or use --model=HNLM{name} (with --negative_route=none for no LLM)"
    return f"on {name}; leave it out, or choose a model that reads it, such as {', '.join(variants)}"


def given_unread(model_class: Any, values: Mapping[str, Any], given: Collection[str]) -> dict[str, str]:
    """Return those of the given keys that the run does not read, and why.

    A key whose value asks for nothing, such as a weight of 0, is not among them: a run that does not read it fulfils it.
    """
    fields = HNLMSettings.model_fields
    unread = unread_keys(model_class, values)
    return {key: unread[key] for key in given if key in unread and values[key] not in facts_of(fields[key]).off}


def unread_text(unread: Mapping[str, str]) -> list[str]:
    """Write one line for each reason, with all keys that share it."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in unread.items():
        by_reason.setdefault(reason, []).append(key)
    return [f"{', '.join(keys)} {'has' if len(keys) == 1 else 'have'} no effect {reason}" for reason, keys in by_reason.items()]


def read_keys(model_class: Any, settings: HNLMSettings) -> dict[str, Affects]:
    """Return the keys that a run's numbers depend on, and what each changes.

    A run whose settings use no vectors reads nothing of the LLM, of texts, or of the semantic part of the loss.
    """
    unread = unread_keys(model_class, dict(settings))
    facts = {name: facts_of(info) for name, info in HNLMSettings.model_fields.items() if name not in unread}
    without_vectors = {
        name
        for name, each in facts.items()
        if each.read_by is Reader.SEMANTIC or each.affects & (ASKED_OF_LLM | Affects.VECTORS)
    }
    unused = set() if settings.uses_semantics else without_vectors
    return {name: each.affects for name, each in facts.items() if name not in unused and each.affects}

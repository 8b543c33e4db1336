"""The rows of the table: the model and negative sampler of each, and the metrics by which they are compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from recbole_hnlm.config.checks import nearest
from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.evaluator.per_user import is_per_user
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.registry import get_model_class, is_checkpoint, model_names, negative_sampler_names
from recbole_hnlm.utils.showing import shown
from recbole_hnlm.utils.values import load_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.config import Config

__all__ = ["Method", "Role", "metrics_of", "parse_seeds", "read_rows", "resolve_methods", "role_of"]

Role = Literal["baseline", "rival", "hnlm"]

_PREFIX = "HNLM"

# A plain name means the backbone with our samplers and without anything from an LLM.
_PLAIN = {"negative_route": "none", "alignment_weight": 0.0, "semantic_candidates": 0, "alignment_source": "text"}


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        model: the name as it was given, such as ``LightGCN``.
        sampler: the negative sampler, or None where the model has none.
        runs: the model that is trained, such as ``HNLMLightGCN``.
        keys: keys that the method fixes.
        role: what the row reads; the plan finds it from the row's settings by :func:`role_of`.
        name: the row's own name, where it has one.
    """

    model: str
    sampler: str | None
    runs: str
    keys: dict[str, Any] = field(default_factory=dict)
    role: Role = "baseline"
    name: str | None = None

    @property
    def label(self) -> str:
        """Return the name in tables."""
        if self.name is not None:
            return self.name
        return self.model if self.sampler is None else f"{self.model} + {self.sampler}"


def role_of(config: Config) -> Role:
    """Return what a row reads, by its settings rather than by its name.

    A ``baseline`` reads nothing that an LLM or a text encoder made; a ``rival`` reads text vectors (RLMRec, KAR, a sampler or a
    score that reads texts) but none of our terms; ``hnlm`` reads semantic negatives or aligns embeddings with texts.
    """
    settings = config.settings
    parts = [get_model_class(name) for name in settings.fuse_with if not is_checkpoint(name)]
    reads = settings.ranks_with_texts or any(getattr(part, "needs", SemanticNeeds()).reads_texts for part in parts)
    if not getattr(config.model_class, "uses_hnlm_data", False):
        return "rival" if reads or settings.model_reads_texts else "baseline"
    if settings.uses_pair_vectors or settings.uses_semantic_candidates or settings.aligns:
        return "hnlm"
    return "rival" if settings.uses_semantics or reads else "baseline"


_MOST_SEEDS = 10_000
_LARGEST_SEED = 2**32 - 1


def parse_seeds(text: str, first: int) -> list[int]:
    """Read ``5`` as five seeds from ``first`` on, and ``1,2,3`` (or ``7,``) as a list.

    Raises:
        ConfigError: neither, no seed, too many, one that no generator takes or one that is given twice.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"seeds: expected a number of seeds such as 5 or a list such as 1,2,3, got {shown(text)}")
    if max(map(len, parts)) > len(str(_LARGEST_SEED)) or max(map(int, parts)) > _LARGEST_SEED:
        raise ConfigError(f"seeds: expected numbers of at most {_LARGEST_SEED}, got {shown(text)}")
    numbers = [int(part) for part in parts]
    if "," not in text:
        if not 1 <= numbers[0] <= _MOST_SEEDS:
            what = "at least 1" if numbers[0] < 1 else f"at most {_MOST_SEEDS:,}; one seed is written with a comma, as 7,"
            raise ConfigError(f"seeds: expected {what}, got {text!r}")
        return [first + step for step in range(numbers[0])]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"seeds: {text!r} names a seed twice; two equal runs are not a sample")
    return numbers


def read_rows(paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read rows with names, ``NAME: {model: M, negative_sampler: S, KEY: VALUE, ...}``.

    Raises:
        ConfigError: a file that cannot be read, is no YAML or has no row; a row that is no mapping of keys, or is there twice.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        found = load_yaml(path)
        wrong = [
            name for name, keys in found.items() if not (isinstance(name, str) and name.strip() and isinstance(keys, dict))
        ]
        if wrong or not found:
            what = f"{str(wrong[0])[:80]!r} has no keys" if wrong else "it is empty"
            raise ConfigError(f"{path}: {what}; expected rows such as  softmax: {{model: LightGCN, rank_loss: softmax}}")
        if doubled := sorted(found.keys() & rows.keys()):
            raise ConfigError(f"{path}: the row {doubled[0]!r} is in another file of --rows too")
        rows |= found
    return rows


def resolve_methods(
    models: Sequence[str], samplers: Sequence[str], rows: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Method]:
    """Return the rows of the table, in the order of the lists, and then those that have a name.

    A plain name with an ``HNLM`` counterpart runs that counterpart without an LLM, under ``uniform`` too, so that the
    sampler is all that differs between its rows; the counterparts equal RecBole's models where RecBole has them.

    Args:
        models: names; ``NAME:SAMPLER`` (and ``NAME:SAMPLER:SAMPLER``) has its own samplers in place of ``samplers``.
        samplers: names of negative samplers.
        rows: name to the keys of that row: ``model``, ``negative_sampler`` (without it ``uniform``) and any others.

    Raises:
        ConfigError: an unknown model or sampler, one that is given twice, samplers for a model that has none, or no row.
    """
    methods = _unnamed(models, samplers) if models or not rows else []
    labels = {method.label for method in methods}
    for name, keys in (rows or {}).items():
        if name in labels:
            raise ConfigError(f"rows: {name!r} is the name of a row of --models too; give it another one")
        methods.append(_named(name, keys))
    return methods


def _named(name: str, keys: Mapping[str, Any]) -> Method:
    model, sampler = keys.get("model"), keys.get("negative_sampler")
    if not isinstance(model, str):
        raise ConfigError(f"rows: {name!r} names no model: expected model: NAME among its keys")
    try:
        (method,) = _unnamed([model if sampler is None else f"{model}:{sampler}"], ["uniform"])
    except ConfigError as error:
        raise ConfigError(f"rows: {name!r}: {error}") from error
    own = {key: value for key, value in keys.items() if key not in {"model", "negative_sampler"}}
    return replace(method, name=name, keys={**method.keys, **own})


def _unnamed(models: Sequence[str], samplers: Sequence[str]) -> list[Method]:
    _check_names("models", [entry.partition(":")[0] for entry in models])
    _check_names("negative_samplers", samplers)
    methods: list[Method] = []
    for entry in models:
        model, colon, listed = entry.partition(":")
        own = listed.split(":") if colon else list(samplers)
        _check_names(f"models: {model}", own)
        _check_samplers("models" if colon else "negative_samplers", own)
        has_sampler = getattr(get_model_class(model), "uses_hnlm_data", False)
        counterpart = f"{_PREFIX}{model}"
        if not model.startswith(_PREFIX) and counterpart in model_names():
            methods += [Method(model, name, counterpart, {**_PLAIN, "negative_sampler": name}) for name in own]
        elif has_sampler:
            methods += [Method(model, name, model, {"negative_sampler": name}) for name in own]
        elif colon:
            raise ConfigError(f"models: {model} takes none of our negative samplers; leave out :{listed}")
        else:
            methods.append(Method(model, None, model))
    return methods


def _check_names(what: str, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(f"{what}: expected one or more names, separated by commas")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{what}: {', '.join(doubled)} is given twice")


def _check_samplers(what: str, samplers: Sequence[str]) -> None:
    known = negative_sampler_names()
    unknown = [f"{name or repr(name)}{nearest(name, known)}" for name in samplers if name not in known]
    if unknown:
        raise ConfigError(f"{what}: there is no {', no '.join(unknown)}")


def metrics_of(config: Mapping[str, Any] | Config) -> list[tuple[str, int]]:
    """Return the metrics by which methods are compared: that of ``valid_metric`` first, NDCG and Recall, at the last ``topk``.

    Raises:
        ConfigError: ``valid_metric`` has no value per user, so that there is nothing to pair.
    """
    main = str(config["valid_metric"]).partition("@")[0]
    if not is_per_user(main):
        raise ConfigError(
            f"valid_metric {config['valid_metric']}: compare needs a ranking metric with a value per user, such as NDCG@20"
        )
    k = int(config["topk"][-1])
    return [(name, k) for name in dict.fromkeys([main.lower(), "ndcg", "recall"])]

"""From the verb's lists to cells: which model, sampler and seed each run has, and the id that its settings give it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config import Config
from recbole_hnlm.config_checks import LAUNCHER_KEYS, nearest
from recbole_hnlm.errors import ConfigError
from recbole_hnlm.evaluator.per_user import is_per_user
from recbole_hnlm.negative_sampler.registry import negative_sampler_names
from recbole_hnlm.registry import get_model_class, model_names
from recbole_hnlm.settings import setting_names
from recbole_hnlm.values import plain, split_argv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Cell", "Method", "PlanRequest", "cell_id", "make_plan", "metrics_of", "parse_seeds", "resolve_methods"]

_PREFIX = "HNLM"

# What a plain name means: the backbone with our samplers, and nothing that an LLM made.
_PLAIN = {"negative_route": "none", "semantic_candidates": 0, "alignment_source": "text"}

# Where things are, what they run on and what is shown: no part of what a cell computes.
_NOT_IDENTITY = LAUNCHER_KEYS | {
    *("artifact_dir", "results_dir", "log_dir", "checkpoint_dir", "data_path", "resume", "run_id"),
    *("gpu_id", "use_gpu", "device", "single_spec", "worker", "show_progress", "state", "verbose", "log_wandb"),
    *("wandb_project", "eval_users_per_batch", "config_files", "eval_batch_size", "llm_api_key_env", "llm_timeout"),
    *("llm_concurrency", "llm_max_retries", "llm_batch_size", "encoder_batch_size", "seed", "split_seed"),
}

# Keys that nothing reads in a run without vectors: changing them leaves the baselines' cells as they are.
_SEMANTIC = re.compile(
    r"(llm|profile|tuned?|lora|teacher|contrast|alignment|adapter|guard|text|encoder|reasoning|semantic)_"
    r"|(title|categories|city|description|review)_(field|max_chars)$|mix_weight$|max_missing_share$"
    r"|negative_(max_words|temperature)$"
)


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        model: the name as it was given, such as ``LightGCN``.
        sampler: the negative sampler, or None where the model has none.
        runs: the model that is trained, such as ``HNLMLightGCN``.
        keys: keys that the method fixes.
    """

    model: str
    sampler: str | None
    runs: str
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the name in tables."""
        return self.model if self.sampler is None else f"{self.model} + {self.sampler}"

    @property
    def is_baseline(self) -> bool:
        """Whether the semantic part is off."""
        return not self.model.startswith(_PREFIX)


@dataclass(frozen=True)
class Cell:
    """One run: a method with a seed.

    Attributes:
        id: safe as a file name; ends with a digest of the settings.
        method: its row.
        seed: of everything but the split.
        split_seed: of the split.
        keys: the command line's keys for this model, the method's, and both seeds.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
    """

    id: str
    method: Method
    seed: int
    split_seed: int
    keys: dict[str, Any]
    dataset: str | None
    config_files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cell:
        """Undo :meth:`to_json`."""
        return cls(**{**values, "method": Method(**values["method"]), "config_files": tuple(values["config_files"])})


@dataclass(frozen=True)
class PlanRequest:
    """What the command line says.

    Attributes:
        models: names as given.
        samplers: names of negative samplers.
        seeds: a number of seeds, or a list with commas.
        vary_split: let every seed have its own split.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
        argv: ``--key=value`` for all cells and ``--MODEL.key=value`` for those of one model.
    """

    models: tuple[str, ...]
    samplers: tuple[str, ...]
    seeds: str
    vary_split: bool
    dataset: str | None
    config_files: tuple[str, ...]
    argv: tuple[str, ...]


def parse_seeds(text: str, first: int) -> list[int]:
    """Read ``5`` as five seeds from ``first`` on, and ``1,2,3`` (or ``7,``) as a list.

    Raises:
        ConfigError: neither, no seed, a negative one or one that is given twice.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"seeds: expected a number of seeds such as 5 or a list such as 1,2,3, got {text!r}")
    numbers = [int(part) for part in parts]
    if "," not in text:
        if numbers[0] < 1:
            raise ConfigError(f"seeds: expected at least 1, got {text!r}")
        return [first + step for step in range(numbers[0])]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"seeds: {text!r} names a seed twice; two equal runs are no sample")
    return numbers


def resolve_methods(models: Sequence[str], samplers: Sequence[str]) -> list[Method]:
    """Return the rows of the table, in the order of the lists.

    A plain name with an ``HNLM`` counterpart runs that counterpart without an LLM, under ``uniform`` too, so that the
    sampler is all that differs between its rows; the counterparts equal RecBole's models where RecBole has them.

    Raises:
        ConfigError: an unknown model or sampler, or a name that is given twice.
    """
    for what, names in (("models", models), ("negative_samplers", samplers)):
        if not names:
            raise ConfigError(f"{what}: expected one or more names, separated by commas")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ConfigError(f"{what}: {', '.join(doubled)} is given twice")
    known = negative_sampler_names()
    unknown = [f"{name}{nearest(name, known)}" for name in samplers if name not in known]
    if unknown:
        raise ConfigError(f"negative_samplers: there is no {', no '.join(unknown)}")
    methods: list[Method] = []
    for model in models:
        has_sampler = getattr(get_model_class(model), "uses_hnlm_data", False)
        counterpart = f"{_PREFIX}{model}"
        if model.startswith(_PREFIX) and has_sampler:
            methods += [Method(model, sampler, model, {"negative_sampler": sampler}) for sampler in samplers]
        elif counterpart in model_names():
            methods += [Method(model, name, counterpart, {**_PLAIN, "negative_sampler": name}) for name in samplers]
        elif has_sampler:
            methods += [Method(model, sampler, model, {"negative_sampler": sampler}) for sampler in samplers]
        else:
            methods.append(Method(model, None, model))
    return methods


def cell_id(config: Config, method: Method, seed: int, split_seed: int) -> str:
    """Return ``<model>-<sampler>-s<seed>-<digest of every setting that the result depends on>``.

    Folders, devices and what is shown are left out, so that a cell of another machine fits, and our keys where nothing in the
    run reads them: another LLM leaves the baselines as they are.
    """
    keys = {key: value for key, value in config.final_config_dict.items() if key not in _NOT_IDENTITY}
    keys = {key: value for key, value in keys.items() if key not in _unread(config)}
    content = {**plain(keys), "model": method.runs, "seed": seed, "split_seed": split_seed}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    name = "-".join(part for part in (method.model, method.sampler, f"s{seed}") if part)
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}-{digest}"


def _unread(config: Config) -> set[str]:
    """Return our keys that a run does not depend on: all of them for RecBole's own models."""
    if not getattr(config.model_class, "uses_hnlm_data", False):
        return set(setting_names())
    return set() if config.settings.uses_semantics else {key for key in setting_names() if _SEMANTIC.match(key)}


def make_plan(request: PlanRequest) -> list[Cell]:
    """Return every cell of the table, checked before any work: seeds inside methods, in the order of the lists.

    Raises:
        ConfigError: anything that is wrong with names, keys or values, with the method it is wrong for.
    """
    methods = resolve_methods(request.models, request.samplers)
    shared, scoped = _scoped_keys(request.argv, request.models)
    own = ["model", "dataset", "negative_sampler", "resume", *(["seed"] if "," in request.seeds else [])]
    taken = [key for key in own if key in shared]
    if taken:
        raise ConfigError(f"leave out --{taken[0]}: compare reads --models, --negative_samplers and --seeds")
    first = _config(request, methods[0], shared, scoped)
    seeds = parse_seeds(request.seeds, int(first["seed"]))
    split = first.settings.split_seed
    if request.vary_split and split is not None:
        raise ConfigError(f"vary_split gives every seed its own split: leave out split_seed={split}")
    cells = []
    for method in methods:
        config = _config(request, method, shared, scoped)
        for seed in seeds:
            split_seed = seed if request.vary_split else seeds[0] if split is None else split
            keys = {**_keys(method, shared, scoped), "seed": seed, "split_seed": split_seed}
            identity = cell_id(config, method, seed, split_seed)
            cells.append(Cell(identity, method, seed, split_seed, keys, request.dataset, request.config_files))
    return cells


def _keys(method: Method, shared: Mapping[str, Any], scoped: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {**shared, **scoped.get(method.model, {}), **method.keys}


def _config(request: PlanRequest, method: Method, shared: Mapping[str, Any], scoped: Mapping[str, Mapping[str, Any]]) -> Config:
    try:
        config = Config(method.runs, request.dataset, list(request.config_files), _keys(method, shared, scoped))
    except ConfigError as error:
        raise ConfigError(
            f"{method.label}: {error} (a key for one model only is given as --{method.model}.KEY=VALUE)"
        ) from error
    metrics_of(config)
    return config


def metrics_of(config: Mapping[str, Any] | Config) -> list[tuple[str, int]]:
    """Return the metrics that methods are compared by: that of ``valid_metric`` first, NDCG and Recall, at the last ``topk``.

    Raises:
        ConfigError: ``valid_metric`` has no value per user, so that there is nothing to pair.
    """
    main = str(config["valid_metric"]).partition("@")[0]
    if not is_per_user(main):
        raise ConfigError(
            f"valid_metric {config['valid_metric']}: compare pairs users by a ranking metric such as NDCG@20, which it is not"
        )
    k = int(config["topk"][-1])
    return [(name, k) for name in dict.fromkeys([main.lower(), "ndcg", "recall"])]


def _scoped_keys(argv: Sequence[str], models: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Separate ``--MODEL.key=value`` from the keys of all cells."""
    shared: dict[str, str] = {}
    scoped: dict[str, dict[str, str]] = {}
    for key, value in split_argv(argv).items():
        model, dot, name = key.partition(".")
        if not dot:
            shared[key] = value
        elif model in models:
            scoped.setdefault(model, {})[name] = value
        else:
            raise ConfigError(f"--{key}: {model} is none of the models {', '.join(models)}{nearest(model, models)}")
    return shared, scoped

"""From the verb's lists to cells: which model, sampler and seed each run has, and the id that its settings give it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.compare.identity import cell_id
from recbole_hnlm.compare.methods import Method, metrics_of, parse_seeds, resolve_methods
from recbole_hnlm.config import Config
from recbole_hnlm.config_checks import nearest
from recbole_hnlm.errors import ConfigError
from recbole_hnlm.values import split_argv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Cell", "PlanRequest", "make_plan"]


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

"""From the verb's lists to cells: which model, sampler and seed each run has, and the id that its settings give it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_hnlm.config import Config
from recbole_hnlm.config.checks import nearest
from recbole_hnlm.config.reading import unread_text
from recbole_hnlm.experiments.cells import Cell, cell_id, code_digest
from recbole_hnlm.experiments.grid import GridKey, parse_grid, points_of
from recbole_hnlm.experiments.methods import Method, metrics_of, parse_seeds, resolve_methods, role_of
from recbole_hnlm.experiments.tune_checks import is_of_the_measurement
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.registry import is_checkpoint
from recbole_hnlm.utils.values import split_argv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PlanRequest", "Row", "grid_of", "make_plan", "make_rows"]


@dataclass(frozen=True)
class PlanRequest:
    """What the command line says.

    Attributes:
        models: names as given, ``NAME`` or ``NAME:SAMPLER``.
        samplers: names of negative samplers.
        seeds: a number of seeds, or a list with commas.
        vary_split: let every seed have its own split.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
        grid: ``KEY=V1,V2`` of each key that rows are tuned over.
        argv: ``--key=value`` for all cells and ``--MODEL.key=value`` for those of one model.
        tune: ``shipped``, or a file in RecBole's ``hyper.test`` format, over which every row is tuned.
        allow_llm_keys: let keys be tuned that ask the LLM again.
        rows: name to the keys of each row that has a name, its model among them.
    """

    models: tuple[str, ...]
    samplers: tuple[str, ...]
    seeds: str
    vary_split: bool
    dataset: str | None
    config_files: tuple[str, ...]
    argv: tuple[str, ...]
    grid: tuple[str, ...] = ()
    tune: str | None = None
    allow_llm_keys: bool = False
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def methods(self) -> list[Method]:
        """Return the rows of the table.

        Raises:
            ConfigError: as :func:`~recbole_hnlm.experiments.methods.resolve_methods`.
        """
        return resolve_methods(self.models, self.samplers, self.rows)


class _Frame(NamedTuple):
    """What all cells of a request have in common."""

    methods: list[Method]
    shared: dict[str, str]
    scoped: dict[str, dict[str, str]]
    grid: list[GridKey]
    seeds: list[int]
    split: int | None


def _frame(request: PlanRequest) -> _Frame:
    methods = request.methods()
    shared, scoped = _scoped_keys(request.argv, _models(methods))
    grid = _grid(request, methods)
    own = ["model", "dataset", "negative_sampler", "resume", *(["seed"] if "," in request.seeds else [])]
    taken = [key for key in own if key in shared]
    if taken:
        raise ConfigError(f"leave out --{taken[0]}: compare reads --models, --negative_samplers and --seeds")
    for entry in grid:
        if entry.key in {*own, "seed", "split_seed"}:
            raise ConfigError(f"grid: {entry.key} is not a key that can be tuned")
        if entry.key in shared or any(entry.key in keys for keys in scoped.values()):
            raise ConfigError(f"grid: {entry.key} is also given as a separate key; leave out one of them")
    configs = [
        (method, _config(request, method, _keys(method, shared, scoped, points_of(grid, method)[-1]))) for method in methods
    ]
    first = configs[0][1]
    given = [(None, key) for key in shared] + [(model, key) for model, keys in scoped.items() for key in keys]
    _check_read(configs, [*given, *((entry.scope, entry.key) for entry in grid)])
    for method, config in configs:
        _check_own_keys(method.label, request.rows.get(method.label, {}), config)
    seeds = parse_seeds(request.seeds, int(first["seed"]))
    split = first.settings.split_seed
    if request.vary_split and split is not None:
        raise ConfigError(f"vary_split gives every seed its own split: leave out split_seed={split}")
    return _Frame(methods, shared, scoped, grid, seeds, split)


def _check_read(configs: Sequence[tuple[Method, Config]], given: Sequence[tuple[str | None, str]]) -> None:
    """Refuse a key that none of the rows it is for reads; the rows share keys, so that one row need not read all.

    Args:
        configs: each row and its configuration.
        given: scope (a model, a sampler, or None for all rows) and name of each key.
    """
    problems = {}
    for scope, key in given:
        rows = [config for method, config in configs if scope in {None, method.model, method.sampler}]
        if rows and all(key in config.unread for config in rows):
            problems[key] = rows[0].unread[key]
    if problems:
        raise ConfigError("; ".join(unread_text(problems)))


def _check_own_keys(label: str, keys: Mapping[str, Any], config: Config) -> None:
    """Refuse a key of a row with a name that nothing in the row reads, or that would measure it on something else."""
    unread = {key: config.unread[key] for key in keys if key in config.unread}
    if unread:
        raise ConfigError(f"rows: {label!r}: {'; '.join(unread_text(unread))}")
    for key in keys:
        if key in {"seed", "resume"} or (key != "model" and is_of_the_measurement(key)):
            raise ConfigError(
                f"rows: {label!r}: {key} is none of a row's own keys: the rows of a table share what they are measured on; "
                f"give it as --{key}=VALUE"
            )


def _grid(request: PlanRequest, methods: Sequence[Method]) -> list[GridKey]:
    samplers = dict.fromkeys(method.sampler for method in methods if method.sampler is not None)
    return parse_grid(request.grid, _models(methods), list(samplers))


def _models(methods: Sequence[Method]) -> list[str]:
    """Return the models of rows, each once: what may scope a key."""
    return list(dict.fromkeys(method.model for method in methods))


def grid_of(request: PlanRequest) -> list[GridKey]:
    """Return the keys over which rows are tuned.

    Raises:
        ConfigError: as :func:`make_plan`, of names and of the grid.
    """
    return _grid(request, request.methods())


def _cells(request: PlanRequest, frame: _Frame, method: Method, point: Mapping[str, Any], seeds: Sequence[int]) -> list[Cell]:
    keys = _keys(method, frame.shared, frame.scoped, point)
    config, cells = _config(request, method, keys), []
    method = replace(method, role=role_of(config))
    for seed in seeds:
        split_seed = seed if request.vary_split else frame.seeds[0] if frame.split is None else frame.split
        identity, code = cell_id(config, method, seed, split_seed), code_digest(config)
        own = {**keys, "seed": seed, "split_seed": split_seed}
        shown = bool(config["show_progress"])
        cells.append(Cell(identity, method, seed, split_seed, own, request.dataset, request.config_files, code, shown))
    return cells


@dataclass(frozen=True)
class Row:
    """A row that is to be tuned, with the first seed.

    Attributes:
        method: the row.
        keys: what its trials have in common: the command line's keys for this model, the method's, and the split's seed.
        seed: the first one.
        given: keys of the command line that concern it.
        request: what the command line says.
    """

    method: Method
    keys: dict[str, Any]
    seed: int
    given: frozenset[str]
    request: PlanRequest

    def config(self, point: Mapping[str, Any]) -> Config:
        """Build the configuration of a point.

        Raises:
            ConfigError: a value that the model does not take.
        """
        return _config(self.request, self.method, {**self.keys, **point, **self.method.keys})

    def identity(self, point: Mapping[str, Any]) -> str:
        """Return an id that two points share exactly where the row does not read what differs.

        Raises:
            ConfigError: a value that the model does not take.
        """
        return cell_id(self.config(point), self.method, self.seed, int(self.keys["split_seed"]))


def make_rows(request: PlanRequest) -> list[Row]:
    """Return the rows of the table for tuning.

    Raises:
        ConfigError: as :func:`make_plan`.
    """
    frame, rows = _frame(request), []
    seed = frame.seeds[0]
    split_seed = seed if request.vary_split or frame.split is None else frame.split
    for method in frame.methods:
        own = frame.scoped.get(method.model, {})
        keys = {**_keys(method, frame.shared, frame.scoped, {}), "seed": seed, "split_seed": split_seed}
        rows.append(Row(method, keys, seed, frozenset({*frame.shared, *own}), request))
    return rows


def make_plan(request: PlanRequest, points: Mapping[str, Mapping[str, Any]] | None = None) -> list[Cell]:
    """Return every cell of the table, checked before any work: seeds inside methods, in the order of the lists.

    Args:
        request: what the command line says.
        points: by a row's label, the point that tuning chose; rows that are not in it have no cells. None where nothing is
            tuned.

    Raises:
        ConfigError: anything that is wrong with names, keys or values, with the method it is wrong for.
    """
    frame = _frame(request)
    cells = []
    for method in frame.methods:
        point = {} if points is None else points.get(method.label)
        if point is not None:
            cells += _cells(request, frame, method, point, frame.seeds)
    owners: dict[str, str] = {}
    for cell in cells:
        if (other := owners.setdefault(cell.id, cell.method.label)) != cell.method.label:
            raise ConfigError(f"the rows {other!r} and {cell.method.label!r} have the same settings; leave one of them out")
    return cells


def _keys(
    method: Method, shared: Mapping[str, Any], scoped: Mapping[str, Mapping[str, Any]], point: Mapping[str, Any]
) -> dict[str, Any]:
    return {**shared, **scoped.get(method.model, {}), **point, **method.keys}


def _config(request: PlanRequest, method: Method, keys: dict[str, Any]) -> Config:
    try:
        config = Config(method.runs, request.dataset, list(request.config_files), keys, strict=False)
    except ConfigError as error:
        raise ConfigError(
            f"{method.label}: {error} (a key for one model only is given as --{method.model}.KEY=VALUE)"
        ) from error
    metrics_of(config)
    if files := [entry for entry in config.settings.fuse_with if is_checkpoint(entry)]:
        raise ConfigError(
            f"{method.label}: fuse_with {files[0]} is of one seed and split, and a comparison trains what it fuses with those "
            "of each cell: name the model instead"
        )
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
            raise ConfigError(f"--{key}: {model} is not one of the models {', '.join(models)}{nearest(model, models)}")
    return shared, scoped

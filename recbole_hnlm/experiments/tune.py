"""The search behind ``recbole-hnlm tune``: from what the command line says to a finished folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.experiments.cells import code_digest, safe_name, settings_that_count
from recbole_hnlm.experiments.methods import parse_seeds
from recbole_hnlm.experiments.search_plan import SearchPlan
from recbole_hnlm.experiments.space import read_space_file, shipped_space
from recbole_hnlm.experiments.trial import TrialRun
from recbole_hnlm.experiments.tune_checks import check_keys_of, check_values, llm_lines
from recbole_hnlm.experiments.tune_jobs import run_search
from recbole_hnlm.experiments.tune_report import summary_text, write_reports
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.files import write_json
from recbole_hnlm.utils.results import RunResult, read_result
from recbole_hnlm.utils.values import load_yaml, split_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole_hnlm.config import Config
    from recbole_hnlm.experiments.search import Search
    from recbole_hnlm.experiments.search_plan import Algorithm, PrunerName
    from recbole_hnlm.experiments.space import Space

__all__ = ["SHIPPED", "SearchOptions", "TuneRequest", "own_point", "plan_search", "tune"]

SHIPPED = "shipped"


@dataclass(frozen=True)
class SearchOptions:
    """How to search, for ``tune`` and for each row of ``compare``.

    Attributes:
        trials: how many trials count in the end; None is every point of an exhaustive search, and 50 of another.
        algo: how points are chosen.
        pruner: how trials that do badly are ended early.
        jobs: processes on this machine.
    """

    trials: int | None = None
    algo: Algorithm = "tpe"
    pruner: PrunerName = "median"
    jobs: int = 1

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("jobs", self.jobs)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")


@dataclass(frozen=True)
class TuneRequest:
    """What the command line of ``tune`` says.

    Attributes:
        model: name of the model; None takes it from the files.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
        argv: ``--key=value`` tokens for every trial.
        params_file: file in RecBole's ``hyper.test`` format; None takes the one that is shipped for the model.
        seeds: a number of seeds, or a list with commas; None is one.
        storage: URL of a storage; None is the folder's journal.
        study: name of the study in the storage; None is made of model and dataset.
        folder: where everything goes.
        allow_llm_keys: let keys be tuned that ask the LLM again.
        options: how to search.
    """

    model: str | None
    dataset: str | None
    config_files: tuple[str, ...]
    argv: tuple[str, ...]
    params_file: str | None
    seeds: str | None
    storage: str | None
    study: str | None
    folder: str
    allow_llm_keys: bool
    options: SearchOptions


def plan_search(
    space: Space,
    config: Config,
    options: SearchOptions,
    *,
    name: str,
    folder: str,
    storage: str | None = None,
    points: tuple[dict[str, Any], ...] | None = None,
    first: dict[str, Any] | None = None,
    seeds: tuple[int, ...],
) -> SearchPlan:
    """Return the plan of a search.

    Args:
        space: the tuned keys, checked.
        config: the configuration of any point.
        options: how to search.
        name: of the study.
        folder: of the search.
        storage: URL; None is the folder's journal.
        points: those of an exhaustive search, where not all of the space's are wanted.
        first: the point to be tried first, where points are drawn.
        seeds: of each trial.

    Raises:
        ConfigError: an exhaustive search of a space without end.
    """
    if options.algo == "exhaustive" and points is None:
        points = tuple(space.points())
    settings = {key: value for key, value in settings_that_count(config).items() if key not in space.keys}
    return SearchPlan(
        name=name,
        folder=folder,
        storage=storage,
        dimensions=space.dimensions,
        source=space.source,
        algo=options.algo,
        pruner=options.pruner,
        trials=min(options.trials or len(points), len(points)) if points is not None else options.trials or 50,
        seed=int(config["seed"]),
        bigger=bool(config["valid_metric_bigger"]),
        epochs=int(config["epochs"]),
        eval_step=max(1, int(config["eval_step"])),
        points=points,
        settings={"model": config["model"], "dataset": config["dataset"], "seeds": list(seeds), **settings},
        code=code_digest(config),
        first=first,
    )


def own_point(space: Space, run: TrialRun) -> dict[str, Any] | None:
    """Return the point that the configuration has without a search, so that the winner is not worse than it on validation.

    None where the space does not hold it, or where the model cannot be configured without the tuned keys.
    """
    try:
        config = run.config({})
    except ConfigError:
        return None
    return space.held({key: config[key] for key in space.keys if key in config})


def _trial_run(request: TuneRequest) -> tuple[TrialRun, dict[str, str]]:
    keys = split_argv(request.argv)
    files: dict[str, Any] = {}
    for file in request.config_files:
        files.update(load_yaml(file))
    model = request.model or files.get("model")
    if not model:
        raise ConfigError("no model given: use --model=NAME or `model: NAME` in YAML")
    taken = [key for key in ("model", "dataset", "resume", "run_id") if key in keys]
    if taken:
        raise ConfigError(f"leave out --{taken[0]}: a search makes its own runs")
    run = TrialRun(str(model), request.dataset, request.config_files, keys, (0,), request.folder)
    return run, keys


def tune(request: TuneRequest, say: Callable[[str], None]) -> Search:
    """Search, or go on with a search; then train the winner again and evaluate it on the test split, once.

    Args:
        request: what the command line says.
        say: prints a line.

    Raises:
        HNLMError: anything the user can fix.
    """
    run, given = _trial_run(request)
    space = shipped_space(run.model) if request.params_file in {None, SHIPPED} else read_space_file(str(request.params_file))
    check_keys_of(space, given)
    first = run.config(space.probes()[0])
    run = replace(run, seeds=tuple(parse_seeds(request.seeds or "1", int(first["seed"]))))
    space = _checked(space, run, request, say)
    for line in llm_lines(space, run.config, allow=request.allow_llm_keys):
        say(line)
    name = safe_name(request.study or f"{first['model']}-{first['dataset']}")
    config = run.config(space.probes()[0])
    plan = plan_search(
        space,
        config,
        request.options,
        name=name,
        folder=request.folder,
        storage=request.storage,
        first=own_point(space, run),
        seeds=run.seeds,
    )
    search = run_search(plan, run, request.options.jobs, say=say, shown=bool(config["show_progress"]))
    metric = str(config["valid_metric"])
    winner = _winner(search, run, say)
    summary = write_reports(search, run, metric, winner)
    say(summary_text(summary, Path(request.folder)))
    return search


def _checked(space: Space, run: TrialRun, request: TuneRequest, say: Callable[[str], None]) -> Space:
    is_shipped = request.params_file in {None, SHIPPED}
    checked = check_values(space, run.config, drop_unread=is_shipped)
    dropped = [key for key in space.keys if key not in checked.keys]
    if dropped:
        say(f"{space.source}: not tuned, since nothing reads it with these settings: {', '.join(dropped)}")
    say(f"tuned ({space.source}): {'; '.join(checked.to_lines())}")
    return checked


def _winner(search: Search, run: TrialRun, say: Callable[[str], None]) -> list[RunResult]:
    """Return the winner's results on the test split, computed now or, for the same winner, at an earlier call."""
    best = search.best()
    if best is None or not search.is_over():
        return []
    point, file = search.params(best), Path(run.folder) / "winner.json"
    known = _read_winner(file, point)
    if known is not None:
        return known
    say(f"trial {best.number} won: training it again for the test split")
    results = run.test(point, f"trial-{best.number}")
    write_json(file, {"trial": best.number, "params": point, "results": [str(result.path) for result in results]})
    return results


def _read_winner(file: Path, point: Mapping[str, Any]) -> list[RunResult] | None:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return [read_result(path) for path in known["results"]] if known["params"] == dict(point) else None
    except FileNotFoundError:
        return None
    except (ArtifactError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged ({error}): delete it, and the winner is evaluated again") from error

"""What a search leaves in its folder: ``trials.csv``, ``best.yaml``, ``hyper.result``, ``tune.json`` and ``tune.png``."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState
from recbole.utils.utils import dict2str

from recbole_hnlm.experiments.search_plan import counts, failures_of
from recbole_hnlm.experiments.tune_picture import draw_search
from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.values import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import FrozenTrial

    from recbole_hnlm.experiments.search import Search
    from recbole_hnlm.experiments.trial import TrialRun
    from recbole_hnlm.utils.results import RunResult

__all__ = ["importances_of", "summary_text", "write_reports"]


def importances_of(search: Search) -> dict[str, float]:
    """Return each key's share in the variance of the score (fANOVA), the largest first; empty where too little is known.

    A key needs two values among the finished trials, and the measure a few trials at all.
    """
    finished = [trial for trial in search.counted() if trial.state == TrialState.COMPLETE]
    varied = [key for key in search.space.keys if len({repr(search.params(trial).get(key)) for trial in finished}) > 1]
    if len(finished) < 4 or not varied or len({trial.value for trial in finished}) < 2:
        return {}
    found = get_param_importances(search.study, params=varied, evaluator=FanovaImportanceEvaluator(seed=0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def write_reports(search: Search, run: TrialRun, metric: str, winner: Sequence[RunResult]) -> dict[str, Any]:
    """Write every file of a search; returns the content of ``tune.json``.

    Args:
        search: the search.
        run: what its trials have in common.
        metric: name of the validation metric.
        winner: the results of the winner on the test split, by seed; empty while the search goes on elsewhere.
    """
    folder, best = Path(search.plan.folder), search.best()
    summary = _summary(search, metric, winner)
    texts = {
        "trials.csv": trials_csv(search),
        "hyper.result": hyper_result(search, winner),
        "tune.json": json.dumps(plain(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    if best is not None:
        texts["best.yaml"] = best_yaml(search, run, metric)
    for name, text in texts.items():
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    if best is not None:
        draw_search(search, metric, summary["importances"], folder / "tune.png")
    return summary


def _mean_test(winner: Sequence[RunResult]) -> dict[str, float]:
    results = [result.test_result or {} for result in winner]
    return {name: statistics.fmean(float(each[name]) for each in results) for name in results[0]} if results else {}


def _summary(search: Search, metric: str, winner: Sequence[RunResult]) -> dict[str, Any]:
    trials, best = search.counted(), search.best()
    states = [trial.state for trial in trials]
    seconds = [float(trial.user_attrs.get("details", {}).get("seconds", 0.0)) for trial in trials if not _is_copy(trial)]
    return {
        "metric": metric,
        "space": search.space.to_lines(),
        "algo": search.plan.algo,
        "pruner": search.plan.pruner,
        "trials": {
            "finished": states.count(TrialState.COMPLETE),
            "pruned": states.count(TrialState.PRUNED),
            "failed": states.count(TrialState.FAIL),
            "running": states.count(TrialState.RUNNING),
            "copied": sum(map(_is_copy, trials)),
            "interrupted": sum("interrupted" in trial.user_attrs.get("left_out", "") for trial in search.trials()),
        },
        "seconds": round(sum(seconds), 3),
        "failures": {str(number): reason for number, reason in failures_of(trials).items()},
        "importances": importances_of(search),
        "best": None
        if best is None
        else {"trial": best.number, "params": search.params(best), "value": best.value, **best.user_attrs.get("details", {})},
        "test": _mean_test(winner) or None,
        "winner": [str(result.path) for result in winner],
    }


def _is_copy(trial: FrozenTrial) -> bool:
    return "copy_of" in trial.user_attrs


def trials_csv(search: Search) -> str:
    """Write one line for each trial, those that were interrupted too; numbers are unrounded, absent values empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    facts = ["copy_of", "retry_of", "host", "pid", "start", "reason"]
    writer.writerow(["trial", "state", "value", *search.space.keys, "seconds", "epochs", "scores", *facts])
    for trial in search.trials():
        params, attrs = search.params(trial), trial.user_attrs
        details, worker = attrs.get("details", {}), attrs.get("worker", {})
        start = trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else ""
        writer.writerow(
            [
                trial.number,
                _state(trial),
                trial.value,
                *(params.get(key) for key in search.space.keys),
                0 if _is_copy(trial) else details.get("seconds"),
                trial.last_step or "",
                " ".join(map(str, details.get("scores", []))),
                attrs.get("copy_of"),
                attrs.get("retry_of"),
                worker.get("host"),
                worker.get("pid"),
                start,
                attrs.get("reason") or attrs.get("left_out"),
            ]
        )
    return stream.getvalue()


def _state(trial: FrozenTrial) -> str:
    if counts(trial) or trial.state == TrialState.WAITING:
        return trial.state.name.lower()
    return "interrupted" if trial.user_attrs["left_out"].startswith("interrupted") else "left out"


def hyper_result(search: Search, winner: Sequence[RunResult]) -> str:
    """Write the format of RecBole's ``HyperTuning.export_result``; test metrics stand at the winner, where alone they exist."""
    best, parts = search.best(), []
    for trial in search.counted():
        if trial.state != TrialState.COMPLETE or _is_copy(trial):
            continue
        params = ", ".join(f"{key}:{value}" for key, value in search.params(trial).items())
        valid = dict2str(trial.user_attrs.get("details", {}).get("valid", {}))
        test = dict2str(_mean_test(winner)) if best is not None and trial.number == best.number else ""
        parts.append(f"{params}\nValid result:\n{valid}\nTest result:\n{test}\n\n")
    return "".join(parts)


def best_yaml(search: Search, run: TrialRun, metric: str) -> str:
    """Write the winner as a configuration file that needs no further option: model, dataset, all given keys, the tuned ones."""
    best = search.best()
    assert best is not None  # noqa: S101 - the caller has seen it
    config = run.config(search.params(best), run.seeds[0])
    # Folders too, which a checkpoint would leave out: the file is the user's own, for the same machine.
    given = config.external_config_dict
    left_out = {"model", "dataset", *({"split_seed"} - run.keys.keys())}
    keys = {key: value for key, value in given.items() if key not in left_out and key not in search.space.keys}
    chosen = {key: given.get(key, value) for key, value in search.params(best).items()}
    ended = [trial for trial in search.counted() if trial.state.is_finished()]
    head = [
        f"# {metric} {best.value:.6g} on validation, the best of {len(ended)} trials (trial {best.number})",
        f"# Train it with: recbole-hnlm run --config_files={redact(str(Path(search.plan.folder) / 'best.yaml'))}",
    ]
    base = {"model": run.model, "dataset": config["dataset"], **keys}
    return "\n".join([*head, _yaml(base) + "# tuned"]) + f"\n{_yaml(chosen)}"


def _yaml(keys: Mapping[str, Any]) -> str:
    return yaml.safe_dump(plain(dict(keys)), sort_keys=False, allow_unicode=True) if keys else ""


def summary_text(summary: Mapping[str, Any], folder: Path) -> str:
    """Write what the terminal shows at the end."""
    counted, best = summary["trials"], summary["best"]
    lines = [
        f"{counted['finished']} trials finished, {counted['pruned']} pruned, {counted['failed']} failed "
        f"in {summary['seconds']:,.0f} s of training"
        + (f"; {counted['copied']} repeated a known point and cost nothing" if counted["copied"] else "")
        + (f"; {counted['running']} still run elsewhere" if counted["running"] else "")
    ]
    if summary["importances"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in summary["importances"].items())
        lines.append(f"importance for {summary['metric']}: {shares}")
    if best is not None:
        params = ", ".join(f"{key}={value}" for key, value in best["params"].items())
        lines.append(f"best: trial {best['trial']}, {summary['metric']} {best['value']:.4f} on validation: {params}")
    if summary["test"]:
        lines.append(f"test, computed once: {dict2str(summary['test']).strip()}")
    lines.append(f"results: {folder / 'tune.json'}, trials.csv, hyper.result" + (", best.yaml, tune.png" if best else ""))
    return "\n".join(lines)

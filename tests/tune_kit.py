"""Searches with a scripted objective: no training, no process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.experiments.search_plan import Outcome, SearchPlan
from recbole_hnlm.experiments.space import read_space

if TYPE_CHECKING:
    from recbole_hnlm.experiments.search import Search

LINES = ["learning_rate loguniform -8,-3", "n_layers choice [1,2,3]"]


def plan_of(folder, lines=LINES, **changed):
    space = read_space(lines, "hyper.test")
    base = {
        "name": "s",
        "folder": str(folder),
        "storage": None,
        "dimensions": space.dimensions,
        "source": space.source,
        "algo": "tpe",
        "pruner": "none",
        "trials": 12,
        "seed": 1,
        "bigger": True,
        "epochs": 10,
        "eval_step": 1,
        "points": tuple(space.points()) if changed.get("algo") == "exhaustive" else None,
        "settings": {"model": "BPR"},
        "code": "c",
    }
    return SearchPlan(**{**base, **changed})


def scripted(point, report, name):
    """Score a point after three epochs; the score rises with the layers and has its best at a rate of 0.005."""
    score = point.get("n_layers", 1) - abs(point.get("learning_rate", 0.005) - 0.005)
    for epoch in range(3):
        report(epoch, score * (epoch + 1) / 3)
    return Outcome(score, {"scores": [score], "valid": {"mrr@5": score}, "epochs": [3], "best_epoch": [2]})


def states(search: Search):
    return [trial.state.name for trial in search.counted()]

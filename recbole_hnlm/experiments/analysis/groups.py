"""The metrics of a run by groups of users and items; weighted, the groups add up to the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.evaluator.groups import (
    edge_groups,
    parts_by_item_group,
    popularity_groups,
    quantile_edges,
    rank_contributions,
)
from recbole_hnlm.evaluator.statistics import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.evaluator.groups import Group
    from recbole_hnlm.experiments.analysis.lists import Lists

__all__ = ["by_item_popularity", "by_user_activity", "overall"]

_SEED = 0  # of the bootstrap: equal runs give equal intervals


def overall(lists: Lists, resamples: int) -> dict[str, dict[str, float | None]]:
    """Return each metric's mean over users with its interval: metric -> ``value``, ``low``, ``high``, ``contribution``."""
    names, table = _table(lists)
    return _estimates(names, table, np.ones(len(table)), resamples, len(table))


def by_user_activity(lists: Lists, edges: Sequence[int] | int, resamples: int) -> dict[str, Any]:
    """Divide users by their number of training interactions.

    A group's ``weight`` is its share of the users, and its ``value`` the mean over its users, so that the sum of weight times
    value is the mean over all users.

    Args:
        lists: of the test split.
        edges: inclusive upper ends of all groups but the last, or a number of groups of about equally many users.
        resamples: of the bootstrap; 0 makes no intervals.

    Returns:
        ``unit``, ``edges``, ``metrics`` and ``groups``; see docs/analysis.md.
    """
    names, table = _table(lists)
    counts = np.bincount(lists.training.users, minlength=lists.training.n_users)[lists.users]
    bounds = quantile_edges(counts, edges) if isinstance(edges, int) else list(edges)
    groups, place = edge_groups(counts, bounds)
    content = []
    for number, group in enumerate(groups):
        own = table[place == number]
        weight = len(own) / len(table)
        content.append(_entry(group, len(own), weight, _estimates(names, own, np.ones(len(own)), resamples, len(table))))
    return {"unit": "training interactions of a user", "edges": bounds, "metrics": names, "groups": content}


def by_item_popularity(lists: Lists, shares: Sequence[float], resamples: int) -> dict[str, Any]:
    """Divide what the lists achieve by the popularity of the items that they hit.

    A group's ``contribution`` to a metric is the mean over users of what the hits on its items add
    (:func:`recbole_hnlm.evaluator.groups.rank_contributions`); the contributions sum to the metric. Its ``weight`` is the
    mean over users of the share of the user's relevant items that lie in the group, and its ``value`` the contribution over
    the weight: for Recall, how much of what was to be found in the group was found. So the sum of weight times value is the
    metric again. A group without relevant items has weight and contribution 0 and no value.

    Args:
        lists: of the test split.
        shares: where head and mid end, as shares of all training interactions.
        resamples: of the bootstrap over users; 0 makes no intervals.

    Returns:
        ``unit``, ``shares``, ``metrics`` and ``groups``; see docs/analysis.md.
    """
    counts = np.bincount(lists.training.items, minlength=lists.training.n_items)
    groups, group_of_item = popularity_groups(counts, shares)
    names: list[str] = []
    parts: list[NDArray[np.float64]] = []  # [U, G] each
    for metric in lists.metrics:
        contributions = rank_contributions(lists.config, lists.hits, metric)
        for place, k in enumerate(lists.config["topk"]):
            names.append(f"{metric}@{k}")
            parts.append(parts_by_item_group(contributions[:, :, place], lists.items, group_of_item, len(groups)))
    table = np.stack(parts, axis=2)  # [U, G, M]
    members = np.arange(len(groups)) == group_of_item[:, None]  # [I, G]
    shares_of_users = (lists.relevant @ members.astype(np.float64)) / lists.hits[:, -1:]  # [U, G]
    content = []
    for number, group in enumerate(groups):
        weights = shares_of_users[:, number]
        estimates = _estimates(names, table[:, number], weights, resamples, len(table))
        content.append(_entry(group, int(members[:, number].sum()), float(weights.mean()), estimates))
    return {"unit": "training interactions of an item", "shares": list(shares), "metrics": names, "groups": content}


def _table(lists: Lists) -> tuple[list[str], NDArray[np.float64]]:
    names, columns = zip(*lists.values(), strict=True)
    return list(names), np.stack(columns, axis=1)


def _estimates(
    names: Sequence[str], values: NDArray[np.float64], weights: NDArray[np.float64], resamples: int, n_users: int
) -> dict[str, dict[str, float | None]]:
    """Return ``sum values / sum weights`` of each metric, its interval, and ``sum values / n_users``."""
    total = weights.sum()
    interval = bootstrap_interval(values, weights, resamples, _SEED)
    return {
        name: {
            "value": float(values[:, place].sum() / total) if total > 0 else None,
            "low": None if interval is None else float(interval[0][place]),
            "high": None if interval is None else float(interval[1][place]),
            "contribution": float(values[:, place].sum() / n_users),
        }
        for place, name in enumerate(names)
    }


def _entry(group: Group, size: int, weight: float, estimates: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    return {
        "name": group.name,
        "low": group.low,
        "high": group.high,
        "size": size,
        "weight": weight,
        "values": estimates,
    }

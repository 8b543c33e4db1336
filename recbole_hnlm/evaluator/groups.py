"""Groups of users and items, and a metric's parts by group that add up to the whole: pure functions over arrays.

Symbols: U evaluated users, K the longest cut-off, I items including the padding id 0, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.evaluator.per_user import value_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Group", "edge_groups", "parts_by_item_group", "popularity_groups", "quantile_edges", "rank_contributions"]


@dataclass(frozen=True)
class Group:
    """Users or items whose number of training interactions lies in a range.

    Attributes:
        name: such as ``6-10``, ``21+`` or ``head``.
        low: the smallest number of a member, inclusive.
        high: the largest, inclusive; None where there is no bound.
    """

    name: str
    low: int
    high: int | None


def quantile_edges(counts: NDArray[np.int64], parts: int) -> list[int]:
    """Return the upper edges of groups of about equally many users, without the last group, which has none.

    The j-th of ``parts`` groups ends at the smallest count that at least ``j / parts`` of the users do not exceed. Users of one
    count stay together, so there are fewer groups where counts repeat.

    Args:
        counts: training interactions of each user, ``[U]``, U >= 1.
        parts: how many groups, at least 1.
    """
    ordered = np.sort(counts)
    places = [-(-part * len(ordered) // parts) - 1 for part in range(1, parts)]
    edges = dict.fromkeys(int(ordered[place]) for place in places if place >= 0)
    return [edge for edge in edges if edge < int(ordered[-1])]


def edge_groups(counts: NDArray[np.int64], edges: Sequence[int]) -> tuple[list[Group], NDArray[np.int64]]:
    """Divide users by upper edges: ``[5, 10]`` makes up to 5, 6 to 10, and 11 or more; groups without a user are left out.

    Args:
        counts: training interactions of each user, ``[U]``.
        edges: ascending, inclusive upper ends of all groups but the last.

    Returns:
        The groups, and the place in them of each user's, int64 ``[U]``.
    """
    bounds = np.asarray(edges, dtype=np.int64)
    raw = np.searchsorted(bounds, counts, side="left")
    present, place = np.unique(raw, return_inverse=True)
    lows = [int(bounds[number - 1]) + 1 if number else 0 for number in present]
    highs = [int(bounds[number]) if number < len(bounds) else None for number in present]
    groups = [
        Group(f"{low}+" if high is None else f"{low}-{high}" if low < high else str(low), low, high)
        for low, high in zip(lows, highs, strict=True)
    ]
    return groups, place.astype(np.int64)


def popularity_groups(counts: NDArray[np.int64], shares: Sequence[float]) -> tuple[list[Group], NDArray[np.int64]]:
    """Divide items into head, mid and tail by the training interactions that they hold.

    Items are ordered by their count, the most popular first and equal ones by id. With running sums S_i of the counts
    *before* item i over the sum of all, an item belongs to the first group j with ``S_i < shares[j]``, or to the last one.
    Thus head is the shortest list of the most popular items that holds at least ``shares[0]`` of all interactions.

    Args:
        counts: training interactions of each item, int64 ``[I]``; the padding id 0 is in no group.
        shares: two ascending numbers in (0, 1): where head and mid end.

    Returns:
        ``head``, ``mid`` and ``tail`` (those that have items), and the place in them of each item's, int64 ``[I]``; -1 for 0.
    """
    real = counts[1:].astype(np.int64)
    order = np.argsort(-real, kind="stable")
    held = np.cumsum(real[order]) - real[order]
    raw = np.empty(len(real), dtype=np.int64)
    raw[order] = np.searchsorted(np.asarray(shares) * max(int(real.sum()), 1), held, side="right")
    present, place = np.unique(raw, return_inverse=True)
    members = [real[raw == number] for number in present]
    names = ("head", "mid", "tail")
    groups = [Group(names[number], int(own.min()), int(own.max())) for number, own in zip(present, members, strict=True)]
    return groups, np.concatenate([[-1], place]).astype(np.int64)


def rank_contributions(config: Any, rows: NDArray[np.int64], metric: str) -> NDArray[np.float64]:
    r"""Split a metric of each user into what each rank of the list adds to it.

    .. math::
        c_{u,r}@k = m_u@k(h_{u,1}, \dots, h_{u,r}, 0, \dots, 0) - m_u@k(h_{u,1}, \dots, h_{u,r-1}, 0, \dots, 0)

    with :math:`h_{u,r}` 1 where the r-th item is relevant. The sum over r telescopes to :math:`m_u@k`, whatever the metric. For
    Recall, Precision and NDCG this is each hit's own term; for Hit and MRR the first hit gets everything; for MAP a hit gets
    the precision at its rank over ``min(k, n_u)``.

    Args:
        config: with the ``topk`` of the evaluation.
        rows: hits and then the number of relevant items, ``[U, K + 1]``.
        metric: a name that :func:`recbole_hnlm.evaluator.per_user.is_per_user` accepts.

    Returns:
        float64 ``[K, U, C]``: rank, user, and the C cut-offs of ``topk`` in their order.

    Raises:
        ValueError: the metric is not 0 for a list without a hit, so that hits do not explain it.
    """
    length, columns = rows.shape[1] - 1, [k - 1 for k in config["topk"]]
    kept = rows.copy()
    kept[:, :length] = 0
    before = value_table(config, kept, metric)[:, columns]
    if before.any():
        raise ValueError(f"{metric} is not 0 for lists without a hit, so that it cannot be divided among hits")
    parts = np.zeros((length, *before.shape))
    for rank in range(length):
        kept[:, rank] = rows[:, rank]
        after = value_table(config, kept, metric)[:, columns]
        parts[rank] = after - before
        before = after
    return parts


def parts_by_item_group(
    contributions: NDArray[np.float64], items: NDArray[np.int64], group_of_item: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Add up, for each user and group of items, what the ranks of its items contribute.

    Args:
        contributions: of one cut-off, ``[K, U]``.
        items: the lists, internal ids, ``[U, K]``.
        group_of_item: place of each item's group, ``[I]``.
        count: G.

    Returns:
        float64 ``[U, G]``; a row's sum is the user's metric.
    """
    groups = group_of_item[items]  # [U, K]
    # A list that runs out of items is padded with 0, which is never relevant.
    return np.stack([np.where(groups == number, contributions.T, 0.0).sum(axis=1) for number in range(count)], axis=1)

"""Ranking all items for the users of RecBole's loader in blocks, from the lists that the loader holds of each user.

RecBole's loader puts the lists of each batch together from a tensor per user, and its collector writes a matrix of users x
items to look up which of the best items are relevant. Here all lists are put together once, and the best items are looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction

from recbole_hnlm.evaluator.top_items import ItemLists

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UserBlock", "can_rank_blocks", "user_blocks"]

_BLOCK_BYTES = 3 << 20
_LEAST_USERS = 32


class UserBlock(NamedTuple):
    """Users that are scored together.

    Attributes:
        interaction: what the loader gives the model of n users.
        histories: items that are not ranked.
        positives: items that are relevant.
    """

    interaction: Any
    histories: ItemLists
    positives: ItemLists


def can_rank_blocks(loader: Any, register: Any) -> bool:
    """Whether an evaluation reads nothing but the best items of users from a loader of all items.

    Args:
        loader: of the evaluation.
        register: RecBole's, of what the metrics need.
    """
    reads_rows = any(register.need(name) for name in ("rec.meanrank", "rec.score", "data.label"))
    return isinstance(loader, FullSortEvalDataLoader) and not loader.is_sequential and not reads_rows


def user_blocks(loader: Any, *, small: bool, every: int = 1) -> Iterator[UserBlock]:
    """Yield the users of a loader in its order.

    Args:
        loader: RecBole's loader of users for the ranking of all items.
        small: cut the loader's batches into blocks whose scores stay in the processor's cache; for models whose scoring costs
            no more a user in small blocks.
        every: take the first of so many of the loader's batches.
    """
    users = loader.uid_list.numpy()
    histories, positives = (_lists(of_user[users]) for of_user in (loader.uid2history_item, loader.uid2positive_item))
    batch = int(loader.step)
    size = min(batch, max(_LEAST_USERS, _BLOCK_BYTES // (4 * loader._dataset.item_num))) if small else batch
    columns = loader.user_df.interaction
    for first in range(0, len(users), batch * every):
        last = min(first + batch, len(users))
        for start in range(first, last, size):
            stop = min(start + size, last)
            interaction = Interaction({name: values[start:stop] for name, values in columns.items()})
            yield UserBlock(interaction, histories.rows(start, stop), positives.rows(start, stop))


def _lists(of_users: Any) -> ItemLists:
    pointers = np.zeros(len(of_users) + 1, dtype=np.int64)
    np.cumsum([items.numel() for items in of_users], out=pointers[1:])
    return ItemLists(pointers, torch.cat(list(of_users)).numpy() if len(of_users) else np.empty(0, dtype=np.int64))

"""Training triples (user, interacted item, hard-negative item), made on demand and kept nowhere.

What is held grows with users and items and with the training split's own index, never with triples, epochs or candidates.

Symbols: U users and I items including the padding id 0, P training rows, N rows that are drawn from, M candidates of each.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from recbole_hnlm.data.sampler import CandidateSampler
from recbole_hnlm.finetune.hard_negatives import teacher_hard_negatives
from recbole_hnlm.utils.errors import ArtifactError, DataError
from recbole_hnlm.utils.kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from recbole_hnlm.data.teacher import Teacher
    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["EpochSampler", "TripleDataset"]

_logger = logging.getLogger(__name__)


@compiled()
def _rows_at(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    indices: NDArray[np.int64],
    firsts: NDArray[np.int64],
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    items: NDArray[np.int64],
    item_mask: NDArray[np.bool_],
    out: NDArray[np.int64],
) -> None:
    """Write the training row of each index: ``firsts [U + 1]`` are the users' first indices, masked items are passed over."""
    for place in range(len(indices)):
        user = np.searchsorted(firsts, indices[place], side="right") - 1
        left = indices[place] - firsts[user]
        for position in range(starts[user], starts[user + 1]):
            row = order[position]
            if item_mask[items[row]]:
                if left == 0:
                    out[place] = row
                    break
                left -= 1


class TripleDataset(Dataset[tuple[int, int, int]]):
    """Triples over the rows of the training split: the row's user and item, and the teacher's hard negative for the user.

    :func:`~recbole_hnlm.finetune.hard_negatives.teacher_hard_negatives` chooses the hard negative among M uniform candidates
    that the user did not interact with in training. It depends on (seed, epoch, training row) alone: not on the batch, on the
    number of workers or processes, nor on which users are selected.

    Source: HNLMRec (arXiv 2504.04726), supervision (docs/method.md, section 8). Departure: candidates are drawn anew
    in every epoch.

    Attributes:
        left_out: how many training rows of the selected users take no part, by reason (``items without text``, ``users
            without a candidate``), and how many ``items`` are never drawn.
    """

    def __init__(
        self,
        training: TrainingInteractions,
        teacher: Teacher,
        *,
        candidates: int,
        guard_share: float,
        seed: int,
        users: ArrayLike | None = None,
        item_mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count the rows of each user.

        Args:
            training: the training split.
            teacher: of the same split.
            candidates: M >= 1.
            guard_share: share of the highest-scored candidates to skip, in [0, 1].
            seed: seed of the candidates; any integer.
            users: internal ids of the users whose rows are used; None uses all.
            item_mask: items that may appear, as positive or as hard negative, bool ``[I]`` (those with text); None allows all.

        Raises:
            ArtifactError: the teacher has other numbers of users or items.
            DataError: an id is not a user's, or no row is left.
        """
        found, expected = (len(teacher.user_vectors), len(teacher.item_vectors)), (training.n_users, training.n_items)
        if found != expected:
            raise ArtifactError(
                f"the teacher has {found[0]} users and {found[1]} items, the training split {expected[0]} and {expected[1]} "
                "(each with the padding id): it is of another dataset, build it again"
            )
        self._training, self._teacher = training, teacher
        self._width, self._guard_share = candidates, guard_share
        self._items_allowed = np.ones(training.n_items, dtype=bool) if item_mask is None else np.array(item_mask, dtype=bool)
        self._items_allowed[0] = False
        selected = _user_mask(users, training.n_users)
        with_candidate = selected & self._have_candidates()
        usable_items = self._items_allowed[training.items]  # [P]
        per_user = np.bincount(training.users[usable_items], minlength=training.n_users)  # [U]
        rows_selected = np.diff(training.by_user[0])[selected].sum()
        self.left_out = {
            "items without text": int(rows_selected - per_user[selected].sum()),
            "users without a candidate": int(per_user[selected & ~with_candidate].sum()),
            "items": int(training.n_items - 1 - self._items_allowed.sum()),
        }
        self._firsts = np.zeros(training.n_users + 1, dtype=np.int64)
        np.cumsum(np.where(with_candidate, per_user, 0), out=self._firsts[1:])
        self._report(int(rows_selected))
        kept = with_candidate[training.users]
        self._sampler = CandidateSampler(
            training.n_users,
            training.n_items,
            {"train": (training.users[kept], training.items[kept])},
            seed=seed,
            allowed=None if self._items_allowed[1:].all() else self._items_allowed,
        )
        # In shared memory: workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def _have_candidates(self) -> NDArray[np.bool_]:
        """Which users have an allowed item that they did not interact with, bool ``[U]``."""
        starts, order = self._training.by_user
        n_allowed = int(self._items_allowed.sum())
        have = np.ones(self._training.n_users, dtype=bool)
        # Only who has as many rows as there are items can hold them all.
        for user in np.flatnonzero(np.diff(starts) >= n_allowed):
            history = np.unique(self._training.items[order[starts[user] : starts[user + 1]]])
            have[user] = self._items_allowed[history].sum() < n_allowed
        return have

    def _report(self, rows: int) -> None:
        reasons = ("items without text", "users without a candidate")
        counts = ", ".join(f"{self.left_out[reason]:,} of {reason}" for reason in reasons)
        if not len(self):
            raise DataError(
                f"no training row is left to fine-tune on: of {rows:,} rows of the selected users {counts} are left out; "
                "check the text columns (title_field) and the choice of users"
            )
        _logger.info("triples: %s of %s training rows (left out: %s)", f"{len(self):,}", f"{rows:,}", counts)

    def set_epoch(self, epoch: int) -> None:
        """Draw the candidates of another epoch (from 0) from here on; an :class:`EpochSampler` can pass it on."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def rows_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Return the training rows behind indices, int64 ``[B]``.

        Raises:
            IndexError: an index is outside ``range(len(self))``.
        """
        places = np.ascontiguousarray(indices, dtype=np.int64)
        if len(places) and not (places.min() >= 0 and places.max() < len(self)):
            raise IndexError(f"triples {places.min()}..{places.max()} were asked for, expected 0..{len(self) - 1}")
        rows = np.empty(len(places), dtype=np.int64)
        starts, order = self._training.by_user
        _rows_at(places, self._firsts, starts, order, self._training.items, self._items_allowed, rows)
        return rows

    def arrays(self, indices: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the triples of indices as internal ids: users, items and hard negatives, int64 ``[B]`` each.

        Raises:
            IndexError: as :meth:`rows_of`.
        """
        rows = self.rows_of(indices)
        users, items = self._training.users[rows], self._training.items[rows]
        drawn = self._sampler.sample_numbered(users, self._width, rows, int(self._epoch)).numpy()  # [B, M]
        vectors = (self._teacher.user_vectors, self._teacher.item_vectors)
        return users, items, teacher_hard_negatives(users, drawn, *vectors, self._guard_share)

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return many triples at once; torch's DataLoader calls this with the indices of a batch."""
        return list(zip(*(column.tolist() for column in self.arrays(indices)), strict=True))


class EpochSampler(Sampler[int]):
    """Every index once, in an order that depends on (seed, epoch) alone; 8 bytes an index.

    accelerate and transformers call :meth:`set_epoch`; without a call every iteration gives the order of epoch 0. All processes
    of a parallel run compute the same order, of which accelerate hands each its share.
    """

    def __init__(self, dataset: TripleDataset, seed: int) -> None:
        """Remember what the order is computed from.

        Args:
            dataset: its ``set_epoch`` is called along. accelerate tells a dataset its epoch in a single process only, when the
                sampler has a ``set_epoch`` too; here the dataset follows in every case.
            seed: any integer.
        """
        self._seed, self._dataset, self._epoch = seed, dataset, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch (from 0) for the next iteration."""
        self._epoch = epoch
        self._dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        # Not .tolist(): a list of Python integers takes five times the memory.
        return map(int, np.random.default_rng([self._seed % 2**64, self._epoch]).permutation(len(self)))


def _user_mask(users: ArrayLike | None, n_users: int) -> NDArray[np.bool_]:
    mask = np.full(n_users, users is None)
    if users is not None:
        ids = np.asarray(users, dtype=np.int64)
        if len(ids) and not (ids.min() >= 1 and ids.max() < n_users):
            raise DataError(f"user ids {ids.min()}..{ids.max()} were selected, expected 1..{n_users - 1}")
        mask[ids] = True
    mask[0] = False
    return mask

"""What every stage works on: settings, the training split, and the texts of the dataset's atomic files."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.data.atomic_text import AtomicFormat, ItemText, ReadReport, read_item_texts, read_reviews
from recbole_hnlm.stages.choices import choose_rows, rows_of_chosen_users
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.teacher import Teacher
    from recbole_hnlm.data.training import TrainingInteractions

__all__ = ["StageContext"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageContext:
    """Input of the stages. Interactions come from :class:`TrainingInteractions` alone.

    Symbols: P training interactions, I items including the padding id 0.

    Attributes:
        settings: the project's keys.
        dataset_name: name of the dataset, the stem of its atomic files.
        dataset_dir: folder of the atomic files.
        training: the training split.
        user_id_field: name of the user id column.
        item_id_field: name of the item id column.
        rating_field: name of the rating column; None where the interactions have none.
        atomic_format: encoding and separators of the atomic files, and their columns left out.
        device: torch device of models, such as ``cpu`` or ``cuda``.
        ratings: rating of each training interaction, ``[P]``; None where they are not loaded.
        inter_name: name of the file of the training interactions, read for reviews alone; None means ``<dataset>.inter``.
        teacher_source: reads or trains the collaborative teacher of the fine-tuned route; None where there is none.
        show_progress: whether to show progress bars.
    """

    settings: HNLMSettings
    dataset_name: str
    dataset_dir: Path
    training: TrainingInteractions
    user_id_field: str = "user_id"
    item_id_field: str = "item_id"
    rating_field: str | None = None
    atomic_format: AtomicFormat = field(default_factory=AtomicFormat)
    device: str = "cpu"
    ratings: NDArray[np.floating[Any]] | None = None
    inter_name: str | None = None
    teacher_source: Callable[[], Teacher] | None = None
    show_progress: bool = True

    @property
    def dataset_artifacts(self) -> Path:
        """Folder that all splits of the dataset share."""
        return Path(self.settings.artifact_dir) / self.dataset_name

    @property
    def split_artifacts(self) -> Path:
        """Folder of this training split."""
        return self.dataset_artifacts / self.training.split_fingerprint

    @cached_property
    def teacher(self) -> Teacher:
        """The collaborative teacher of the training split, trained at first use.

        Raises:
            ConfigError: the context was made without one.
            HNLMError: see :func:`recbole_hnlm.finetune.teacher.ensure_teacher`.
        """
        if self.teacher_source is None:
            raise ConfigError("the fine-tuned route needs a collaborative teacher, but this context has none")
        return self.teacher_source()

    @cached_property
    def _read_texts(self) -> tuple[dict[str, ItemText], ReadReport]:
        settings = self.settings
        roles = ("title", "categories", "city", "description")
        return read_item_texts(
            self.dataset_dir / f"{self.dataset_name}.item",
            item_id_field=self.item_id_field,
            named={role: getattr(settings, f"{role}_field") for role in roles},
            wanted={str(token) for token in self.training.item_tokens[1:]},
            form=self.atomic_format,
            max_broken_share=settings.max_missing_share,
        )

    @property
    def all_item_texts(self) -> dict[str, ItemText]:
        """Rows of the items by raw token, including items without text.

        Raises:
            DataError: see :func:`recbole_hnlm.data.atomic_text.read_item_texts`.
        """
        return self._read_texts[0]

    @property
    def text_columns(self) -> dict[str, str | None]:
        """Column of ``.item`` that was read for title, categories, city and description; None where there is none.

        Raises:
            DataError: see :func:`recbole_hnlm.data.atomic_text.read_item_texts`.
        """
        return self._read_texts[1].columns

    @cached_property
    def item_texts(self) -> dict[str, ItemText]:
        """Texts by raw token, of the items that have any.

        Raises:
            DataError: see :func:`recbole_hnlm.data.atomic_text.read_item_texts`.
        """
        texts, report = self._read_texts
        with_text = {token: text for token, text in texts.items() if text.has_text}
        _logger.info(
            "item text of %s: %s of %s items have text (%s)",
            self.dataset_name,
            f"{len(with_text):,}",
            f"{self.training.n_items - 1:,}",
            report,
        )
        return with_text

    @cached_property
    def items_with_text(self) -> NDArray[np.bool_]:
        """Which internal item ids have text, bool ``[I]``; the padding id has none."""
        texts = self.item_texts
        mask = np.fromiter(
            (str(token) in texts for token in self.training.item_tokens), dtype=bool, count=self.training.n_items
        )
        mask[0] = False
        return mask

    @cached_property
    def shown_rows(self) -> NDArray[np.int64]:
        """Training rows that users' prompts show, grouped by user.

        At most ``profile_history_length`` items with text for each user: the highest rated first where ratings are loaded,
        otherwise, and among equals, a random choice seeded by ``llm_seed``.
        """
        return choose_rows(
            self.training,
            self.settings.profile_history_length,
            seed=self.settings.llm_seed,
            purpose="history",
            eligible=self.items_with_text,
            priority=self.ratings,
        )

    @cached_property
    def chosen_rows(self) -> NDArray[np.int64]:
        """Training rows that get a semantic negative, grouped by user, int64.

        ``semantic_negatives_per_user`` training pairs, among those whose item has text, of each of ``semantic_users`` users,
        seeded by ``llm_seed``.
        """
        settings = self.settings
        rows = choose_rows(
            self.training,
            settings.semantic_negatives_per_user,
            seed=settings.llm_seed,
            purpose="negatives",
            eligible=self.items_with_text,
        )
        return rows_of_chosen_users(self.training, rows, settings.n_semantic_users, seed=settings.llm_seed)

    @cached_property
    def chosen_pairs(self) -> list[tuple[str, str]]:
        """(user token, item token) of :attr:`chosen_rows`, by which prompts and replies are known."""
        training, rows = self.training, self.chosen_rows
        users, items = training.user_tokens[training.users[rows]], training.item_tokens[training.items[rows]]
        return [(str(user), str(item)) for user, item in zip(users, items, strict=True)]

    @cached_property
    def reviews(self) -> dict[tuple[str, str], str]:
        """Reviews of the shown rows by (user token, item token).

        Raises:
            DataError: see :func:`recbole_hnlm.data.atomic_text.read_reviews`.
        """
        reviews, report = self.read_reviews_of(self.shown_rows)
        if report is not None and report.columns["review"] is not None:
            _logger.info(
                "reviews of %s: %s for %s shown items (%s)", self.dataset_name, len(reviews), len(self.shown_rows), report
            )
        return reviews

    def read_reviews_of(self, rows: NDArray[np.int64]) -> tuple[dict[tuple[str, str], str], ReadReport | None]:
        """Reviews of training rows by (user token, item token), and the counts of the file; no counts when there is no file.

        Raises:
            DataError: see :func:`recbole_hnlm.data.atomic_text.read_reviews`.
        """
        training, path = self.training, self.dataset_dir / (self.inter_name or f"{self.dataset_name}.inter")
        if not path.is_file() and self.settings.review_field is None:
            return {}, None
        counts = Counter((training.users * np.int64(training.n_items) + training.items).tolist())
        wanted = {}
        for row in rows:
            user, item = int(training.users[row]), int(training.items[row])
            pair = (str(training.user_tokens[user]), str(training.item_tokens[item]))
            wanted[pair] = counts[user * training.n_items + item]
        return read_reviews(
            path,
            user_id_field=self.user_id_field,
            item_id_field=self.item_id_field,
            named=self.settings.review_field,
            wanted=wanted,
            form=self.atomic_format,
            max_broken_share=self.settings.max_missing_share,
        )

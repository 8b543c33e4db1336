"""The texts of users and items that queries are made of, by internal id."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from recbole_hnlm.data.atomic_text import cut_text
from recbole_hnlm.stages.negatives import read_profiles
from recbole_hnlm.stages.profile import ITEM_PROFILES, USER_PROFILES
from recbole_hnlm.stages.prompts import without_lead
from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from recbole_hnlm.stages.context import StageContext

__all__ = ["FinetuneTexts", "finetune_texts"]

_MAX_CHARS = 600


@dataclass(frozen=True)
class FinetuneTexts:
    """Texts by internal id; U users and I items including the padding id 0, whose texts are empty.

    Attributes:
        users: text of each user ``[U]``: p_u, or titles from the user's training items.
        titles: title of each item ``[I]``.
        items: text of each item without its title ``[I]``: p_i, or its categories.
    """

    users: list[str]
    titles: list[str]
    items: list[str]

    @property
    def digest(self) -> str:
        """16 hex digits over every text."""
        return text_digest([*self.users, *self.titles, *self.items])[:16]


def finetune_texts(context: StageContext) -> FinetuneTexts:
    """Collect the texts that the key ``finetune_text`` asks for.

    Raises:
        ArtifactError: profiles are asked for and absent or corrupt.
        DataError: the item text cannot be read.
    """
    training, texts = context.training, context.item_texts
    item_tokens = [str(token) for token in training.item_tokens]
    user_tokens = [str(token) for token in training.user_tokens]
    own = [texts.get(token) if place else None for place, token in enumerate(item_tokens)]
    titles = [cut_text(text.title, _MAX_CHARS) if text else "" for text in own]
    items = [cut_text(text.categories or text.description, _MAX_CHARS) if text else "" for text in own]
    if context.settings.finetune_text == "titles":
        return FinetuneTexts(_histories(context, titles), titles, items)
    user_profiles, item_profiles = (read_profiles(context, name) for name in (USER_PROFILES, ITEM_PROFILES))
    users = [without_lead(user_profiles.get(token, "")) if place else "" for place, token in enumerate(user_tokens)]
    profiled = [
        without_lead(item_profiles[token]) if place and token in item_profiles else items[place]
        for place, token in enumerate(item_tokens)
    ]
    return FinetuneTexts(users, titles, profiled)


def _histories(context: StageContext, titles: list[str]) -> list[str]:
    """Titles of the training items that a user's prompt shows, one text per user."""
    training = context.training
    histories = [""] * training.n_users
    for user, rows in groupby(context.shown_rows, key=lambda row: int(training.users[row])):
        histories[user] = "; ".join(titles[training.items[row]] for row in rows)
    return histories

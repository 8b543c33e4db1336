"""Stage ``negatives`` (text route): for chosen training pairs, an item that only looks right for the user."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recbole_hnlm.llm.replies import HardNegative, hard_negative_format
from recbole_hnlm.stages.profile import ITEM_PROFILES, USER_PROFILES
from recbole_hnlm.stages.prompts import negative_prompt
from recbole_hnlm.stages.replies import ReplyCounts, ReplyJob, reply_artifact, run_reply_job

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.session import StageSession

__all__ = [
    "NEGATIVES",
    "count_declined",
    "declined_rows",
    "is_declined",
    "negative_prompts",
    "read_profiles",
    "run_negatives_stage",
    "title_words",
]

NEGATIVES = "negatives"
_ARTICLES = frozenset({"a", "an", "the"})


def read_profiles(context: StageContext, name: str) -> dict[str, str]:
    """Summarizations of a finished profile artefact by raw token.

    Raises:
        ArtifactError: it is absent or corrupt.
    """
    key = "item_id" if name == ITEM_PROFILES else "user_id"
    return {row[key]: row["summarization"] for row in reply_artifact(context, name).read()}


def negative_prompts(context: StageContext) -> dict[tuple[str, str], Prompt]:
    """Prompt of every chosen pair whose user and item have a profile.

    Raises:
        ArtifactError: the profiles are absent or corrupt.
    """
    user_profiles, item_profiles = read_profiles(context, USER_PROFILES), read_profiles(context, ITEM_PROFILES)
    return {
        (user, item): negative_prompt(
            user_profile=user_profiles[user],
            title=context.item_texts[item].title,
            item_profile=item_profiles[item],
            settings=context.settings,
        )
        for user, item in context.chosen_pairs
        if user in user_profiles and item in item_profiles
    }


def is_declined(row: dict[str, Any], own_titles: Collection[tuple[str, ...]]) -> bool:
    """Whether a row of the artefact names no item that is new to the user: it says "None", or a title from the user's training.

    A small model tends to repeat the positive's title, and now and then names another item that the user chose. The vector of
    such a reply would push the user from an item that the user likes, so the pair gets none.

    Args:
        row: a row of ``negatives.jsonl``.
        own_titles: :func:`title_words` of the user's training items.
    """
    reply = HardNegative(hard_negative_item=row["hard_negative_item"], reasoning=row["reasoning"])
    words = title_words(reply.hard_negative_item)
    return reply.is_none or (bool(words) and words in own_titles)


def title_words(title: str) -> tuple[str, ...]:
    """Words of a title in a fixed order, so that "Firm, The" and "the firm" are one."""
    return tuple(sorted(word for word in re.findall(r"\w+", title.casefold()) if word not in _ARTICLES))


def declined_rows(context: StageContext, rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether each row of ``negatives.jsonl`` is declined; see :func:`is_declined`. A user's titles are collected once."""
    training, texts = context.training, context.item_texts
    titles = [title_words(texts[token].title) if token in texts else () for token in map(str, training.item_tokens)]
    users = {str(token): user for user, token in enumerate(training.user_tokens)}
    own = {token: {titles[item] for item in training.history_of(users[token])} for token in {row["user_id"] for row in rows}}
    return [is_declined(row, own[row["user_id"]]) for row in rows]


def count_declined(context: StageContext) -> int:
    """Number of hard negatives that name no item that is new to the user.

    Raises:
        ArtifactError: the artefact is absent or corrupt.
    """
    return sum(declined_rows(context, reply_artifact(context, NEGATIVES).read()))


def run_negatives_stage(session: StageSession) -> tuple[ReplyCounts, int]:
    """Make or reuse the hard negatives (``negatives.jsonl``).

    Returns:
        The counts, in which pairs whose user or item has no profile are missing, and how many replies are declined.

    Raises:
        HNLMError: profiles are absent, the model cannot answer, or the folder cannot be written.
    """
    context = session.context
    prompts = negative_prompts(context)
    keys = [{"user_id": user, "item_id": item} for user, item in prompts]
    form = hard_negative_format(context.settings)
    counts = run_reply_job(session, ReplyJob(NEGATIVES, keys, list(prompts.values()), form, "hard negatives"))
    without_profile = len(context.chosen_pairs) - len(prompts)
    counts = replace(counts, total=counts.total + without_profile, missing=counts.missing + without_profile)
    return counts, count_declined(context)

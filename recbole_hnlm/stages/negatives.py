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
    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.session import StageSession

__all__ = [
    "NEGATIVES",
    "count_declined",
    "is_declined",
    "negative_prompts",
    "read_profiles",
    "run_negatives_stage",
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


def is_declined(row: dict[str, Any], title: str) -> bool:
    """Whether a row of the artefact names no other item: it says "None", or the positive's own title.

    A small model tends to repeat the title. Its vector would push the user from the very item that the user chose, so such a
    pair gets none.

    Args:
        row: a row of ``negatives.jsonl``.
        title: title of the row's positive.
    """
    reply = HardNegative(hard_negative_item=row["hard_negative_item"], reasoning=row["reasoning"])
    words = _title_words(title)
    return reply.is_none or (bool(words) and _title_words(reply.hard_negative_item) == words)


def _title_words(title: str) -> list[str]:
    """Words of a title in a fixed order, so that "Firm, The" and "the firm" are one."""
    return sorted(word for word in re.findall(r"\w+", title.casefold()) if word not in _ARTICLES)


def count_declined(context: StageContext) -> int:
    """Number of hard negatives that name no other item.

    Raises:
        ArtifactError: the artefact is absent or corrupt.
    """
    rows = reply_artifact(context, NEGATIVES).read()
    return sum(is_declined(row, context.item_texts[row["item_id"]].title) for row in rows)


def run_negatives_stage(session: StageSession) -> tuple[ReplyCounts, int]:
    """Make or reuse the hard negatives (``negatives.jsonl``).

    Returns:
        The counts, in which pairs whose user or item has no profile are missing, and how many replies name no other item.

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

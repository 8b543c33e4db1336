"""Stage ``profile``: p_i of the items that a term of the loss needs, then p_u of every user with such items in training."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.stages.base import NO_ROUTE
from recbole_hnlm.stages.planning import StagePlan
from recbole_hnlm.stages.prompts import HistoryEntry, item_prompt, user_prompt
from recbole_hnlm.stages.replies import ReplyJob, run_reply_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.planning import Planner
    from recbole_hnlm.stages.report import StageCounts
    from recbole_hnlm.stages.session import StageSession

__all__ = ["ITEM_PROFILES", "STAGE", "USER_PROFILES", "item_prompts", "profile_jobs", "profiled_items", "user_prompts"]

ITEM_PROFILES = "profiles_items"
USER_PROFILES = "profiles_users"


def profiled_items(context: StageContext) -> list[str]:
    """Raw tokens of the items with text that get a profile, in the order of internal ids.

    With ``profile_items: needed`` these are the items of the pairs that get a semantic negative, since no other item's profile
    is read; with ``all``, and where the alignment, the ranking or the fine-tuned LLM reads profiles, every item with text.
    """
    tokens = [str(token) for token in context.training.item_tokens[1:] if str(token) in context.item_texts]
    if context.settings.profiles_are_for_all:
        return tokens
    needed = {item for _, item in context.chosen_pairs}
    return [token for token in tokens if token in needed]


def item_prompts(context: StageContext) -> dict[str, Prompt]:
    """Prompt of every item of :func:`profiled_items`, by raw token."""
    return {token: item_prompt(context.item_texts[token], context.settings) for token in profiled_items(context)}


def user_prompts(context: StageContext) -> dict[str, Prompt]:
    """Prompt of every user who has an item with text in training and whose profile is read, by raw token.

    See ``StageContext.shown_rows``; as with :func:`profiled_items` these are the users of the pairs that get a semantic
    negative, or all.
    """
    training, prompts = context.training, {}
    needed = None if context.settings.profiles_are_for_all else {user for user, _ in context.chosen_pairs}
    for user, rows in groupby(context.shown_rows, key=lambda row: int(training.users[row])):
        token = str(training.user_tokens[user])
        if needed is not None and token not in needed:
            continue
        items = [str(training.item_tokens[training.items[row]]) for row in rows]
        history = [HistoryEntry(context.item_texts[item], context.reviews.get((token, item), "")) for item in items]
        prompts[token] = user_prompt(history, context.settings)
    return prompts


def profile_jobs(context: StageContext) -> tuple[ReplyJob, ReplyJob]:
    """Prompts of the items' and of the users' profiles (``profiles_items.jsonl``, ``profiles_users.jsonl``).

    Raises:
        DataError: the texts cannot be read.
    """
    settings, items, users = context.settings, item_prompts(context), user_prompts(context)
    form, words = profile_format(settings), settings.profile_max_words + settings.reasoning_max_words
    return (
        ReplyJob(ITEM_PROFILES, [{"item_id": token} for token in items], list(items.values()), form, "item profiles", words),
        ReplyJob(USER_PROFILES, [{"user_id": token} for token in users], list(users.values()), form, "user profiles", words),
    )


class ProfileStage:
    """The stage; what each part does says :class:`recbole_hnlm.stages.base.Stage`."""

    name = "profile"

    def feeds(self, settings: HNLMSettings) -> tuple[StoreKind, ...]:
        """The vectors of profiles, which the text encoder makes."""
        return "item_profiles", "user_profiles"

    def reads(self, settings: HNLMSettings) -> tuple[str, ...]:
        """No other stage's output."""
        return ()

    def refusal(self, settings: HNLMSettings, kinds: Sequence[StoreKind]) -> str | None:
        """Profiles are what an LLM wrote."""
        return NO_ROUTE if settings.negative_route == "none" else None

    def run(self, session: StageSession) -> StageCounts:
        """Make or reuse the profiles of items and users."""
        items, users = (run_reply_job(session, job) for job in profile_jobs(session.context))
        return items + users

    def plan(self, planner: Planner) -> StagePlan:
        """Look the profiles up."""
        return StagePlan([planner.plan(job) for job in profile_jobs(planner.context)])


STAGE = ProfileStage()

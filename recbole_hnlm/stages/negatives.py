"""Stage ``negatives`` (text route): for chosen training pairs, an item that only looks right for the user."""

from __future__ import annotations

import re
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from recbole_hnlm.llm.replies import HardNegative, hard_negative_format
from recbole_hnlm.stages.base import NO_ROUTE
from recbole_hnlm.stages.kinds import is_finetuned_kind
from recbole_hnlm.stages.planning import PlannedReplies, StagePlan
from recbole_hnlm.stages.profile import ITEM_PROFILES, USER_PROFILES
from recbole_hnlm.stages.prompts import negative_prompt
from recbole_hnlm.stages.replies import ReplyJob, reply_artifact, run_reply_job
from recbole_hnlm.stages.report import StageCounts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.planning import Planner
    from recbole_hnlm.stages.session import StageSession

__all__ = [
    "NEGATIVES",
    "STAGE",
    "count_declined",
    "declined_rows",
    "is_declined",
    "negative_prompts",
    "read_profiles",
    "title_words",
]

NEGATIVES = "negatives"
_ARTICLES = frozenset({"a", "an", "the"})
# A profile that does not exist yet, for counting tokens.
_STAND_IN_WORDS = (
    *("This", "person", "enjoys", "classic", "comedy", "and", "drama", "films"),
    *("with", "strong", "characters", "or", "adventure"),
)


def read_profiles(context: StageContext, name: str) -> dict[str, str]:
    """Summarizations of a finished profile artefact by raw token.

    Raises:
        ArtifactError: it is absent or corrupt.
    """
    key = "item_id" if name == ITEM_PROFILES else "user_id"
    return {row[key]: row["summarization"] for row in reply_artifact(context, name).read()}


def _job(context: StageContext, prompts: Mapping[tuple[str, str], Prompt]) -> ReplyJob:
    """The prompts by (user token, item token), as a job."""
    settings = context.settings
    keys = [{"user_id": user, "item_id": item} for user, item in prompts]
    words = settings.negative_max_words + settings.reasoning_max_words
    return ReplyJob(NEGATIVES, keys, list(prompts.values()), hard_negative_format(settings), "hard negatives", words)


def negative_prompts(
    context: StageContext, user_profiles: Mapping[str, str], item_profiles: Mapping[str, str]
) -> dict[tuple[str, str], Prompt]:
    """Prompt of every chosen pair whose user and item have a profile.

    Args:
        context: what the stages work on.
        user_profiles: by raw token.
        item_profiles: by raw token.
    """
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


class NegativesStage:
    """The stage ``negatives``; :class:`recbole_hnlm.stages.base.Stage` says what each part does."""

    name = "negatives"

    def feeds(self, settings: HNLMSettings) -> tuple[StoreKind, ...]:
        """The vectors of pairs, on the text route."""
        return () if is_finetuned_kind(settings, "pairs") else ("pairs",)

    def reads(self, settings: HNLMSettings) -> tuple[str, ...]:
        """The prompts quote profiles."""
        return ("profile",)

    def refusal(self, settings: HNLMSettings, kinds: Sequence[StoreKind]) -> str | None:
        """Only the text route names items."""
        if settings.negative_route == "finetuned":
            return "it names items for the text route; the fine-tuned route emits vectors: run finetune or encode"
        return NO_ROUTE if settings.negative_route == "none" else None

    def run(self, session: StageSession) -> StageCounts:
        """Make or reuse the hard negatives (``negatives.jsonl``); a pair whose user or item has no profile is missing."""
        context = session.context
        prompts = negative_prompts(context, read_profiles(context, USER_PROFILES), read_profiles(context, ITEM_PROFILES))
        counts = run_reply_job(session, _job(context, prompts))
        without_profile = len(context.chosen_pairs) - len(prompts)
        return counts + StageCounts(total=without_profile, missing=without_profile, declined=count_declined(context))

    def plan(self, planner: Planner) -> StagePlan:
        """Look the hard negatives up; where a profile is not there yet, a stand-in of the longest allowed length is quoted."""
        context = planner.context
        stand_in = " ".join(islice(cycle(_STAND_IN_WORDS), context.settings.profile_max_words))
        users, items = (
            {token: text for (token,), text in planner.known[name].items()} for name in (USER_PROFILES, ITEM_PROFILES)
        )
        known = _job(context, negative_prompts(context, users, items))
        pairs = context.chosen_pairs
        if planner.is_finished(known):
            # Pairs that still have no profile are missing in the finished artefact, and are not asked again.
            return StagePlan([PlannedReplies(known, len(pairs), len(pairs), [])])
        found = planner.plan(known)
        everyone = negative_prompts(
            context,
            {user: users.get(user, stand_in) for user, _ in pairs},
            {item: items.get(item, stand_in) for _, item in pairs},
        )
        guessed = [prompt for (user, item), prompt in everyone.items() if user not in users or item not in items]
        return StagePlan([PlannedReplies(known, len(pairs), found.there, [*found.ask, *guessed], len(guessed))])


STAGE = NegativesStage()

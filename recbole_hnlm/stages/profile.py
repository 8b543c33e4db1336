"""Stage ``profile``: p_i of the items that a term of the loss leads to, then p_u of every user with such items in training."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.stages.prompts import HistoryEntry, item_prompt, user_prompt
from recbole_hnlm.stages.replies import ReplyCounts, ReplyJob, run_reply_job

if TYPE_CHECKING:
    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.session import StageSession

__all__ = ["ITEM_PROFILES", "USER_PROFILES", "item_prompts", "profiled_items", "run_profile_stage", "user_prompts"]

ITEM_PROFILES = "profiles_items"
USER_PROFILES = "profiles_users"


def profiled_items(context: StageContext) -> list[str]:
    """Raw tokens of the items with text that get a profile, in the order of internal ids.

    With ``profile_items: needed`` these are the items of the pairs that get a semantic negative, since no other item's profile
    is read; with ``all``, and where the alignment or the fine-tuned LLM reads profiles, every item with text.
    """
    tokens = [str(token) for token in context.training.item_tokens[1:] if str(token) in context.item_texts]
    settings = context.settings
    if settings.profile_items == "all" or settings.alignment_source == "profile" or settings.negative_route == "finetuned":
        return tokens
    needed = {item for _, item in context.chosen_pairs}
    return [token for token in tokens if token in needed]


def item_prompts(context: StageContext) -> dict[str, Prompt]:
    """Prompt of every item of :func:`profiled_items`, by raw token."""
    return {token: item_prompt(context.item_texts[token], context.settings) for token in profiled_items(context)}


def user_prompts(context: StageContext) -> dict[str, Prompt]:
    """Prompt of every user who has an item with text in training, by raw token; see ``StageContext.shown_rows``."""
    training, prompts = context.training, {}
    for user, rows in groupby(context.shown_rows, key=lambda row: int(training.users[row])):
        token = str(training.user_tokens[user])
        items = [str(training.item_tokens[training.items[row]]) for row in rows]
        history = [HistoryEntry(context.item_texts[item], context.reviews.get((token, item), "")) for item in items]
        prompts[token] = user_prompt(history, context.settings)
    return prompts


def run_profile_stage(session: StageSession) -> ReplyCounts:
    """Make or reuse the profiles of items and users (``profiles_items.jsonl``, ``profiles_users.jsonl``).

    Raises:
        HNLMError: the text cannot be read, the model cannot answer, or the folder cannot be written.
    """
    context = session.context
    form = profile_format(context.settings)
    parts = []
    for name, key, prompts in (
        (ITEM_PROFILES, "item_id", item_prompts(context)),
        (USER_PROFILES, "user_id", user_prompts(context)),
    ):
        keys = [{key: token} for token in prompts]
        job = ReplyJob(name, keys, list(prompts.values()), form, f"profiles of {key.removesuffix('_id')}s")
        parts.append(run_reply_job(session, job))
    return ReplyCounts(*(sum(counts) for counts in zip(*map(_fields, parts), strict=True)))


def _fields(counts: ReplyCounts) -> tuple[int, int, int, int]:
    return counts.total, counts.reused, counts.generated, counts.missing

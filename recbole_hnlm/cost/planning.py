"""What the LLM stages would have to do: the same prompts as the stages', looked up in artefacts and cache, none asked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from recbole_hnlm.llm.cache import ReplyCache, content_key
from recbole_hnlm.llm.protocol import Decoding
from recbole_hnlm.llm.replies import hard_negative_format, parse_reply, profile_format
from recbole_hnlm.semantics.pipeline import stages_needed
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.stages.negatives import NEGATIVES
from recbole_hnlm.stages.profile import ITEM_PROFILES, USER_PROFILES, item_prompts, user_prompts
from recbole_hnlm.stages.prompts import negative_prompt
from recbole_hnlm.stages.replies import ReplyJob, is_settled, reply_artifact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recbole_hnlm.llm.protocol import ModelIdentity, Prompt
    from recbole_hnlm.llm.replies import ReplyFormat
    from recbole_hnlm.stages.context import StageContext

__all__ = ["PlannedFinetuning", "PlannedReplies", "plan_finetuning", "plan_replies"]

_STAND_IN = "This person enjoys"
_STAND_IN_WORDS = ("classic", "comedy", "and", "drama", "films", "with", "strong", "characters", "or", "adventure")


@dataclass(frozen=True)
class PlannedReplies:
    """Prompts of one kind.

    Attributes:
        name: artefact name, such as ``profiles_items``.
        prompts: how many there are.
        there: of these, the ones whose reply is in a finished artefact or in the reply cache, or equal to another prompt.
        ask: the distinct prompts that are left.
        guessed: of ``ask``, how many stand in for prompts that quote profiles which do not exist yet.
        form: form of the replies.
    """

    name: str
    prompts: int
    there: int
    ask: list[Prompt]
    guessed: int
    form: ReplyFormat


@dataclass(frozen=True)
class PlannedFinetuning:
    """Work of the fine-tuned route.

    Attributes:
        steps: steps of fine-tuning.
        pairs: pairs that fine-tuning reads.
        available: training pairs that fine-tuning may draw from.
        tokens: tokens that fine-tuning reads at most.
        pair_vectors: pairs whose z_ui is made.
        item_vectors: items whose representation is made.
        vector_tokens: tokens that making the vectors reads at most, a user's part counted for each pair.
        adapters: fine-tuned LLMs of this split that lie there already, of these or other settings.
    """

    steps: int
    pairs: int
    available: int
    tokens: int
    pair_vectors: int
    item_vectors: int
    vector_tokens: int
    adapters: int


class _Planner:
    def __init__(self, context: StageContext, identity: ModelIdentity) -> None:
        self._context, self._identity = context, identity
        self._cache_path = context.dataset_artifacts / "replies.sqlite"

    def plan(
        self, name: str, prompts: Mapping[str, Prompt], form: ReplyFormat, key: str
    ) -> tuple[PlannedReplies, dict[str, str]]:
        """Plan profiles of one kind; returns those that are there too, by raw token."""
        artifact, tokens = reply_artifact(self._context, name), list(prompts)
        job = ReplyJob(name, [{key: token} for token in tokens], list(prompts.values()), form, "")
        if is_settled(artifact, job.inputs(self._identity.key(), self._context), self._identity):
            known = {row[key]: row["summarization"] for row in artifact.read()}
            return PlannedReplies(name, len(tokens), len(tokens), [], 0, form), known
        replies, ask = self.look_up(job.prompts, form)
        known = {token: replies[prompt] for token, prompt in prompts.items() if prompt in replies}
        return PlannedReplies(name, len(tokens), len(tokens) - len(ask), ask, 0, form), known

    def look_up(self, prompts: Sequence[Prompt], form: ReplyFormat) -> tuple[dict[Prompt, str], list[Prompt]]:
        """Main field of every cached reply by prompt, and the distinct prompts without one."""
        decoding = Decoding(form.max_new_tokens, form.temperature, self._context.settings.llm_seed, form.schema)
        distinct = list(dict.fromkeys(prompts))
        keys = [content_key(self._identity, prompt, decoding) for prompt in distinct]
        stored: dict[str, str] = {}
        if self._cache_path.is_file():
            with ReplyCache(self._cache_path, read_only=True) as cache:
                stored = cache.get_many(keys)
        replies, main = {}, next(iter(form.schema["properties"]))
        for prompt, content in zip(distinct, keys, strict=True):
            reply = parse_reply(stored.get(content), form)
            if reply is not None:
                replies[prompt] = str(getattr(reply, main))
        return replies, [prompt for prompt in distinct if prompt not in replies]

    def plan_negatives(self, users: dict[str, str], items: dict[str, str]) -> PlannedReplies:
        """Plan hard negatives; where a profile is not there yet, a stand-in of the longest allowed length is quoted."""
        context, form = self._context, hard_negative_format(self._context.settings)
        stand_in = " ".join([_STAND_IN, *islice(cycle(_STAND_IN_WORDS), max(0, context.settings.profile_max_words - 3))])
        known: dict[tuple[str, str], Prompt] = {}
        guessed: list[Prompt] = []
        pairs = context.chosen_pairs
        for user, item in pairs:
            prompt = negative_prompt(
                user_profile=users.get(user, stand_in),
                title=context.item_texts[item].title,
                item_profile=items.get(item, stand_in),
                settings=context.settings,
            )
            if user in users and item in items:
                known[user, item] = prompt
            else:
                guessed.append(prompt)
        keys = [{"user_id": user, "item_id": item} for user, item in known]
        job = ReplyJob(NEGATIVES, keys, list(known.values()), form, "")
        if is_settled(reply_artifact(context, NEGATIVES), job.inputs(self._identity.key(), context), self._identity):
            # Pairs that still have no profile are missing in the finished artefact, and are not asked again.
            return PlannedReplies(NEGATIVES, len(pairs), len(pairs), [], 0, form)
        ask = self.look_up(job.prompts, form)[1] if known else []
        return PlannedReplies(NEGATIVES, len(pairs), len(known) - len(ask), [*ask, *guessed], len(guessed), form)


def plan_replies(context: StageContext, identity: ModelIdentity) -> list[PlannedReplies]:
    """Plan every prompt that training under the context's settings needs, in the stages' order.

    Args:
        context: what the stages would work on.
        identity: the model that would be asked.

    Returns:
        Items' profiles, users' profiles, hard negatives; those that the settings need.

    Raises:
        DataError: the text of the dataset cannot be read.
        ArtifactError: an artefact or the reply cache is damaged.
    """
    needed, planner = stages_needed(context.settings), _Planner(context, identity)
    if "profile" not in needed:
        return []
    form = profile_format(context.settings)
    items, item_profiles = planner.plan(ITEM_PROFILES, item_prompts(context), form, "item_id")
    users, user_profiles = planner.plan(USER_PROFILES, user_prompts(context), form, "user_id")
    plans = [items, users]
    if "negatives" in needed:
        plans.append(planner.plan_negatives(user_profiles, item_profiles))
    return plans


def plan_finetuning(context: StageContext) -> PlannedFinetuning | None:
    """Plan fine-tuning and its vectors; None where the settings use no fine-tuned LLM. The teacher is not trained for it."""
    if "finetune" not in stages_needed(context.settings):
        return None
    from recbole_hnlm.finetune.evaluation import choose_heldout_users  # noqa: PLC0415 -- only the fine-tuned route needs it

    settings, training = context.settings, context.training
    heldout = choose_heldout_users(training, settings.finetune_heldout_users, settings.finetune_seed)
    may_draw = context.items_with_text[training.items] & ~np.isin(training.users, heldout)
    pairs = settings.finetune_steps * settings.finetune_batch_size * settings.finetune_accumulation
    kinds = kinds_needed(settings)
    pair_vectors = len(context.chosen_pairs) if "pairs" in kinds else 0
    item_vectors = int(context.items_with_text.sum()) if "finetuned_items" in kinds else 0
    # An item's sequence is a query without, at least, the user's text.
    query, item = settings.finetune_max_length, max(1, settings.finetune_max_length - settings.finetune_user_tokens)
    return PlannedFinetuning(
        steps=settings.finetune_steps,
        pairs=pairs,
        available=int(may_draw.sum()),
        tokens=pairs * (query + 2 * item),
        pair_vectors=pair_vectors,
        item_vectors=item_vectors,
        vector_tokens=pair_vectors * query + item_vectors * item,
        adapters=len(list((context.split_artifacts / "finetuned").glob("*/manifest.json"))),
    )

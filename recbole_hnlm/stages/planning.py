"""What a stage would ask of the LLM: its own prompts, looked up in artefacts and reply cache, none asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recbole_hnlm.llm.cache import ReplyCache, content_key
from recbole_hnlm.llm.protocol import Decoding
from recbole_hnlm.llm.replies import parse_reply
from recbole_hnlm.stages.replies import is_settled, reply_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.llm.protocol import ModelIdentity, Prompt
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.replies import ReplyJob

__all__ = ["PlannedReplies", "Planner", "StagePlan"]


@dataclass(frozen=True)
class PlannedReplies:
    """Prompts of one kind.

    Attributes:
        job: what they are about; where profiles that they quote do not exist yet, only the prompts that are known.
        prompts: how many there are.
        there: those whose reply is in a finished artefact or in the reply cache, or equal to another prompt.
        ask: the distinct prompts that are left.
        guessed: of ``ask``, how many stand in for prompts that quote profiles which do not exist yet.
    """

    job: ReplyJob
    prompts: int
    there: int
    ask: list[Prompt]
    guessed: int = 0


@dataclass(frozen=True)
class StagePlan:
    """What a stage would do.

    Attributes:
        replies: prompts for the LLM, by kind.
        work: other work of the LLM, described for the terminal; empty where there is none.
    """

    replies: Sequence[PlannedReplies] = ()
    work: str = ""


@dataclass
class Planner:
    """Looks prompts up for the plans of the stages, which are asked in their order.

    Attributes:
        context: what the stages would work on.
        identity: the model that would be asked.
        kinds: the kinds of vectors that are wanted.
        known: replies that are there already, by artefact name: the main field of each, by the values of its key.
    """

    context: StageContext
    identity: ModelIdentity
    kinds: Sequence[StoreKind]
    known: dict[str, dict[tuple[str, ...], str]] = field(default_factory=dict)

    def plan(self, job: ReplyJob) -> PlannedReplies:
        """Plan the prompts of one kind and remember the replies that are there.

        Raises:
            ArtifactError: an artefact or the reply cache is damaged.
        """
        keys, main = [tuple(key.values()) for key in job.keys], next(iter(job.reply_format.schema["properties"]))
        if self.is_finished(job):
            rows = reply_artifact(self.context, job.name).read()
            self.known[job.name] = {tuple(row[name] for name in job.keys[0]): row[main] for row in rows}
            return PlannedReplies(job, len(keys), len(keys), [])
        replies, ask = self._look_up(job, main)
        self.known[job.name] = {
            key: replies[prompt] for key, prompt in zip(keys, job.prompts, strict=True) if prompt in replies
        }
        return PlannedReplies(job, len(keys), len(keys) - len(ask), ask)

    def is_finished(self, job: ReplyJob) -> bool:
        """Whether the artefact of these very prompts is there, and a run would not ask for what is missing in it."""
        inputs = job.inputs(self.identity.key(), self.context)
        return is_settled(reply_artifact(self.context, job.name), inputs, self.identity)

    def _look_up(self, job: ReplyJob, main: str) -> tuple[dict[Prompt, str], list[Prompt]]:
        """Field ``main`` of every cached reply by prompt, and the distinct prompts without one."""
        form, path = job.reply_format, self.context.dataset_artifacts / "replies.sqlite"
        decoding = Decoding(form.max_new_tokens, form.temperature, self.context.settings.llm_seed, form.schema)
        distinct = list(dict.fromkeys(job.prompts))
        keys = [content_key(self.identity, prompt, decoding) for prompt in distinct]
        stored: dict[str, str] = {}
        if path.is_file():
            with ReplyCache(path, read_only=True) as cache:
                stored = cache.get_many(keys)
        replies: dict[Prompt, str] = {}
        for prompt, content in zip(distinct, keys, strict=True):
            reply = parse_reply(stored.get(content), form)
            if reply is not None:
                replies[prompt] = str(getattr(reply, main))
        return replies, [prompt for prompt in distinct if prompt not in replies]

"""From prompts to an artefact of replies: skipped when it is there, resumed from the reply cache when it is not."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.settings import keys_affecting
from recbole_hnlm.llm.asking import ask, may_answer_now
from recbole_hnlm.stages.prompts import prompt_digest, prompt_hash
from recbole_hnlm.stages.report import StageCounts, sum_if_known
from recbole_hnlm.utils.errors import BackendError
from recbole_hnlm.utils.files import JsonlArtifact, text_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from recbole_hnlm.llm.protocol import ModelIdentity, Prompt, TokenUsage
    from recbole_hnlm.llm.replies import ReplyFormat
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.session import StageSession

__all__ = ["ReplyJob", "is_settled", "reply_artifact", "run_reply_job"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplyJob:
    """Prompts of one kind and where their replies go.

    Attributes:
        name: artefact name, such as ``profiles_items``.
        keys: what each prompt is about, by raw token; one dict per prompt.
        prompts: the prompts.
        reply_format: form of the replies.
        description: label of the progress bar and of the dry run.
        words: words of a reply that uses its limits up.
    """

    name: str
    keys: Sequence[dict[str, str]]
    prompts: Sequence[Prompt]
    reply_format: ReplyFormat
    description: str
    words: int

    def inputs(self, model_key: str, context: StageContext) -> str:
        """Digest of all that the replies depend on."""
        settings = context.settings
        decoding = [
            self.reply_format.schema,
            self.reply_format.max_new_tokens,
            self.reply_format.temperature,
            settings.llm_seed,
            settings.llm_reply_attempts,
        ]
        head = [self.name, model_key, json.dumps(decoding)]
        return text_digest([*head, *(json.dumps(key) for key in self.keys), *map(prompt_digest, self.prompts)])


def reply_artifact(context: StageContext, name: str) -> JsonlArtifact:
    """Artefact of replies of the context's split."""
    return JsonlArtifact(context.split_artifacts, name)


def is_settled(artifact: JsonlArtifact, inputs: str, identity: ModelIdentity) -> bool:
    """Whether an artefact is finished, and asking for what is missing in it would be no use.

    Raises:
        ArtifactError: the manifest is damaged.
    """
    return artifact.is_made_from(inputs) and not (_missing(artifact) and may_answer_now(identity))


def run_reply_job(session: StageSession, job: ReplyJob) -> StageCounts:
    """Get an answer to every prompt and write the replies.

    Each row holds the key, the digest of the prompt and the fields of the reply; prompts without a valid reply have no row.
    Where a finished artefact lacks replies and the model may give them now (:func:`recbole_hnlm.llm.asking.may_answer_now`),
    those prompts alone are asked again; the manifest counts the runs that asked.

    Raises:
        ArtifactError: the folder or the reply cache cannot be written.
        BackendError: the model cannot answer, or more replies are missing than ``max_missing_share``.
    """
    context = session.context
    artifact = reply_artifact(context, job.name)
    identity = session.backend.identity
    inputs = job.inputs(identity.key(), context)
    if not is_settled(artifact, inputs, identity):
        runs = _runs(artifact, inputs)
        with session.writing():
            # Unless another process asked while this one waited.
            if _runs(artifact, inputs) == runs:
                return (
                    _ask_again(session, job, artifact, inputs, runs) if runs else _ask_and_write(session, job, artifact, inputs)
                )
    missing = _missing(artifact)
    return StageCounts(len(job.keys), len(job.keys) - missing, 0, missing, tokens_of_all=_tokens_of_all(artifact))


def _tokens_of_all(artifact: JsonlArtifact) -> int | None:
    """Tokens that a finished artefact's replies cost; None where an older version wrote it or they were not counted."""
    return artifact.manifest().get("tokens")


def _missing(artifact: JsonlArtifact) -> int:
    return int(artifact.manifest()["counts"]["missing"])


def _runs(artifact: JsonlArtifact, inputs: str) -> int:
    """How many runs asked for what is missing; 0 where there is no finished artefact."""
    return int(artifact.manifest().get("runs", 1)) if artifact.is_made_from(inputs) else 0


def _ask_and_write(session: StageSession, job: ReplyJob, artifact: JsonlArtifact, inputs: str) -> StageCounts:
    if artifact.was_made_from(inputs):
        _logger.warning("%s is missing, damaged or was edited: it is made again, with the replies of the cache", artifact.path)
    result = ask(
        session.backend,
        job.prompts,
        job.reply_format,
        cache=session.cache,
        settings=session.context.settings,
        description=job.description,
        show_progress=session.context.show_progress,
    )
    used = _used(result.tokens)
    # What the cache's replies once cost is not known.
    of_all = None if result.reused else sum_if_known(used)
    counts = StageCounts(len(job.keys), result.reused, result.generated, result.missing, 0, *used, of_all)
    artifact.write(_rows(job, result.replies), _manifest(session, job, counts, inputs, runs=1))
    return counts


def _ask_again(session: StageSession, job: ReplyJob, artifact: JsonlArtifact, inputs: str, runs: int) -> StageCounts:
    """Ask for the replies that a finished artefact lacks, and keep it as it is where the model cannot be asked."""
    settings, total = session.context.settings, len(job.keys)
    kept = {tuple(row[name] for name in job.keys[0]): row for row in artifact.read()}
    places = [place for place, key in enumerate(job.keys) if tuple(key.values()) not in kept]
    gap = replace(job, keys=[job.keys[place] for place in places], prompts=[job.prompts[place] for place in places])
    try:
        result = ask(
            session.backend,
            gap.prompts,
            job.reply_format,
            cache=session.cache,
            # The share of what is missing in all was checked by the first run, and can only fall.
            settings=settings.model_copy(update={"max_missing_share": 1.0}),
            description=f"{job.description}, missing so far",
            earlier_attempts=runs * settings.llm_reply_attempts,
            show_progress=session.context.show_progress,
        )
    except BackendError as error:
        _logger.warning(
            "%s: %d replies are still missing, and cannot be asked for now: %s", job.description, len(places), error
        )
        return StageCounts(total, total - len(places), 0, len(places), 0, None, None, _tokens_of_all(artifact))
    kept |= {tuple(row[name] for name in job.keys[0]): row for row in _rows(gap, result.replies)}
    rows = [kept[key] for key in (tuple(key.values()) for key in job.keys) if key in kept]
    used, before = _used(result.tokens), _tokens_of_all(artifact)
    of_all = sum_if_known([before, *used])
    reused = total - result.generated - result.missing
    counts = StageCounts(total, reused, result.generated, result.missing, 0, *used, of_all)
    artifact.write(rows, _manifest(session, job, counts, inputs, runs + 1))
    return counts


def _used(tokens: TokenUsage | None) -> tuple[int | None, int | None]:
    """Tokens read and written; None where they are not known in full."""
    return (None, None) if tokens is None or tokens.uncounted else (tokens.prompt, tokens.completion)


def _rows(job: ReplyJob, replies: Sequence[BaseModel | None]) -> list[dict[str, Any]]:
    return [
        {**key, "prompt": prompt_digest(prompt), **reply.model_dump()}
        for key, prompt, reply in zip(job.keys, job.prompts, replies, strict=True)
        if reply is not None
    ]


def _manifest(session: StageSession, job: ReplyJob, counts: StageCounts, inputs: str, runs: int) -> dict[str, Any]:
    context = session.context
    return {
        "artifact": job.name,
        "inputs": inputs,
        "model": session.backend.identity.key(),
        "prompt_hash": prompt_hash(context.settings),
        "dataset": context.dataset_name,
        "dataset_fingerprint": context.training.dataset_fingerprint,
        "split_fingerprint": context.training.split_fingerprint,
        "runs": runs,
        "tokens": counts.tokens_of_all,
        "counts": {"prompts": counts.total, "replies": counts.total - counts.missing, "missing": counts.missing},
        "settings": {name: getattr(context.settings, name) for name in keys_affecting(Affects.REPLIES)},
    }

"""What the LLM was told and said for one user, as values. Reads artefacts; starts no language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from recbole_hnlm.finetune.session import FinetuneSession
from recbole_hnlm.semantics.stores import open_pair_stores
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.stages.negatives import NEGATIVES, declined_rows
from recbole_hnlm.stages.profile import USER_PROFILES, user_prompts
from recbole_hnlm.stages.prompts import prompt_digest
from recbole_hnlm.stages.replies import reply_artifact
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, DataError
from recbole_hnlm.utils.names import closest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.llm.protocol import Prompt
    from recbole_hnlm.stages.context import StageContext

__all__ = ["HardNegative", "NearItem", "UserStory", "nearest_rows", "shown_title", "user_story"]

_NEAREST = 3


class NearItem(NamedTuple):
    """A real item near a hard negative: its title and id, the cosine, and what the user already has to do with it."""

    title: str
    cosine: float
    relation: Literal["", "positive", "history"]


@dataclass(frozen=True)
class HardNegative:
    """A hard negative of a training pair.

    Attributes:
        about: title and id of the positive.
        names: what the LLM named, as it replied; None for the fine-tuned route, which emits a vector.
        reasoning: why, in the LLM's words.
        declined: whether it names no item that is new to the user, so that the pair has no vector.
        nearest: the nearest real items, best first.
    """

    about: str
    names: Any
    reasoning: str
    declined: bool
    nearest: list[NearItem]


@dataclass(frozen=True)
class UserStory:
    """A user as the LLM saw and described them.

    Attributes:
        user: raw token.
        history: title and id of every training item, in split order.
        prompt: for the profile; None where no training item has text, or for the fine-tuned route.
        profile: the LLM's valid reply, or None.
        is_stale: whether data or settings changed after the profile was made.
        finetuned_text: what the fine-tuned LLM reads of the user, before it is cut; None for the text route.
        negatives: hard negatives, in the order of the artefact.
    """

    user: str
    history: list[str]
    prompt: Prompt | None
    profile: dict[str, Any] | None
    is_stale: bool
    finetuned_text: str | None
    negatives: list[HardNegative]


def nearest_rows(query: NDArray[np.floating[Any]], vectors: NDArray[np.floating[Any]], count: int) -> list[tuple[int, float]]:
    """Rows of the highest cosine with a query, best first.

    Args:
        query: ``[H]``, non-zero.
        vectors: ``[N, H]``, rows non-zero.
        count: rows to return at most.

    Returns:
        (row, cosine) pairs; equal cosines in the order of rows.
    """
    query, vectors = query.astype(np.float32), vectors.astype(np.float32)
    cosines = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    return [(int(row), float(cosines[row])) for row in np.argsort(-cosines, kind="stable")[:count]]


def user_story(context: StageContext, user_token: str, *, encoder: TextEncoder | None = None) -> UserStory:
    """Gather what is known of a user: training history, profile with its prompt, hard negatives and what lies near each.

    Args:
        context: what the stages work on.
        user_token: raw token of the user.
        encoder: a text encoder in place of the configured one; it is not asked to encode anything.

    Raises:
        DataError: no such user in the training split.
        ArtifactError: profiles, negatives or vectors are not built; the message names the command.
        ConfigError: the settings use no hard negatives.
    """
    user = _user_id(context, user_token)
    if "pairs" not in kinds_needed(context.settings):
        raise ConfigError(
            "these settings use no hard negatives (negative_route none, or mix_weight and contrast_weight 0), so there "
            "is none to show"
        )
    history = [str(context.training.item_tokens[item]) for item in context.training.history_of(user)]
    titles = [shown_title(context, item) for item in history]
    if context.settings.negative_route == "finetuned":
        text, negatives = _finetuned(context, user, set(history))
        return UserStory(user_token, titles, None, None, False, text, negatives)
    profiles = _rows(context, USER_PROFILES, "profile")
    rows = [row for row in _rows(context, NEGATIVES, "negatives") if row["user_id"] == user_token]
    profile = next((row for row in profiles if row["user_id"] == user_token), None)
    prompt = user_prompts(context).get(user_token)
    is_stale = profile is not None and prompt is not None and profile["prompt"] != prompt_digest(prompt)
    negatives = _negatives(context, rows, set(history), encoder) if rows else []
    return UserStory(user_token, titles, prompt, profile, is_stale, None, negatives)


def _finetuned(context: StageContext, user: int, history: set[str]) -> tuple[str, list[HardNegative]]:
    """What the fine-tuned LLM reads of a user, and what lies near each vector that it emitted; the user's own items left out.

    The vectors of all items of one user lie close together, so items of the history would fill every list.
    """
    pairs, items = open_pair_stores(context)
    with FinetuneSession(context) as session:
        text = session.finetuned.texts.users[user]
    tokens = [items.tables[0][position] for position in items.keys[:, 0]]
    others = np.array([place for place, token in enumerate(tokens) if token not in history])
    negatives = []
    for row in np.flatnonzero(pairs.keys[:, 0] == user - 1):
        item = str(pairs.tables[1][pairs.keys[row, 1]])
        near = nearest_rows(pairs.vectors[row], items.vectors[others], _NEAREST)
        nearest = [NearItem(shown_title(context, tokens[others[place]]), cosine, "") for place, cosine in near]
        negatives.append(HardNegative(shown_title(context, item), None, "", False, nearest))
    return text, negatives


def _user_id(context: StageContext, user_token: str) -> int:
    """Internal id of a user with training interactions."""
    tokens = [str(token) for token in context.training.user_tokens]
    if user_token in tokens[1:]:
        user = tokens.index(user_token, 1)
        if len(context.training.rows_of(user)):
            return user
        raise DataError(f"user {user_token!r} has no interaction in the training split, so the LLM was told nothing")
    close = closest(user_token, tokens[1:], count=3)
    hint = f"; near matches: {', '.join(close)}" if close else "; ids are those of the .inter file"
    raise DataError(f"there is no user {user_token!r} in {context.dataset_name}{hint}")


def _rows(context: StageContext, name: str, stage: str) -> list[dict[str, Any]]:
    artifact = reply_artifact(context, name)
    if not artifact.manifest_path.exists():
        raise ArtifactError(
            f"{artifact.path} is not built for this training split; run `recbole-hnlm {stage} "
            f"--dataset={context.dataset_name}` with the same keys"
        )
    return artifact.read()


def shown_title(context: StageContext, item: str) -> str:
    """Return an item's title with its raw id in brackets."""
    text = context.item_texts.get(item)
    return f"{text.title or '(no title)'} [{item}]" if text else f"(no text) [{item}]"


def _negatives(
    context: StageContext, rows: list[dict[str, Any]], history: set[str], encoder: TextEncoder | None
) -> list[HardNegative]:
    pairs, items = open_pair_stores(context, encoder=encoder)
    item_tokens = [items.tables[0][position] for position in items.keys[:, 0]]
    positions = [{token: position for position, token in enumerate(table)} for table in pairs.tables]
    negatives = []
    for row, declined in zip(rows, declined_rows(context, rows), strict=True):
        nearest = []
        if not declined:
            key = [positions[0][row["user_id"]], positions[1][row["item_id"]]]
            found = int(np.flatnonzero((pairs.keys == key).all(axis=1))[0])
            for place, cosine in nearest_rows(pairs.vectors[found], items.vectors, _NEAREST):
                token = item_tokens[place]
                relation: Literal["", "positive", "history"] = (
                    "positive" if token == row["item_id"] else "history" if token in history else ""
                )
                nearest.append(NearItem(shown_title(context, token), cosine, relation))
        about = shown_title(context, row["item_id"])
        negatives.append(HardNegative(about, row["hard_negative_item"], row["reasoning"], declined, nearest))
    return negatives

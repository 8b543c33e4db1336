"""``recbole-hnlm show``: what the LLM was told and said for one user. Reads artefacts; starts no language model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, say
from recbole_hnlm.cli.request import stage_context
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
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.stages.context import StageContext

__all__ = ["EXAMPLES", "NOTES", "add_options", "nearest_rows", "run", "show_user"]

NOTES = KEYS_HELP
EXAMPLES = "example:\n  %(prog)s --user=196"

_NEAREST = 3
_TITLES = 30


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add_config_options(parser)
    parser.add_argument("--user", required=True, metavar="ID", help="the user's id as in the .inter file")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print what :func:`show_user` says of the user; returns 0."""
    _, context, _ = stage_context(args, rest)
    say(show_user(context, args.user))
    return 0


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


def show_user(context: StageContext, user_token: str, *, encoder: TextEncoder | None = None) -> str:
    """Describe a user: training history, profile with its prompt, hard negatives and the real items nearest to each.

    Args:
        context: what the stages work on.
        user_token: raw token of the user.
        encoder: a text encoder in place of the configured one; it is not asked to encode anything.

    Returns:
        Text for the terminal.

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
    lines = [f"user {user_token}: {len(history)} training interactions", ""]
    lines += [f"  {_title(context, item)}" for item in history[:_TITLES]]
    if len(history) > _TITLES:
        lines.append(f"  ... and {len(history) - _TITLES} more")
    if context.settings.negative_route == "finetuned":
        return "\n".join([*lines, "", *_finetuned_lines(context, user, set(history))])
    profiles = _rows(context, USER_PROFILES, "profile")
    negatives = [row for row in _rows(context, NEGATIVES, "negatives") if row["user_id"] == user_token]
    profile = next((row for row in profiles if row["user_id"] == user_token), None)
    lines += ["", *_profile_lines(context, user_token, profile)]
    lines += ["", *_negative_lines(context, negatives, set(history), encoder)]
    return "\n".join(lines)


def _finetuned_lines(context: StageContext, user: int, history: set[str]) -> list[str]:
    """What the fine-tuned LLM reads of a user, and what lies near each vector that it emitted; the user's own items left out.

    The vectors of all items of one user lie close together, so items of the history would fill every list.
    """
    pairs, items = open_pair_stores(context)
    with FinetuneSession(context) as session:
        texts = session.finetuned.texts
    lines = [f"text of the user, before the budget finetune_user_tokens cuts it: {texts.users[user] or '(none)'}", ""]
    mine = np.flatnonzero(pairs.keys[:, 0] == user - 1)
    if not len(mine):
        return [*lines, "hard-negative vectors: none for this user"]
    tokens = [items.tables[0][position] for position in items.keys[:, 0]]
    others = np.array([place for place, token in enumerate(tokens) if token not in history])
    lines.append(f"hard-negative vectors of {len(mine)} pairs; nearest items that the user did not interact with in training:")
    for row in mine:
        item = str(pairs.tables[1][pairs.keys[row, 1]])
        lines.append(f"  for {_title(context, item)}")
        for place, cosine in nearest_rows(pairs.vectors[row], items.vectors[others], _NEAREST):
            lines.append(f"    {cosine:.3f}  {_title(context, tokens[others[place]])}")
    return lines


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


def _title(context: StageContext, item: str) -> str:
    text = context.item_texts.get(item)
    return f"{text.title or '(no title)'} [{item}]" if text else f"(no text) [{item}]"


def _profile_lines(context: StageContext, user_token: str, profile: dict[str, Any] | None) -> list[str]:
    prompt = user_prompts(context).get(user_token)
    if prompt is None:
        return ["profile: none, since no training item of this user has text"]
    lines = ["prompt", f"  system: {prompt.system}", f"  user:   {prompt.user}", ""]
    if profile is None:
        return [*lines, "profile: missing, since the LLM gave no valid reply"]
    if profile["prompt"] != prompt_digest(prompt):
        lines.append(
            "note: data or settings changed after the profile was made, so its prompt differed; "
            "run `recbole-hnlm profile` to renew it"
        )
    return [*lines, f"profile: {profile['summarization']}", f"  reasoning: {profile['reasoning']}"]


def _negative_lines(
    context: StageContext, negatives: list[dict[str, Any]], history: set[str], encoder: TextEncoder | None
) -> list[str]:
    if not negatives:
        return ["hard negatives: none for this user"]
    pairs, items = open_pair_stores(context, encoder=encoder)
    item_tokens = [items.tables[0][position] for position in items.keys[:, 0]]
    positions = [{token: position for position, token in enumerate(table)} for table in pairs.tables]
    lines = ["hard negatives"]
    for row, declined in zip(negatives, declined_rows(context, negatives), strict=True):
        lines.append(f"  for {_title(context, row['item_id'])}: {json.dumps(row['hard_negative_item'], ensure_ascii=False)}")
        lines.append(f"    reasoning: {row['reasoning']}")
        if declined:
            lines.append("    the LLM named no item that is new to the user, so the pair has no vector")
            continue
        key = [positions[0][row["user_id"]], positions[1][row["item_id"]]]
        found = int(np.flatnonzero((pairs.keys == key).all(axis=1))[0])
        for place, cosine in nearest_rows(pairs.vectors[found], items.vectors, _NEAREST):
            token = item_tokens[place]
            lines.append(f"    {cosine:.3f}  {_title(context, token)}{_mark(token, row['item_id'], history)}")
    return lines


def _mark(token: str, positive: str, history: set[str]) -> str:
    """What a user already has to do with an item."""
    if token == positive:
        return "  (the positive itself)"
    return "  (in the training history)" if token in history else ""

"""``recbole-hnlm show``: what the LLM was told and said for one user. Reads artefacts; starts no language model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import KEYS_HELP, add_config_options, say
from recbole_hnlm.cli.request import stage_context
from recbole_hnlm.semantics.user_story import NearItem, UserStory, user_story

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.stages.context import StageContext

__all__ = ["EXAMPLES", "NOTES", "add_options", "run", "show_user"]

NOTES = KEYS_HELP
EXAMPLES = "example:\n  %(prog)s --user=196"

_TITLES = 30
_RELATIONS = {"": "", "positive": "  (the positive itself)", "history": "  (in the training history)"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add_config_options(parser)
    parser.add_argument("--user", required=True, metavar="ID", help="the user's id as in the .inter file")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print what :func:`show_user` says of the user; returns 0."""
    _, context, _ = stage_context(args, rest)
    say(show_user(context, args.user))
    return 0


def show_user(context: StageContext, user_token: str, *, encoder: TextEncoder | None = None) -> str:
    """Describe a user for the terminal; arguments and errors are those of ``semantics.user_story.user_story``."""
    story = user_story(context, user_token, encoder=encoder)
    lines = [f"user {user_token}: {len(story.history)} training interactions", ""]
    lines += [f"  {title}" for title in story.history[:_TITLES]]
    if len(story.history) > _TITLES:
        lines.append(f"  ... and {len(story.history) - _TITLES} more")
    parts = [_finetuned_lines(story)] if story.finetuned_text is not None else [_profile_lines(story), _negative_lines(story)]
    return "\n".join([*lines, *(line for part in parts for line in ("", *part))])


def _finetuned_lines(story: UserStory) -> list[str]:
    lines = [f"text of the user, before the budget finetune_user_tokens cuts it: {story.finetuned_text or '(none)'}", ""]
    if not story.negatives:
        return [*lines, "hard-negative vectors: none for this user"]
    count = len(story.negatives)
    lines.append(f"hard-negative vectors of {count} pairs; nearest items that the user did not interact with in training:")
    for negative in story.negatives:
        lines += [f"  for {negative.about}", *map(_near_line, negative.nearest)]
    return lines


def _profile_lines(story: UserStory) -> list[str]:
    if story.prompt is None:
        return [
            "profile: none, since no training item of this user has text or the user is not among the semantic_users whom the "
            "LLM is asked about; --semantic_users=null asks about everyone"
        ]
    lines = ["prompt", f"  system: {story.prompt.system}", f"  user:   {story.prompt.user}", ""]
    if story.profile is None:
        return [*lines, "profile: missing, since the LLM gave no valid reply"]
    if story.is_stale:
        lines.append(
            "note: data or settings changed after the profile was made, so its prompt differed; "
            "run `recbole-hnlm profile` to renew it"
        )
    return [*lines, f"profile: {story.profile['summarization']}", f"  reasoning: {story.profile['reasoning']}"]


def _negative_lines(story: UserStory) -> list[str]:
    if not story.negatives:
        return ["hard negatives: none for this user"]
    lines = ["hard negatives"]
    for negative in story.negatives:
        lines.append(f"  for {negative.about}: {json.dumps(negative.names, ensure_ascii=False)}")
        lines.append(f"    reasoning: {negative.reasoning}")
        if negative.declined:
            lines.append("    the LLM named no item that is new to the user, so the pair has no vector")
        lines += map(_near_line, negative.nearest)
    return lines


def _near_line(near: NearItem) -> str:
    return f"    {near.cosine:.3f}  {near.title}{_RELATIONS[near.relation]}"

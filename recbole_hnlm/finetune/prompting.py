"""From texts of users and items to the token sequences that the fine-tuned LLM reads, each field within its own budget.

A query is ``instruction, user text | item title, item text, template's end, <e_i>, <e_u>``; an item is ``its text, <e_i>``.
What stands left of the bar is the same for all queries of a user. The collaborative tokens stand last, so that the vector
pooled from the last position starts from them; they and the instruction are never cut, because every other field has a budget
and the whole is checked against the maximum once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.settings import keys_affecting
from recbole_hnlm.llm.tokenization import PromptEncoder
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from recbole_hnlm.config.settings import HNLMSettings

__all__ = ["ITEM_TOKEN", "USER_TOKEN", "PairPrompts", "TokenBatch", "pad_sequences", "prompting_digest"]

USER_TOKEN = -1
"""Stands in a token sequence where the projection of e_u goes."""
ITEM_TOKEN = -2
"""Stands in a token sequence where the projection of e_i goes."""

_INSTRUCTION = (
    "Given a user and an item that they chose, represent an item that looks right for the user but is not what they want."
)
_USER, _ITEM, _SEPARATOR = "User: ", "\nItem: ", ". "


@dataclass
class TokenBatch:
    """Token sequences of a batch, padded; B rows, L positions.

    Attributes:
        ids: int64 ``[B, L]``; vocabulary ids, or :data:`USER_TOKEN` and :data:`ITEM_TOKEN`.
        mask: int64 ``[B, L]``, 1 where a token stands.
        users: internal user id of each row, int64 ``[B]``; 0 where the row has none.
        items: internal item id of each row, int64 ``[B]``; 0 where the row has none.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    users: torch.Tensor
    items: torch.Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the batch on a device."""
        return TokenBatch(*(part.to(device) for part in (self.ids, self.mask, self.users, self.items)))


def pad_sequences(
    sequences: Sequence[Sequence[int]],
    users: Sequence[int] | None = None,
    items: Sequence[int] | None = None,
    *,
    side: str = "right",
) -> TokenBatch:
    """Pad sequences to the longest. Nothing that the encoder returns depends on the side.

    Args:
        sequences: B sequences, none empty.
        users: internal user ids; None means none.
        items: internal item ids; None means none.
        side: ``right`` or ``left``.
    """
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        place = slice(0, len(sequence)) if side == "right" else slice(longest - len(sequence), longest)
        ids[row, place] = torch.tensor(list(sequence))
        mask[row, place] = 1
    zeros = [0] * len(sequences)
    return TokenBatch(ids, mask, torch.tensor(list(users or zeros)), torch.tensor(list(items or zeros)))


class PairPrompts:
    """Token sequences of queries and items for one tokenizer.

    Args:
        tokenizer: of the LLM; it needs no padding token, because padding is masked.
        settings: ``finetune_template``, ``finetune_soft_tokens``, ``finetune_max_length``, ``finetune_user_tokens``,
            ``finetune_item_tokens`` and ``finetune_title_tokens`` are read.
        max_positions: positions of the LLM; None means no limit.

    Attributes:
        truncated: how many texts of each field were cut to their budget; each text is counted once.


    Raises:
        ConfigError: the budgets and the instruction do not fit into ``finetune_max_length``, or that not into the LLM's
            positions; ``finetune_template`` is chat and the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: HNLMSettings, max_positions: int | None = None) -> None:
        chat = settings.finetune_template == "chat"
        if chat and not tokenizer.chat_template:
            raise ConfigError(
                f"finetune_template is chat, but {tokenizer.name_or_path or 'the tokenizer'} has no chat template; "
                "use --finetune_template=plain"
            )
        self._encoder = PromptEncoder(tokenizer, chat=chat)
        before, between, tail = self._encoder.template_ids()
        self._head = [*before, *self._encoder.encode_text(_INSTRUCTION), *between, *self._encoder.encode_text(_USER)]
        self._item_head = self._encoder.encode_text(_ITEM)
        self._separator = self._encoder.encode_text(_SEPARATOR)
        self._tail = tail if chat else []
        self._soft = settings.finetune_soft_tokens
        self._budgets = {
            "user text": settings.finetune_user_tokens,
            "title": settings.finetune_title_tokens,
            "item text": settings.finetune_item_tokens,
        }
        self.truncated: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()
        fixed = len(self._head) + len(self._item_head) + len(self._separator) + len(self._tail) + 2
        self._check(fixed, settings.finetune_max_length, max_positions)

    def _check(self, fixed: int, max_length: int, max_positions: int | None) -> None:
        longest = fixed + sum(self._budgets.values())
        if longest > max_length:
            raise ConfigError(
                f"finetune_max_length is {max_length}, but instruction, template and collaborative tokens take {fixed} and the "
                f"budgets finetune_user_tokens + finetune_title_tokens + finetune_item_tokens {longest - fixed}: lower "
                f"a budget or set finetune_max_length to {longest}"
            )
        if max_positions is not None and max_length > max_positions:
            raise ConfigError(
                f"finetune_max_length is {max_length}, but the LLM has {max_positions} positions: lower finetune_max_length "
                "and the budgets finetune_user_tokens, finetune_title_tokens and finetune_item_tokens"
            )

    def _field(self, name: str, text: str) -> list[int]:
        ids = self._encoder.encode_text(text)
        if len(ids) > self._budgets[name]:
            if (name, text) not in self._seen:
                self._seen.add((name, text))
                self.truncated[name] += 1
            ids = ids[: self._budgets[name]]
        return ids

    def user_part(self, user_text: str) -> list[int]:
        """Return what all queries of a user begin with: the instruction and the user's text."""
        return [*self._head, *self._field("user text", user_text)]

    def _item_text(self, title: str, item_text: str) -> list[int]:
        ids = [*self._item_head, *self._field("title", title)]
        return [*ids, *self._separator, *self._field("item text", item_text)] if item_text else ids

    def item_part(self, title: str, item_text: str) -> list[int]:
        """Return what follows the user's part: the item, the template's end and the collaborative tokens."""
        return [*self._item_text(title, item_text), *self._tail, *((ITEM_TOKEN, USER_TOKEN) if self._soft else ())]

    def item(self, title: str, item_text: str) -> list[int]:
        """Return the sequence that stands for an item by itself, as hard negative or as interacted item."""
        return [*self._item_text(title, item_text), *((ITEM_TOKEN,) if self._soft else ())]


def prompting_digest(settings: HNLMSettings) -> str:
    """Identify the form of the sequences: 16 hex digits over their texts and the keys that shape them."""
    values = {name: getattr(settings, name) for name in keys_affecting(Affects.QUERY)}
    parts = [_INSTRUCTION, _USER, _ITEM, _SEPARATOR, values]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

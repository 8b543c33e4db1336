"""From triples to the fine-tuning loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from recbole_hnlm.finetune.losses import hard_negative_loss, in_batch_contrast
from recbole_hnlm.finetune.prompting import TokenBatch, pad_sequences
from recbole_hnlm.utils.pairs import PairSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.finetune.encoder import HardNegativeEncoder
    from recbole_hnlm.finetune.prompting import PairPrompts
    from recbole_hnlm.finetune.texts import FinetuneTexts

__all__ = ["FinetuneObjective", "TripleCollator"]


class TripleCollator:
    """Turns triples (user, item, hard negative) into token batches. An item that occurs several times is encoded once.

    Symbols: B triples, C distinct items of the batch.
    """

    def __init__(self, prompts: PairPrompts, texts: FinetuneTexts, training: TrainingInteractions) -> None:
        """Take what sequences are made of, and the interactions that must not be taken for negatives."""
        self._prompts, self._texts = prompts, texts
        self._interacted = PairSet(torch.from_numpy(training.users), torch.from_numpy(training.items), training.n_items)

    def __call__(self, triples: Sequence[tuple[int, int, int]]) -> dict[str, torch.Tensor]:
        """Return the arguments of :meth:`FinetuneObjective.forward`."""
        users, items, hard = (np.array(column, dtype=np.int64) for column in zip(*triples, strict=True))
        distinct, places = np.unique(np.concatenate([hard, items]), return_inverse=True)
        texts, prompts = self._texts, self._prompts
        query = pad_sequences(
            [
                prompts.user_part(texts.users[user]) + prompts.item_part(texts.titles[item], texts.items[item])
                for user, item in zip(users, items, strict=True)
            ],
            users.tolist(),
            items.tolist(),
        )
        single = pad_sequences(
            [prompts.item(texts.titles[item], texts.items[item]) for item in distinct], items=distinct.tolist()
        )
        interacted = self._interacted.contains(torch.from_numpy(users)[:, None], single.items[None, :])  # [B, C]
        # The user's other training items are not negatives; the interacted item of the query itself is one (n_b).
        left_out = interacted & torch.from_numpy(distinct[None, :] != items[:, None])
        return {
            "query_ids": query.ids,
            "query_mask": query.mask,
            "users": query.users,
            "items": query.items,
            "item_ids": single.ids,
            "item_mask": single.mask,
            "distinct": single.items,
            "hard_index": torch.from_numpy(places[: len(triples)]),
            "item_index": torch.from_numpy(places[len(triples) :]),
            "left_out": left_out,
        }


class FinetuneObjective(nn.Module):
    """The encoder with its loss, in the form that the transformers ``Trainer`` asks for.

    Formula: the paired loss (docs/method.md, section 8) plus ``finetune_contrast_weight`` times InfoNCE over the items of the
    batch. Source: HNLMRec (arXiv 2504.04726). Departure: the InfoNCE part, which uses every item of the batch as a negative.
    """

    def __init__(self, encoder: HardNegativeEncoder, *, temperature: float, contrast_weight: float) -> None:
        """Wrap an encoder."""
        super().__init__()
        self.encoder = encoder
        self._temperature, self._contrast_weight = temperature, contrast_weight

    def forward(  # noqa: PLR0917 -- the names of the collator
        self,
        query_ids: torch.Tensor,
        query_mask: torch.Tensor,
        users: torch.Tensor,
        items: torch.Tensor,
        item_ids: torch.Tensor,
        item_mask: torch.Tensor,
        distinct: torch.Tensor,
        hard_index: torch.Tensor,
        item_index: torch.Tensor,
        left_out: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the loss, a scalar, under ``loss``.

        Args:
            query_ids: int64 ``[B, L]``, with ``query_mask``, ``users`` and ``items`` a :class:`TokenBatch`.
            query_mask: int64 ``[B, L]``.
            users: int64 ``[B]``.
            items: int64 ``[B]``.
            item_ids: int64 ``[C, L']``, with ``item_mask`` and ``distinct`` the distinct items' sequences.
            item_mask: int64 ``[C, L']``.
            distinct: int64 ``[C]``.
            hard_index: row of each triple's hard negative among the distinct items, int64 ``[B]``.
            item_index: row of each triple's interacted item, int64 ``[B]``.
            left_out: items that are not negatives of a query, bool ``[B, C]``.
        """
        query = self.encoder.encode(TokenBatch(query_ids, query_mask, users, items))  # [B, H]
        single = self.encoder.encode(TokenBatch(item_ids, item_mask, torch.zeros_like(distinct), distinct))  # [C, H]
        hard = single[hard_index]
        loss = hard_negative_loss(query, hard, single[item_index], self._temperature)
        if self._contrast_weight > 0:
            contrast = in_batch_contrast(query, hard, single, hard_index, self._temperature, left_out)
            loss = loss + self._contrast_weight * contrast
        return {"loss": loss}

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the LLM's layers, which FSDP gathers one at a time; accelerate asks by this name."""
        return self.encoder.layer_classes

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Pass the Trainer's wish on to the LLM."""
        self.encoder.gradient_checkpointing_enable(**kwargs)

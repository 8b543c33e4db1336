"""The fine-tuned LLM as an encoder: one class for training and for inference.

Symbols: B rows, L positions, P positions of the users' shared part, H hidden size of the LLM, d size of the teacher's vectors,
U users and I items including the padding id 0.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers import DynamicCache

from recbole_hnlm.finetune.prompting import ITEM_TOKEN, USER_TOKEN, TokenBatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.data.teacher import Teacher

# Initial length of a soft token, as a multiple of a word embedding's; chosen by a coarse trial (results/finetuned.md).
_SOFT_GAIN = 8.0

__all__ = ["HardNegativeEncoder", "pool_positions", "standardised"]


def standardised(vectors: torch.Tensor) -> torch.Tensor:
    """Scale vectors ``[N, d]`` by one number, so that the entries of rows 1.. have standard deviation 1; angles are kept."""
    deviation = vectors[1:].std() if len(vectors) > 1 else vectors.new_tensor(1.0)
    return vectors / deviation.clamp(min=torch.finfo(vectors.dtype).tiny)


def pool_positions(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Pool hidden states ``[B, L, H]`` to ``[B, H]`` float32: at the last position of the mask ``[B, L]``, or over all of it.

    Works for padding on either side.
    """
    if mode == "last":
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)  # [B]
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()
    weights = mask[..., None].to(torch.float32)
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


def _linear(weight: torch.Tensor) -> nn.Linear:
    """Return a linear layer that starts with this weight ``[H, d]`` and no bias, without drawing random numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    return layer


class HardNegativeEncoder(nn.Module):
    """Turns token sequences with collaborative tokens into unit vectors: z_ui of a query, the representation of an item.

    The collaborative tokens are ``W e_u + b`` and ``W e_i + b``: a trained linear projection of the teacher's standardised
    vectors is put in the place of a word embedding. It starts as an orthogonal map.

    Source: HNLMRec (arXiv 2504.04726); docs/method.md, section 9. Departures: collaborative vectors enter as soft tokens rather
    than as text; users and items share one projection, since the teacher compares them by inner products, so that what W
    learns from items holds for users that fine-tuning never saw; training and inference share prompt, pooling and
    normalisation by being the same code.

    Attributes:
        projections: W and b, under ``shared``.
        lm: the causal LLM, with or without LoRA layers; only its decoder is run.
    """

    def __init__(self, lm: nn.Module, teacher: Teacher, *, pooling: str, dtype: torch.dtype, seed: int) -> None:
        """Put projections before an LLM.

        Args:
            lm: a causal LLM of transformers, possibly wrapped by peft.
            teacher: supplies e_u and e_i.
            pooling: ``last`` or ``mean``.
            dtype: type of the LLM's arithmetic; trained parameters stay float32 and are cast by autocast.
            seed: of the projections; the global random state is not touched.
        """
        super().__init__()
        self.lm: Any = lm
        self.pooling = pooling
        self._dtype = dtype
        words = self.word_embeddings.weight
        size, width = teacher.item_vectors.shape[1], words.shape[1]
        generator = torch.Generator().manual_seed(seed)
        start = torch.empty(width, size)
        nn.init.orthogonal_(start, gain=_SOFT_GAIN * float(words.float().std()) * (width / size) ** 0.5, generator=generator)
        self.projections = nn.ModuleDict({"shared": _linear(start)})
        for name, table in (("user", teacher.user_vectors), ("item", teacher.item_vectors)):
            # Not persistent: the teacher is kept elsewhere, and its digest stands in the adapter's manifest.
            self.register_buffer(name, standardised(torch.tensor(table, dtype=torch.float32)), persistent=False)
        self.to(words.device)

    @property
    def _causal(self) -> Any:
        lm: Any = self.lm
        return lm.get_base_model() if hasattr(lm, "get_base_model") else lm

    @property
    def decoder(self) -> Any:
        """The LLM without its head over the vocabulary."""
        return getattr(self._causal, self._causal.base_model_prefix)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The LLM's table of word embeddings ``[V, H]``."""
        table: nn.Embedding = self._causal.get_input_embeddings()
        return table

    @property
    def layer_classes(self) -> list[str]:
        """Names of the classes of the LLM's layers, as transformers knows them; empty where it does not."""
        return sorted(self._causal._no_split_modules or ())

    @property
    def dim(self) -> int:
        """Dimension H of the vectors."""
        return int(self.word_embeddings.weight.shape[1])

    @property
    def device(self) -> torch.device:
        """Where inputs must lie."""
        return self.word_embeddings.weight.device

    def train(self, mode: bool = True) -> HardNegativeEncoder:
        """Switch between fine-tuning and inference; layers in 4 bits stay as they are.

        In inference bitsandbytes repacks such a layer's weights for the CPU, once and for all, and its product with repacked
        weights passes no gradient on: a single evaluation would silently stop the layers below from learning.
        """
        super().train(mode)
        for module in self.modules():
            if type(module).__name__ == "Linear4bit":
                module.training = True
        return self

    def trained_state(self) -> Mapping[str, torch.Tensor]:
        """Return the parameters that fine-tuning changes, by name; under FSDP each process holds a part of them."""
        return {name: parameter.detach() for name, parameter in self.named_parameters() if parameter.requires_grad}

    def _autocast(self) -> Any:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)

    def _embed(self, batch: TokenBatch) -> torch.Tensor:
        """Return input embeddings ``[B, L, H]``: words, and projections where collaborative tokens stand."""
        words = self.word_embeddings(batch.ids.clamp(min=0))
        tables = dict(self.named_buffers(recurse=False))
        for token, side, owners in ((USER_TOKEN, "user", batch.users), (ITEM_TOKEN, "item", batch.items)):
            # Even if the token occurs nowhere: asking would wait for the GPU, and under data parallelism every process must
            # give every trained weight a gradient, be it zero.
            soft = self.projections["shared"](tables[side][owners]).to(words.dtype)  # [B, H]
            words = torch.where((batch.ids == token)[..., None], soft[:, None], words)
        return words

    def encode(self, batch: TokenBatch) -> torch.Tensor:
        """Return unit vectors, float32 ``[B, H]``, of whole sequences."""
        batch = batch.to(self.device)
        positions = (batch.mask.cumsum(dim=1) - 1).clamp_(min=0)
        with self._autocast():
            hidden = self.decoder(
                inputs_embeds=self._embed(batch), attention_mask=batch.mask, position_ids=positions, use_cache=False
            ).last_hidden_state
        return F.normalize(pool_positions(hidden, batch.mask, self.pooling), dim=-1)

    @torch.no_grad()
    def encode_shared(self, prefixes: TokenBatch, suffixes: TokenBatch, owners: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of queries whose users' part runs through the LLM once per user.

        Equal to :meth:`encode` of the joined sequences, up to the rounding of the LLM's arithmetic.

        Args:
            prefixes: one row per user.
            suffixes: one row per query, with its user and item.
            owners: row of ``prefixes`` of each query, int64 ``[B]``.
        """
        prefixes, suffixes, owners = prefixes.to(self.device), suffixes.to(self.device), owners.to(self.device)
        cache = DynamicCache(config=self.decoder.config)
        with self._autocast():
            begun = self.decoder(
                inputs_embeds=self._embed(prefixes),
                attention_mask=prefixes.mask,
                position_ids=(prefixes.mask.cumsum(dim=1) - 1).clamp_(min=0),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            cache.batch_select_indices(owners)
            mask = torch.cat([prefixes.mask[owners], suffixes.mask], dim=1)  # [B, P + L]
            hidden = self.decoder(
                inputs_embeds=self._embed(suffixes),
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp_(min=0)[:, prefixes.mask.shape[1] :],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        if self.pooling == "last":
            return F.normalize(pool_positions(hidden, suffixes.mask, "last"), dim=-1)
        counts = [part.mask.sum(dim=1, keepdim=True).float() for part in (prefixes, suffixes)]
        sums = [
            pool_positions(states, part.mask, "mean") * count
            for states, part, count in zip((begun, hidden), (prefixes, suffixes), counts, strict=True)
        ]
        return F.normalize((sums[0][owners] + sums[1]) / (counts[0][owners] + counts[1]), dim=-1)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations in the backward pass; the Trainer calls this for its key of the same name."""
        self._causal.gradient_checkpointing_enable(**kwargs)

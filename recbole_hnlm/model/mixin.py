"""What makes a RecBole backbone learn from the LLM's hard negatives; a backbone only adds how it propagates.

Symbols: B positives in the batch, M of them with a semantic vector, K candidates, U users and I items including the padding
id 0, d the embedding size, H the dimension of z_ui, T that of the text encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.data.dataloader import SEMANTIC_ROW
from recbole_hnlm.data.pair_vectors import PairVectorReader
from recbole_hnlm.data.semantics import vectors_of
from recbole_hnlm.model.losses import contrast_loss, info_nce, mix_negative
from recbole_hnlm.model.projector import ProjectorBank
from recbole_hnlm.model.sampled import SampledPairwise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole.data.interaction import Interaction

    from recbole_hnlm.negative_sampler.base import Negatives
    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["HNLMMixin"]


class HNLMMixin(SampledPairwise):
    r"""Train a pairwise backbone with a hard item negative and a semantic negative, following HNLMRec.

    Put it before a backbone in the bases; :class:`recbole_hnlm.model.backbone.PairwiseBackbone` says what a backbone is.

    Formula, with :math:`h_{ui} = f(z_{ui})` and e_j the item that the key ``negative_sampler`` chose:

    .. math::
        \mathcal{L} = \text{rank}(e_u \cdot e_i, e_u \cdot \tilde e) + \lambda_{reg} \text{reg}
        + \lambda_c \frac{1}{B} \sum_{M} \text{contrast}(e_u, e_i, h_{ui})
        + \lambda_a [\text{InfoNCE}(e_i, f(t_i)) + \text{InfoNCE}(e_u, f(t_u))]

    Each part is defined in :mod:`recbole_hnlm.model.losses`. Source: HNLMRec (arXiv 2504.04726), semantic alignment and
    training. Departures from the paper: the mixed negative starts from a *hard item* (DNS by default) and matches lengths;
    the alignment of collaborative and text embeddings is added; a positive without a vector takes the plain negative and adds
    nothing to the contrast, whose mean runs over all B, so that its strength per pair does not depend on the coverage.

    Attributes:
        projectors: f, one for each dimension of vectors.
    """

    needs = SemanticNeeds(pairs=True, alignment=True)
    training_only = (*SampledPairwise.training_only, "projectors.")

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone and f; arguments as for :class:`recbole_hnlm.model.sampled.SampledPairwise`."""
        super().__init__(config, dataset)
        self._reader: PairVectorReader | None = None
        self._pair_items: torch.Tensor | None = None
        vectors = vectors_of(dataset)
        if vectors is not None and self.settings.uses_pair_vectors and vectors.dim:
            self._reader = PairVectorReader(vectors.pair_vectors)
        if vectors is not None and self.settings.uses_semantic_candidates and vectors.pair_items is not None:
            self._pair_items = torch.from_numpy(vectors.pair_items)
        output_size = self.hop_sizes[0] if self.pooling == "mean" else sum(self.hop_sizes)
        self.projectors = ProjectorBank(self.settings.projector_hidden_size, output_size, int(config["seed"]))
        adapted = (self._reader, self._texts if self.settings.aligns else None)
        self.projectors.grow([side.dim for side in adapted if side is not None])
        self.register_load_state_dict_pre_hook(_prepare_for_loading)
        contrasts = self.settings.uses_pair_vectors and self.settings.contrast_weight > 0
        uses = {"contrast": contrasts, "alignment": self.settings.aligns}
        self.loss_part_names += tuple(name for name, used in uses.items() if used)

    # --- hard negatives --------------------------------------------------------------------------------------------------

    def candidates(self, interaction: Interaction) -> torch.Tensor:
        """Return the drawn candidates and, with ``semantic_candidates``, a real item near z_ui, int64 ``[B, K]``.

        Raises:
            ArtifactError: the data carries no items near the hard negatives.
        """
        candidates = super().candidates(interaction)
        if not self.settings.uses_semantic_candidates:
            return candidates
        if self._pair_items is None or SEMANTIC_ROW not in interaction:
            readers = {f"semantic_candidates {self.settings.semantic_candidates}": "--semantic_candidates=0"}
            raise self._absent("items near the hard negatives", readers)
        return self._with_semantic_candidate(self._pair_items, interaction[SEMANTIC_ROW], candidates)

    def _with_semantic_candidate(self, pair_items: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Append one of the real items nearest to z_ui to each row's candidates ``[B, K]``; returns ``[B, K + 1]``.

        A row without a vector, or whose draw has no item, repeats its first candidate, which changes no choice.
        """
        rows = rows.cpu()
        columns = torch.randint(pair_items.shape[1], (len(rows),), generator=self.generator)
        near = torch.where(rows >= 0, pair_items[rows.clamp(min=0), columns].long(), 0).to(candidates.device)
        return torch.cat([candidates, torch.where(near > 0, near, candidates[:, 0])[:, None]], dim=1)

    def negative_terms(
        self, interaction: Interaction, chosen: Negatives, e_u: torch.Tensor, e_i: torch.Tensor, e_j: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the negatives, mixed where a vector exists, the sampler's own term and the contrast.

        Raises:
            ArtifactError: the data carries no vectors of hard negatives.
        """
        e_j, terms = super().negative_terms(interaction, chosen, e_u, e_i, e_j)
        if not self.settings.uses_pair_vectors:
            return e_j, terms
        if self._reader is None or SEMANTIC_ROW not in interaction:
            keys = ("mix_weight", "contrast_weight")
            weights = {key: getattr(self.settings, key) for key in keys}
            readers = {f"{key} {weight:g}": f"--{key}=0" for key, weight in weights.items() if weight > 0}
            raise self._absent("vectors of hard negatives", readers)
        e_j, contrast = self._semantic_terms(self._reader, interaction[SEMANTIC_ROW], e_u, e_i, e_j)
        return e_j, {**terms, "contrast": self.settings.contrast_weight * contrast}

    def _semantic_terms(
        self, reader: PairVectorReader, rows: torch.Tensor, e_u: torch.Tensor, e_i: torch.Tensor, e_j: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the negatives ``[B, d]``, mixed where a vector exists, and the contrast's mean over B."""
        rows = rows.cpu()
        places = torch.nonzero(rows >= 0).squeeze(1)  # [M]
        self._counts["pairs"] += len(rows)
        self._counts["pairs with a vector"] += len(places)
        contrast = e_u.new_zeros(())
        if len(places) == 0:
            return e_j, contrast
        h = self.projectors(reader.gather(rows[places], e_u.device))  # [M, d]
        places = places.to(e_u.device)
        everywhere = len(places) == len(rows)
        own_u, own_i, own_j = (e_u, e_i, e_j) if everywhere else (e.index_select(0, places) for e in (e_u, e_i, e_j))
        if self.settings.contrast_weight > 0:
            contrast = contrast_loss(own_u, own_i, h, self.settings.contrast_temperature).sum() / len(rows)
        if self.settings.mixes:
            mixed = mix_negative(own_j, h, self.settings.mix_weight)  # [M, d]
            e_j = mixed if everywhere else e_j.index_copy(0, places, mixed)
        return e_j, contrast

    # --- alignment -------------------------------------------------------------------------------------------------------

    def text_terms(self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the alignment."""
        if not self.settings.aligns:
            return {}
        return {"alignment": self.settings.alignment_weight * self._alignment(users, positives, propagated)}

    def _alignment(self, users: torch.Tensor, positives: torch.Tensor, propagated: Propagated) -> torch.Tensor:
        """Return the two-way InfoNCE of the batch's distinct users plus that of its distinct items with their text."""
        texts = self.texts
        sides = (
            ("users", users, propagated.user_all, texts.user_vectors, texts.user_mask),
            ("items", positives, propagated.item_all, texts.item_vectors, texts.item_mask),
        )
        total = propagated.user_all.new_zeros(())
        for side, ids, embeddings, vectors, mask in sides:
            distinct = torch.unique(ids)
            known = distinct[mask[distinct]]
            self._counts[f"{side} to align"] += len(distinct)
            self._counts[f"{side} with text"] += len(known)
            if len(known) > self.settings.alignment_max_batch:
                order = torch.randperm(len(known), generator=self.generator)[: self.settings.alignment_max_batch]
                known = known[order.to(known.device)]
            if len(known) > 1:
                own = embeddings.index_select(0, known)  # [n, d]
                total = total + info_nce(own, self.projectors(vectors[known].float()), self.settings.alignment_temperature)
        return total

    @property
    def count_names(self) -> tuple[str, ...]:
        """Names of what is counted."""
        names: tuple[str, ...] = ("pairs", "pairs with a vector") if self.settings.uses_pair_vectors else ()
        if self.settings.aligns:
            names += ("users to align", "users with text", "items to align", "items with text")
        return (*names, *super().count_names)


def _prepare_for_loading(module: HNLMMixin, state_dict: Mapping[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Before a state is loaded: grow the projectors that it has."""
    start, end = prefix + "projectors.", ".0.weight"
    module.projectors.grow(
        int(key[len(start) : -len(end)]) for key in state_dict if key.startswith(start) and key.endswith(end)
    )
    module.projectors.to(module.device)

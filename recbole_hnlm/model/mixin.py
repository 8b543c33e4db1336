"""What makes a RecBole backbone learn from the LLM's hard negatives; a backbone adds only how it propagates.

Symbols: B positives in the batch, M of them with a semantic vector, K candidates, U users and I items including the padding
id 0, d the embedding size, H the dimension of z_ui, T that of the text encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recbole_hnlm.config.settings import HNLMSettings, settings_of
from recbole_hnlm.data.dataloader import SEMANTIC_ROW
from recbole_hnlm.data.pair_vectors import PairVectorReader
from recbole_hnlm.data.semantics import TextTables
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.backbone import PairwiseBackbone
from recbole_hnlm.model.losses import bpr_loss, contrast_loss, hinge_loss, info_nce, mix_negative
from recbole_hnlm.model.projector import ProjectorBank
from recbole_hnlm.model.scoring import fuse_scores
from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.registry import get_negative_sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole.data.interaction import Interaction

    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["HNLMMixin"]


class HNLMMixin(PairwiseBackbone):
    r"""Train a pairwise backbone with a hard item negative and a semantic negative, following HNLMRec.

    Put it before a backbone in the bases; what a backbone is says :class:`recbole_hnlm.model.backbone.PairwiseBackbone`.

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
        uses_hnlm_data: tells the runner to attach semantic vectors and to use our loader.
        scores_with_texts: whether the model cannot be built or cannot rank items without text vectors.
        training_only: beginnings of the names of state that ranking items does not read; a checkpoint may differ there.
        settings_class: how the model reads our keys, which decides what the LLM stages build for it.
        trainer_class: the trainer that knows the names of the parts.
        loss_part_names: names of the parts that :meth:`calculate_loss` returns, in order.
        projectors: f, one for each dimension of vectors.
        selector: chooses e_j.
        on_negatives: told users and chosen items, ``[B]`` each, at every step; set by the trainer, and None otherwise.
    """

    uses_hnlm_data = True
    scores_with_texts: ClassVar[bool] = False
    training_only: ClassVar[tuple[str, ...]] = ("projectors.", "selector.", "negative_memory")
    settings_class: ClassVar[type[HNLMSettings]] = HNLMSettings
    trainer_class = HNLMTrainer

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone as RecBole does, then what is ours, without touching the random state that the backbone uses.

        Args:
            config: RecBole's configuration with our keys in it.
            dataset: RecBole's training dataset. Its ``semantic_vectors`` may be absent or None: such a model predicts and
                loads any checkpoint, and can train as long as no term of the loss reads vectors.
        """
        super().__init__(config, dataset)
        self.settings = settings_of(config)
        sampler = get_negative_sampler(self.settings.negative_sampler)
        self._reads_hops, self._reads_text = sampler.reads_hops, self.settings.reads_text_vectors
        self.on_negatives: Callable[[torch.Tensor, torch.Tensor], None] | None = None
        self._generator = torch.Generator().manual_seed(int(config["seed"]))
        self._reader: PairVectorReader | None = None
        self._pair_items: torch.Tensor | None = None
        self._texts: TextTables | None = None
        vectors = getattr(dataset, "semantic_vectors", None)
        if vectors is not None and self.settings.uses_pair_vectors and vectors.dim:
            self._reader = PairVectorReader(vectors.pair_vectors)
        if vectors is not None and self.settings.uses_semantic_candidates and vectors.pair_items is not None:
            self._pair_items = torch.from_numpy(vectors.pair_items)
        if vectors is not None and self._reads_text and vectors.item_vectors is not None:
            training = TrainingInteractions.from_dataset(dataset)
            self._texts = TextTables(vectors, training, self.settings.alignment_source, self.device)
        output_size = self.hop_sizes[0] if self.pooling == "mean" else sum(self.hop_sizes)
        self.projectors = ProjectorBank(self.settings.projector_hidden_size, output_size, int(config["seed"]))
        adapted = (self._reader, self._texts if self._aligns else None)
        self.projectors.grow([side.dim for side in adapted if side is not None])
        context = SamplerContext(
            self.settings,
            self.n_users,
            self.n_items,
            self.hop_sizes,
            lambda: TrainingInteractions.from_dataset(dataset),
            self._texts,
            self.device,
            int(config["seed"]),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            self.selector = sampler.build(context)
        if self.selector.memory():
            self.other_parameter_name = [*self.other_parameter_name, "negative_memory"]
        self.register_load_state_dict_pre_hook(_prepare_for_loading)
        contrasts = self.settings.uses_pair_vectors and self.settings.contrast_weight > 0
        uses = {"contrast": contrasts, "alignment": self._aligns, str(self.selector.loss_name): self.selector.loss_name}
        self.loss_part_names += tuple(name for name, used in uses.items() if used)
        self.reset_counts()

    # --- training --------------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Return the weighted parts of the loss, scalars, named by :attr:`loss_part_names`; RecBole adds them up.

        Args:
            interaction: with ``user_id [B]``, ``item_id [B]``, ``neg_item_id [B]`` or ``[B, K]``, and ``semantic_row [B]``
                where pair vectors are used.

        Raises:
            ArtifactError: if a term of the loss reads vectors that the dataset does not carry.
        """
        self._propagated = None
        self._require_vectors(interaction)
        users, positives, candidates = (interaction[name] for name in (self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID))
        candidates = candidates.unsqueeze(1) if candidates.dim() == 1 else candidates  # [B, K]
        if self._pair_items is not None:
            candidates = self._with_semantic_candidate(self._pair_items, interaction[SEMANTIC_ROW], candidates)
        propagated = self.training_propagation(self._reads_hops)
        chosen = self.selector.select(SelectionInputs(users, positives, candidates, propagated, self.settings))
        if self.on_negatives is not None:
            self.on_negatives(users, chosen.items)
        if self.selector.count_names:
            self._counts["negatives"] += len(users)
            for name, count in chosen.counts.items():
                self._counts[name] += count
        e_u = propagated.user_all.index_select(0, users)  # [B, d]
        e_i, e_j = propagated.item_all.index_select(0, torch.cat([positives, chosen.items])).chunk(2)  # [B, d] each
        e_j = e_j if chosen.embeddings is None else chosen.embeddings
        contrast = e_u.new_zeros(())
        if self._reader is not None:
            e_j, contrast = self._semantic_terms(self._reader, interaction[SEMANTIC_ROW], e_u, e_i, e_j)
        parts = {
            "rank": self._rank(e_u, e_i, e_j),
            "reg": self.reg_weight * self.regularization(propagated, users, positives, chosen.items),
            "contrast": self.settings.contrast_weight * contrast,
            **self.auxiliary_terms(propagated, users, positives),
        }
        if self._aligns and self._texts is not None:
            parts["alignment"] = self.settings.alignment_weight * self._alignment(self._texts, users, positives, propagated)
        if self.selector.loss_name is not None and chosen.loss is not None:
            parts[self.selector.loss_name] = chosen.loss
        return tuple(parts[name] for name in self.loss_part_names)

    def _with_semantic_candidate(self, pair_items: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Append one of the real items nearest to z_ui to each row's candidates ``[B, K]``; returns ``[B, K + 1]``.

        A row without a vector, or whose draw has no item, repeats its first candidate, which changes no choice.
        """
        rows = rows.cpu()
        columns = torch.randint(pair_items.shape[1], (len(rows),), generator=self._generator)
        near = torch.where(rows >= 0, pair_items[rows.clamp(min=0), columns].long(), 0).to(candidates.device)
        return torch.cat([candidates, torch.where(near > 0, near, candidates[:, 0])[:, None]], dim=1)

    def _rank(self, e_u: torch.Tensor, e_i: torch.Tensor, e_neg: torch.Tensor) -> torch.Tensor:
        positive_scores, negative_scores = (e_u * e_i).sum(dim=1), (e_u * e_neg).sum(dim=1)  # [B]
        if self.settings.rank_loss == "hinge":
            return hinge_loss(positive_scores, negative_scores, self.settings.margin)
        return bpr_loss(positive_scores, negative_scores)

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
        if self.settings.mix_weight > 0:
            mixed = mix_negative(own_j, h, self.settings.mix_weight)  # [M, d]
            e_j = mixed if everywhere else e_j.index_copy(0, places, mixed)
        return e_j, contrast

    def _alignment(
        self, texts: TextTables, users: torch.Tensor, positives: torch.Tensor, propagated: Propagated
    ) -> torch.Tensor:
        """Return the two-way InfoNCE of the batch's distinct users plus that of its distinct items with their text."""
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
                order = torch.randperm(len(known), generator=self._generator)[: self.settings.alignment_max_batch]
                known = known[order.to(known.device)]
            if len(known) > 1:
                own = embeddings.index_select(0, known)  # [n, d]
                total = total + info_nce(own, self.projectors(vectors[known].float()), self.settings.alignment_temperature)
        return total

    @property
    def _aligns(self) -> bool:
        return self.settings.aligns

    def _require_vectors(self, interaction: Interaction) -> None:
        if self.settings.uses_pair_vectors and (self._reader is None or SEMANTIC_ROW not in interaction):
            raise ArtifactError(
                f"mix_weight is {self.settings.mix_weight} and contrast_weight {self.settings.contrast_weight}, but "
                f"the training data carries no semantic vectors; build them, or train without with --negative_route=none"
            )
        if self.settings.uses_semantic_candidates and (self._pair_items is None or SEMANTIC_ROW not in interaction):
            raise ArtifactError(
                f"semantic_candidates is {self.settings.semantic_candidates}, but the training data carries no items near the "
                f"semantic vectors; build them, or train without with --semantic_candidates=0"
            )
        if self._aligns and self._texts is None:
            raise ArtifactError(
                f"alignment_weight is {self.settings.alignment_weight}, but the training data carries no text vectors of "
                f"items; build them, or train without with --alignment_weight=0"
            )
        if self._reads_text and self._texts is None:
            by_sampler = get_negative_sampler(self.settings.negative_sampler).reads_text
            key = f"negative_sampler {self.settings.negative_sampler}" if by_sampler else "text_score_weight above 0"
            raise ArtifactError(
                f"{key} reads text vectors of items, but the training data carries none; run through recbole-hnlm, which "
                f"builds them, or use {'--negative_sampler=dns' if by_sampler else '--text_score_weight=0'}"
            )

    def start_epoch(self, epoch: int) -> None:
        """Prepare the backbone, the counts and the choice of negatives for an epoch, counted from 0."""
        super().start_epoch(epoch)
        self.reset_counts()
        self.selector.start_epoch(epoch, self._propagate_now)

    def _propagate_now(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Propagate as for scoring, whatever the mode, and leave the mode as it was."""
        training = self.training
        self.eval()
        propagated = self.propagate_for_scoring()
        self.train(training)
        return propagated

    # --- scoring ---------------------------------------------------------------------------------------------------------

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Return the scores of every item for each user of the batch, float ``[B * I]``, without gradient.

        With ``text_score_weight`` they are those of :func:`recbole_hnlm.model.scoring.fuse_scores`, else inner products.

        Raises:
            ArtifactError: texts are to be read and the dataset carries none.
        """
        scores = super().full_sort_predict(interaction)
        if self.settings.text_score_weight == 0:
            return scores
        users = interaction[self.USER_ID]
        return self._with_texts(users, scores.view(len(users), -1)).reshape(-1)

    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Return the scores of pairs (user_id, item_id), float ``[B]``: the same as those in the whole ranking."""
        if self.settings.text_score_weight == 0:
            return super().predict(interaction)
        users, places = torch.unique(interaction[self.USER_ID], return_inverse=True)
        scores = super().full_sort_predict({self.USER_ID: users}).view(len(users), -1)
        return self._with_texts(users, scores)[places, interaction[self.ITEM_ID]]

    def _with_texts(self, users: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._texts is None:
            raise ArtifactError(
                f"text_score_weight is {self.settings.text_score_weight}, but the data carries no text vectors of items; run "
                f"through recbole-hnlm, which builds them, or use --text_score_weight=0"
            )
        return fuse_scores(scores, self._texts.cosines(users), self.settings.text_score_weight)

    @property
    def negative_memory(self) -> dict[str, torch.Tensor]:
        """What the selector remembers of earlier epochs; part of the checkpoint."""
        return self.selector.memory()

    @negative_memory.setter
    def negative_memory(self, memory: Mapping[str, torch.Tensor]) -> None:
        self.selector.recall(memory)

    def reset_counts(self) -> None:
        """Start the counts of an epoch at zero."""
        names = ["pairs", "pairs with a vector"] if self.settings.uses_pair_vectors else []
        if self._aligns:
            names += ["users to align", "users with text", "items to align", "items with text"]
        if self.selector.count_names:
            names += ["negatives", *self.selector.count_names]
        self._counts = dict.fromkeys(names, 0)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many pairs, users, items and negatives were seen (summed over batches), and how many were of some kind."""
        return self._counts


def _prepare_for_loading(module: HNLMMixin, state_dict: Mapping[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Before a state is loaded: forget embeddings of the old parameters, and grow the projectors that the state has."""
    module._propagated = None
    start, end = prefix + "projectors.", ".0.weight"
    module.projectors.grow(
        int(key[len(start) : -len(end)]) for key in state_dict if key.startswith(start) and key.endswith(end)
    )
    module.projectors.to(module.device)

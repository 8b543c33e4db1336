"""What a pairwise backbone says of itself, and what follows from it: the loss and the scores.

Symbols: B positives in the batch, U users and I items including the padding id 0, d the embedding size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender

from recbole_hnlm.model.losses import bpr_loss, embedding_regularization
from recbole_hnlm.negative_sampler.base import Negatives
from recbole_hnlm.negative_sampler.hops import Propagated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole.data.interaction import Interaction

    from recbole_hnlm.negative_sampler.hops import Pooling

__all__ = ["PairwiseBackbone"]


class PairwiseBackbone(GeneralRecommender):
    """A recommender that scores by inner products and trains on triples; put it before a RecBole model in the list of bases.

    A backbone defines :meth:`propagate` and :meth:`ego_embeddings`. One with layers also defines :meth:`propagate_hops`; one
    with its own loss terms names them in :attr:`auxiliary_names` and computes them in :meth:`auxiliary_terms`.

    Attributes:
        pooling: how outputs follow from layers.
        auxiliary_names: names of the backbone's own terms of the loss, in order.
        loss_part_names: names of the parts that :meth:`calculate_loss` returns, in order.
        reads_hops: whether the choice of negatives reads the layers behind the outputs.
        scores_by_products: lets an evaluation score few users at a time, since a call costs little in itself.
    """

    scores_by_products = True
    pooling: ClassVar[Pooling] = "mean"
    auxiliary_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone as RecBole does."""
        super().__init__(config, dataset)
        # Embeddings for scoring are recomputed on load rather than stored twice in every checkpoint.
        self.other_parameter_name: list[str] = []
        self.reg_weight = float(config["reg_weight"] or 0.0)
        self.require_pow = bool(config["require_pow"])
        self.loss_part_names: tuple[str, ...] = ("rank", "reg", *self.auxiliary_names)
        self.reads_hops = False
        self._propagated: tuple[torch.Tensor, torch.Tensor] | None = None

    # --- what a backbone defines -----------------------------------------------------------------------------------------

    def propagate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output embeddings of all users and items, float ``[U, d]`` and ``[I, d]``, with gradient."""
        raise NotImplementedError

    def ego_embeddings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding tables of users and items, float ``[U, d_0]`` and ``[I, d_0]``, that L2 regularises."""
        raise NotImplementedError

    def propagate_hops(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Return the layers of users ``[U, d_l]`` and of items ``[I, d_l]`` that the outputs pool, with gradient."""
        user_all, item_all = self.propagate()
        return (user_all,), (item_all,)

    @property
    def hop_sizes(self) -> tuple[int, ...]:
        """Return d_0 .. d_L, the widths of the layers of :meth:`propagate_hops`."""
        return (self.ego_embeddings()[0].shape[1],)

    def training_propagation(self, with_hops: bool) -> Propagated:
        """Propagate for a training step.

        Args:
            with_hops: whether the layers are asked for; without them a backbone may take a shorter way.
        """
        if not with_hops:
            return Propagated.of_outputs(*self.propagate())
        return Propagated.of_hops(*self.propagate_hops(), self.pooling)

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the backbone's own weighted terms by name, scalars; each a mean, as the ranking loss is; ids are ``[B]``."""
        return {}

    def regularization(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
    ) -> torch.Tensor:
        """Return the unweighted regularisation of a batch, a scalar; ids are int64 ``[B]`` each."""
        user_ego, item_ego = self.ego_embeddings()
        item_rows = item_ego.index_select(0, torch.cat([positives, negatives]))  # [2B, d_0]
        rows = (user_ego.index_select(0, users), *item_rows.chunk(2))
        return embedding_regularization(rows, self.require_pow)

    def start_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, counted from 0; the trainer calls this before its first batch."""

    # --- training --------------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Return the weighted parts of the loss, scalars, named by :attr:`loss_part_names`; RecBole adds them up.

        Args:
            interaction: with ``user_id [B]``, ``item_id [B]`` and what the methods below read of it.
        """
        self._propagated = None
        users, positives = interaction[self.USER_ID], interaction[self.ITEM_ID]
        propagated = self.training_propagation(self.reads_hops)
        chosen = self.choose_negatives(interaction, propagated)
        e_u = propagated.user_all.index_select(0, users)  # [B, d]
        e_i, e_j = propagated.item_all.index_select(0, torch.cat([positives, chosen.items])).chunk(2)  # [B, d] each
        e_j, terms = self.negative_terms(interaction, chosen, e_u, e_i, e_j)
        parts = {
            "rank": self.ranking_term(propagated, users, e_u, e_i, e_j),
            "reg": self.reg_weight * self.regularization(propagated, users, positives, chosen.items),
            **terms,
            **self.auxiliary_terms(propagated, users, positives),
            **self.text_terms(propagated, users, positives),
        }
        return tuple(parts[name] for name in self.loss_part_names)

    def choose_negatives(self, interaction: Interaction, propagated: Propagated) -> Negatives:
        """Return a negative for each positive: here the loader's, ``neg_item_id [B]``."""
        return Negatives(items=interaction[self.NEG_ITEM_ID])

    def negative_terms(
        self, interaction: Interaction, chosen: Negatives, e_u: torch.Tensor, e_i: torch.Tensor, e_j: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Say which vectors are ranked below the positives, and what else the negatives add to the loss.

        Args:
            interaction: the batch.
            chosen: of :meth:`choose_negatives`.
            e_u: outputs of the users, ``[B, d]``.
            e_i: outputs of the positives, ``[B, d]``.
            e_j: outputs of the chosen items, ``[B, d]``.

        Returns:
            Negative vectors ``[B, d]``, and weighted terms by name, scalars.
        """
        return e_j if chosen.embeddings is None else chosen.embeddings, {}

    def text_terms(self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the weighted terms of the loss that read texts by name, scalars; none here. Ids are ``[B]``."""
        return {}

    def ranking_term(
        self, propagated: Propagated, users: torch.Tensor, e_u: torch.Tensor, e_i: torch.Tensor, e_j: torch.Tensor
    ) -> torch.Tensor:
        """Return the ranking term of a batch, a scalar: :meth:`ranking_loss` of inner products.

        Args:
            propagated: the step's outputs.
            users: internal user ids, int64 ``[B]``.
            e_u: outputs of the users, ``[B, d]``.
            e_i: outputs of the positives, ``[B, d]``.
            e_j: negative vectors of :meth:`negative_terms`, ``[B, d]``.
        """
        return self.ranking_loss((e_u * e_i).sum(dim=1), (e_u * e_j).sum(dim=1))

    def ranking_loss(self, positive_scores: torch.Tensor, negative_scores: torch.Tensor) -> torch.Tensor:
        """Return the ranking loss of scores ``[B]``, a scalar: BPR."""
        return bpr_loss(positive_scores, negative_scores)

    # --- scoring ---------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation; embeddings kept for scoring do not outlive an evaluation."""
        self._propagated = None
        return super().train(mode)

    def scoring_vectors(self, user_all: torch.Tensor, item_all: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors ``[U, d]`` and ``[I, d]`` whose inner products rank items: the outputs as they are."""
        return user_all, item_all

    def propagate_for_scoring(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return :meth:`scoring_vectors` without gradient: propagated once per evaluation, and anew in training mode."""
        if self._propagated is None or self.training:
            with torch.no_grad():
                user_all, item_all = self.propagate()
            # Without propagation the outputs are the parameters themselves.
            self._propagated = self.scoring_vectors(user_all.detach(), item_all.detach())
        return self._propagated

    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Return the scores of pairs (user_id, item_id), float ``[B]``, without gradient."""
        user_all, item_all = self.propagate_for_scoring()
        return (user_all[interaction[self.USER_ID]] * item_all[interaction[self.ITEM_ID]]).sum(dim=1)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Return the scores of every item for each user of the batch, float ``[B * I]``, without gradient."""
        user_all, item_all = self.propagate_for_scoring()
        return (user_all[interaction[self.USER_ID]] @ item_all.t()).view(-1)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Load parameters, forgetting what was propagated with the old ones."""
        self._propagated = None
        return super().load_state_dict(*arguments, **options)

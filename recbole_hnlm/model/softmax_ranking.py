"""The ranking term of a batch under the losses that share their negatives, from the keys to one number.

Symbols: B positives in the batch, M shared negatives, U users and I items including the padding id 0, d the embedding size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.model.set_losses import (
    bilateral_softmax_loss,
    log_sum_exp_shared,
    log_sum_psl_shared,
    mean_exp_of_positives,
    pairwise_softmax_loss,
    softmax_at_k_loss,
    softmax_loss,
    top_k_weight,
)
from recbole_hnlm.model.shared_negatives import SharedNegatives, top_k_thresholds
from recbole_hnlm.utils.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.training import TrainingInteractions
    from recbole_hnlm.model.set_losses import Excluded
    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["SoftmaxRanking"]


class SoftmaxRanking:
    """Draws the shared negatives of each step and computes the loss of the key ``rank_loss``.

    Attributes:
        thresholds: SL@K's score of the K-th item of each user, ``[U]``; 0 until the first refresh, as in the authors' code.
            Of no other loss.
    """

    def __init__(
        self, settings: HNLMSettings, training: TrainingInteractions, generator: torch.Generator, device: torch.device
    ) -> None:
        """Index the training interactions.

        Args:
            settings: the run's keys.
            training: the training split.
            generator: the model's own; the model starts it anew in every epoch, so that a resumed run draws the same.
            device: where tensors live.
        """
        self._settings, self._generator = settings, generator
        self._shared = SharedNegatives(training)
        at_k = settings.rank_loss == "sl_at_k"
        self.thresholds = torch.zeros(training.n_users if at_k else 0, device=device)

    def start_epoch(self, epoch: int, propagate: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Refresh SL@K's thresholds before every ``loss_refresh_epochs``-th epoch, epochs counted from 0."""
        if not len(self.thresholds) or epoch == 0 or epoch % self._settings.loss_refresh_epochs:
            return
        user_all, item_all = (self.scored(table) for table in propagate())
        items = self._shared.draw(self._settings.loss_negatives, self._generator)
        self.thresholds = top_k_thresholds(user_all, item_all, self._shared, items, self._settings.loss_at_k)

    def memory(self) -> dict[str, torch.Tensor]:
        """Return what later epochs read of earlier ones, for the checkpoint."""
        return {"thresholds": self.thresholds} if len(self.thresholds) else {}

    def recall(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Restore what :meth:`memory` returned.

        Raises:
            ArtifactError: it is of another number of users, or missing.
        """
        found = memory.get("thresholds")
        shape = None if found is None else tuple(found.shape)
        if found is None or shape != tuple(self.thresholds.shape):
            raise ArtifactError(
                f"the checkpoint's thresholds of sl_at_k have shape {shape}, expected {tuple(self.thresholds.shape)} (users): "
                f"use the keys and the data that it was trained with"
            )
        self.thresholds = found.to(self.thresholds.device)

    def __call__(
        self, propagated: Propagated, users: torch.Tensor, e_u: torch.Tensor, e_i: torch.Tensor, e_h: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch, the mean over its rows.

        Args:
            propagated: the step's outputs.
            users: internal user ids, int64 ``[B]``.
            e_u: outputs of the users, ``[B, d]``.
            e_i: outputs of the positives, ``[B, d]``.
            e_h: the chosen negatives, mixed where they are, ``[B, d]``.
        """
        settings = self._settings
        items = self._shared.draw(settings.loss_negatives, self._generator)
        excluded = self._shared.of_own(users, items)
        negatives = self.scored(propagated.item_all.index_select(0, items.to(e_u.device)))  # [M, d]
        e_u, positives = self.scored(e_u), self.scored(e_i)
        positive_scores = (e_u * positives).sum(dim=1)
        hard_scores = (e_u * self.scored(e_h)).sum(dim=1) if settings.loss_hard_weight > 0 else None
        return self._losses(users, e_u, negatives, excluded, (positive_scores, hard_scores)).mean()

    def scored(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the vectors whose inner products are the loss's scores."""
        return F.normalize(embeddings, dim=1) if self._settings.loss_score == "cosine" else embeddings

    def _losses(
        self,
        users: torch.Tensor,
        e_u: torch.Tensor,
        negatives: torch.Tensor,
        excluded: Excluded,
        scores: tuple[torch.Tensor, torch.Tensor | None],
    ) -> torch.Tensor:
        """Return the loss of each row, ``[B]``; ``scores`` are those of the positives and of the chosen negatives."""
        keys, (own, hard) = self._settings, scores
        t, weight = keys.loss_temperature, keys.loss_hard_weight
        if keys.rank_loss == "psl":
            bent = keys.psl_surrogate
            sums = log_sum_psl_shared(e_u, negatives, own, excluded, temperature=t, surrogate=bent)
            return pairwise_softmax_loss(sums, own, hard, temperature=t, surrogate=bent, hard_weight=weight)
        sums = log_sum_exp_shared(e_u, negatives, excluded, t)
        if keys.rank_loss == "bsl":
            first = keys.loss_positive_temperature
            positive_terms = mean_exp_of_positives(users, own, first)
            return bilateral_softmax_loss(sums, positive_terms, hard, temperatures=(first, t), hard_weight=weight)
        if keys.rank_loss == "sl_at_k":
            weights = top_k_weight(own, self.thresholds[users], keys.loss_weight_temperature)
            return softmax_at_k_loss(sums, own, hard, weights, temperature=t, hard_weight=weight)
        return softmax_loss(sums, own, hard, temperature=t, hard_weight=weight)

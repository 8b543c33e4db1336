"""What makes a RecBole backbone train on chosen negatives.

Symbols: B positives in the batch, K candidates, U users and I items including the padding id 0, d the embedding size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.data.semantics import TextTables, vectors_of
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.backbone import PairwiseBackbone
from recbole_hnlm.model.losses import bpr_loss, hinge_loss
from recbole_hnlm.model.softmax_ranking import SoftmaxRanking
from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.registry import get_negative_sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recbole.data.interaction import Interaction

    from recbole_hnlm.negative_sampler.base import Negatives
    from recbole_hnlm.negative_sampler.hops import Propagated

__all__ = ["SampledPairwise"]

_EPOCH_STRIDE = 1_000_003


class SampledPairwise(PairwiseBackbone):
    """Train a pairwise backbone on the negatives of the key ``negative_sampler``; put it before a backbone in the bases.

    It holds what all our models share: the selector and its memory, the ranking loss of the key ``rank_loss``, text vectors of
    users and items where anything reads them, and the counts of an epoch.

    Attributes:
        uses_hnlm_data: makes the runner attach semantic vectors and use our loader.
        needs: what the model reads of the LLM stages.
        training_only: beginnings of the names of state that ranking items does not read; a checkpoint may differ there.
        trainer_class: the trainer that knows the names of the parts.
        selector: chooses e_j.
        generator: the model's own random generator; every epoch's draws follow from ``seed`` and the epoch alone.
        on_negatives: called with users and chosen items, ``[B]`` each, at every step; set by the trainer, and None otherwise.
        on_scores: the same with the scores of positives and of the negatives that the loss reads, ``[B]`` each.
    """

    uses_hnlm_data = True
    needs: ClassVar[SemanticNeeds] = SemanticNeeds()
    training_only: ClassVar[tuple[str, ...]] = ("selector.", "negative_memory", "loss_memory")
    trainer_class = HNLMTrainer

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the backbone as RecBole does, then our parts, without touching the random state that the backbone uses.

        Args:
            config: RecBole's configuration with our keys in it.
            dataset: RecBole's training dataset. Where it carries no semantic vectors, the model predicts and loads any
                checkpoint, and can train as long as nothing reads vectors.
        """
        super().__init__(config, dataset)
        self.settings = settings_of(config)
        self._seed = int(config["seed"])
        self.generator = torch.Generator().manual_seed(self._seed)
        self.on_negatives: Callable[[torch.Tensor, torch.Tensor], None] | None = None
        self.on_scores: Callable[[torch.Tensor, torch.Tensor], None] | None = None
        sampler = get_negative_sampler(self.settings.sampler_in_use)
        self.reads_hops, self._reads_text = sampler.reads_hops, self.settings.reads_text_vectors
        self._texts: TextTables | None = None
        vectors = vectors_of(dataset)
        if vectors is not None and self._reads_text and vectors.item_vectors is not None:
            training = TrainingInteractions.from_dataset(dataset)
            self._texts = TextTables(vectors, training, self.settings.alignment_source, self.device)
        context = SamplerContext(
            self.settings,
            self.n_users,
            self.n_items,
            self.hop_sizes,
            lambda: TrainingInteractions.from_dataset(dataset),
            self._texts,
            self.device,
            self._seed,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            self.selector = sampler.build(context)
        self._softmax: SoftmaxRanking | None = None
        if self.settings.shares_negatives:
            training = TrainingInteractions.from_dataset(dataset)
            self._softmax = SoftmaxRanking(self.settings, training, self.generator, self.device)
            if self._softmax.memory():
                self.other_parameter_name = [*self.other_parameter_name, "loss_memory"]
        if self.selector.memory():
            self.other_parameter_name = [*self.other_parameter_name, "negative_memory"]
        if self.selector.loss_name is not None:
            self.loss_part_names += (self.selector.loss_name,)
        self.reset_counts()

    @property
    def has_texts(self) -> bool:
        """Whether something reads text vectors and the data carries them."""
        return self._texts is not None

    @property
    def texts(self) -> TextTables:
        """Text vectors of users and items with masks that say who has one.

        Raises:
            ArtifactError: the data carries none.
        """
        if self._texts is None:
            raise self._absent("text vectors of users and items", self.settings.text_readers)
        return self._texts

    def _absent(self, vectors: str, readers: Mapping[str, str]) -> ArtifactError:
        """Return the error for vectors that the data does not carry.

        Args:
            vectors: which vectors.
            readers: what reads them, each with the option that switches it off, empty where none does.
        """
        options = " ".join(option for option in readers.values() if option)
        return ArtifactError(
            f"{type(self).__name__} needs {vectors} for {' and '.join(readers)}, but the data carries none; run through "
            f"recbole-hnlm, which builds them{', or use ' if options else ''}{options}"
        )

    # --- training --------------------------------------------------------------------------------------------------------

    def candidates(self, interaction: Interaction) -> torch.Tensor:
        """Return the items among which each negative is chosen, int64 ``[B, K]``."""
        drawn = interaction[self.NEG_ITEM_ID]
        return drawn.unsqueeze(1) if drawn.dim() == 1 else drawn

    def choose_negatives(self, interaction: Interaction, propagated: Propagated) -> Negatives:
        """Choose by the key ``negative_sampler``.

        Raises:
            ArtifactError: something reads text vectors and the data carries none.
        """
        if self._reads_text:
            _ = self.texts
        users, positives = interaction[self.USER_ID], interaction[self.ITEM_ID]
        inputs = SelectionInputs(users, positives, self.candidates(interaction), propagated, self.settings)
        chosen = self.selector.select(inputs)
        if self.on_negatives is not None:
            self.on_negatives(users, chosen.items)
        if self.selector.count_names:
            self._counts["negatives"] += len(users)
            for name, count in chosen.counts.items():
                self._counts[name] += count
        return chosen

    def negative_terms(
        self, interaction: Interaction, chosen: Negatives, e_u: torch.Tensor, e_i: torch.Tensor, e_j: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the negatives as they are, and the sampler's own term."""
        e_j, terms = super().negative_terms(interaction, chosen, e_u, e_i, e_j)
        if self.selector.loss_name is not None and chosen.loss is not None:
            terms[self.selector.loss_name] = chosen.loss
        return e_j, terms

    def ranking_term(
        self, propagated: Propagated, users: torch.Tensor, e_u: torch.Tensor, e_i: torch.Tensor, e_j: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of the key ``rank_loss``: of pairs, or of each positive against the batch's shared negatives."""
        if self._softmax is None:
            return super().ranking_term(propagated, users, e_u, e_i, e_j)
        if self.on_scores is not None and self.settings.reads_chosen_negative:
            with torch.no_grad():
                own, positives, negatives = (self._softmax.scored(side) for side in (e_u, e_i, e_j))
                self.on_scores((own * positives).sum(dim=1), (own * negatives).sum(dim=1))
        return self._softmax(propagated, users, e_u, e_i, e_j)

    def ranking_loss(self, positive_scores: torch.Tensor, negative_scores: torch.Tensor) -> torch.Tensor:
        """Return the loss of pairs of the key ``rank_loss``."""
        if self.on_scores is not None:
            self.on_scores(positive_scores, negative_scores)
        if self.settings.rank_loss == "hinge":
            return hinge_loss(positive_scores, negative_scores, self.settings.margin)
        return bpr_loss(positive_scores, negative_scores)

    def start_epoch(self, epoch: int) -> None:
        """Prepare the backbone, the counts, the model's own draws and the choice of negatives, epochs counted from 0."""
        super().start_epoch(epoch)
        self.reset_counts()
        self.generator.manual_seed(self._seed + _EPOCH_STRIDE * epoch)
        self.selector.start_epoch(epoch, self._propagate_now)
        if self._softmax is not None:
            self._softmax.start_epoch(epoch, self._propagate_now)

    def _propagate_now(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs without gradient as in evaluation, whatever the mode, and leave the mode as it was."""
        training = self.training
        self.eval()
        with torch.no_grad():
            user_all, item_all = self.propagate()
        self.train(training)
        return user_all, item_all

    # --- counts and memory -----------------------------------------------------------------------------------------------

    @property
    def count_names(self) -> tuple[str, ...]:
        """Names of what is counted."""
        return ("negatives", *self.selector.count_names) if self.selector.count_names else ()

    def reset_counts(self) -> None:
        """Start the counts of an epoch at zero."""
        self._counts = dict.fromkeys(self.count_names, 0)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many pairs, users, items and negatives were seen (summed over batches), and how many were of some kind."""
        return self._counts

    @property
    def negative_memory(self) -> dict[str, torch.Tensor]:
        """What the selector remembers of earlier epochs; part of the checkpoint."""
        return self.selector.memory()

    @negative_memory.setter
    def negative_memory(self, memory: Mapping[str, torch.Tensor]) -> None:
        self.selector.recall(memory)

    @property
    def loss_memory(self) -> dict[str, torch.Tensor]:
        """What the ranking loss remembers of earlier epochs; part of the checkpoint."""
        return {} if self._softmax is None else self._softmax.memory()

    @loss_memory.setter
    def loss_memory(self, memory: Mapping[str, torch.Tensor]) -> None:
        if self._softmax is not None:
            self._softmax.recall(memory)

    # --- scoring ---------------------------------------------------------------------------------------------------------

    def scoring_vectors(self, user_all: torch.Tensor, item_all: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs, of length 1 where the key ``score`` ranks by cosine."""
        if not self.settings.ranks_by_cosine:
            return user_all, item_all
        return F.normalize(user_all, dim=1), F.normalize(item_all, dim=1)

"""The trainer of models with named loss parts, a projector with its own learning rate, and counted coverage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from recbole.trainer.trainer import Trainer

from recbole_hnlm.config.settings import settings_of
from recbole_hnlm.evaluator.hardness import HardnessRecorder, bpr_gradient, hinge_gradient

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.dataloader import HNLMTrainDataLoader
    from recbole_hnlm.evaluator.false_negatives import FalseNegativeCounter

__all__ = ["HNLMTrainer"]

_FUSED = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class HNLMTrainer(Trainer):
    """RecBole's trainer for models built with :class:`recbole_hnlm.model.sampled.SampledPairwise`.

    It adds: the projector's parameters form a separate group (``projector_learning_rate``), fused optimizers, log
    lines with the names of the loss's parts, and a line per epoch that says how much of the data had vectors.
    """

    def __init__(self, config: Any, model: Any) -> None:
        """Build the trainer and check its optimizer.

        Raises:
            RuntimeError: if a trainable parameter of the model is missing from the optimizer.
        """
        super().__init__(config, model)
        self.false_negatives: FalseNegativeCounter | None = None
        self.hardness = HardnessRecorder(_gradient_of(settings_of(config)))
        optimized = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        missing = [
            name for name, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in optimized
        ]
        if missing:
            raise RuntimeError(f"trainable parameters are missing from the optimizer: {', '.join(missing)}")

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """Build RecBole's optimizer over two parameter groups, fused where torch has a fused kernel for it."""
        if "params" in kwargs:
            return super()._build_optimizer(**kwargs)
        learning_rate = kwargs.pop("learning_rate", self.learning_rate)
        groups = self._parameter_groups(learning_rate)
        learner = str(kwargs.get("learner", self.learner)).lower()
        fusable = learner in _FUSED and all(
            parameter.is_floating_point() and parameter.device.type in {"cpu", "cuda"} and not parameter.is_sparse
            for group in groups
            for parameter in group["params"]
        )
        if not fusable:
            return super()._build_optimizer(params=groups, learning_rate=learning_rate, **kwargs)
        weight_decay = kwargs.get("weight_decay", self.weight_decay)
        if self.config["reg_weight"] and weight_decay:
            self.logger.warning("weight_decay and reg_weight are both set, so embeddings are regularised twice")
        return _FUSED[learner](groups, lr=learning_rate, weight_decay=weight_decay, fused=True)

    def _parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        trained = [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        projector = [parameter for name, parameter in trained if name.startswith("projectors.")]
        groups: list[dict[str, Any]] = [{"params": [p for name, p in trained if not name.startswith("projectors.")]}]
        if projector:
            projector_rate = settings_of(self.config).projector_learning_rate or learning_rate
            groups.append({"params": projector, "lr": projector_rate})
        return groups

    def _train_epoch(
        self, train_data: HNLMTrainDataLoader, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        """Let the model prepare, train for an epoch as RecBole does, then log how much of its data had vectors."""
        self.model.start_epoch(epoch_idx)
        self.model.on_negatives, self.model.on_scores = self.false_negatives, self.hardness
        try:
            losses = super()._train_epoch(train_data, epoch_idx, loss_func=loss_func, show_progress=show_progress)
        finally:
            self.model.on_negatives = self.model.on_scores = None
        self.hardness.end_epoch()
        rate = self.false_negatives.end_epoch() if self.false_negatives is not None else None
        if rate is not None:
            self.logger.info("epoch %d negatives that are held-out positives: %.4f %%", epoch_idx, 100 * rate)
        line = _describe_counts(self.model.counts)
        if line:
            self.logger.info("epoch %d coverage [%s]", epoch_idx, line)
        return losses

    def _generate_train_loss_output(self, epoch_idx: int, s_time: float, e_time: float, losses: Any) -> str:
        if not isinstance(losses, tuple):
            return super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)
        places = self.config["loss_decimal_place"] or 4
        named = zip(self.model.loss_part_names, losses, strict=True)
        parts = ", ".join(f"{name}: {value:.{places}f}" for name, value in named)
        return f"epoch {epoch_idx} training [time: {e_time - s_time:.2f}s, train loss: {sum(losses):.{places}f} = {parts}]"

    def _add_train_loss_to_tensorboard(self, epoch_idx: int, losses: Any, tag: str = "Loss/Train") -> None:
        if not isinstance(losses, tuple):
            super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)
            return
        for name, value in zip(self.model.loss_part_names, losses, strict=True):
            self.tensorboard.add_scalar(f"{tag}/{name}", value, epoch_idx)


def _gradient_of(settings: HNLMSettings) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the gradient of the loss of pairs by ``s_j - s_i``; None under the losses that share their negatives."""
    if settings.shares_negatives:
        return None
    return partial(hinge_gradient, margin=settings.margin) if settings.rank_loss == "hinge" else bpr_gradient


def _describe_counts(counts: Any) -> str:
    """Put counts of wholes and of their parts into words, such as ``pairs with a vector: 812 of 1,000 (81.2 %)``."""
    wholes = {
        "pairs with a vector": "pairs",
        "users with text": "users to align",
        "items with text": "items to align",
    }
    wholes |= {part: "negatives" for part in counts if part not in wholes and part not in {*wholes.values(), "negatives"}}
    return ", ".join(
        f"{part}: {counts[part]:,} of {counts[whole]:,} ({100 * counts[part] / max(counts[whole], 1):.1f} %)"
        for part, whole in wholes.items()
        if part in counts
    )

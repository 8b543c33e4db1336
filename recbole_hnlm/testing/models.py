"""What holds for every model, whatever its formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType, init_seed

from recbole_hnlm.model.recbole_graphs import on_current_scipy
from recbole_hnlm.testing.data import (
    all_scores,
    build,
    losses_of_whole_and_resumed,
    share_of_hits,
    training_pairs,
    write_blocks,
    write_random,
)
from recbole_hnlm.trainer.checkpoint import load_weights, read_checkpoint
from recbole_hnlm.utils.registry import get_model_class

if TYPE_CHECKING:
    from pathlib import Path

    from recbole_hnlm.testing.data import Built

__all__ = ["ModelConformance"]

_PLAIN = {"negative_route": "none", "alignment_weight": 0.0, "negative_sampler": "uniform", "alignment_source": "text"}


def loss_parts(model: Any, batch: Any) -> tuple[torch.Tensor, ...]:
    """Return the parts of a model's loss, whichever of RecBole's two forms it returns them in."""
    loss = model.calculate_loss(batch)
    return loss if isinstance(loss, tuple) else (loss,)


def begin_epoch(model: Any, epoch: int) -> None:
    """Announce an epoch to a model that wants to know of it, as the trainer does."""
    if hasattr(model, "start_epoch"):
        model.start_epoch(epoch)


class ModelConformance:
    """Inherit, name the model, and pytest checks it on tiny data; no LLM and no download is needed.

    Where a model reads what LLM stages make, it is given random vectors instead.

    Attributes:
        model: class, name, or ``package.module:Class``.
        keys: keys of the configuration for all checks, such as sizes that fit 40 users and 30 items.
        parity_with: a reference model, by class, name or path, whose loss, gradients and scores the model has once its
            semantic part is off and negatives are uniform; it is built with the model's own keys. None skips the check.
        parity_keys: keys of that check alone.
        learning_keys: keys of the check that the model learns data with a known answer.
        least_hits: share of users whose forced answer must come first there.
    """

    model: ClassVar[str | type[Any]]
    keys: ClassVar[dict[str, Any]] = {}
    parity_with: ClassVar[str | type[Any] | None] = None
    parity_keys: ClassVar[dict[str, Any]] = {}
    learning_keys: ClassVar[dict[str, Any]] = {"epochs": 30}
    least_hits: ClassVar[float] = 1.0

    @pytest.fixture(autouse=True)
    def _in_empty_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_random(tmp_path)

    def build(self, folder: Path, run_id: str = "conformance", **keys: Any) -> Built:
        """Build the model on the dataset in a folder, with further keys."""
        return build(folder, self.model, run_id, **{**self.keys, **keys})

    def model_class(self) -> type[Any]:
        """Return the model's class."""
        return self.model if isinstance(self.model, type) else get_model_class(self.model)

    def is_trained(self) -> bool:
        """Whether the model learns by steps: RecBole's type of a model says so, TRADITIONAL ones are computed in one go."""
        return self.model_class().type is not ModelType.TRADITIONAL

    def needs_training(self) -> None:
        """Skip a check of what training does, for a model that has none."""
        if not self.is_trained():
            pytest.skip("the model is computed from the data in one go, without training")

    def plain_keys(self) -> dict[str, Any]:
        """Return the keys that switch the semantic part off, for a model that has one."""
        return dict(_PLAIN) if getattr(self.model_class(), "uses_hnlm_data", False) else {}

    def test_loss_has_named_finite_parts_and_reaches_every_parameter(self, tmp_path: Path) -> None:
        """All parameters are in the optimizer, get a gradient within an epoch, and change."""
        self.needs_training()
        built = self.build(tmp_path)
        model, trainer = built.model, built.trainer()
        optimized = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
        trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
        assert trainable
        assert [name for name, parameter in trainable.items() if id(parameter) not in optimized] == []
        begin_epoch(model, 0)
        for batch in built.data.train:
            parts = loss_parts(model, batch)
            assert len(parts) == len(getattr(model, "loss_part_names", parts))
            assert all(bool(torch.isfinite(part).all()) for part in parts)
            torch.autograd.backward([part.sum() for part in parts])
        assert [name for name, parameter in trainable.items() if parameter.grad is None or not parameter.grad.any()] == []
        trainer.optimizer.step()
        assert [name for name, parameter in trainable.items() if torch.equal(parameter, before[name])] == []

    def test_checkpoint_gives_the_same_scores(self, tmp_path: Path) -> None:
        """A model of another seed scores as the trained one once it has read its checkpoint.

        One without training may depend on no seed, and scores alike before.
        """
        built = self.build(tmp_path, epochs=1)
        trainer = built.trainer()
        trainer.fit(built.data.train, built.data.valid, verbose=False)
        expected = all_scores(built.model)
        other = self.build(tmp_path, seed=8).model
        before = all_scores(other) if self.is_trained() else None
        load_weights(other, read_checkpoint(trainer.saved_model_file), trainer.saved_model_file)
        found = all_scores(other)
        assert torch.equal(found, expected)
        assert before is None or not torch.allclose(before, expected)

    def test_training_is_determined_by_the_seed(self, tmp_path: Path) -> None:
        """Two trainings from one seed are equal bit for bit; those of another seed differ, if there is anything to learn."""
        losses, scores = [], []
        for seed in (7, 7, 8):
            built = self.build(tmp_path, seed=seed)
            trainer = built.trainer()
            trainer.fit(built.data.train, saved=False, verbose=False)
            losses.append(trainer.train_loss_dict)
            scores.append(all_scores(built.model))
        assert losses[0] == losses[1]
        assert torch.equal(scores[0], scores[1])
        assert not self.is_trained() or losses[0] != losses[2]

    def test_resumed_training_equals_uninterrupted_training(self, tmp_path: Path) -> None:
        """Training that stopped after two of four epochs goes on as if it had not."""
        self.needs_training()
        whole, rest = losses_of_whole_and_resumed(lambda run_id, **keys: self.build(tmp_path, run_id, **keys), tmp_path)
        assert len(whole) == 4
        assert rest == whole

    def test_data_with_a_known_answer_are_learned(self, tmp_path: Path) -> None:
        """Users hold all items of their block but one: the loss falls, where there is one, and that item comes first."""
        held_out = write_blocks(tmp_path)
        split = {"split": {"RS": [1.0, 0.0, 0.0]}}
        built = self.build(tmp_path, **{**self.plain_keys(), "eval_args": split, **self.learning_keys})
        trainer = built.trainer()
        trainer.fit(built.data.train, saved=False, verbose=False)
        losses = trainer.train_loss_dict
        assert not self.is_trained() or losses[max(losses)] < losses[0]
        assert share_of_hits(built, held_out) >= self.least_hits

    def test_neither_negatives_nor_recommendations_are_training_positives(self, tmp_path: Path) -> None:
        """Nothing that a user has is drawn or chosen as a negative, or ranked among the first by the evaluation."""
        built = self.build(tmp_path)
        model, positives = built.model, training_pairs(built)
        negatives: set[tuple[int, int]] = set()
        if getattr(model, "uses_hnlm_data", False) and hasattr(model, "on_negatives"):
            model.on_negatives = lambda users, items: negatives.update(zip(users.tolist(), items.tolist(), strict=True))
        begin_epoch(model, 0)
        for batch in built.data.train:
            if model.input_type is InputType.PAIRWISE:
                drawn = batch[model.NEG_ITEM_ID].view(len(batch), -1)
                for column in drawn.unbind(1):
                    negatives.update(zip(batch[model.USER_ID].tolist(), column.tolist(), strict=True))
            loss_parts(model, batch)
        assert not negatives & positives
        assert (len(negatives) > 50) == (model.input_type is InputType.PAIRWISE)
        trainer, top = built.trainer(), []
        trainer.tot_item_num, trainer.item_tensor = built.data.dataset.item_num, None
        model.eval()
        for batch in built.data.test:
            _, scores, _, _ = trainer._full_sort_batch_eval(batch)
            assert not torch.isnan(scores).any()
            users = batch[0][model.USER_ID].tolist()
            top += [(user, item) for user, row in zip(users, scores.topk(5).indices.tolist(), strict=True) for item in row]
        assert len(top) > 100
        assert not set(top) & positives
        assert all(item > 0 for _, item in top)

    def test_predict_equals_full_sort_predict(self, tmp_path: Path) -> None:
        """The score of a pair is that of the whole ranking, after a step of training."""
        built = self.build(tmp_path, epochs=1)
        built.trainer().fit(built.data.train, saved=False, verbose=False)
        model = built.model
        expected = all_scores(model)
        users, items = torch.meshgrid(torch.arange(1, model.n_users), torch.arange(model.n_items), indexing="ij")
        pairs = Interaction({model.USER_ID: users.reshape(-1), model.ITEM_ID: items.reshape(-1)})
        with torch.no_grad():
            found = model.predict(pairs).view_as(expected)
        assert expected[:, 1:].std() > 0
        assert torch.allclose(found[:, 1:], expected[:, 1:], atol=1e-5)

    def test_without_its_semantic_part_it_is_the_reference_model(self, tmp_path: Path) -> None:
        """Loss, gradients and the scores after a step are those of :attr:`parity_with`."""
        if self.parity_with is None:
            pytest.skip("no parity_with is named")
        reference_class = self.parity_with if isinstance(self.parity_with, type) else get_model_class(self.parity_with)
        built = self.build(tmp_path, **self.plain_keys(), **self.parity_keys)
        config, models = built.config, [built.model]
        init_seed(config["seed"], config["reproducibility"])
        models.append(on_current_scipy(reference_class)(config, built.data.train._dataset).to(config["device"]))
        ours, reference = models
        batch, losses = next(iter(built.data.train)), []
        for name, parameter in reference.named_parameters():
            assert torch.equal(parameter, ours.get_parameter(name)), name
        for model in models:
            torch.manual_seed(5)
            begin_epoch(model, 0)
            losses.append(torch.stack([part.sum() for part in loss_parts(model, batch)]).sum())
            losses[-1].backward()  # type: ignore[no-untyped-call]
        assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
        for name, parameter in reference.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-5, name
            assert torch.allclose(parameter.grad, ours.get_parameter(name).grad, atol=1e-5), name
        with torch.no_grad():
            for model in models:
                for parameter in model.parameters():
                    parameter.sub_(5.0 * parameter.grad)
        expected = all_scores(reference)
        assert expected.std() > 1e-3
        assert torch.allclose(all_scores(ours), expected, atol=1e-5)

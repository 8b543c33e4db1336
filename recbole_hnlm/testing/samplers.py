"""What holds for every negative sampler, whatever its formula."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

from recbole_hnlm.data.semantics import TextTables
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.negative_sampler.base import SamplerContext, SelectionInputs
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.testing.data import (
    build,
    losses_of_whole_and_resumed,
    random_vectors,
    share_of_hits,
    training_pairs,
    write_blocks,
    write_random,
)
from recbole_hnlm.utils.errors import HNLMError
from recbole_hnlm.utils.registry import get_negative_sampler

if TYPE_CHECKING:
    from pathlib import Path

    from recbole_hnlm.negative_sampler.base import Negatives, Selector
    from recbole_hnlm.testing.data import Built

__all__ = ["SamplerConformance"]

_SIZE = 6


class SamplerConformance:
    """Inherit, name the sampler, and pytest checks it on tiny data; no LLM and no download is needed.

    Attributes:
        sampler: name, or ``package.module:SAMPLER``.
        keys: keys of the configuration for all checks.
        model: a model that reads the key ``negative_sampler``.
        learning_keys: keys of the check that data with a known answer are learned.
        least_hits: share of users whose forced answer must come first there.
    """

    sampler: ClassVar[str]
    keys: ClassVar[dict[str, Any]] = {}
    model: ClassVar[str | type[Any]] = "HNLMLightGCN"
    learning_keys: ClassVar[dict[str, Any]] = {"epochs": 30, "num_candidates": 2}
    least_hits: ClassVar[float] = 0.9

    @pytest.fixture(autouse=True)
    def _in_empty_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_random(tmp_path)

    def build(self, folder: Path, run_id: str = "conformance", **keys: Any) -> Built:
        """Build the model with the sampler, on the dataset in a folder."""
        # The items' own text serves samplers that read texts: it needs no LLM.
        fixed = {"negative_route": "none", "alignment_weight": 0.0, "alignment_source": "text", "num_candidates": 4}
        return build(folder, self.model, run_id, **{**fixed, "negative_sampler": self.sampler, **self.keys, **keys})

    def selector(self, built: Built, hop_sizes: tuple[int, ...], with_texts: bool) -> Selector:
        """Build the sampler's selector for layers of these widths, from a fixed seed."""
        training = TrainingInteractions.from_dataset(built.data.train._dataset)
        texts = TextTables(random_vectors(training), training, "text", torch.device("cpu")) if with_texts else None
        sizes = (built.config.settings, training.n_users, training.n_items, hop_sizes)
        torch.manual_seed(3)
        selector: Selector = get_negative_sampler(self.sampler).build(
            SamplerContext(*sizes, lambda: training, texts, torch.device("cpu"), 3)
        )
        return selector

    def inputs(self, built: Built, n_hops: int, dtype: torch.dtype = torch.float32) -> SelectionInputs:
        """Return a batch with embeddings drawn from a fixed seed; 0 layers leave the fields of layers empty."""
        batch, model = next(iter(built.data.train)), built.model
        draw = torch.Generator().manual_seed(4)

        def table(rows: int) -> torch.Tensor:
            return torch.randn(rows, _SIZE, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

        hops = [[table(rows) for _ in range(max(n_hops, 1))] for rows in (model.n_users, model.n_items)]
        propagated = Propagated.of_hops(tuple(hops[0]), tuple(hops[1]), "mean")
        if n_hops == 0:
            propagated = replace(propagated, user_hops=(), item_hops=())
        candidates = batch[model.NEG_ITEM_ID].view(len(batch), -1)
        return SelectionInputs(batch[model.USER_ID], batch[model.ITEM_ID], candidates, propagated, built.config.settings)

    def choose(self, built: Built, selector: Selector, inputs: SelectionInputs, epochs: int = 1, seed: int = 5) -> Negatives:
        """Start so many epochs and choose once in each, from a fixed seed; return the last choice."""
        torch.manual_seed(seed)
        for _ in range(epochs):
            selector.start_epoch(selector.epoch + 1, lambda: (inputs.user_all.detach(), inputs.item_all.detach()))
            negatives = selector.select(inputs)
        return negatives

    def layer_counts(self) -> tuple[int, ...]:
        """Return with how many layers the sampler must work: none at all where it does not declare that it reads them."""
        return (1, 3) if get_negative_sampler(self.sampler).reads_hops else (0,)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_choice_has_the_declared_form(self, tmp_path: Path, dtype: torch.dtype) -> None:
        """Shapes, types, and names of loss and counts are those of ``Negatives``; nothing undeclared is needed."""
        built, declared = self.build(tmp_path), get_negative_sampler(self.sampler)
        for n_hops in self.layer_counts():
            inputs = self.inputs(built, n_hops, dtype)
            size = len(inputs.users)
            assert inputs.candidates.shape == (size, 4 if declared.needs_candidates else 1)
            selector = self.selector(built, (_SIZE,) * max(n_hops, 1), declared.reads_text).to(dtype)
            chosen = self.choose(built, selector, inputs)
            assert chosen.items.shape == (size,)
            assert chosen.items.dtype == torch.int64
            if chosen.embeddings is not None:
                assert chosen.embeddings.shape == (size, _SIZE)
                assert chosen.embeddings.dtype == dtype
                assert chosen.embeddings.requires_grad
            assert (chosen.loss is None) == (selector.loss_name is None)
            assert chosen.loss is None or (chosen.loss.dim() == 0 and bool(torch.isfinite(chosen.loss)))
            assert set(chosen.counts) == set(selector.count_names)
            assert all(0 <= count <= size for count in chosen.counts.values())

    def test_choice_is_determined_by_torchs_seed(self, tmp_path: Path) -> None:
        """Nothing else is drawn from, not even by the construction."""
        built, declared = self.build(tmp_path), get_negative_sampler(self.sampler)
        inputs = self.inputs(built, self.layer_counts()[-1])
        sizes = (_SIZE,) * max(self.layer_counts()[-1], 1)
        chosen = [
            self.choose(built, self.selector(built, sizes, declared.reads_text), inputs, epochs=2).items for _ in range(2)
        ]
        assert torch.equal(*chosen)

    def test_memory_and_weights_are_all_that_a_selector_is(self, tmp_path: Path) -> None:
        """A new selector that takes up memory, weights and epoch of another chooses as that one goes on to choose."""
        built, declared = self.build(tmp_path), get_negative_sampler(self.sampler)
        inputs = self.inputs(built, self.layer_counts()[-1])
        sizes = (_SIZE,) * max(self.layer_counts()[-1], 1)
        first, second = (self.selector(built, sizes, declared.reads_text) for _ in range(2))
        self.choose(built, first, inputs, epochs=2)
        memory = copy.deepcopy(first.memory())
        assert all(isinstance(value, torch.Tensor) for value in memory.values())
        second.load_state_dict(first.state_dict())
        second.recall(memory)
        second.epoch = first.epoch
        assert set(second.memory()) == set(memory)
        assert all(torch.equal(second.memory()[name], value) for name, value in memory.items())
        assert torch.equal(*(self.choose(built, each, inputs, seed=6).items for each in (first, second)))

    def test_what_it_declares_holds(self, tmp_path: Path) -> None:
        """The least number of candidates suffices, and texts are needed if and only if it reads them."""
        declared, least = get_negative_sampler(self.sampler), get_negative_sampler(self.sampler).least_candidates
        built = self.build(tmp_path, num_candidates=least, dns_top=1)
        layers = self.layer_counts()[-1]
        inputs, sizes = self.inputs(built, layers), (_SIZE,) * max(layers, 1)
        assert inputs.candidates.shape[1] == (least if declared.needs_candidates else 1)
        assert len(self.choose(built, self.selector(built, sizes, declared.reads_text), inputs).items) == len(inputs.users)
        assert built.config.settings.reads_text_vectors == declared.reads_text
        if least > 1:
            with pytest.raises(HNLMError, match=f"needs num_candidates >= {least}"):
                self.build(tmp_path, num_candidates=least - 1)
        if declared.reads_text:
            with pytest.raises(HNLMError, match="text"):
                self.choose(built, self.selector(built, sizes, with_texts=False), inputs)

    def test_chosen_items_are_no_training_positives(self, tmp_path: Path) -> None:
        """Over two epochs, neither a user's training items nor the padding id is chosen; the loss is finite."""
        built = self.build(tmp_path)
        model = built.model
        pairs: set[tuple[int, int]] = set()
        model.on_negatives = lambda users, items: pairs.update(zip(users.tolist(), items.tolist(), strict=True))
        for epoch in range(2):
            model.start_epoch(epoch)
            for batch in built.data.train:
                parts = dict(zip(model.loss_part_names, model.calculate_loss(batch), strict=True))
                assert all(bool(torch.isfinite(part)) for part in parts.values())
        assert len(pairs) > 100
        assert not pairs & training_pairs(built)
        assert all(item > 0 for _, item in pairs)

    def test_every_parameter_learns_and_the_backbone_starts_as_ever(self, tmp_path: Path) -> None:
        """The sampler's weights are trained, and drawing them leaves the backbone's initial weights as they are."""
        reference = self.build(tmp_path, negative_sampler="uniform").model
        built = self.build(tmp_path)
        model, trainer = built.model, built.trainer()
        for name, parameter in reference.named_parameters():
            assert torch.equal(parameter, model.get_parameter(name)), name
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        model.start_epoch(0)
        sum(model.calculate_loss(next(iter(built.data.train)))).backward()
        trainer.optimizer.step()
        assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []

    def test_data_with_a_known_answer_are_learned(self, tmp_path: Path) -> None:
        """Users hold all items of their block but one, which must come first."""
        held_out = write_blocks(tmp_path)
        built = self.build(tmp_path, **{"eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}}, **self.learning_keys})
        built.trainer().fit(built.data.train, saved=False, verbose=False)
        assert share_of_hits(built, held_out) >= self.least_hits

    def test_resumed_training_equals_uninterrupted_training(self, tmp_path: Path) -> None:
        """Training that stopped after two of four epochs goes on as if it had not, memory included."""
        whole, rest = losses_of_whole_and_resumed(lambda run_id, **keys: self.build(tmp_path, run_id, **keys), tmp_path)
        assert len(whole) == 4
        assert rest == whole

"""The fine-tuned LLM of a training split: found or made, evaluated, and used."""

from __future__ import annotations

import gc
import logging
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.finetune.adapter_files import (
    AdapterIdentity,
    finetune_keys,
    load_adapter,
    read_manifest,
    save_adapter,
    whole_state,
)
from recbole_hnlm.finetune.checkpoints import complete_checkpoints, step_of
from recbole_hnlm.finetune.evaluation import HeldOut, baselines, choose_heldout_users, evaluate_encoder, heldout_triples
from recbole_hnlm.finetune.loop import finetune
from recbole_hnlm.finetune.lora import build_encoder, max_positions
from recbole_hnlm.finetune.objective import FinetuneObjective, TripleCollator
from recbole_hnlm.finetune.prompting import PairPrompts, prompting_digest
from recbole_hnlm.finetune.ranks import Ranks
from recbole_hnlm.finetune.texts import FinetuneTexts, finetune_texts
from recbole_hnlm.finetune.transfer import TextMap, fit_text_map
from recbole_hnlm.finetune.triples import TripleDataset
from recbole_hnlm.llm.model_loading import identify
from recbole_hnlm.llm.sharding import fsdp_requested, require_fsdp
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.files import exclusive_writer, require_entries, text_digest, write_manifest
from recbole_hnlm.utils.files import read_manifest as read_whole_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from recbole_hnlm.data.teacher import Teacher
    from recbole_hnlm.finetune.encoder import HardNegativeEncoder
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.encode import ItemTextVectors

__all__ = ["FinetunedLLM"]

_CURVE = "curve.json"  # evaluations so far, next to the checkpoints
_logger = logging.getLogger(__name__)


class FinetunedLLM:
    """The fine-tuned LLM of a training split.

    Everything is loaded when first needed: a run that has all its vectors only reads the adapter's manifest.

    Args:
        context: settings, training split, texts and teacher.
        item_texts: makes or reads the vectors of the items' own texts, for use on other datasets.
    """

    def __init__(self, context: StageContext, item_texts: Callable[[], ItemTextVectors]) -> None:
        self.context = context
        self.settings = context.settings
        self.item_text_vectors = item_texts
        self._encoder: HardNegativeEncoder | None = None
        self._tokenizer: Any = None

    @cached_property
    def texts(self) -> FinetuneTexts:
        """Texts of users and items."""
        return finetune_texts(self.context)

    @cached_property
    def identity(self) -> AdapterIdentity:
        """What the adapter belongs to; found without loading the LLM."""
        return self._identity_of_finetuning()

    def _identity_of_finetuning(self) -> AdapterIdentity:
        settings = self.settings
        llm = identify(settings.model_copy(update={"llm_quantization": settings.finetune_quantization}), self.context.device)
        keys = finetune_keys(settings)
        return AdapterIdentity(
            model=llm.key(),
            teacher=self.context.teacher.vectors_digest,
            prompts=prompting_digest(settings),
            inputs=self.texts.digest,
            keys=text_digest([f"{name}={keys[name]!r}" for name in sorted(keys)])[:16],
        )

    @property
    def folder(self) -> Path:
        """Folder of the adapter."""
        return self.context.split_artifacts / "finetuned" / self.identity.digest

    @property
    def _work(self) -> Path:
        """Folder of the checkpoints while the LLM is fine-tuned."""
        return self.folder.with_name(self.folder.name + ".work")

    @property
    def exists(self) -> bool:
        """Whether the adapter was saved."""
        return (self.folder / "manifest.json").exists()

    @cached_property
    def heldout_users(self) -> NDArray[np.int64]:
        """Users whose rows fine-tuning never sees."""
        count, seed = self.settings.finetune_heldout_users, self.settings.finetune_seed
        return choose_heldout_users(self.context.training, count, seed, finetuned_here=self.settings.finetune_from is None)

    def _dataset(self, users: NDArray[np.int64], seed: int, *, random: bool = False) -> TripleDataset:
        settings = self.settings
        return TripleDataset(
            self.context.training,
            self.context.teacher,
            candidates=1 if random else settings.teacher_candidates,
            guard_share=0.0 if random else settings.teacher_guard_share,
            seed=seed,
            users=users,
            item_mask=self.context.items_with_text,
        )

    @cached_property
    def heldout(self) -> HeldOut:
        """One triple of every held-out user; always with the teacher's hard negative, also when fine-tuning on random ones.

        Raises:
            ConfigError: there are no held-out users.
        """
        if not len(self.heldout_users):
            raise ConfigError(
                f"finetune_heldout_users is {self.settings.finetune_heldout_users} and at most a tenth of the users is held "
                "out, which leaves none to evaluate; raise it, or use a dataset with at least ten users"
            )
        settings = self.settings
        dataset = self._dataset(self.heldout_users, settings.teacher_seed + 1)
        return heldout_triples(dataset, self.context.training, self.context.items_with_text, settings.finetune_seed)

    def untuned(self) -> HardNegativeEncoder:
        """Load the LLM with untrained LoRA layers and projections, in place of what was loaded before."""
        return self._build(self.context.teacher)

    def _build(self, teacher: Teacher, *, host_memory: bool = False) -> HardNegativeEncoder:
        self._release()
        self._encoder, self._tokenizer = build_encoder(self.settings, teacher, self.context.device, host_memory=host_memory)
        return self._encoder

    def _release(self) -> None:
        """Free the memory of the loaded LLM: two large ones at a time may not fit."""
        self._encoder = None
        # The Trainer and what it trained refer to each other.
        gc.collect()

    @cached_property
    def prompts(self) -> PairPrompts:
        """Sequences for the loaded LLM's tokenizer."""
        if self._encoder is None:
            self.untuned()
        if self._encoder is None:
            raise ValueError("no LLM is loaded")
        return PairPrompts(self._tokenizer, self.settings, max_positions(self._encoder))

    def encoder(self) -> HardNegativeEncoder:
        """Return the fine-tuned encoder.

        Raises:
            ArtifactError: it was not fine-tuned, or the adapter is damaged or of something else.
        """
        encoder = self.untuned()
        load_adapter(self.folder, encoder, self.identity)
        return encoder

    def evaluate(self, encoder: HardNegativeEncoder) -> dict[str, float]:
        """Rank the held-out users' hard negatives with an encoder."""
        return evaluate_encoder(encoder, self.prompts, self.texts, self.heldout, self.settings.finetune_batch_tokens)

    def evaluate_llm_alone(self) -> dict[str, float]:
        """Rank the held-out users' hard negatives with the unmodified LLM: all of its layers, text alone, nothing fine-tuned.

        What the row ``before`` of an evaluation has beyond it comes from the projections, which show the LLM the teacher's
        vectors before anything is learnt.
        """
        self._release()
        settings = self.settings.model_copy(update={"finetune_soft_tokens": False, "finetune_layers": None})
        alone = FinetunedLLM(replace(self.context, settings=settings), self.item_text_vectors)
        encoder = alone.untuned()
        return evaluate_encoder(encoder, alone.prompts, self.texts, self.heldout, settings.finetune_batch_tokens)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The same ranking at random, by popularity and by the teacher."""
        return baselines(self.heldout, self.context.training, self.context.teacher, self.settings.finetune_seed)

    def ensure(self, *, evaluate_every: int | None = None, show_progress: bool = True) -> dict[str, Any]:
        """Fine-tune unless it was done before; returns the adapter's manifest.

        Args:
            evaluate_every: steps between evaluations on the held-out users, for the curve in the manifest; None makes none.
            show_progress: whether to show the progress bar.

        Raises:
            HNLMError: no memory, no disk space, divergence, or texts or a teacher that cannot be obtained.
        """
        if not self.exists:
            ranks = Ranks.from_environment()
            ranks.refuse_recbole_launcher("fine-tuning the LLM", "finetune")
            # Ranks of one launch fine-tune together, so only the first holds the lock against other launches.
            with exclusive_writer(self._work) if ranks.first else nullcontext():
                if not self.exists or ranks.count > 1:
                    self._finetune(ranks, evaluate_every if ranks.count == 1 else None, show_progress)
        if not TextMap.exists(self.folder) and Ranks.from_environment().first:
            self._keep_text_map()
        return read_manifest(self.folder)

    def described_items(self, texts: ItemTextVectors) -> NDArray[np.int64]:
        """Return the items with a text and training interactions; vectors of others say nothing."""
        chosen = np.bincount(self.context.training.items, minlength=self.context.training.n_items) > 0
        return np.flatnonzero(chosen & texts.mask)

    def _keep_text_map(self) -> None:
        """Save with the adapter what it takes to use it on another dataset."""
        texts, vectors = self.item_text_vectors(), self.context.teacher.item_vectors
        items = self.described_items(texts)
        text_map = fit_text_map(texts.vectors[items], vectors[items], texts.encoder)
        text_map.save(self.folder, self.context.dataset_name)
        _logger.info("texts of left-out items predict %.1f%% of the teacher's item variance", 100 * text_map.explained)

    def controls(self) -> dict[str, dict[str, float]]:
        """Return further rows for the report of an evaluation, by name."""
        return {}

    def provenance(self) -> dict[str, Any]:
        """Return what the record of an evaluation says about the adapter's origin."""
        return {}

    def _kept_curve(self) -> list[dict[str, float]]:
        """Return the evaluations of an interrupted fine-tuning up to the checkpoint from which it continues."""
        checkpoints, path = complete_checkpoints(self._work), self._work / _CURVE
        if not checkpoints or not path.is_file():
            return []
        remedy = "delete that file, and the curve begins here"
        content = read_whole_manifest(path, remedy)
        require_entries(content, path, {"evaluations": list}, remedy)
        curve: list[dict[str, float]] = content["evaluations"]
        return [point for point in curve if point["step"] <= step_of(checkpoints[-1])]

    def _finetune(self, ranks: Ranks, evaluate_every: int | None, show_progress: bool) -> None:
        settings, start = self.settings, time.perf_counter()
        sharded = fsdp_requested()
        if sharded:
            require_fsdp(settings, self.context.device, ranks.count)
        ranks.join()
        # FSDP moves an LLM to the GPUs layer by layer. One in 4 bits is packed on the GPU, where it is small.
        host_memory = sharded and settings.finetune_quantization == "none"
        encoder, curve = self._build(self.context.teacher, host_memory=host_memory), self._kept_curve()
        kept = np.setdiff1d(np.unique(self.context.training.users), self.heldout_users)
        objective = FinetuneObjective(
            encoder, temperature=settings.finetune_temperature, contrast_weight=settings.finetune_contrast_weight
        )

        def note(step: int) -> None:
            curve.append({"step": step, **self.evaluate(encoder)})
            write_manifest(self._work / _CURVE, {"evaluations": curve})
            _logger.info("step %d: recall@50 %.3f", step, curve[-1]["recall@50"])

        losses = finetune(
            objective,
            self._dataset(kept, settings.teacher_seed, random=settings.finetune_negatives == "random"),
            TripleCollator(self.prompts, self.texts, self.context.training),
            settings,
            self._work,
            device=self.context.device,
            show_progress=show_progress,
            on_evaluate=note if evaluate_every else None,
            evaluate_every=evaluate_every or 1,
        )
        seconds = time.perf_counter() - start
        details = {
            "steps": settings.finetune_steps,
            "seconds": round(seconds, 1),
            "loss": losses,
            "recall": curve,
            "truncated": dict(self.prompts.truncated),
            "keys": finetune_keys(settings),
        }
        state = whole_state(encoder)
        if ranks.first:
            save_adapter(self.folder, state, self.identity, details)
        ranks.wait()
        for path in self._work.glob("checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)
        (self._work / _CURVE).unlink(missing_ok=True)
        cut = ", ".join(f"{count:,} of {field}" for field, count in self.prompts.truncated.items()) or "none"
        _logger.info(
            "fine-tuned for %d steps in %.0f s; texts cut to their budget: %s; adapter: %s",
            details["steps"],
            seconds,
            cut,
            self.folder,
        )

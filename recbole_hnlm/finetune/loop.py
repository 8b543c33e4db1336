"""The training loop: transformers' Trainer on accelerate, saving LoRA weights and projections alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from recbole_hnlm.finetune.adapter_files import put_state, whole_state
from recbole_hnlm.finetune.checkpoints import complete_checkpoints, remove_incomplete, seal_checkpoint, step_of
from recbole_hnlm.finetune.triples import EpochSampler
from recbole_hnlm.llm.model_loading import compute_dtype
from recbole_hnlm.llm.sharding import fsdp_requested
from recbole_hnlm.utils.environment import is_out_of_memory
from recbole_hnlm.utils.errors import ArtifactError, BackendError, HNLMError
from recbole_hnlm.utils.files import disk_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.finetune.objective import FinetuneObjective, TripleCollator
    from recbole_hnlm.finetune.triples import TripleDataset

__all__ = ["finetune"]

_WEIGHTS = "trained.safetensors"
_WHOLE_OPTIMIZER = "optimizer.pt"  # the Trainer's; under FSDP it writes a folder of parts
_logger = logging.getLogger(__name__)


class _Progress(TrainerCallback):
    """One progress bar with an ETA and the latest loss, in the place of transformers' own output."""

    def __init__(self, show: bool, on_evaluate: Callable[[int], None] | None, every: int) -> None:
        self._show, self._on_evaluate, self._every = show, on_evaluate, every
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="fine-tuning",
            unit="step",
            dynamic_ncols=True,
            disable=not (self._show and state.is_world_process_zero),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        if self._on_evaluate is not None and state.global_step % self._every == 0 and state.global_step < state.max_steps:
            self._on_evaluate(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_kwargs: Any) -> None:
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()


class _Arguments(TrainingArguments):
    """TrainingArguments that fine-tune on one device in a process, whatever else is visible.

    The Trainer would spread each batch over all GPUs that one process sees (``nn.DataParallel``). The loss compares the triples
    of a batch with each other, and what ``finetune_batch_size`` says would no longer be its size.
    """

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


class _FinetuneTrainer(Trainer):
    """The Trainer with two learning rates, our order of triples, and checkpoints of the trained weights alone."""

    optimizer: Any

    def __init__(self, *, settings: HNLMSettings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(dataset, self._settings.finetune_seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            parts: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
            for name, parameter in (self.model if model is None else model).named_parameters():
                if parameter.requires_grad:
                    parts["projections." in name].append(parameter)
            settings = self._settings
            groups = [
                {"params": parts[False], "lr": settings.finetune_learning_rate},
                {"params": parts[True], "lr": settings.finetune_projection_learning_rate},
            ]
            self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_kwargs: Any) -> Any:
        loss = model(**inputs)["loss"]
        if not bool(torch.isfinite(loss)):
            kept = complete_checkpoints(Path(self.args.output_dir))
            last = f"the checkpoint of step {step_of(kept[-1])} is kept" if kept else "no checkpoint was written yet"
            raise HNLMError(
                f"fine-tuning diverged: the loss is {float(loss.detach())} at step {self.state.global_step + 1}; {last}; "
                "lower finetune_learning_rate and finetune_projection_learning_rate, or raise finetune_temperature"
            )
        return (loss, {}) if return_outputs else loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # The Trainer's own would, under FSDP, gather or write the whole LLM.
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_file  # noqa: PLC0415

        # In every process, since gathering takes all; only one of them writes.
        state = whole_state(self.accelerator.unwrap_model(self.model).encoder)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(state, folder / _WEIGHTS)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        # Each process has written its random state by then.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal_checkpoint(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        from accelerate.utils import save_fsdp_optimizer  # noqa: PLC0415

        # As the Trainer does, without the LLM's frozen weights, which it would write into every checkpoint.
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from safetensors.torch import load_file  # noqa: PLC0415

        weights = Path(resume_from_checkpoint) / _WEIGHTS
        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise ArtifactError(f"{weights} is damaged ({error}); delete {weights.parent} and run again") from error
        put_state(self.accelerator.unwrap_model(model or self.model).encoder, state, str(weights))


def _require_own_form(checkpoint: Path) -> None:
    """Refuse a checkpoint whose optimizer this launch cannot read: FSDP keeps it in parts.

    Raises:
        ArtifactError: it was written with FSDP and the launch is without, or the other way round.
    """
    whole = (checkpoint / _WHOLE_OPTIMIZER).is_file()
    if whole == fsdp_requested():
        there, here = ("without", "with") if whole else ("with", "without")
        raise ArtifactError(
            f"{checkpoint} was written {there} FSDP and this launch is {here} it: launch as before, or delete "
            f"{checkpoint.parent} to begin anew"
        )


def _arguments(settings: HNLMSettings, folder: Path, device: torch.device) -> TrainingArguments:
    half = device.type == "cuda" and compute_dtype(settings.llm_dtype, str(device)) == torch.float16
    return _Arguments(
        output_dir=str(folder),
        max_steps=settings.finetune_steps,
        per_device_train_batch_size=settings.finetune_batch_size,
        gradient_accumulation_steps=settings.finetune_accumulation,
        learning_rate=settings.finetune_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(10, settings.finetune_steps // 2),
        weight_decay=0.0,
        max_grad_norm=1.0,
        # The encoder casts by itself; this scales the loss, without which small gradients are 0 in float16.
        fp16=half,
        gradient_checkpointing=settings.finetune_gradient_checkpointing,
        save_strategy="steps",
        save_steps=settings.finetune_save_steps,
        save_total_limit=2,
        logging_steps=10,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_drop_last=True,
        use_cpu=device.type == "cpu",
        seed=settings.finetune_seed,
        ddp_find_unused_parameters=False,
        # The buffers are the teacher's vectors of all users and items, the same in every process and for good.
        ddp_broadcast_buffers=False,
    )


def finetune(
    objective: FinetuneObjective,
    dataset: TripleDataset,
    collator: TripleCollator,
    settings: HNLMSettings,
    folder: Path,
    *,
    device: str,
    show_progress: bool = True,
    on_evaluate: Callable[[int], None] | None = None,
    evaluate_every: int = 50,
) -> list[dict[str, float]]:
    """Fine-tune for ``finetune_steps`` steps, continuing from the last checkpoint in ``folder``.

    Data parallelism and FSDP come from the launcher: ``torchrun`` or ``accelerate launch`` around the same command. Under FSDP
    the objective's parameters come back spread over the processes.

    Args:
        objective: holds the encoder; its trained parameters change.
        dataset: triples.
        collator: makes batches of them.
        settings: the ``finetune_`` keys are read.
        folder: checkpoints; deleted by the caller when all is kept elsewhere.
        device: torch device.
        show_progress: whether to show the progress bar.
        on_evaluate: called with the step after every ``evaluate_every`` steps but the last.
        evaluate_every: see ``on_evaluate``.

    Returns:
        The loss curve: ``{"step": ..., "loss": ...}``, means over 10 steps.

    Raises:
        HNLMError: the loss is not a number (names the step; the last checkpoint is kept).
        BackendError: memory does not suffice (suggests smaller keys).
        ArtifactError: the disk does not take a checkpoint, or the one to continue from was written with FSDP and this launch is
            without (or the other way round).
    """
    checkpoints = remove_incomplete(folder)
    if settings.finetune_steps == 0:
        return []
    if checkpoints:
        _require_own_form(checkpoints[-1])
    arguments = _arguments(settings, folder, torch.device(device))
    try:
        trainer = _FinetuneTrainer(
            settings=settings, model=objective, args=arguments, train_dataset=dataset, data_collator=collator
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(_Progress(show_progress, on_evaluate, evaluate_every))
        if checkpoints:
            _logger.info("fine-tuning continues from step %d", step_of(checkpoints[-1]))
        trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)
    except (OSError, SafetensorError, torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if (reason := disk_failure(error)) is not None:
            raise ArtifactError(f"cannot write a checkpoint below {folder}: {reason}; make room, then run again") from error
        if not is_out_of_memory(error):
            raise
        raise BackendError(
            f"memory ran out on {device} while fine-tuning with finetune_batch_size {settings.finetune_batch_size} and "
            f"finetune_max_length {settings.finetune_max_length}; lower either (finetune_accumulation keeps the effective "
            "batch), or set finetune_gradient_checkpointing to true"
        ) from error
    history = trainer.state.log_history
    return [{"step": float(entry["step"]), "loss": float(entry["loss"])} for entry in history if "loss" in entry]

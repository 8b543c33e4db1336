"""The LLM in 4 bits with LoRA layers on it, ready to be fine-tuned or to be run with fine-tuned weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recbole_hnlm.finetune.encoder import HardNegativeEncoder
from recbole_hnlm.llm.model_loading import compute_dtype, load_model
from recbole_hnlm.utils.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.teacher import Teacher

__all__ = ["build_encoder", "keep_layers", "max_positions", "require_targets"]


def build_encoder(
    settings: HNLMSettings, teacher: Teacher, device: str, *, lora: bool = True, host_memory: bool = False
) -> tuple[HardNegativeEncoder, PreTrainedTokenizerBase]:
    """Load the LLM as ``finetune_quantization`` says and put LoRA layers and projections on it, none of them trained yet.

    An untrained LoRA layer adds zero, so what comes back is the LLM as it was, behind random projections.

    Args:
        settings: ``llm_*``, ``finetune_quantization``, ``lora_*``, ``finetune_pooling`` and ``finetune_seed`` are read.
        teacher: supplies the collaborative vectors.
        device: torch device.
        lora: whether to add LoRA layers.
        host_memory: leave the LLM in host memory, in the type that it is to have on the device.

    Raises:
        BackendError: the LLM cannot be loaded, or bitsandbytes cannot work on the device.
        ConfigError: ``lora_targets`` names layers that the LLM lacks.
        MissingDependencyError: bitsandbytes is not installed.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # noqa: PLC0415 -- takes seconds

    dtype = compute_dtype(settings.llm_dtype, device)
    own = {"llm_quantization": settings.finetune_quantization, "llm_dtype": str(dtype).removeprefix("torch.")}
    try:
        loaded = load_model(settings.model_copy(update=own), "cpu" if host_memory else device)
    except BackendError as error:
        if settings.finetune_quantization == "none":
            raise
        raise BackendError(f"{error}; if bitsandbytes is what fails, use --finetune_quantization=none") from error
    model: Any = loaded.model
    keep_layers(model, settings.finetune_layers)
    # The attention for decoding on a CPU is made for inference; fine-tuning takes PyTorch's own.
    model.set_attn_implementation("sdpa")
    if settings.finetune_quantization != "none":
        _silence_bitsandbytes()
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.finetune_gradient_checkpointing)
    else:
        model.requires_grad_(requires_grad=False)
    if lora:
        require_targets(model, settings.lora_targets)
        config = LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=list(settings.lora_targets),
            task_type="CAUSAL_LM",
        )
        # torch.manual_seed seeds the GPUs as well; of these the LLM's own is the one that is used.
        with torch.random.fork_rng([torch.device(device)] if torch.device(device).type == "cuda" else []):
            torch.manual_seed(settings.finetune_seed)
            model = get_peft_model(model, config)
    encoder = HardNegativeEncoder(
        model,
        teacher,
        pooling=settings.finetune_pooling,
        dtype=dtype,
        seed=settings.finetune_seed,
    )
    return encoder, loaded.tokenizer


def keep_layers(model: Any, count: int | None) -> None:
    """Drop the layers of a causal LLM behind the first ``count``; None keeps all.

    Layers in the middle of an LLM represent a text better than the last ones, which prepare the next word (Skean et al., "Layer
    by Layer: Uncovering Hidden Representations in Language Models", arXiv 2502.02013); and fewer layers
    take less time.

    Raises:
        ConfigError: the LLM has fewer layers, or its layers are not where transformers' decoders keep them.
    """
    if count is None:
        return
    decoder = getattr(model, model.base_model_prefix)
    if not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        raise ConfigError(f"finetune_layers cannot shorten a {type(model).__name__}; use --finetune_layers=null")
    if count > len(decoder.layers):
        raise ConfigError(
            f"finetune_layers is {count}, but the LLM has {len(decoder.layers)} layers; lower it, or null for all"
        )
    decoder.layers = decoder.layers[:count]
    decoder.config.num_hidden_layers = count


def require_targets(model: nn.Module, targets: list[str]) -> None:
    """Refuse LoRA targets that are not linear layers of the LLM.

    Raises:
        ConfigError: names the ones that are missing and the linear layers that there are.
    """
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    missing = [target for target in targets if target not in linear]
    if missing:
        raise ConfigError(
            f"lora_targets {', '.join(missing)}: the LLM has no linear layer of that name; its linear layers are "
            f"{', '.join(sorted(linear))}"
        )


def max_positions(encoder: HardNegativeEncoder) -> int | None:
    """Return how many positions the LLM has; None where its configuration does not say."""
    return getattr(encoder.decoder.config, "max_position_embeddings", None)


def _silence_bitsandbytes() -> None:
    """Keep bitsandbytes from reporting each optional kernel that it does without."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

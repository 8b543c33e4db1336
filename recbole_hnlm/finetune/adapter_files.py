"""The files of a fine-tuning: LoRA weights and projections as safetensors, and a manifest that says what they belong to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.settings import keys_affecting
from recbole_hnlm.finetune.tensor_files import TensorArtifact, refuse_endless
from recbole_hnlm.llm.sharding import copy_whole, whole
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.finetune.encoder import HardNegativeEncoder

__all__ = ["AdapterIdentity", "finetune_keys", "load_adapter", "put_state", "read_manifest", "save_adapter", "whole_state"]


def _stored(folder: Path) -> TensorArtifact:
    remedy = f"delete {folder} and fine-tune again"
    return TensorArtifact(folder / "adapter.safetensors", folder / "manifest.json", "adapter", remedy, {"identity": dict})


def finetune_keys(settings: HNLMSettings) -> dict[str, Any]:
    """Return the keys on which the fine-tuned weights depend, besides the LLM, the teacher and the form of the prompts."""
    return {name: getattr(settings, name) for name in keys_affecting(Affects.ADAPTER)}


@dataclass(frozen=True)
class AdapterIdentity:
    """What fine-tuned weights belong to; loading compares every field.

    Attributes:
        model: the LLM, with revision and precision (``ModelIdentity.key``).
        teacher: digest of the teacher.
        prompts: digest of the form of the prompts (``prompting_digest``).
        inputs: digest over the texts of users and items.
        keys: digest over the keys of fine-tuning.
    """

    model: str
    teacher: str
    prompts: str
    inputs: str
    keys: str

    @property
    def digest(self) -> str:
        """16 hex digits over all fields; the name of the folder."""
        return text_digest(asdict(self).values())[:16]


def whole_state(encoder: HardNegativeEncoder) -> dict[str, torch.Tensor]:
    """Return the trained weights by name, each as one piece in host memory; under FSDP every process must call this."""
    return {name: whole(tensor).cpu().contiguous() for name, tensor in encoder.trained_state().items()}


def save_adapter(
    folder: Path, state: Mapping[str, torch.Tensor], identity: AdapterIdentity, details: Mapping[str, Any]
) -> None:
    """Write the trained weights, then the manifest.

    Args:
        folder: made when absent.
        state: trained weights, as :func:`whole_state` returns them.
        identity: what they belong to.
        details: further entries of the manifest: keys, steps, loss curve, counts.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    _stored(folder).write_tensors(state, {"identity": asdict(identity), **details})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of fine-tuned weights.

    Raises:
        ArtifactError: there is none, or it is damaged or of another format.
    """
    stored = _stored(folder)
    if not stored.exists():
        name = stored.manifest_path.name
        raise ArtifactError(f"{folder} holds no fine-tuned adapter (no {name}): run `recbole-hnlm finetune` with the same keys")
    return stored.manifest()


def load_adapter(folder: Path, encoder: HardNegativeEncoder, identity: AdapterIdentity | None = None) -> dict[str, Any]:
    """Put fine-tuned weights into an encoder; never leaves it half loaded.

    Args:
        folder: where :func:`save_adapter` wrote.
        encoder: as :func:`recbole_hnlm.finetune.lora.build_encoder` builds it.
        identity: what the weights must belong to; None accepts any.

    Returns:
        The manifest.

    Raises:
        ArtifactError: the files are absent, damaged, of something else, or do not fit the LLM.
    """
    manifest = read_manifest(folder)
    if identity is not None and manifest["identity"] != asdict(identity):
        found, wanted = manifest["identity"], asdict(identity)
        wrong = [f"{name} is {found.get(name)}, expected {wanted[name]}" for name in wanted if found.get(name) != wanted[name]]
        raise ArtifactError(
            f"the adapter in {folder} belongs to something else: {'; '.join(wrong)}; delete it and fine-tune again"
        )
    stored = _stored(folder)
    put_state(encoder, stored.read_tensors(), str(stored.path))
    return manifest


def put_state(encoder: HardNegativeEncoder, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy trained weights into an encoder.

    Raises:
        ArtifactError: names or shapes differ, or a number is not finite.
    """
    own = dict(encoder.trained_state())
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        unmatched = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
        raise ArtifactError(
            f"{source} does not fit the LLM with these lora_ keys ({len(unmatched)} tensors differ, first {unmatched[0]}); "
            "fine-tune again, or use the keys that it was fine-tuned with"
        )
    refuse_endless(state, source, "delete it and fine-tune again")
    with torch.no_grad():
        for name, tensor in own.items():
            copy_whole(tensor, state[name])

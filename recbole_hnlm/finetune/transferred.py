"""An LLM that was fine-tuned on another dataset, used on this one without fine-tuning."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_hnlm.finetune.adapter_files import AdapterIdentity, finetune_keys, load_adapter, read_manifest
from recbole_hnlm.finetune.run import FinetunedLLM
from recbole_hnlm.finetune.transfer import TextMap, rotated, rotation_onto
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole_hnlm.data.teacher import Teacher
    from recbole_hnlm.finetune.encoder import HardNegativeEncoder
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.encode import ItemTextVectors

__all__ = ["TransferredLLM", "finetuned_llm"]

_logger = logging.getLogger(__name__)


def finetuned_llm(context: StageContext, item_texts: Callable[[], ItemTextVectors]) -> FinetunedLLM:
    """Return the LLM fine-tuned on this dataset, or on another one where ``finetune_from`` names it."""
    return FinetunedLLM(context, item_texts) if context.settings.finetune_from is None else TransferredLLM(context, item_texts)


class TransferredLLM(FinetunedLLM):
    """The adapter that ``finetune_from`` names: its LoRA layers and W, with this dataset's teacher rotated into its space.

    Nothing is fine-tuned and the other dataset's folder is only read. See :mod:`recbole_hnlm.finetune.transfer` for the method.
    """

    @property
    def folder(self) -> Path:
        """Folder of the other dataset's adapter."""
        return Path(str(self.settings.finetune_from))

    @cached_property
    def _source(self) -> dict[str, Any]:
        """The adapter's manifest, after checking that the adapter fits these settings.

        Raises:
            ArtifactError: there is no adapter, or it belongs to another LLM, form of prompts or LoRA.
        """
        manifest = read_manifest(self.folder)
        found, own = manifest["identity"], self._identity_of_finetuning()
        wrong = [
            f"{what} is {found.get(field)}, here it is {getattr(own, field)}"
            for field, what in (("model", "its LLM"), ("prompts", "the digest of the form of its prompts (keys finetune_*)"))
            if found.get(field) != getattr(own, field)
        ]
        keys = manifest.get("keys", {})
        lora = {name: value for name, value in finetune_keys(self.settings).items() if name.startswith("lora_")}
        wrong += [
            f"its {name} is {keys.get(name)}, here it is {value}" for name, value in lora.items() if keys.get(name) != value
        ]
        if wrong:
            raise ArtifactError(
                f"the adapter in {self.folder} (finetune_from) does not fit: {'; '.join(wrong)}; "
                "use the keys that it was fine-tuned with"
            )
        return manifest

    @cached_property
    def _map(self) -> tuple[TextMap, dict[str, Any]]:
        return TextMap.read(self.folder)

    @cached_property
    def identity(self) -> AdapterIdentity:
        """What vectors of the transferred LLM depend on; found without loading the LLM or making a text vector."""
        own = self._identity_of_finetuning()
        source, text_map = self._source["sha256"], self._map[1]["sha256"]
        return AdapterIdentity(
            own.model, own.teacher, own.prompts, own.inputs, text_digest(["transferred", source, text_map])[:16]
        )

    @cached_property
    def rotation(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """R ``[d, d]`` from this dataset's collaborative space to the other one's.

        Raises:
            ArtifactError: the two have different dimensions, or their texts went through different encoders.
            ConfigError: too few items have both text and training interactions.
        """
        text_map, texts, teacher = self._map[0], self.item_text_vectors(), self.context.teacher
        size = teacher.item_vectors.shape[1]
        if len(text_map.bias) != size:
            raise ArtifactError(
                f"the teacher of the adapter in {self.folder} has {len(text_map.bias)} dimensions, this dataset's has {size}; "
                f"set embedding_size to {len(text_map.bias)}"
            )
        if text_map.encoder != texts.encoder:
            raise ArtifactError(
                f"the text map in {self.folder} was made with text_encoder {text_map.encoder}, here it is {texts.encoder}; "
                "set text_encoder to that one"
            )
        known = self.described_items(texts)
        if len(known) < size:
            raise ConfigError(
                f"finetune_from needs at least {size} items with text and training interactions to rotate the teacher's "
                f"{size} dimensions; this dataset has {len(known)}"
            )
        predicted = text_map(texts.vectors[known])
        rotation = rotation_onto(teacher.item_vectors[known], predicted)
        turned = teacher.item_vectors[known] @ rotation
        centred = [part - part.mean(axis=0) for part in (turned, predicted)]
        cosine = float((centred[0] * centred[1]).sum() / (np.linalg.norm(centred[0]) * np.linalg.norm(centred[1])))
        _logger.info(
            "teacher rotated into the space of %s by %s items; cosine to the positions that their texts predict, centred: %.3f",
            self._map[1]["dataset"],
            f"{len(known):,}",
            cosine,
        )
        return rotation

    def _load(self, teacher: Teacher) -> HardNegativeEncoder:
        encoder = self._build(teacher)
        load_adapter(self.folder, encoder)
        return encoder

    def encoder(self) -> HardNegativeEncoder:
        """Return the other dataset's fine-tuned encoder over this dataset's teacher, rotated.

        Raises:
            ArtifactError: the adapter or its text map is absent, damaged, or does not fit.
        """
        _ = self._source
        return self._load(rotated(self.context.teacher, self.rotation))

    def controls(self) -> dict[str, dict[str, float]]:
        """Measure the same adapter over the teacher as it is, not rotated."""
        return {"unrotated": self.evaluate(self._load(self.context.teacher))}

    def provenance(self) -> dict[str, Any]:
        """Say where the adapter was fine-tuned."""
        text_map, manifest = self._map
        return {
            "transferred_from": {"dataset": manifest["dataset"], "adapter": str(self.folder), "sha256": self._source["sha256"]},
            "text_map_explained": text_map.explained,
        }

    def ensure(self, *, evaluate_every: int | None = None, show_progress: bool = True) -> dict[str, Any]:
        """Return the manifest of the adapter; nothing is fine-tuned.

        Raises:
            ArtifactError: see :meth:`encoder`.
        """
        _logger.info("nothing is fine-tuned here: the adapter was fine-tuned on %s (finetune_from)", self._map[1]["dataset"])
        return self._source

    @property
    def exists(self) -> bool:
        """True: there is nothing to fine-tune."""
        return True

"""The collaborative teacher: trained on the training split, kept, and reused as long as nothing it was made from changes."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recbole_hnlm import __version__
from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune.teacher_training import model_keys, teacher_config, train_teacher
from recbole_hnlm.utils.environment import source_digest
from recbole_hnlm.utils.errors import ArtifactError, HNLMError
from recbole_hnlm.utils.files import MANIFEST_FORMAT, exclusive_writer, read_json, text_digest, write_atomically, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from recbole.data.dataset import Dataset

    from recbole_hnlm.config import Config

__all__ = ["TEACHER_ROOMS", "ensure_teacher"]

# The source that can change a teacher's vectors; another state of it trains another teacher. What was fine-tuned towards one
# stays valid where the new one has the same vectors.
TEACHER_ROOMS = (
    *("data", "finetune/teacher.py", "finetune/teacher_training.py"),
    *("model", "negative_sampler", "trainer", "utils/kernels.py"),
)
_KIND = "teacher"
_VECTORS, _MANIFEST = "vectors.safetensors", "manifest.json"
_logger = logging.getLogger(__name__)


def ensure_teacher(config: Config, train_dataset: Dataset, folder: Path) -> Teacher:
    """Read the teacher of a run, or train and keep it first.

    The teacher sees the training split and nothing else: it trains for ``teacher_epochs``, and no validation result stops it or
    picks an epoch, because that would leak the validation items into what the LLM is fine-tuned towards. See
    :func:`~recbole_hnlm.finetune.teacher_training.teacher_config` for what it takes from the run. The caller's random state
    is untouched, so that a run's numbers do not depend on whether its teacher was there.

    Args:
        config: the run's configuration.
        train_dataset: RecBole's training dataset (``train_data._dataset``).
        folder: the split's artefact folder; the teacher lies in ``folder/teacher/<digest>``. One process builds at a time,
            under a lock of ``folder/teacher``.

    Raises:
        ConfigError: ``teacher_model`` is unknown or cannot be a teacher.
        ArtifactError: a stored teacher is damaged or of something else, or the folder cannot be written.
        HNLMError: training diverged.
    """
    own = teacher_config(config)
    made_from = {
        "model": own["model"],
        "keys": model_keys(own),
        "epochs": config.settings.teacher_epochs,
        "seed": int(own["seed"]),
        "split": TrainingInteractions.from_dataset(train_dataset).split_fingerprint,
        "source": source_digest(TEACHER_ROOMS),
    }
    digest = text_digest([_KIND, str(MANIFEST_FORMAT), json.dumps(made_from, sort_keys=True)])[:16]
    place = folder / _KIND / digest
    if not (place / _MANIFEST).exists():
        with exclusive_writer(folder / _KIND):
            # Another process may have built it while this one waited.
            if not (place / _MANIFEST).exists():
                _build(own, train_dataset, place, digest, made_from, show_progress=bool(config["show_progress"]))
    return _read(place, digest)


def _build(
    config: Config, train_dataset: Dataset, place: Path, digest: str, made_from: dict[str, Any], *, show_progress: bool
) -> None:
    start = time.perf_counter()
    _logger.info("training teacher %s for %s epochs", made_from["model"], made_from["epochs"])
    *tensors, losses = train_teacher(config, train_dataset, made_from["epochs"], show_progress=show_progress)
    users, items = (np.array(tensor.numpy()) for tensor in tensors)
    users[0] = items[0] = 0.0
    if not (np.isfinite(users).all() and np.isfinite(items).all()):
        raise HNLMError(f"teacher {made_from['model']} ended with vectors that are not finite: choose another teacher_model")
    seconds = time.perf_counter() - start
    sha256 = write_atomically(place / _VECTORS, [save({"user_vectors": users, "item_vectors": items})])
    # Last, so that a teacher without a manifest is none.
    content = {"format": MANIFEST_FORMAT, "kind": _KIND, "digest": digest, "made_from": made_from, "version": __version__}
    shapes = {"users": list(users.shape), "items": list(items.shape)}
    write_json(place / _MANIFEST, {**content, "shapes": shapes, "loss": losses, "seconds": round(seconds, 3), "sha256": sha256})
    _logger.info("teacher %s: loss %.4f to %.4f in %.1f s", made_from["model"], losses[0], losses[-1], seconds)


def _read(place: Path, digest: str) -> Teacher:
    manifest = read_json(place / _MANIFEST)
    remedy = f"delete {place} and run again"
    if not isinstance(manifest, dict) or manifest.get("kind") != _KIND or manifest.get("format") != MANIFEST_FORMAT:
        raise ArtifactError(f"{place / _MANIFEST} is not a teacher's manifest of this version; {remedy}")
    if manifest.get("digest") != digest:
        raise ArtifactError(f"{place} holds teacher {manifest.get('digest')}, expected {digest}; {remedy}")
    try:
        content = (place / _VECTORS).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {place / _VECTORS}: {error.strerror}; {remedy}") from error
    if hashlib.sha256(content).hexdigest() != manifest.get("sha256"):
        raise ArtifactError(f"{place / _VECTORS} is corrupt: its SHA-256 is not the manifest's; {remedy}")
    try:
        tensors = load(content)
        return Teacher(tensors["user_vectors"], tensors["item_vectors"], digest, manifest["made_from"]["model"])
    except (SafetensorError, KeyError, TypeError) as error:
        raise ArtifactError(f"{place} is no teacher of this version ({error}); {remedy}") from error

"""The collaborative teacher: trained on the training split, kept, and reused as long as none of its inputs changes."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm import __version__
from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune.teacher_training import model_keys, teacher_config, train_teacher
from recbole_hnlm.finetune.tensor_files import TensorArtifact
from recbole_hnlm.utils.environment import source_digest
from recbole_hnlm.utils.errors import ArtifactError, HNLMError
from recbole_hnlm.utils.files import MANIFEST_FORMAT, exclusive_writer, text_digest

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
    entries = {"digest": str, "made_from": dict, "shapes": dict}
    stored = TensorArtifact(
        place / "vectors.safetensors", place / "manifest.json", _KIND, f"delete {place} and run again", entries
    )
    if not stored.exists():
        with exclusive_writer(folder / _KIND):
            # Another process may have built it while this one waited.
            if not stored.exists():
                _build(own, train_dataset, stored, digest, made_from, show_progress=bool(config["show_progress"]))
    return _read(stored, digest)


def _build(
    config: Config,
    train_dataset: Dataset,
    stored: TensorArtifact,
    digest: str,
    made_from: dict[str, Any],
    *,
    show_progress: bool,
) -> None:
    start = time.perf_counter()
    _logger.info("training teacher %s for %s epochs", made_from["model"], made_from["epochs"])
    *tensors, losses = train_teacher(config, train_dataset, made_from["epochs"], show_progress=show_progress)
    users, items = (tensor.clone() for tensor in tensors)
    users[0] = items[0] = 0.0
    if not bool(torch.isfinite(users).all() and torch.isfinite(items).all()):
        raise HNLMError(f"teacher {made_from['model']} ended with vectors that are not finite: choose another teacher_model")
    seconds = time.perf_counter() - start
    content = {"digest": digest, "made_from": made_from, "version": __version__, "loss": losses, "seconds": round(seconds, 3)}
    shapes = {"users": list(users.shape), "items": list(items.shape)}
    stored.write_tensors({"user_vectors": users, "item_vectors": items}, {**content, "shapes": shapes})
    _logger.info("teacher %s: loss %.4f to %.4f in %.1f s", made_from["model"], losses[0], losses[-1], seconds)


def _read(stored: TensorArtifact, digest: str) -> Teacher:
    manifest = stored.manifest()
    if manifest["digest"] != digest:
        raise ArtifactError(f"{stored.manifest_path} is of teacher {manifest['digest']}, expected {digest}; {stored.remedy}")
    tensors = stored.read_tensors(["user_vectors", "item_vectors"])
    users, items = tensors["user_vectors"], tensors["item_vectors"]
    shapes = {"users": list(users.shape), "items": list(items.shape)}
    if shapes != manifest["shapes"]:
        raise ArtifactError(f"{stored.path} has the shapes {shapes}, expected {str(manifest['shapes'])[:80]}; {stored.remedy}")
    return Teacher(users.numpy(), items.numpy(), digest, str(manifest["made_from"].get("model")))

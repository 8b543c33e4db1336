"""Rotating the collaborative space of one dataset into that of another, on which an LLM was fine-tuned.

A teacher's vectors are determined up to an orthogonal map, since only their inner products are trained. W, the projection that
brings them into the LLM, is therefore of no use for another teacher as it is. What two datasets share is text: a map from item
texts to the old teacher's vectors, learned where the LLM was fine-tuned, predicts where new items would lie in the old space,
and the orthogonal map that brings the new teacher's vectors nearest to there puts users and items into it. Scores do not
change.

Source: ridge regression with its penalty chosen by leave-one-out (Golub, Heath and Wahba, Technometrics 21(2), 1979);
orthogonal Procrustes (Schoenemann, Psychometrika 31(1), 1966). The published method does not say how it changes datasets;
this is ours.

Symbols: I items including the padding id 0, N of them with text and training interactions, T dimension of text vectors, d of a
teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import RidgeCV

from recbole_hnlm.finetune.tensor_files import TensorArtifact
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.utils.files import text_digest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from recbole_hnlm.data.teacher import Teacher

__all__ = ["TextMap", "fit_text_map", "rotated", "rotation_onto"]

_PENALTIES = np.logspace(-3, 3, 13)


def _stored(folder: Path) -> TensorArtifact:
    remedy = "delete it and run `recbole-hnlm finetune` on its dataset again, which writes the map anew"
    entries = {"dataset": str, "text_encoder": str, "explained": float}
    return TensorArtifact(folder / "text_map.safetensors", folder / "text_map.json", "text map", remedy, entries)


@dataclass(frozen=True)
class TextMap:
    """An affine map from text vectors to a teacher's item vectors.

    Attributes:
        weight: float32 ``[T, d]``.
        bias: float32 ``[d]``.
        encoder: name and revision of the text encoder.
        explained: share of the vectors' variance that the texts of left-out items predict; below 0 is worse than their mean.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    encoder: str
    explained: float

    def __call__(self, texts: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Predict vectors ``[N, d]`` from text vectors ``[N, T]``."""
        return np.asarray(texts, dtype=np.float32) @ self.weight + self.bias

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a map was saved with an adapter."""
        return _stored(folder).exists()

    def save(self, folder: Path, dataset: str) -> None:
        """Write the map next to the adapter whose teacher it belongs to, then its manifest.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        content = {"dataset": dataset, "text_encoder": self.encoder, "explained": self.explained}
        tensors = {"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)}
        _stored(folder).write_tensors(tensors, content)

    @classmethod
    def read(cls, folder: Path) -> tuple[TextMap, dict[str, Any]]:
        """Read the map that lies next to an adapter, and its manifest.

        Raises:
            ArtifactError: it is absent, damaged or of another format.
        """
        stored = _stored(folder)
        if not stored.exists():
            raise ArtifactError(
                f"the adapter in {folder} has no {stored.manifest_path.name}, without which it cannot change datasets: run "
                "`recbole-hnlm finetune` on its dataset again, which writes the map"
            )
        manifest, tensors = stored.manifest(), stored.read_tensors(["weight", "bias"])
        weight, bias = tensors["weight"].numpy(), tensors["bias"].numpy()
        return cls(weight, bias, manifest["text_encoder"], manifest["explained"]), manifest


def fit_text_map(texts: NDArray[np.floating[Any]], vectors: NDArray[np.floating[Any]], encoder: str) -> TextMap:
    """Fit the map by ridge regression; the penalty, of 13 from 1e-3 to 1e3, is chosen by leave-one-out.

    Args:
        texts: text vectors of items, ``[N, T]``.
        vectors: the teacher's vectors of the same items, ``[N, d]``.
        encoder: name and revision of the text encoder.
    """
    ridge = RidgeCV(alphas=_PENALTIES).fit(np.asarray(texts, dtype=np.float64), np.asarray(vectors, dtype=np.float64))
    variance = float(np.var(vectors, axis=0, dtype=np.float64).mean())
    explained = 1 + float(ridge.best_score_) / variance if variance > 0 else 0.0
    weight, bias = (np.ascontiguousarray(part, dtype=np.float32) for part in (ridge.coef_.T, ridge.intercept_))
    return TextMap(weight, bias, encoder, explained)


def rotation_onto(vectors: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the orthogonal R ``[d, d]`` that minimises ``||vectors R - targets||_F``; both ``[N, d]``."""
    rotation: NDArray[np.float64] = orthogonal_procrustes(
        np.asarray(vectors, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    )[0]
    return rotation


def rotated(teacher: Teacher, rotation: NDArray[np.float64]) -> Teacher:
    """Return the teacher with ``e_u R`` and ``e_i R``; its scores are the same."""
    users, items = (
        (table.astype(np.float64) @ rotation).astype(np.float32) for table in (teacher.user_vectors, teacher.item_vectors)
    )
    digest = text_digest([teacher.digest, rotation.astype(np.float32).tobytes().hex()])[:16]
    return replace(teacher, user_vectors=users, item_vectors=items, digest=digest)

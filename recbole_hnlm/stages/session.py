"""What stages of one run share: the backend, the encoder, the reply cache and the lock of the artefact folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from recbole_hnlm.data.text_encoder import SentenceEncoder
from recbole_hnlm.llm.cache import ReplyCache
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.utils.files import exclusive_writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from recbole_hnlm.data.store import VectorStore
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.data.text_encoder import TextEncoder
    from recbole_hnlm.llm.protocol import LLMBackend
    from recbole_hnlm.stages.context import StageContext

__all__ = ["StageSession"]


class StageSession:
    """Resources of a run, made when first used and released at the end.

    Args:
        context: what the stages work on.
        backend: a language model to use in place of the configured one; the caller closes it.
        encoder: a text encoder to use in place of the configured one.
        kinds: the kinds of vectors that are wanted; None means those that training reads.

    Attributes:
        stores: opened stores of vectors, by kind; the stage ``encode`` puts them here.
    """

    def __init__(
        self,
        context: StageContext,
        backend: LLMBackend | None = None,
        encoder: TextEncoder | None = None,
        kinds: Sequence[StoreKind] | None = None,
    ) -> None:
        self.context = context
        self.kinds: Sequence[StoreKind] = kinds_needed(context.settings) if kinds is None else kinds
        self.stores: dict[StoreKind, VectorStore] = {}
        self._backend, self._encoder = backend, encoder
        self._owns_backend = backend is None
        self._cache: ReplyCache | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release_backend()
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    @property
    def backend(self) -> LLMBackend:
        """The language model; weights load at its first prompt.

        Raises:
            BackendError: the configured model does not exist.
        """
        if self._backend is None:
            self._backend = load_backend(self.context.settings, self.context.device)
        return self._backend

    def release_backend(self) -> None:
        """Give back the memory of a language model that this session loaded; the encoder needs the room."""
        if self._owns_backend and self._backend is not None:
            self._backend.close()
            self._backend = None

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder; weights load at its first text."""
        if self._encoder is None:
            settings = self.context.settings
            self._encoder = SentenceEncoder(settings.text_encoder, self.context.device, settings.encoder_batch_size)
        return self._encoder

    @property
    def cache(self) -> ReplyCache:
        """The reply cache that all splits of the dataset share.

        Raises:
            ArtifactError: it cannot be created.
        """
        if self._cache is None:
            self._cache = ReplyCache(self.context.dataset_artifacts / "replies.sqlite")
        return self._cache

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the split's folder for writing; a second process waits until the first is done or has died.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        with exclusive_writer(self.context.split_artifacts):
            yield

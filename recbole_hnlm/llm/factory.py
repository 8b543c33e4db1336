"""Choosing a backend by the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recbole_hnlm.llm.protocol import LLMBackend
    from recbole_hnlm.settings import HNLMSettings

__all__ = ["load_backend"]


def load_backend(settings: HNLMSettings, device: str = "cpu") -> LLMBackend:
    """Return the backend that ``llm_backend`` names. Nothing heavy is loaded before its first ``generate``.

    Args:
        settings: the settings.
        device: torch device of an in-process model, such as ``cpu`` or ``cuda``; a server ignores it.

    Raises:
        BackendError: the backend's settings cannot be used.
    """
    # Imported by need: the openai client and torch each take a noticeable time.
    if settings.llm_backend == "openai":
        from recbole_hnlm.llm.openai_backend import OpenAIBackend  # noqa: PLC0415

        return OpenAIBackend(settings)
    from recbole_hnlm.llm.transformers_backend import TransformersBackend  # noqa: PLC0415

    return TransformersBackend(settings, device)

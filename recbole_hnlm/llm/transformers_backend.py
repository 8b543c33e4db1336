"""The LLM in this process: transformers models, batched, under a grammar, with shared-prefix key-value reuse."""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING, Any

import torch

from recbole_hnlm.llm.generation import Sampler, compute_prefix, decode_rows
from recbole_hnlm.llm.grammar import JsonGrammars
from recbole_hnlm.llm.model_loading import LoadedModel, identify, load_model
from recbole_hnlm.llm.protocol import TokenUsage
from recbole_hnlm.llm.shares import map_shares, shares_of
from recbole_hnlm.llm.tokenization import PromptEncoder
from recbole_hnlm.utils.environment import is_out_of_memory
from recbole_hnlm.utils.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.llm.kv_cache import Prefix
    from recbole_hnlm.llm.protocol import Decoding, ModelIdentity, Prompt

__all__ = ["TransformersBackend"]

_LOGGER = logging.getLogger("recbole_hnlm")


class TransformersBackend:
    """Answers prompts with a model of transformers.

    Every reply satisfies the schema of its decoding, whatever the model: tokens that the schema does not allow are never
    chosen, and a reply that outgrows ``max_new_tokens`` is None. When memory runs out, the batch is halved, and stays halved.

    Args:
        settings: ``llm_model``, ``llm_revision``, ``llm_dtype``, ``llm_quantization``, ``llm_trust_remote_code`` and
            ``llm_batch_size`` are read.
        device: torch device.
    """

    def __init__(self, settings: HNLMSettings, device: str = "cpu") -> None:
        self._settings = settings
        self._device = device
        self._batch_size = settings.llm_batch_size
        self._identity: ModelIdentity | None = None
        self._engine: _Engine | None = None
        self._used_before = TokenUsage()

    @property
    def identity(self) -> ModelIdentity:
        """The model, found without loading its weights."""
        if self._identity is None:
            self._identity = identify(self._settings, self._device)
        return self._identity

    @property
    def batch_size(self) -> int:
        """Prompts that are generated together; smaller than ``llm_batch_size`` after memory ran out."""
        return self._batch_size

    @property
    def usage(self) -> TokenUsage:
        """Tokens so far; a reply that outgrew its limit counts with the limit."""
        return self._used_before if self._engine is None else self._used_before + self._engine.usage

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        """Answer prompts; see :meth:`recbole_hnlm.llm.protocol.LLMBackend.generate`.

        Raises:
            BackendError: the model cannot be loaded, a prompt outgrows its positions, or memory does not suffice for one
                prompt.
        """
        if self._engine is None:
            self._engine = _Engine(load_model(self._settings, self._device))
        replies: list[str | None] = []
        while len(replies) < len(prompts):
            batch = prompts[len(replies) : len(replies) + self._batch_size]
            try:
                replies += self._engine.answer(batch, decoding)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve_batch(len(batch), error)
        return replies

    def _halve_batch(self, size: int, error: BaseException) -> None:
        if size <= 1:
            raise BackendError(
                f"not enough memory on {self._device} for one prompt of llm_model {self._settings.llm_model}; "
                "set llm_quantization to 4bit, or choose a smaller llm_model"
            ) from error
        self._batch_size = max(1, size // 2)
        _LOGGER.warning("memory ran out with %d prompts together; continuing with llm_batch_size=%d", size, self._batch_size)
        if torch.device(self._device).type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Release the weights."""
        self._used_before, self._engine = self.usage, None


class _Engine:
    """A loaded model with what is derived from it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model
        self._config: Any = loaded.model.config.get_text_config()
        _require_attention_only(self._config)
        self._grammars = JsonGrammars(loaded.tokenizer, self._config.vocab_size, threads=max(1, (os.cpu_count() or 1)))
        self._encoder = PromptEncoder(loaded.tokenizer)
        self._prefix: tuple[list[int], Prefix] | None = None
        self.usage = TokenUsage()

    def answer(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        """Answer prompts, all of one instruction together."""
        by_head: dict[Any, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_head.setdefault(prompt.head, []).append(index)
        replies: list[str | None] = [None] * len(prompts)
        for indices in by_head.values():
            texts = self._answer_alike([prompts[index] for index in indices], decoding)
            for index, text in zip(indices, texts, strict=True):
                replies[index] = text
        return replies

    def _answer_alike(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        opening = self._grammars.opening(decoding.schema)
        suffixes = [self._encoder.suffix(prompt, opening) for prompt in prompts]
        head = self._encoder.prefix(prompts[0])
        if not head:
            # Without chat template, start token and instruction, the text would begin with the data.
            raise BackendError("the prompts have an empty instruction and the model has no start token; give an instruction")
        new_tokens = self._new_tokens(len(head) + max(map(len, suffixes)), decoding.max_new_tokens)
        prefix = self._prefix_of(head)

        def decode(rows: Sequence[int], given_up: Callable[[], bool]) -> list[list[int] | None]:
            return decode_rows(
                self._model,
                [suffixes[row] for row in rows],
                prefix,
                self._grammars.batch(decoding.schema, len(rows)),
                Sampler(decoding.temperature, [_row_seed(decoding.seed, prompts[row]) for row in rows]),
                new_tokens,
                pad=0,
                given_up=given_up,
            )

        on_cpu = self._model.device.type == "cpu"
        shares = shares_of(len(prompts), torch.get_num_threads() if on_cpu else 1)
        tokens = map_shares(range(len(prompts)), decode, shares)
        # The opening is fed to the model, and it is the beginning of the reply.
        opened = len(prompts) * len(self._encoder.encode_text(opening))
        self.usage += TokenUsage(
            len(prompts) * len(head) + sum(map(len, suffixes)) - opened,
            opened + sum(new_tokens if row is None else len(row) for row in tokens),
        )
        return [None if row is None else opening + self._text(row) for row in tokens]

    def _prefix_of(self, head: list[int]) -> Prefix:
        if self._prefix is None or self._prefix[0] != head:
            self._prefix = (head, compute_prefix(self._model, head))
        return self._prefix[1]

    def _new_tokens(self, prompt_tokens: int, wanted: int) -> int:
        positions = getattr(self._config, "max_position_embeddings", None) or (1 << 30)
        if prompt_tokens >= positions:
            raise BackendError(
                f"a prompt of {prompt_tokens} tokens does not fit into the {positions} positions of the model; lower "
                "profile_history_length, description_max_chars or review_max_chars, or choose another llm_model"
            )
        return min(wanted, positions - prompt_tokens)

    def _text(self, tokens: list[int]) -> str:
        return b"".join(self._grammars.token_bytes[token] for token in tokens).decode("utf-8")


def _require_attention_only(config: Any) -> None:
    """Refuse models whose state is more than keys and values.

    Raises:
        BackendError: the model has recurrent layers.
    """
    kinds = {kind for kind in getattr(config, "layer_types", None) or () if not kind.endswith("attention")}
    kinds |= {kind for kind in getattr(config, "layer_types", None) or () if kind.startswith("linear")}
    if kinds:
        raise BackendError(
            f"llm_backend transformers needs a model of attention layers only, but this one has {sorted(kinds)}; "
            "choose another llm_model, or serve this one and use llm_backend openai"
        )


def _row_seed(seed: int, prompt: Prompt) -> int:
    """Return the seed of a prompt's sampling, from the seed and the prompt alone."""
    text = f"{seed}\0{prompt.system}\0{prompt.user}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little")

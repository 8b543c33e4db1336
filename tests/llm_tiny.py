"""A tiny random Llama with a byte-level tokenizer, a scripted backend, a faulty server, for the tests of the LLM layer."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.llm.protocol import ModelIdentity

SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GOOD = json.dumps({"summarization": "likes films", "reasoning": "watched films"})


def tiny_tokenizer(template=TEMPLATE):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ('"', ":"), ("a", "n"), ("}", "Ċ")]
    tokens = [*alphabet, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>")
    fast.chat_template = template
    return fast


def save_tiny_model(folder, seed=0, positions=4096, scale=0.4, width=32):
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 11,  # models often have more logits than the tokenizer has tokens
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=scale,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_settings(folder="unused", **changes):
    values = {"llm_model": str(folder), "llm_dtype": "float32", "profile_max_words": 3, "reasoning_max_words": 2}
    return HNLMSettings(**(values | changes))


class ScriptedBackend:
    """Answers by a function of (prompt, decoding); records its calls."""

    def __init__(self, answer, batch_size=4, name="scripted"):
        self.identity = ModelIdentity("scripted", name, "1", "none")
        self.batch_size = batch_size
        self.calls = []
        self._answer = answer

    def generate(self, prompts, decoding):
        self.calls.append((list(prompts), decoding))
        return [self._answer(prompt, decoding) for prompt in prompts]

    def close(self):
        pass


def completion(text):
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
    }


def is_probe(body):
    return body["messages"][-1]["content"].startswith("Say hello to me")


def obeying(body):
    """Answer the probe for grammars as a server does that obeys response_format."""
    form = body.get("response_format", {})
    if form.get("type") == "json_schema":
        return json.dumps({name: rule["enum"][0] for name, rule in form["json_schema"]["schema"]["properties"].items()})
    return "{}" if form else "Hello."


@contextmanager
def faulty_server(script, probe=obeying):
    """Serve chat completions on loopback; ``script(number, body, handler)`` returns (status, content[, headers]) or answers.

    Probes for grammars are answered by ``probe(body)`` and not counted as seen; None leaves them to the script.
    """
    seen = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if probe is not None and is_probe(body):
                self.reply(200, completion(probe(body)))
                return
            with lock:
                number = len(seen)
                seen.append({"body": body, "headers": dict(self.headers), "time": time.monotonic(), "path": self.path})
            answer = script(number, body, self)
            if answer is not None:
                self.reply(*answer)

        def reply(self, status, content, headers=()):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def server_settings(url, **changes):
    values = {
        "llm_backend": "openai",
        "llm_model": "m",
        "llm_base_url": url,
        "llm_concurrency": 3,
        "llm_timeout": 5.0,
        "llm_max_retries": 2,
        "llm_api_key_env": "HNLM_TEST_KEY",
    }
    return HNLMSettings(**(values | changes))

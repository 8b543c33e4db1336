"""The server backend: a scripted faulty server, a dead one, and a real ``transformers serve``, all on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llm_tiny import GOOD, completion, faulty_server, save_tiny_model, server_settings, tiny_settings

from recbole_hnlm.llm.asking import ask
from recbole_hnlm.llm.cache import ReplyCache
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.protocol import Decoding, Prompt
from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.utils.errors import BackendError, ConfigError

SECRET = "sk-very-secret-0123456789"
FORMAT = profile_format(tiny_settings())
DECODING = Decoding(FORMAT.max_new_tokens, 0.0, 0, FORMAT.schema)


def prompts_of(count):
    return [Prompt("Describe.", json.dumps({"id": i})) for i in range(count)]


def echo(body):
    user = json.loads(body["messages"][1]["content"])
    return json.dumps({"summarization": f"user {user['id']}", "reasoning": "so"})


def generate(url, count=6, **changes):
    backend = load_backend(server_settings(url, **changes))
    try:
        return backend.generate(prompts_of(count), DECODING)
    finally:
        backend.close()


def test_order_concurrency_and_what_is_sent(monkeypatch):
    monkeypatch.setenv("HNLM_TEST_KEY", SECRET)
    running = {"now": 0, "most": 0}

    def script(number, body, _handler):
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        time.sleep(0.05 if number % 2 else 0.01)
        running["now"] -= 1
        return 200, completion(echo(body))

    with faulty_server(script) as (url, seen):
        replies = generate(url, 12)
    assert [json.loads(reply)["summarization"] for reply in replies] == [f"user {i}" for i in range(12)]
    assert 2 <= running["most"] <= 3
    body, headers = seen[0]["body"], {name.lower(): value for name, value in seen[0]["headers"].items()}
    assert body["response_format"]["json_schema"]["schema"] == FORMAT.schema
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("m", FORMAT.max_new_tokens, 0.0, 0)
    assert body["messages"][0] == {"role": "system", "content": "Describe."}
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert seen[0]["path"] == "/v1/chat/completions"


def half_a_body(handler):
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(json.dumps(completion(GOOD)).encode()[:40])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def nothing(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


@pytest.mark.parametrize(
    ("fault", "pause"),
    [
        (lambda _handler: (429, {"error": {"message": "slow down"}}, [("Retry-After", "1")]), 0.95),
        (lambda _handler: (500, {"error": {"message": "oops"}}, [("Retry-After-Ms", "10")]), 0.01),
        (lambda _handler: (503, b"<html>", [("Retry-After-Ms", "10")]), 0.01),
        (half_a_body, 0.0),
        (nothing, 0.0),
        (lambda _handler: time.sleep(1.5), 0.95),
    ],
    ids=["429", "500", "503", "half a body", "nothing", "hang"],
)
def test_a_passing_fault_is_retried_by_the_client(fault, pause):
    def script(number, body, handler):
        return fault(handler) if number == 2 else (200, completion(echo(body)))

    with faulty_server(script) as (url, seen):
        replies = generate(url, llm_timeout=1.0)
    assert [json.loads(reply)["summarization"] for reply in replies] == [f"user {i}" for i in range(6)]
    assert len(seen) == 7
    first, again = (entry["time"] for entry in seen if entry["body"] == seen[2]["body"])
    assert again - first >= pause


@pytest.mark.parametrize(
    "bad",
    [
        (200, b"{not json"),
        (200, b'"text"'),
        (200, {"choices": []}),
        (200, {"choices": [{"message": {"content": None}}]}),
        (400, {"error": {"message": "context too long"}}),
        (422, {"error": {"message": "no"}}),
        (500, {"error": {"message": "always"}}, [("Retry-After-Ms", "5")]),
    ],
    ids=["garbage", "string", "no choices", "no content", "400", "422", "500 for ever"],
)
def test_a_lasting_fault_of_one_prompt_leaves_the_others(bad):
    def script(_number, body, _handler):
        return bad if '"id": 3' in body["messages"][1]["content"] else (200, completion(echo(body)))

    with faulty_server(script) as (url, _):
        replies = generate(url)
    assert [index for index, reply in enumerate(replies) if reply is None] == [3]


def test_wrong_schema_is_refused_above_and_asked_again(tmp_path):
    asked = {}

    def script(_number, body, _handler):
        user = body["messages"][1]["content"]
        asked[user] = asked.get(user, 0) + 1
        return 200, completion('{"summary": "wrong"}' if asked[user] == 1 else echo(body))

    with faulty_server(script) as (url, seen), ReplyCache(tmp_path / "c.sqlite") as cache:
        settings = server_settings(url)
        backend = load_backend(settings)
        result = ask(backend, prompts_of(4), FORMAT, cache=cache, settings=settings, description="profiles")
        backend.close()
    assert (result.generated, result.missing) == (4, 0)
    assert {entry["body"]["temperature"] for entry in seen} == {0.0, 0.7}


def test_a_server_without_response_format_gets_the_schema_in_the_prompt(caplog):
    def script(_number, body, _handler):
        if "response_format" in body:
            return 400, {"error": {"message": "unknown field response_format"}}
        return 200, completion(echo(body))

    with faulty_server(script) as (url, seen), caplog.at_level(logging.WARNING, "recbole_hnlm"):
        replies = generate(url)
    assert None not in replies
    assert ["response_format" in entry["body"] for entry in seen] == [True, True] + [False] * 6
    assert json.dumps(FORMAT.schema) in seen[-1]["body"]["messages"][0]["content"]
    assert sum("unknown field response_format" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refuses the key in HNLM_TEST_KEY"),
        (403, "refuses the key"),
        (404, r"does not know the model: check llm_base_url.*llm_model m"),
        (400, "refuses the"),
    ],
)
def test_what_concerns_all_prompts_fails_at_once_without_the_key(status, message, monkeypatch, caplog):
    monkeypatch.setenv("HNLM_TEST_KEY", SECRET)
    echoed = {"error": {"message": f"bad key {SECRET}\nsecond line"}}
    with (
        faulty_server(lambda *_: (status, echoed)) as (url, seen),
        caplog.at_level(logging.DEBUG),
        pytest.raises(BackendError, match=message) as caught,
    ):
        generate(url)
    assert len(seen) == (2 if status == 400 else 1)  # a refusal without a cause: once more with nothing optional
    assert "\n" not in str(caught.value)
    own = [record.getMessage() for record in caplog.records if record.name.startswith("recbole_hnlm")]
    assert SECRET not in str(caught.value) + "".join(own)


def test_the_key_is_in_no_log_identity_or_cache(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("HNLM_TEST_KEY", SECRET)
    path = tmp_path / "c.sqlite"
    with faulty_server(lambda _n, body, _h: (200, completion(echo(body)))) as (url, _), caplog.at_level(logging.DEBUG):
        settings = server_settings(url)
        backend = load_backend(settings)
        with ReplyCache(path) as cache:
            ask(backend, prompts_of(3), FORMAT, cache=cache, settings=settings, description="profiles")
        assert SECRET not in backend.identity.key()
        assert "127.0.0.1" not in backend.identity.key()
        backend.close()
    assert SECRET not in caplog.text
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_dead_server_fails_fast(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    settings = server_settings(url, llm_max_retries=1)
    backend = load_backend(settings)
    start = time.monotonic()
    expected = pytest.raises(BackendError, match=r"does not answer.*after 1 retries.*llm_base_url")
    with ReplyCache(tmp_path / "c.sqlite") as cache, expected as caught:
        ask(backend, prompts_of(3000), FORMAT, cache=cache, settings=settings, description="profiles")
    backend.close()
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)


def test_a_server_that_dies_midway_fails_fast_and_finished_replies_stay(tmp_path):
    def script(number, body, handler):
        return (200, completion(echo(body))) if number < 20 else nothing(handler)

    with faulty_server(script) as (url, seen), ReplyCache(tmp_path / "c.sqlite") as cache:
        settings = server_settings(url, llm_max_retries=0)
        backend = load_backend(settings)
        with pytest.raises(BackendError, match="does not answer"):
            ask(backend, prompts_of(1000), FORMAT, cache=cache, settings=settings, description="profiles")
        backend.close()
        assert len(cache) == 20
        assert len(seen) < 35


def test_it_works_inside_a_running_event_loop():
    async def inside(url):
        return generate(url, 3)

    with faulty_server(lambda _n, body, _h: (200, completion(echo(body)))) as (url, _):
        assert None not in asyncio.run(inside(url))


def test_addresses_and_keys_that_cannot_work(monkeypatch):
    monkeypatch.delenv("HNLM_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="is not an address such as"):
        load_backend(server_settings("localhost:8000"))
    with pytest.raises(BackendError, match="set the environment variable HNLM_TEST_KEY"):
        load_backend(server_settings("https://llm.example.org/v1"))
    with pytest.raises(ConfigError, match="environment variable HNLM_TEST_KEY") as caught:
        load_backend(server_settings("https://user:passw0rd@llm.example.org/v1"))
    assert "passw0rd" not in str(caught.value)
    load_backend(server_settings("http://[::1]:8000/v1")).close()


def test_a_real_transformers_serve_answers(tmp_path, caplog):
    """``transformers serve`` ignores response_format, which is noticed; a random model's text is refused, and counted."""
    caplog.set_level(logging.INFO, "recbole_hnlm")
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    model = save_tiny_model(tmp_path / "model")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "transformers"),
        "serve",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=log, stderr=log, env=environment)
        try:
            _wait_for(port, process, tmp_path / "serve.log")
            settings = server_settings(
                f"http://127.0.0.1:{port}/v1",
                llm_model=str(model),
                llm_timeout=30.0,
                max_missing_share=1.0,
                llm_reply_attempts=1,
            )
            backend = load_backend(settings)
            short = Decoding(5, 0.0, 0, FORMAT.schema)
            first = backend.generate(prompts_of(4), short)
            assert all(isinstance(text, str) and text for text in first)
            assert backend.generate(prompts_of(4), short) == first
            assert "takes a response_format json_schema and ignores it" in caplog.text
            with ReplyCache(tmp_path / "c.sqlite") as cache:
                result = ask(backend, prompts_of(2), FORMAT, cache=cache, settings=settings, description="profiles")
            assert result.missing + result.generated == 2
            backend.close()
            unknown = load_backend(settings.model_copy(update={"llm_model": "another"}))
            with pytest.raises(BackendError, match=re.escape("another")):
                unknown.generate(prompts_of(1), short)
            unknown.close()
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(port, process, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(log.read_text()[-3000:])


def test_examples_are_sent_as_earlier_turns():
    seen_roles = []

    def script(_number, body, _handler):
        seen_roles.append([(message["role"], message["content"]) for message in body["messages"]])
        return 200, completion('{"summarization": "x", "reasoning": "y"}')

    with faulty_server(script) as (url, _):
        backend = load_backend(server_settings(url))
        backend.generate([Prompt("Describe.", "data", (("question", "reply"),))], DECODING)
        backend.close()
    assert seen_roles == [[("system", "Describe."), ("user", "question"), ("assistant", "reply"), ("user", "data")]]

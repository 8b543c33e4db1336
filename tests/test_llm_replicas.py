"""Prompts spread over several servers: one that dies, one that comes back, one that refuses; the bound in flight."""

import contextlib
import json
import logging
import re
import socket
import threading
import time
from contextlib import closing

import pytest
from llm_tiny import GOOD, completion, faulty_server, server_settings
from servers_kit import DECODING, FORMAT, fault_of, generate, prompts_of, unused_port

from recbole_hnlm.llm import replica, replicas
from recbole_hnlm.llm.asking import ask
from recbole_hnlm.llm.cache import ReplyCache
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.protocol import TokenUsage, usage_of
from recbole_hnlm.utils.errors import BackendError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(replicas, "_FIRST_BACKOFF", 0.01)


class Scripted:
    """A server that can be killed and revived."""

    def __init__(self):
        self.alive, self.dies_after, self.answered, self.lock = True, None, 0, threading.Lock()

    def __call__(self, _number, body, handler):
        with self.lock:
            if self.dies_after is not None and self.answered >= self.dies_after:
                self.alive = False
            if self.alive:
                self.answered += 1
        if not self.alive:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return None
        user = json.loads(body["messages"][1]["content"])
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        return 200, completion(json.dumps({"summarization": f"user {user['id']}", "reasoning": "so"})) | {"usage": usage}


@pytest.fixture
def three():
    scripts = [Scripted(), Scripted(), Scripted()]
    with faulty_server(scripts[0]) as (a, _), faulty_server(scripts[1]) as (b, _), faulty_server(scripts[2]) as (c, _):
        yield scripts, [a, b, c]


def test_tokens_of_all_servers_are_added_and_answers_without_them_are_counted(three):
    _, urls = three
    backend = load_backend(server_settings(",".join(urls)))
    backend.generate(prompts_of(9), DECODING)
    sent = sum(replica.figures.answered for replica in backend._replicas._replicas)
    probes = usage_of(backend).uncounted  # these servers state no usage for the probe of their grammar
    assert 1 <= probes <= 3
    assert usage_of(backend) == TokenUsage(7 * (sent - probes), 3 * (sent - probes), probes)
    assert sent - probes >= 9
    backend.close()
    with faulty_server(lambda _number, body, _handler: (200, completion(GOOD))) as (url, _):
        backend = load_backend(server_settings(url))
        backend.generate(prompts_of(2), DECODING)
        usage = usage_of(backend)
        backend.close()
    assert (usage.prompt, usage.completion) == (0, 0)
    assert usage.uncounted >= 2


def expected(count):
    return [f"user {place}" for place in range(count)]


def summaries(replies):
    return [json.loads(reply)["summarization"] for reply in replies]


def test_three_servers_of_which_one_dies_midway(three, caplog):
    scripts, urls = three
    scripts[1].dies_after = 5
    with caplog.at_level(logging.INFO, "recbole_hnlm"):
        assert summaries(generate(", ".join(urls), 90, llm_max_retries=0, llm_concurrency=6)) == expected(90)
    counts = [script.answered for script in scripts]
    assert counts[1] == 5
    assert sum(counts) == 90  # nothing was asked twice
    assert min(counts[0], counts[2]) >= 20
    # Once, or again where the rest took longer than the while.
    assert caplog.text.count(f"the server at {urls[1]} is left out for a while") >= 1
    figures = [record.getMessage() for record in caplog.records if "tokens in" in record.getMessage()]
    assert [line.split(": ")[0] for line in figures] == [f"the server at {url}" for url in urls]
    # One request more than prompts: the probe for the grammar, which brings no prompt's reply.
    assert f"{counts[0] + 1:,} requests" in figures[0]
    assert f"{counts[0]:,} replies, 0 errors, {7 * counts[0]:,} tokens in, {3 * counts[0]:,} out" in figures[0]
    assert re.search("5 replies, [2-6] errors", figures[1])  # those that were on their way when it died


def test_a_server_that_comes_back_is_used_again(three, monkeypatch, caplog):
    monkeypatch.setattr(replica, "_FIRST_PAUSE", 0.05)
    scripts, urls = three
    scripts[0].alive = False
    with closing(load_backend(server_settings(",".join(urls)))) as backend, caplog.at_level(logging.INFO, "recbole_hnlm"):
        assert summaries(backend.generate(prompts_of(12), DECODING)) == expected(12)
        assert scripts[0].answered == 0
        scripts[0].alive = True
        time.sleep(0.5)
        assert summaries(backend.generate(prompts_of(30), DECODING)) == expected(30)
    assert scripts[0].answered >= 5
    assert f"the server at {urls[0]} answers again" in caplog.text


def test_one_server_is_enough_and_none_is_an_error(three):
    scripts, urls = three
    dead = f"http://127.0.0.1:{unused_port()}/v1"
    assert summaries(generate(f"{dead},{urls[0]},{dead}x", 9, llm_max_retries=0)) == expected(9)
    for script in scripts:
        script.alive = False
    line = fault_of(",".join([*urls, dead]), llm_max_retries=0)
    assert "none of 4 servers answers" in line
    assert all(url in line for url in (*urls, dead))


@pytest.mark.parametrize("servers", [1, 3])
def test_a_server_that_is_silent_from_the_start_costs_one_prompt(servers):
    """Each attempt takes the whole llm_timeout: were every prompt tried, a run would hang for hours."""
    release = threading.Event()
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(faulty_server(lambda *_: release.wait(20) and None)) for _ in range(servers)]
        start = time.monotonic()
        settings = server_settings(",".join(url for url, _ in pairs), llm_timeout=0.3, llm_concurrency=8)
        with closing(load_backend(settings)) as backend, pytest.raises(BackendError, match=r"llm_timeout=0\.3"):
            backend.generate(prompts_of(40), DECODING)
        took = time.monotonic() - start
        release.set()
    assert all(1 <= len(seen) <= 3 * servers for _, seen in pairs)  # llm_max_retries=2
    assert took < 10


def test_a_server_that_refuses_the_key_is_left_out_for_good(three, caplog):
    _, urls = three
    with faulty_server(lambda *_: (401, {"error": "bad key"})) as (bad, seen), caplog.at_level(logging.WARNING, "recbole_hnlm"):
        assert summaries(generate(f"{bad},{urls[0]}", 20)) == expected(20)
    assert len(seen) == 1
    assert "left out for the rest of the run" in caplog.text


def test_the_bound_of_requests_in_flight_holds_over_all_servers():
    lock, now, most = threading.Lock(), [0], [0]

    def script(_number, _body, _handler):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 200, completion(GOOD)

    with faulty_server(script) as (a, _), faulty_server(script) as (b, _):
        assert generate(f"{a},{b}", 40, llm_concurrency=4) == [GOOD] * 40
    assert 3 <= most[0] <= 4


def test_servers_may_take_different_parameters(three):
    _, urls = three

    def strict(_number, body, _handler):
        return (200, completion(GOOD)) if "seed" not in body else (422, {"error": "seed is not permitted"})

    with faulty_server(strict) as (url, seen):
        assert None not in generate(f"{url},{urls[0]}", 20)
    assert sum("seed" in entry["body"] for entry in seen) == 1
    assert len(seen) > 5


def test_a_new_address_asks_nothing_again(tmp_path):
    with ReplyCache(tmp_path / "c.sqlite") as cache:
        for expected_requests in (4, 0):
            with faulty_server(lambda *_: (200, completion(GOOD))) as (url, seen):
                settings = server_settings(url)
                with closing(load_backend(settings)) as backend:
                    ask(backend, prompts_of(4), FORMAT, cache=cache, settings=settings, description="x")
            assert len(seen) == expected_requests

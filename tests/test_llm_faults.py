"""Faults of servers, addresses and proxies: every status, broken and endless answers; one line each, bounded in time."""

import json
import sys
import time
import zlib
from contextlib import closing

import pytest
from llm_tiny import GOOD, completion, faulty_server, server_settings
from servers_kit import DECODING, FORMAT, fault_of, generate, prompts_of, raw_server, unused_port

from recbole_hnlm.cli.doctor import check_llm
from recbole_hnlm.llm import http, replicas
from recbole_hnlm.llm.asking import ask
from recbole_hnlm.llm.cache import ReplyCache
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.protocol import AnswersCutShortError
from recbole_hnlm.llm.statuses import Verdict, retry_after, verdict
from recbole_hnlm.utils.errors import BackendError, MissingDependencyError

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 599}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(replicas, "_FIRST_BACKOFF", 0.01)
    monkeypatch.delenv("HNLM_TEST_KEY", raising=False)


def doctor_of(url):
    check = check_llm(server_settings(url))
    assert check.is_failure
    assert check.found.isprintable(), check.found
    return check.found


STATUSES = [300, 301, 302, 303, 304, 305, 307, 308, *range(400, 419), 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499]
STATUSES += [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 520, 599]


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_to_the_first_request_is_one_line(status):
    refused = (status, {"error": {"message": "our\x1b[31m own\nreason"}}, [("Location", "http://other.example/?token=abc")])
    with faulty_server(lambda *_: refused) as (url, seen):
        line = fault_of(url, llm_max_retries=1)
    assert f"status {status}" in line
    assert url in line
    if 300 <= status < 400:
        assert "redirects" in line
        assert "http://other.example/?token=***, which is not followed" in line
    else:
        assert "our [31m own reason" in line
    # 400 and its like are asked once more, with nothing optional; 413 and 414 are about the size.
    assert len(seen) == (2 if status in AGAIN | {400, 422} else 1)


@pytest.mark.parametrize("status", [301, 401, 402, 403, 404, 405, 410, 418, 451, 501])
def test_a_status_that_concerns_all_stops_the_asking_at_once_and_keeps_replies(status, tmp_path):
    def script(number, _body, _handler):
        return (200, completion(GOOD)) if number < 9 else (status, {"error": "no credit"})

    with faulty_server(script) as (url, seen), ReplyCache(tmp_path / "c.sqlite") as cache:
        settings = server_settings(url)
        with closing(load_backend(settings)) as backend:
            with pytest.raises(AnswersCutShortError, match=f"status {status}"):
                ask(backend, prompts_of(500), FORMAT, cache=cache, settings=settings, description="profiles")
            sent = len(seen)
            with pytest.raises(BackendError, match=f"status {status}"):
                backend.generate(prompts_of(3), DECODING)
        assert len(cache) == 9
    assert len(seen) == sent <= 12


@pytest.mark.parametrize("status", [400, 413, 414, 422])
def test_a_status_about_one_prompt_leaves_the_others(status):
    def script(_number, body, _handler):
        return (status, {"error": "too long"}) if '"id": 3' in body["messages"][1]["content"] else (200, completion(GOOD))

    with faulty_server(script) as (url, _):
        assert [place for place, reply in enumerate(generate(url, 6)) if reply is None] == [3]


def test_an_empty_account_is_not_waited_for():
    empty = (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
    with faulty_server(lambda *_: empty) as (url, seen):
        assert "exceeded your current quota" in fault_of(url)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "86400"}, 60),
        ({"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}, 60),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_may_make_us_wait(headers, seconds):
    assert retry_after(http.Answer(429, headers, b"")) == seconds


def test_statuses_out_of_range_are_final():
    assert {verdict(http.Answer(status, {}, b"")) for status in (100, 199, 600, 999)} == {Verdict.STOP}


def sends(data, pause=0.0):
    def respond(connection):
        for piece in data if isinstance(data, list) else [data]:
            connection.sendall(piece)
            time.sleep(pause)

    return respond


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BROKEN = {
    "garbage": b"\x00\xff\x1b[31m garbage\r\n\r\n",
    "status line": b"HTTP/1.1 abc OK\r\n\r\n",
    "three digits and a bit": b"HTTP/9.9 2000 \x1b[2J\r\n\r\n",
    "nothing": b"",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 5000\r\n\r\n" + b'{"choices": [',
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc",
    "bad length": HEAD + b"Content-Length: -5\r\n\r\n",
    "long head": HEAD + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
    "no JSON": HEAD + b"Content-Length: 2\r\n\r\n\xff\xfe",
    "number": HEAD + b"Content-Length: 1\r\n\r\n1",
    "deep": HEAD + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "deep error": b"HTTP/1.1 401 No\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "brotli": HEAD + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    "empty": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_one_line_for_the_run_and_for_doctor(data):
    with raw_server(sends(data)) as url:
        line = fault_of(url, llm_max_retries=1)
        assert url in line
        doctor_of(url)


ENDLESS = {
    "a byte now and then": [HEAD + b"Content-Length: 500\r\n\r\n", *[b" "] * 400],
    "a header now and then": [HEAD, *[b"X: y\r\n"] * 400],
    "informational": [b"HTTP/1.1 102 Processing\r\n\r\n"] * 400,
}


@pytest.mark.parametrize("pieces", ENDLESS.values(), ids=ENDLESS)
def test_the_timeout_bounds_the_whole_answer(pieces):
    with raw_server(sends(pieces, 0.05)) as url:
        start = time.monotonic()
        line = fault_of(url, llm_timeout=0.5, llm_max_retries=1)
    assert "no whole answer within llm_timeout=0.5 seconds" in line
    assert time.monotonic() - start < 5


def test_an_endless_body_is_not_read_into_memory(monkeypatch):
    monkeypatch.setattr(http, "MOST_BYTES", 2**20)
    sent = []

    def respond(connection):
        connection.sendall(HEAD + b"\r\n")
        while True:
            sent.append(connection.send(b" " * 2**16))

    with raw_server(respond) as url:
        assert "an answer of more than 1 MiB" in fault_of(url)
    assert sum(sent) < 16 * 2**20


def test_a_packed_answer_is_read_within_the_bound(monkeypatch):
    def packed(content):
        body = zlib.compress(content)
        return sends(HEAD + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with raw_server(packed(json.dumps(completion(GOOD)).encode())) as url:
        assert generate(url) == [GOOD]
    monkeypatch.setattr(http, "MOST_BYTES", 2**16)
    with raw_server(packed(b" " * 2**24)) as url:
        assert "an answer of more than" in fault_of(url)


def test_a_deep_reply_is_no_reply_and_nothing_else():
    with faulty_server(lambda *_: (200, completion('{"summarization":' + "[" * 100_000))) as (url, _):
        settings = server_settings(url, max_missing_share=1.0, llm_reply_attempts=1)
        with closing(load_backend(settings)) as backend, ReplyCache(":memory:") as cache:
            assert ask(backend, prompts_of(2), FORMAT, cache=cache, settings=settings, description="x").missing == 2


# --- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["sk-first\nsk-second", "sk-first\r\nX-Evil: 1", "sk-\x00rest", "sk-schlüssel", "sk-\u2028rest"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setattr("os.environ", {"HNLM_TEST_KEY": key})
    with pytest.raises(BackendError, match="environment variable HNLM_TEST_KEY holds") as caught:
        load_backend(server_settings("http://localhost:1/v1"))
    found = doctor_of("http://localhost:1/v1")
    for text in (str(caught.value), found):
        assert not any(part in text for part in ("sk-", "first", "second", "Evil", "rest", "schl"))


def test_a_key_may_end_in_a_line_break(monkeypatch):
    monkeypatch.setenv("HNLM_TEST_KEY", " sk-key\n")
    with faulty_server(lambda *_: (200, completion(GOOD))) as (url, seen):
        generate(url)
    assert {name.lower(): value for name, value in seen[0]["headers"].items()}["authorization"] == "Bearer sk-key"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_gets_no_key(monkeypatch, status):
    monkeypatch.setenv("HNLM_TEST_KEY", "sk-secret-0123456789")
    with faulty_server(lambda *_: (200, completion(GOOD))) as (other, stolen):
        moved = b"HTTP/1.1 %d Moved\r\nLocation: %s/models\r\nContent-Length: 0\r\n\r\n" % (status, other.encode())
        with raw_server(sends(moved)) as url:
            for line in (fault_of(url), doctor_of(url)):
                assert f"{other}/models, which is not followed" in line
    assert stolen == []


# --- proxies -----------------------------------------------------------------------------------------------------------


def set_proxy(monkeypatch, value):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", value)
    monkeypatch.setenv("HNLM_TEST_KEY", "sk-key")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "127.9.9.9", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_this_machine_is_never_called_through_a_proxy(monkeypatch, host):
    set_proxy(monkeypatch, f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with faulty_server(lambda *_: (200, completion(GOOD))) as (url, _):
        listening = url.replace("127.0.0.1", host)
        if host == "127.9.9.9":  # the server listens on 127.0.0.1 alone
            assert "proxy" not in fault_of(listening, llm_max_retries=0)
        else:
            assert generate(listening) == [GOOD]


def test_a_proxy_that_fails_is_named_without_its_password(monkeypatch):
    set_proxy(monkeypatch, f"http://me:hunter2@127.0.0.1:{unused_port()}")
    line = fault_of("http://llm.example/v1", llm_max_retries=0)
    assert "through the proxy http://***@127.0.0.1" in line
    assert "(http_proxy)" in line
    assert "hunter2" not in line
    monkeypatch.setenv("no_proxy", "llm.example")
    assert "proxy" not in fault_of("http://llm.example/v1", llm_max_retries=0)


def test_a_proxy_that_wants_a_login_is_named(monkeypatch):
    with raw_server(sends(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n")) as url:
        set_proxy(monkeypatch, url.removesuffix("/v1"))
        line = fault_of("http://llm.example/v1")
        assert "wants a login" in line
        assert "through the proxy http://127.0.0.1" in line
        monkeypatch.setenv("https_proxy", url.removesuffix("/v1"))
        assert "the proxy http://127.0.0.1" in fault_of("https://llm.example/v1", llm_max_retries=0)


@pytest.mark.parametrize("proxy", ["socks5://me:hunter2@127.0.0.1:1", "socks5h://127.0.0.1:1"])
def test_a_socks_proxy_without_its_package_is_one_line(monkeypatch, proxy):
    monkeypatch.setitem(sys.modules, "socksio", None)
    set_proxy(monkeypatch, proxy)
    with pytest.raises(MissingDependencyError, match=r"\(http_proxy\).*pip install socksio") as caught:
        generate("http://llm.example/v1")
    assert "hunter2" not in str(caught.value)
    assert "pip install socksio" in doctor_of("http://llm.example/v1")


@pytest.mark.parametrize("proxy", ["socks4://127.0.0.1:1", "ftp://me:hunter2@host", "http://host:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_one_line(monkeypatch, proxy):
    set_proxy(monkeypatch, proxy)
    line = fault_of("http://llm.example/v1")
    assert "(http_proxy) cannot be used" in line
    assert "hunter2" not in line

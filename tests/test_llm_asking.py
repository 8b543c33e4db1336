"""Asking and the reply cache: addressing, retries, counting, kill -9, damage, a full disk."""

from __future__ import annotations

import json
import logging
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llm_tiny import ScriptedBackend, tiny_settings

from recbole_hnlm.llm.asking import ask, retry_decoding
from recbole_hnlm.llm.cache import ReplyCache, content_key
from recbole_hnlm.llm.protocol import Decoding, ModelIdentity, Prompt
from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.utils.errors import ArtifactError, BackendError

SETTINGS = tiny_settings(max_missing_share=1.0)
FORMAT = profile_format(SETTINGS)


def prompts_of(count, system="Describe."):
    return [Prompt(system, json.dumps({"id": i, "title": "x" * (i * 7 % 50)})) for i in range(count)]


def good(prompt, _decoding):
    return json.dumps({"summarization": f"user {json.loads(prompt.user)['id']}", "reasoning": "so"})


def put(backend, prompts, cache, settings=SETTINGS, reply_format=FORMAT):
    return ask(backend, prompts, reply_format, cache=cache, settings=settings, description="profiles")


@pytest.fixture
def cache(tmp_path):
    with ReplyCache(tmp_path / "replies.sqlite") as opened:
        yield opened


def test_order_is_kept_longest_go_first_and_twins_are_asked_once(cache):
    backend = ScriptedBackend(good, batch_size=3)
    prompts = prompts_of(10)
    result = put(backend, prompts + prompts[:4], cache)
    assert [reply.summarization for reply in result.replies] == [f"user {i}" for i in [*range(10), *range(4)]]
    lengths = [len(prompt.user) for batch, _ in backend.calls for prompt in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) == 10
    assert [len(batch) for batch, _ in backend.calls] == [3, 3, 3, 1]
    assert (result.reused, result.generated, result.missing) == (0, 14, 0)


def test_only_what_changed_is_asked_again(cache):
    put(ScriptedBackend(good), prompts_of(10), cache)
    backend = ScriptedBackend(good)
    changed = [*prompts_of(10)[:9], Prompt("Describe.", json.dumps({"id": 9, "title": "another"}))]
    result = put(backend, changed, cache)
    assert [batch for batch, _ in backend.calls] == [[changed[9]]]
    assert (result.reused, result.generated) == (9, 1)
    unchanged = ScriptedBackend(good)
    assert put(unchanged, changed, cache).reused == 10
    assert unchanged.calls == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"system": "Describe well."},
        {"settings": {"llm_seed": 1}},
        {"settings": {"llm_temperature": 0.5}},
        {"settings": {"profile_max_words": 4}},
    ],
)
def test_model_instruction_and_decoding_are_part_of_the_address(cache, change):
    put(ScriptedBackend(good), prompts_of(3), cache)
    settings = tiny_settings(**change.get("settings", {}))
    backend = ScriptedBackend(good, name=change.get("name", "scripted"))
    prompts = prompts_of(3, change.get("system", "Describe."))
    assert put(backend, prompts, cache, settings, profile_format(settings)).reused == 0


def test_content_key_separates_its_parts():
    identity, decoding = ModelIdentity("b", "n", "r", "p"), Decoding(1, 0.0, 0, {})
    parts = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("ab", "c", (("d", "e"),)), ("ab", "c", (("de", ""),))]
    assert len({content_key(identity, Prompt(*part), decoding) for part in parts}) == 6


def test_an_invalid_reply_is_asked_again_hotter_with_another_seed(cache):
    def bad_when_greedy(prompt, decoding):
        return good(prompt, decoding) if decoding.temperature else "no JSON"

    backend = ScriptedBackend(bad_when_greedy, batch_size=8)
    result = put(backend, prompts_of(5), cache)
    assert result.missing == 0
    first, second = (decoding for _, decoding in backend.calls)
    assert (first.temperature, second.temperature) == (0.0, 0.7)
    assert first.seed != second.seed
    assert put(ScriptedBackend(good), prompts_of(5), cache).reused == 5
    hot = Decoding(1, 0.9, 0, {})
    assert retry_decoding(hot, 1).temperature == 0.9
    assert len({retry_decoding(hot, attempt).seed for attempt in range(4)}) == 4


def test_missing_replies_are_counted_reported_and_tried_again_next_time(cache, caplog):
    def one_bad(prompt, decoding):
        return "rub\x1bbish" if json.loads(prompt.user)["id"] == 2 else good(prompt, decoding)

    backend = ScriptedBackend(one_bad)
    with caplog.at_level(logging.WARNING, "recbole_hnlm"):
        result = put(backend, prompts_of(4), cache)
    assert [reply is None for reply in result.replies] == [False, False, True, False]
    assert (result.generated, result.missing) == (3, 1)
    assert "1 of 4 replies (25.0%)" in caplog.text
    assert r"rub\x1bbish" in caplog.text
    assert [len(batch) for batch, _ in backend.calls] == [4, 1]
    assert put(ScriptedBackend(good), prompts_of(4), cache).generated == 1


def test_too_many_missing_fail_with_the_numbers_and_keep_the_rest(cache):
    settings = tiny_settings(max_missing_share=0.2, llm_reply_attempts=3)

    def half_bad(prompt, decoding):
        return "a" * 999 if json.loads(prompt.user)["id"] % 2 else good(prompt, decoding)

    with pytest.raises(
        BackendError, match=r"profiles: 5 of 10 replies \(50.0%\).*more than max_missing_share=20.0% allows"
    ) as caught:
        put(ScriptedBackend(half_bad), prompts_of(10), cache, settings)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)
    assert put(ScriptedBackend(good), prompts_of(10), cache, settings).reused == 5


def test_a_backend_that_says_nothing_is_missing_not_an_error_of_ours(cache):
    result = put(ScriptedBackend(lambda *_: None), prompts_of(3), cache)
    assert (result.replies, result.missing) == ([None] * 3, 3)


CHILD = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from llm_tiny import ScriptedBackend
from test_llm_asking import good, prompts_of, put
from recbole_hnlm.llm.cache import ReplyCache
done = 0
def slow(prompt, decoding):
    global done
    done += 1
    Path(sys.argv[3]).write_text(str(done))
    time.sleep(0.02)
    return good(prompt, decoding)
put(ScriptedBackend(slow, batch_size=5), prompts_of(500), ReplyCache(sys.argv[1]))
"""


def test_kill_9_loses_at_most_the_batch_in_flight(tmp_path):
    path, counter = tmp_path / "replies.sqlite", tmp_path / "counter"
    arguments = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent), str(counter)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (counter.exists() and int(counter.read_text() or 0) >= 33):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    answered = int(counter.read_text())
    assert 33 <= answered < 500
    backend = ScriptedBackend(good, batch_size=5)
    with ReplyCache(path) as reopened:
        result = put(backend, prompts_of(500), reopened)
    assert result.reused >= answered - 5
    assert result.reused % 5 == 0
    assert [reply.summarization for reply in result.replies] == [f"user {i}" for i in range(500)]


@pytest.mark.parametrize("damage", ["garbage", "middle", "other table", "newer"])
def test_a_damaged_cache_is_one_clear_line(tmp_path, damage):
    path = tmp_path / "replies.sqlite"
    with ReplyCache(path) as cache:
        put(ScriptedBackend(good), prompts_of(300), cache)
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif damage == "middle":
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            sql = "DROP TABLE replies; CREATE TABLE replies (a)" if damage == "other table" else "PRAGMA user_version=99"
            connection.executescript(sql)

    def use():
        with ReplyCache(path) as cache:
            put(ScriptedBackend(good), prompts_of(300), cache)

    with pytest.raises(ArtifactError, match=r"replies\.sqlite.*delete") as caught:
        use()
    assert "\n" not in str(caught.value)


def test_a_full_database_keeps_what_was_stored(tmp_path):
    with ReplyCache(tmp_path / "replies.sqlite") as cache:
        put(ScriptedBackend(good), prompts_of(20), cache)
        cache._connection.execute("PRAGMA max_page_count=4")
        with pytest.raises(ArtifactError, match=r"full.*make room"):
            put(ScriptedBackend(good, batch_size=50), prompts_of(2000), cache)
    with ReplyCache(tmp_path / "replies.sqlite") as cache:
        assert put(ScriptedBackend(good), prompts_of(20), cache).reused == 20


def flip(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("damaged", [b"user 7", b"user \xff"])
def test_a_stored_reply_with_flipped_bytes_is_left_out_and_asked_again(tmp_path, caplog, damaged):
    path = tmp_path / "replies.sqlite"
    with ReplyCache(path) as cache:
        put(ScriptedBackend(good), prompts_of(5), cache)
    flip(path, b"user 3", damaged)
    backend = ScriptedBackend(good)
    with ReplyCache(path) as cache, caplog.at_level(logging.WARNING, "recbole_hnlm"):
        result = put(backend, prompts_of(5), cache)
    assert [prompt for batch, _ in backend.calls for prompt in batch] == [prompts_of(5)[3]]
    assert [reply.summarization for reply in result.replies] == [f"user {i}" for i in range(5)]
    assert "1 damaged replies are left out" in caplog.text
    with ReplyCache(path) as cache:
        assert put(ScriptedBackend(good), prompts_of(5), cache).reused == 5


def test_a_cache_without_digests_gets_them_and_can_be_read_before(tmp_path):
    path, backend = tmp_path / "replies.sqlite", ScriptedBackend(good)
    first = Decoding(FORMAT.max_new_tokens, 0.0, 0, FORMAT.schema)
    keys = [content_key(backend.identity, prompt, first) for prompt in prompts_of(3)]
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID")
        rows = [(key, good(prompt, first)) for key, prompt in zip(keys, prompts_of(3), strict=True)]
        old.executemany("INSERT INTO replies VALUES (?, ?)", rows)
        old.execute("PRAGMA user_version=1")
    old.close()
    with ReplyCache(path, read_only=True) as cache:
        assert cache.get_many(keys) == dict(rows)
    with ReplyCache(path) as cache:
        assert put(ScriptedBackend(good), prompts_of(4), cache).reused == 3
    flip(path, b"user 1", b"user 9")
    with ReplyCache(path, read_only=True) as cache:
        assert sorted(cache.get_many(keys)) == sorted([keys[0], keys[2]])


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from llm_tiny import ScriptedBackend
from test_llm_asking import good, prompts_of, put
from recbole_hnlm.utils.errors import ArtifactError
from recbole_hnlm.llm.cache import ReplyCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = ReplyCache(sys.argv[1])
put(ScriptedBackend(good), prompts_of(20), cache)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    put(ScriptedBackend(good, batch_size=200), prompts_of(20_000), cache)
except ArtifactError as error:
    print(error)
    sys.exit(2)
"""


def test_writes_that_really_fail_are_one_clear_line(tmp_path):
    """RLIMIT_FSIZE makes the kernel refuse the write, as a full disk does."""
    arguments = [sys.executable, "-c", LIMITED, str(tmp_path / "r.sqlite"), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "make room" in done.stdout
    assert done.stdout.count("\n") == 1
    with ReplyCache(tmp_path / "r.sqlite") as cache:
        assert put(ScriptedBackend(good), prompts_of(20), cache).reused == 20


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="artifact_dir"):
        ReplyCache(tmp_path / "file" / "replies.sqlite")


def test_a_stored_reply_that_is_not_valid_is_asked_again(cache):
    prompt = prompts_of(1)[0]
    backend = ScriptedBackend(good)
    first = Decoding(FORMAT.max_new_tokens, 0.0, 0, FORMAT.schema)
    cache.put_many({content_key(backend.identity, prompt, first): "{}"})
    assert put(backend, [prompt], cache).generated == 1

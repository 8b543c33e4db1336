"""Reply forms: word limits agree between pydantic and grammar; what is accepted, what is not."""

from __future__ import annotations

import json
import re

import pytest
import xgrammar as xgr
from llm_tiny import tiny_settings

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.llm.protocol import Decoding
from recbole_hnlm.llm.replies import HardNegative, Profile, hard_negative_format, parse_reply, profile_format

FORMAT = profile_format(tiny_settings())  # 3 words, 2 words


@pytest.fixture(scope="module")
def grammar():
    info = xgr.TokenizerInfo([bytes([i]) for i in range(256)] + [b"<eos>"], vocab_type=xgr.VocabType.RAW, stop_token_ids=[256])
    compiled = xgr.GrammarCompiler(info).compile_json_schema(
        json.dumps(FORMAT.schema), any_whitespace=False, separators=(", ", ": ")
    )
    return lambda: xgr.GrammarMatcher(compiled, terminate_without_stop_token=True)


def reply(summarization, reasoning="because so"):
    return json.dumps({"summarization": summarization, "reasoning": reasoning}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (reply("one two three"), True),
        (reply("one two three four"), False),
        (reply("one", "a b c"), False),
        (reply("x" * 3 * 26), True),
        (reply("x" * (3 * 26 + 1)), False),
        (reply("日" * 3_000_000), False),
        (reply("one", "x" * (2 * 26 + 1)), False),
        (reply("日本 émile 😀"), True),
        (reply(""), False),
        (reply(" "), False),
        ('{"summarization": "one"}', False),
        ('{"summarization": "one", "reasoning": 3}', False),
        ('{"summarization": "one", "reasoning": "b", "extra": 1}', False),
        ('{"summarization": "one", "reasoning": "b"', False),
        ('{"summarization": "a\\u0000b", "reasoning": "b"}', False),
        ('{"summarization": "\\ud800", "reasoning": "b"}', False),
        ("[1]", False),
        ("", False),
        ('```json\n{"summarization": "one", "reasoning": "b"}\n```', True),
        ('Sure! {"summarization": "one", "reasoning": "b"} Anything {else}?', True),
        ('{"example": 1} so {"summarization": "one", "reasoning": "b"}', True),
        ('{"summarization": "one", "reasoning": "b"} or {"summarization": "two", "reasoning": "b"}', False),
        ('{"reply": {"summarization": "one", "reasoning": "b"}}', False),
        ('<think>maybe {"summarization": "no", "reasoning": "b"}</think>\n{"summarization": "one", "reasoning": "b"}', True),
        ('maybe {"summarization": "no", "reasoning": "b"}</think>{"summarization": "one", "reasoning": "b"}', True),
        ('[THINK]so[/THINK]{"summarization": "one", "reasoning": "b"}', True),
        ('<think>maybe {"summarization": "one", "reasoning": "b"}', False),
        ('{"summarization": ' * 100_000, False),
        ("[" * 100_000, False),
        ("{" * 100_000, False),
    ],
)
def test_what_is_a_reply(text, valid):
    assert (parse_reply(text, FORMAT) is not None) == valid


def test_white_space_of_servers_is_collapsed():
    parsed = parse_reply('{"reasoning": "x", "summarization": " one\\n two\\t"}', FORMAT)
    assert isinstance(parsed, Profile)
    assert parsed.summarization == "one two"
    assert parse_reply(None, FORMAT) is None


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (reply("one two three"), True),
        (reply("One, two: (1995)."), True),
        (reply("one two three four"), False),
        (reply("one  two"), False),
        (reply(" one"), False),
        (reply("tale,1,1"), False),
        (reply("x" * 24), True),
        (reply("x" * 25), False),
        (reply("日本 émile 😀"), True),
        (reply("a\u00a0b"), False),
        (reply("a\u3000b"), False),
        (reply('a\\"b'), False),
        (reply("a\nb"), False),
    ],
)
def test_what_the_grammar_allows(grammar, text, allowed):
    matcher = grammar()
    assert (matcher.accept_string(text) and matcher.is_terminated()) == allowed
    assert not allowed or parse_reply(text, FORMAT) is not None


@pytest.mark.parametrize(
    "sequence", [b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x80"]
)
def test_the_grammar_never_allows_malformed_utf8(grammar, sequence):
    assert not grammar().accept_string(b'{"summarization": "a' + sequence)


def test_no_character_of_a_word_splits_it():
    word = re.compile(
        re.search(r"\^(\[.*?\]\{)", FORMAT.schema["properties"]["reasoning"]["pattern"].replace("\\]", "\\x5d"))[1][:-1]
    )
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        if word.fullmatch(character):
            assert f"a{character}b".split() == [f"a{character}b"], hex(code)
            assert character.isprintable() or code > 0x7F, hex(code)
            assert character not in '"\\,.;:!?'


@pytest.mark.parametrize(("name", "is_none"), [("None", True), ("none.", True), ("Nonesuch", False), ("Heat", False)])
def test_none_is_an_answer(name, is_none):
    parsed = parse_reply(json.dumps({"hard_negative_item": name, "reasoning": "so"}), hard_negative_format(tiny_settings()))
    assert isinstance(parsed, HardNegative)
    assert parsed.is_none is is_none


def test_enough_tokens_for_the_longest_ascii_reply():
    settings = HNLMSettings()
    limits = (settings.profile_max_words, settings.negative_max_words)
    forms = (profile_format(settings), hard_negative_format(settings))
    for reply_format, words in zip(forms, ((limit, settings.reasoning_max_words) for limit in limits), strict=True):
        longest = {
            name: " ".join(["x" * 24 + ","] * count) for name, count in zip(reply_format.schema["required"], words, strict=True)
        }
        text = json.dumps(longest)
        assert parse_reply(text, reply_format) is not None
        assert len(text) <= reply_format.max_new_tokens + len('{"hard_negative_item": "')


def test_decoding_keys_separate_every_part():
    first = Decoding(10, 0.0, 0, {"a": 1})
    others = [
        Decoding(11, 0.0, 0, {"a": 1}),
        Decoding(10, 0.5, 0, {"a": 1}),
        Decoding(10, 0.0, 1, {"a": 1}),
        Decoding(10, 0.0, 0, {}),
    ]
    assert len({first.key(), *(other.key() for other in others)}) == 5
    assert first.key() == Decoding(10, 0, 0, {"a": 1}).key()

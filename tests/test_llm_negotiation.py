"""What a server takes is found out one parameter at a time, and whether it obeys a schema by a probe."""

import asyncio
import itertools
import json
import logging
import re

import pytest
from llm_tiny import GOOD, completion, faulty_server, is_probe, obeying, server_settings, tiny_settings

from recbole_hnlm.llm.completions import Completion, read_completion
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.http import NoAnswerError
from recbole_hnlm.llm.negotiation import Dialect, RefusedError, negotiate, prove_schema, request_body
from recbole_hnlm.llm.protocol import Decoding, Prompt
from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.utils.errors import BackendError

FORMAT = profile_format(tiny_settings())
DECODING = Decoding(FORMAT.max_new_tokens, 0.0, 0, FORMAT.schema)
PROMPT = Prompt("Describe.", '{"id": 0}')
WORDS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model.",
    "max_completion_tokens": "max_completion_tokens: Extra inputs are not permitted",
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
    "seed": "seed: Extra inputs are not permitted",
    "system": "System role not supported",
    "json_schema": "response_format type json_schema is not available",
    "json_object": "response_format is not available",
}


def parts_of(body):
    """Name what a server might refuse in a request."""
    names = {name for name in ("max_tokens", "max_completion_tokens", "temperature", "seed") if name in body}
    if body["messages"][0]["role"] == "system":
        names.add("system")
    return names | ({body["response_format"]["type"]} if "response_format" in body else set())


def negotiated(refused, *, named):
    sent = []

    async def send(dialect):
        body = request_body("m", PROMPT, DECODING, dialect)
        sent.append(body)
        for name, words in WORDS.items():
            if name in refused & parts_of(body):
                raise RefusedError("refused", words if named else "Bad Request")
        return Completion(GOOD, False, False, "", 1, 1)

    dialect, _, reasons = asyncio.run(negotiate(send))
    return request_body("m", PROMPT, DECODING, dialect), sent, reasons


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
@pytest.mark.parametrize("refused", [each for count in range(4) for each in itertools.combinations(WORDS, count)], ids=" ".join)
def test_only_what_a_server_refuses_is_given_up(refused, named):
    refused = set(refused)
    body, sent, reasons = negotiated(refused, named=named)
    expected = set(WORDS) - refused - ({"max_completion_tokens"} if "max_tokens" not in refused else set())
    expected -= {"json_object"} if "json_schema" not in refused else set()
    assert parts_of(body) == expected
    assert len(sent) <= 10
    assert bool(reasons) == (bool(refused & (parts_of(sent[0]))))
    # Nothing of what is asked is lost: the instruction, and the schema where no grammar enforces it.
    text = json.dumps(body["messages"])
    assert "Describe." in text
    assert ("satisfies this JSON schema" in text) == ("json_schema" not in expected)


def test_a_parameter_may_be_named_in_a_field_of_its_own():
    async def send(dialect):
        if dialect.temperature:
            raise RefusedError("refused", "Invalid value.", "temperature")
        return Completion(GOOD, False, False, "", 1, 1)

    assert asyncio.run(negotiate(send))[0] == Dialect(temperature=False, obeys=True)


@pytest.mark.parametrize("reason", ["This model's maximum context length is 2048 tokens", "max_tokens is too large: 5000"])
def test_a_size_is_no_matter_of_parameters(reason):
    sent = []

    async def send(dialect):
        sent.append(dialect)
        raise RefusedError("refused", reason)

    with pytest.raises(RefusedError):
        asyncio.run(negotiate(send))
    assert len(sent) == 1


def test_without_a_system_role_the_instruction_opens_the_first_message():
    prompt = Prompt("Describe.", "data", (("question", "reply"),))
    body = request_body("m", prompt, DECODING, Dialect(system=False, obeys=True), 100)
    assert body["messages"] == [
        {"role": "user", "content": "Describe.\n\nquestion"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": "data"},
    ]
    assert body["max_tokens"] == FORMAT.max_new_tokens + 100


def proven(answer, dialect=Dialect(obeys=True)):  # noqa: B008 - frozen
    async def send(prompt, decoding, tried):
        text = answer(request_body("m", prompt, decoding, tried, states_schema=False))
        if isinstance(text, Exception):
            raise text
        return read_completion(completion(text) | {"usage": None}) if isinstance(text, str) else text

    return asyncio.run(prove_schema(send, dialect, 500))


def json_mode(body):
    return "{}" if body["response_format"]["type"] == "json_object" else "Hello!"


def refuses_json_mode(body):
    return RefusedError("no") if body["response_format"]["type"] == "json_object" else "Hello!"


@pytest.mark.parametrize(
    ("answer", "schema", "obeys"),
    [
        (obeying, "json_schema", True),
        (lambda body: "<think>a word</think>" + obeying(body), "json_schema", True),
        (json_mode, "json_object", True),
        (refuses_json_mode, None, False),
        (lambda _body: "Hello!", None, False),
        (lambda _body: '"Hello"', None, False),
        (lambda _body: RefusedError("enum is not supported"), "json_schema", None),
        (lambda _body: NoAnswerError("gone"), "json_schema", None),
        (lambda _body: Completion('{"answer": "hnl', True, False, "", 0, 64), "json_schema", None),
        (lambda _body: Completion("<think>So the user", True, False, "", 0, 64), "json_schema", None),
        (lambda _body: Completion(None, True, True, "", 0, 64), "json_schema", None),
    ],
)
def test_the_probe_shows_whether_a_grammar_fires(answer, schema, obeys):
    found = proven(answer)
    assert (found.schema, found.obeys) == (schema, obeys)
    assert found.states_schema == (schema != "json_schema" or obeys is None)


def test_the_probes_prompt_asks_for_another_reply_than_its_schema():
    bodies = []
    proven(lambda body: bodies.append(body) or obeying(body))
    assert "hnlm" not in json.dumps(bodies[0]["messages"])
    assert obeying(bodies[0]) == '{"answer": "hnlm-7391"}'


def test_it_is_found_out_once_and_logged_once(caplog):
    probes = []

    def script(_number, body, _handler):
        if is_probe(body):
            probes.append(body)
            return 200, completion("Hello!")
        if "max_tokens" in body:
            return 400, {"error": {"message": WORDS["max_tokens"], "param": "max_tokens"}}
        if "seed" in body:
            return 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
        return 200, completion(GOOD)

    with faulty_server(script, probe=None) as (url, seen), caplog.at_level(logging.INFO, "recbole_hnlm"):
        backend = load_backend(server_settings(url))
        assert backend.generate([PROMPT] * 8, DECODING) == [GOOD] * 8
        assert backend.generate([PROMPT] * 8, DECODING) == [GOOD] * 8
        backend.close()
    assert len(probes) == 2
    refused = [entry for entry in seen if {"max_tokens", "seed"} & set(entry["body"])]
    assert len(refused) == 2
    (line,) = [record.getMessage() for record in caplog.records if "is sent:" in record.getMessage()]
    assert "max_completion_tokens, temperature, no seed, system message, schema in the prompt only, not enforced" in line
    assert "it takes a response_format json_schema and ignores it" in line
    assert WORDS["max_tokens"] in line
    assert "body.seed: Extra inputs are not permitted" in line


def answered(message, finish="stop", usage=None):
    return {"choices": [{"finish_reason": finish, "message": message}], "usage": usage}


@pytest.mark.parametrize(
    ("content", "text", "thought", "is_cut"),
    [
        (answered({"content": GOOD}), GOOD, False, False),
        (answered({"content": [{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}]}), GOOD, False, False),
        (answered({"content": None, "reasoning_content": "Let me"}, "length"), None, True, True),
        (answered({"content": "", "reasoning": "Let me"}, "length"), None, True, True),
        (answered({"content": None, "reasoning_content": GOOD}), GOOD, False, False),
        (answered({"content": None, "refusal": "no"}), None, False, False),
        (answered({"content": 3}), None, False, False),
        (answered({}), None, False, False),
    ],
)
def test_what_a_completion_says(content, text, thought, is_cut):
    found = read_completion(content)
    assert (found.text, found.thought, found.is_cut) == (text, thought, is_cut)


@pytest.mark.parametrize("content", [None, [], "x", {}, {"choices": None}, {"choices": [3]}, {"choices": [{"message": []}]}])
def test_what_is_no_completion(content):
    with pytest.raises(NoAnswerError, match="no choices"):
        read_completion(content)


def test_a_model_that_thinks_to_its_limit_is_an_error_that_names_our_key():
    thinking = answered({"content": None, "reasoning_content": "Let me"}, "length", {"completion_tokens": 170})
    with faulty_server(lambda *_: (200, thinking)) as (url, seen):
        backend = load_backend(server_settings(url, llm_thinking_tokens=30))
        expected = r"spent 170 tokens on thinking: raise the limit with llm_thinking_tokens \(now 30"
        with pytest.raises(BackendError, match=expected):
            backend.generate([PROMPT] * 5, DECODING)
        backend.close()
    assert [entry["body"]["max_tokens"] for entry in seen] == [FORMAT.max_new_tokens + 30]


def test_one_that_does_so_later_leaves_its_prompt_out(caplog):
    thinking = answered({"content": None, "reasoning_content": "Let me"}, "length")
    with faulty_server(lambda number, *_: (200, completion(GOOD) if number != 2 else thinking)) as (url, _):
        backend = load_backend(server_settings(url))
        with caplog.at_level(logging.WARNING, "recbole_hnlm"):
            assert backend.generate([PROMPT] * 5, DECODING).count(None) == 1
        backend.close()
    assert len(re.findall("raise the limit with llm_thinking_tokens", caplog.text)) == 1

"""Addresses: what may be one, what of it may be shown, which lie on this machine."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.config.checkpoint_keys import keys_to_repeat, llm_places
from recbole_hnlm.utils.addresses import is_loopback, looks_secret, one_line, parse_addresses, redact
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.logger import close_logger, init_logger
from recbole_hnlm.utils.results import write_result

SECRET = "hunter2hunter2hunter2"
LEAKS = [
    f"http://{SECRET}@host/v1",
    f"http://me:{SECRET}@host/v1",
    f"http://me:a/{SECRET}@host/v1",
    f"http://me:a,{SECRET}@host/v1",
    f"http://me:a?{SECRET}@host/v1",
    f"http://me:a#{SECRET}@host/v1",
    f"http://host/v1?api_key={SECRET}",
    f"http://host/v1?{SECRET}",
    f"http://host/v1?{SECRET}=1",
    f"http://host/v1?a=1&sig={SECRET}&b=@x",
    f"http://host/v1#{SECRET}",
    f"http://host/v1#access_token={SECRET}",
    f"http://host/{SECRET}/v1",
    f"http://host/v1/sk-{SECRET}",
    f"socks5://me:{SECRET}@host:1",
    f"http://ok/v1,http://me:{SECRET}@host/v1",
]


@pytest.mark.parametrize("address", LEAKS)
@pytest.mark.parametrize("frame", ["{}", "asked {}, which failed", "'{}'", "({})"])
def test_no_place_of_an_address_shows_a_secret(address, frame):
    shown = redact(frame.format(address))
    assert SECRET not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8000/v1",
        "https://api-inference.huggingface.co/models/meta-llama/Meta-Llama-3-8B-Instruct/v1",
        "https://recbole.s3-accelerate.amazonaws.com/ProcessedDatasets/MovieLens/ml-100k.zip",
        "http://a:1/v1,http://[::1]:2/v1",
        "no address: user@host, a/b?c=d",
    ],
)
def test_what_holds_none_stays_as_it_is(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("word", "secret"),
    [
        ("sk-abcdef", True),
        ("hf_abcdefgh", True),
        ("0123456789abcdef", True),
        ("123e4567-e89b-12d3-a456-426614174000", True),
        ("eyJhbGciOiJIUzI1NiJ9", True),
        ("a" * 32, True),
        ("v1", False),
        ("Meta-Llama-3-8B-Instruct", False),
        ("text-generation-inference", False),
        ("OPENAI_API_KEY", False),
        ("ProcessedDatasets", False),
    ],
)
def test_what_looks_like_a_key(word, secret):
    assert looks_secret(word) == secret


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty"),
        ("localhost:8000", "is not an address such as"),
        ("ftp://host/v1", "is not an address such as"),
        ("http://", "is not an address such as"),
        ("http:///v1", "is not an address such as"),
        ("http://-host/", "is not an address such as"),
        ("http://ho$t/v1", "is not an address such as"),
        ("http://host:0/v1", "port is no number between 1 and 65535"),
        ("http://host:65536/v1", "port is no number between 1 and 65535"),
        ("http://host:80a/v1", "port is no number between 1 and 65535"),
        ("http://host:-1/v1", "port is no number between 1 and 65535"),
        ("http://host:1,localhost:2", "port is no number between 1 and 65535"),
        ("http://[::1/v1", "host cannot be read"),
        ("http://[zz]/v1", "host cannot be read"),
        ("http://ho st/v1", "holds a space"),
        ("http://host/v1\nX: y", "control character"),
        ("http://host/\x1b[31m", "control character"),
        ("http://host/\u202ev1", "control character"),
        ("http://host\\@other/v1", "holds a user"),
        ("http://host\\v1", "backslash"),
        ("http://me@host/v1", "environment variable MY_KEY"),
        ("me:hunter2@host", "environment variable MY_KEY"),
        ("http://host/v1?a=b", "holds a query or a fragment"),
        ("http://host/v1#a", "holds a query or a fragment"),
        ("http://host/v1?", "holds a query or a fragment"),
        ("http://a/v1,http://b:x/v1", "port is no number"),
        ("http://ho st/" + "a" * 10**6, "holds a space"),
    ],
)
def test_what_is_no_address_is_one_line(value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_addresses(value, "MY_KEY")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 350
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_one_line(text):
    for value in (text, f"http://{text}", f"http://host/{text}", f"http://host:{text}/v1"):
        redact(value)
        try:
            parse_addresses(value, "MY_KEY")
        except ConfigError as error:
            assert str(error).isprintable()  # noqa: PT017 - an address is right too


def test_several_addresses():
    found = parse_addresses(" http://a/v1/ , http://[::1]:2/v1,http://a/v1,https://\u00e4.example ", "K")
    assert [(each.url, each.host, each.port, each.is_loopback) for each in found] == [
        ("http://a/v1", "a", None, False),
        ("http://[::1]:2/v1", "::1", 2, True),
        ("https://\u00e4.example", "\u00e4.example", None, False),
    ]


@pytest.mark.parametrize("host", ["localhost", "LocalHost.", "x.localhost", "127.0.0.1", "127.255.3.4", "127.1", "0.0.0.0"])
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["::1", "[::1]", "::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:0:0:1", "::", "2130706433"])
def test_this_machine_as_numbers(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "128.0.0.1", "::ffff:10.0.0.1", "fe80::1", "localhost.example", "example", ""])
def test_another_machine(host):
    assert not is_loopback(host)


def test_a_strangers_text_is_one_printable_line():
    assert one_line("a\x1b[31m\n b\u202e\x00c\u00e9") == "a [31m b c\u00e9"
    assert len(one_line("a b " * 10**6)) < 210


@pytest.mark.parametrize("address", LEAKS)
def test_no_log_result_or_checkpoint_holds_one(tmp_path, address):
    config = {"log_dir": str(tmp_path), "run_id": "r", "state": "INFO", "local_rank": 0, "llm_api_key_env": "HNLM_TEST_KEY"}
    init_logger(config)
    logging.getLogger("recbole_hnlm").info("asked %s", address)
    close_logger()
    write_result(tmp_path, {"run_id": "r", "config": {"llm_base_url": address, "list": [address]}})
    for name in ("r.log", "r.json"):
        assert "***" in (tmp_path / name).read_text()
        assert SECRET not in (tmp_path / name).read_text()
    places = llm_places({"llm_base_url": address})
    assert SECRET not in str(places)
    assert not keys_to_repeat({"places": places}, {"llm_base_url": address})
    assert SECRET not in str(keys_to_repeat({"places": {"llm_base_url": address}}, {}))


def test_a_key_of_several_lines_reaches_no_log(tmp_path, monkeypatch):
    monkeypatch.setenv("HNLM_TEST_KEY", "first-secret\nsecond-secret")
    config = {"log_dir": str(tmp_path), "run_id": "r", "state": "INFO", "local_rank": 0, "llm_api_key_env": "HNLM_TEST_KEY"}
    init_logger(config)
    logging.getLogger("recbole_hnlm").info("refused: first-secret, then second-secret")
    close_logger()
    assert "refused: ***, then ***" in (tmp_path / "r.log").read_text()


@pytest.mark.parametrize("address", [LEAKS[3], LEAKS[9]])
def test_the_command_line_refuses_them_without_showing_them(address, workdir, capsys):
    keys = ["--dataset=ml-100k", "--llm_backend=openai", "--llm_model=m", f"--llm_base_url={address}"]
    assert main(["run", "--model=HNLMLightGCN", *keys]) == 2
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert shown.err.count("\n") == 1
    assert not list(workdir.iterdir())


def test_an_error_of_the_command_line_shows_no_secret(capsys):
    assert main(["run", f"http://me:{SECRET}@host/v1"]) == 2
    assert "unexpected argument 'http://***@host/v1'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [f"sk-{SECRET}", SECRET + "0123", "my key"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown(name):
    with pytest.raises(ConfigError, match="llm_api_key_env is not the name of an environment variable") as caught:
        Config("BPR", "ml-100k", config_dict={"llm_api_key_env": name}, strict=False)
    assert name not in str(caught.value)

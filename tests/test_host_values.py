"""Reading values, YAML files and arguments."""

import pytest

from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.values import load_yaml, merge, parse_value, plain, split_argv


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("~", None),
        ("None", None),
        ("true", True),
        ("False", False),
        ("1e-5", 1e-5),
        ("12", 12),
        ("[5,10]", [5, 10]),
        ("5,10", (5, 10)),
        ("{'mode': 'uni100'}", {"mode": "uni100"}),
        ("[Recall, NDCG]", ["Recall", "NDCG"]),
        ("[0,inf)", "[0,inf)"),
        ("2020-01-01", "2020-01-01"),
        ("yes", "yes"),
        ("__import__('os').getpid()", "__import__('os').getpid()"),
        ("1/0", "1/0"),
        ("sys.path", "sys.path"),
        ("b'x'", "b'x'"),
        ("a=b=c", "a=b=c"),
        ("", ""),
    ],
)
def test_values_are_literals_and_never_evaluated(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_argv_takes_both_spellings_and_values_with_equals_signs():
    texts = split_argv(["--a=1", "--b", "2", "--url=http://h/?x=1", "--c", "-3", "--d="])
    assert texts == {"a": "1", "b": "2", "url": "http://h/?x=1", "c": "-3", "d": ""}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--a"], "--a has no value"),
        (["--a", "--b=1"], "--a has no value"),
        (["a=1"], "unexpected argument 'a=1'"),
        (["-m", "X"], "unexpected argument '-m'"),
        (["--a=1", "--a=2"], "given twice"),
    ],
)
def test_argv_that_cannot_be_meant_is_an_error(argv, message):
    with pytest.raises(ConfigError, match=message):
        split_argv(argv)


def test_a_key_given_twice_with_the_same_value_is_accepted():
    assert split_argv(["--a=1", "--a=1"]) == {"a": "1"}


def test_yaml_of_comments_only_is_empty_and_floats_need_no_dot(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "rate.yaml").write_text("learning_rate: 1e-5\nname: abc\n")
    assert load_yaml(tmp_path / "empty.yaml") == {}
    assert load_yaml(tmp_path / "rate.yaml") == {"learning_rate": 1e-5, "name": "abc"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: not valid YAML"),
        ("- 1\n- 2\n", "expected lines of `key: value`, got \\[1, 2\\]"),
        ("1: x\n", "expected keys that are names, got 1"),
        ("a: !!python/object/apply:os.getpid []\n", "line 1: not valid YAML"),
    ],
)
def test_broken_yaml_is_reported_with_its_line(tmp_path, content, message):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_yaml(tmp_path / "x.yaml")


def test_missing_and_binary_yaml_are_reported(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml does not exist"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        load_yaml(tmp_path / "b.yaml")


def test_only_recboles_nested_keys_are_merged():
    base = {"eval_args": {"mode": "full", "order": "RO"}, "load_col": {"inter": ["a"]}}
    merged = merge(base, {"eval_args": {"order": "TO"}, "load_col": {"item": ["b"]}})
    assert merged == {"eval_args": {"mode": "full", "order": "TO"}, "load_col": {"item": ["b"]}}
    assert base["eval_args"] == {"mode": "full", "order": "RO"}


def test_plain_keeps_json_types_only():
    import numpy as np  # noqa: PLC0415
    from recbole.utils import ModelType  # noqa: PLC0415

    given = {"a": np.float64(0.5), 1: (1, np.int64(2)), "k": ModelType.GENERAL, "bad": float("-inf"), "p": np.array([1.0])}
    assert plain(given) == {"a": 0.5, "1": [1, 2], "k": "GENERAL", "bad": None, "p": [1.0]}
    assert type(plain(np.float64(0.5))) is float


def test_redact_blanks_urls_and_named_secrets():
    text = "http://user:pw@host/v1?api_key=abc&n=1 and sk-123"
    assert redact(text, ["sk-123"]) == "http://***@host/v1?api_key=***&n=*** and ***"

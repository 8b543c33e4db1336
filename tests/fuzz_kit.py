"""Strategies for fuzzing: atomic files, keys and values, YAML texts, bytes of artefacts; and how many examples are tried.

The number of examples is that of the hypothesis profile named by ``RECBOLE_HNLM_FUZZ``: ``small`` in ``make test`` (the same
examples every time), ``large`` in ``make test-fuzz``.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from recbole_hnlm.config.checks import LAUNCHER_KEYS
from recbole_hnlm.utils.errors import HNLMError

_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
# A deadline is per example, in milliseconds: what takes longer counts as a hang.
settings.register_profile(
    "small", max_examples=25, deadline=20_000, suppress_health_check=_CHECKS, derandomize=True, database=None
)
settings.register_profile("large", max_examples=400, deadline=20_000, suppress_health_check=_CHECKS, database=None)
fuzzed = settings.get_profile(os.environ.get("RECBOLE_HNLM_FUZZ", "small"))


def outcome(action):
    """Return what an action returns, or the line with which it refuses; anything else is a fault and goes on as it is."""
    try:
        return action()
    except HNLMError as error:
        line = " ".join(str(error).split())
        assert line
        assert len(line) < 6000, f"a message of {len(line)} characters"
        return error


# --- values ---------------------------------------------------------------------------------------------------------------

_NASTY = [
    "", " ", "None", "null", "~", "nan", "inf", "-inf", "0", "-1", "1", "5", "0.5", "1e400",
    "999999999999999999999999999999", "0x10", "True", "[]", "{}", "()", "[[1]]", "a,b", "5,10", "[5,inf)",
    "(1,2];[3,4]", "{'a':1}", "{'inter':'*'}", "{'inter':['user_id']}", "{'rating':'[1,5]'}", "{'rating':3}", "../x",
    "/dev/null", "~/x", "\\t", "'\\t'", "\x00", "\n", "\ud7ff", "é大", "%s{}", "{'split':{'RS':[8,1,1]}}",
    "{'mode':'uni5'}", "{'order':'TO'}", "{'sample_num':2}", "full", "user_id", "rating",
]  # fmt: skip
texts = st.one_of(st.sampled_from(_NASTY), st.text(max_size=12), st.integers().map(str), st.floats().map(str))
_PARTS = st.sampled_from(["inter", "item", "rating", "RS", "LS", "split", "mode", "order", "x"])
_leaves = st.one_of(st.none(), st.booleans(), st.integers(-3, 40), st.integers(), st.floats(), texts)
values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(_PARTS | texts, inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=8,
)  # fmt: skip


def keys_of(config):
    """Names of the keys of a configuration that a fuzzed run may set: not those that start processes."""
    return sorted(set(config.final_config_dict) - LAUNCHER_KEYS - {"model", "dataset", "worker", "device", "MODEL_TYPE"})


def configurations(names):
    """One to three keys, as a dictionary of values or of texts as on the command line."""
    keys = st.one_of(st.sampled_from(names), st.sampled_from(names), texts)
    return st.dictionaries(keys, st.one_of(values, texts), min_size=1, max_size=3)


# --- texts ----------------------------------------------------------------------------------------------------------------

_YAML = [
    "a", "load_col", "eval_args", "topk", ": ", ":", "- ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", "&x ",
    "*x", "<<: ", "!!int ", "!!bool ", "!!set ", "!!binary ", "!!python/name:os.system", "? ", "| ", "> ", "'", "\"",
    "# ", "---\n", "...\n", "%YAML 1.1\n", "1", "1:30", "1e5", "0x1f", "2020-01-01", "2020-99-01", "~", "None", "\t",
    "\r", "\x85", "\u2028", "\ufeff", "\x00",
]  # fmt: skip
yaml_texts = st.lists(st.one_of(st.sampled_from(_YAML), st.text(max_size=4)), max_size=30).map("".join)

_TYPES = ["token", "token_seq", "float", "float_seq", "int", ""]
_ODD_CELLS = [
    "u1", "u2", "u3", "i1", "i2", "i3", "1", "2.5", "", "nan", "inf", "1e999", "4,5", "—", "\"", "\"a\"", "a\"b", "NA",
    " ", "x y", "\r", "\x85", "\u2028", "\x00", "\ufeff", "2020-01-01",
]  # fmt: skip
_CELLS = st.one_of(st.sampled_from(_ODD_CELLS), st.text(max_size=6), st.floats().map(str))
_names = st.sampled_from(["user_id", "item_id", "rating", "timestamp", "title", "label", " x", "a:b", "rating"])
_headers = st.one_of(
    st.just(["user_id:token", "item_id:token"]),
    st.just(["user_id:token", "item_id:token", "rating:float", "timestamp:float"]),
    st.just(["item_id:token", "title:token_seq", "price:float"]),
    st.lists(st.tuples(_names, st.sampled_from(_TYPES)).map(":".join), max_size=5),
)
_separators = st.sampled_from(["\t"] * 8 + [",", "::", " ", "|"])
_ends = st.sampled_from(["\n"] * 6 + ["\r\n", "\r", "\n\n"])
_encodings = st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "gbk", "latin-1"])


@st.composite
def atomic_files(draw, users=True):
    """The bytes of a file that resembles an atomic file: some of it right, some of it anything."""
    header, separator, end = draw(_headers), draw(_separators), draw(_ends)
    width = max(1, len(header))
    good = st.tuples(st.sampled_from(["u1", "u2", "u3", "u4"]), st.sampled_from(["i1", "i2", "i3"])).map(list)
    right = good.map(lambda pair: [*(pair if users else pair[1:]), *["3"] * width][:width])
    anything = st.lists(_CELLS, min_size=width, max_size=width) | st.lists(_CELLS, max_size=6)
    rows = draw(st.lists(st.one_of(right, right, right, anything), max_size=25))
    text = end.join(separator.join(row) for row in [header, *rows]) + draw(st.sampled_from([end, "", "\n\n"]))
    return draw(mutated(text.encode(draw(_encodings), errors="replace"), untouched=3))


# --- bytes ----------------------------------------------------------------------------------------------------------------


@st.composite
def mutated(draw, data, untouched=0):
    """Damaged bytes: cut, flipped, inserted, repeated or replaced parts; for ``untouched`` of ``untouched + 1`` cases none."""
    if untouched and draw(st.integers(0, untouched)):
        return data
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "delete", "repeat", "replace"]))
        if kind == "cut":
            data = data[:start]
        elif kind == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ draw(st.integers(1, 255))]) + data[start + 1 :]
        elif kind == "insert":
            data = data[:start] + draw(st.binary(max_size=16)) + data[start:]
        elif kind == "repeat":
            data = data[:end] + data[start:]
        else:
            middle = draw(st.binary(max_size=end - start)) if kind == "replace" else b""
            data = data[:start] + middle + data[end:]
    return data

"""Ways to damage a file or a value, and what must come of it: one line, or honest work with a line in the log."""

from __future__ import annotations

import math

import torch

DEEP = b"[" * 100_000


def changed_at(content, at):
    """The content with one byte changed."""
    return content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :]


#: Damages of a file's bytes by name.
OF_BYTES = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "one byte": lambda content: changed_at(content, len(content) // 2),
    "tail": lambda content: content[:-1],
    "garbage": lambda _: b"\xff\x00 no file of ours \x1b[31m\n" * 20,
    "deep": lambda _: DEEP,
    "number": lambda _: b"1" * 5000,
    "null": lambda _: b"null",
}

GONE = "gone"


def deep_list(depth=200):
    """A list in a list in a list."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def other_values(value):
    """Name and value of everything that a field may be damaged into; nothing equals the value itself."""
    found = {
        "none": None,
        "text": "\x1b[31mx\ny" * 100,
        "list": [1, 2],
        "dict": {"a": 1},
        "minus": -1,
        "count": 10**9,
        "nan": math.nan,
        "true": True,
        "deep": deep_list(),
        "tensor": torch.full((3,), math.nan),
        "surrogate": "\ud800",
    }
    return {name: item for name, item in found.items() if type(item) is not type(value) or repr(item) != repr(value)}


def require_one_line(error):
    """Check that an error's text is one bounded line that can be printed and says what to do."""
    line = str(error)
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 900, line
    assert any(word in line for word in ("again", "delete", "use ", "resume", "expected", "choose", "give ", "run ")), line

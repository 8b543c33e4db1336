"""The walk-through of docs/api.md: every block is executed, and prints what the page says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_walk_through_does_what_it_says(workdir, monkeypatch):
    monkeypatch.setattr("sys.argv", ["notebook", "--epochs=50"])
    blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 16
    assert [kind for kind, _ in blocks] == ["python", "text"] * (len(blocks) // 2)
    names = {"__name__": "walk_through"}
    for (_, code), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, str(PAGE), "exec"), names)
        assert [line.rstrip() for line in printed.getvalue().splitlines()] == shown.splitlines(), code


def test_every_public_function_is_in_the_walk_through():
    import recbole_hnlm  # noqa: PLC0415 - keeps collection fast

    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in recbole_hnlm.__all__ if not name.startswith("_") and f"{name}(" not in text]
    if missing:
        pytest.fail(f"docs/api.md does not show {', '.join(missing)}")

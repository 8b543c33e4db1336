"""The tutorial's notebook: executed as it is, and it prints what it is stored with; its page shows all of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
from notebook_page import write_page

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def cells_of(file):
    """(code, printed text, whether it holds times and the like) of each code cell."""
    cells = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = ["".join(line for output in cell["outputs"] for line in output["text"]) for cell in cells]
    return [
        ("".join(cell["source"]), text, "varies" in cell["metadata"].get("tags", ()))
        for cell, text in zip(cells, outputs, strict=True)
    ]


def differences(stored, printed):
    """Places where two texts differ in words, or in numbers by more than arithmetic of another machine does."""
    found = [(one, two) for one, two in zip(_NUMBER.split(stored), _NUMBER.split(printed), strict=False) if one != two]
    pairs = list(zip(*(map(_value, _NUMBER.findall(text)) for text in (stored, printed)), strict=False))
    return found + [(one, two) for one, two in pairs if abs(one - two) > max(0.02 * abs(one), 0.003)]


def _value(text):
    return float(text.replace(",", ""))


def test_differences_sees_words_and_numbers_and_forgives_rounding():
    assert differences("NDCG 0.2375 of 943 users", "NDCG 0.2371 of 943 users") == []
    assert differences("NDCG 0.2375 of 943 users", "NDCG 0.2475 of 943 users") == [(0.2375, 0.2475)]
    assert differences("Star Wars 1", "Fargo 1") == [("Star Wars ", "Fargo ")]
    assert differences("1,682 items", "1,500 items") == [(1682.0, 1500.0)]


def test_the_notebook_prints_what_it_is_stored_with(tmp_path):
    done = tmp_path / "done.ipynb"
    command = [sys.executable, str(ROOT / "tools" / "tutorial.py"), str(NOTEBOOK), str(done)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # no progress bars, no warnings
    stored, executed = cells_of(NOTEBOOK), cells_of(done)
    assert len(stored) >= 8
    for (code, expected, varies), (_, printed, _) in zip(stored, executed, strict=True):
        if varies:
            assert bool(printed) == bool(expected), code
        else:
            assert len(_NUMBER.findall(printed)) == len(_NUMBER.findall(expected)), (code, printed)
            assert differences(expected, printed) == [], (code, printed)


def test_the_stored_notebook_has_no_places_of_a_machine_and_shows_that_hard_negatives_help():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(?:work|tmp|home|root|usr)/|site-packages|\.venv", text)
    notebook = json.loads(text)
    assert [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"] == list(
        range(1, len(cells_of(NOTEBOOK)) + 1)
    )
    printed = "\n".join(text for _, text, _ in cells_of(NOTEBOOK))
    plain, hard = (float(re.search(rf"{name} negatives: .*, ([\d.]+) on test", printed)[1]) for name in ("random", "hard"))
    assert hard > 1.1 * plain > 0.05
    assert "943 users, 1,682 items, 80,808 training interactions" in printed


def test_the_page_shows_every_cell_and_refuses_what_it_cannot_show(tmp_path):
    page = tmp_path / "generated" / "tutorial.md"
    write_page(NOTEBOOK, page)
    text = page.read_text(encoding="utf-8")
    for code, printed, _ in cells_of(NOTEBOOK):
        assert f"```python\n{code.rstrip()}\n```" in text
        assert printed.strip("\n") in text
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["outputs"])
    for change, message in (
        ({"execution_count": None}, "was not executed"),
        ({"outputs": [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]}, "output of type error"),
    ):
        broken = tmp_path / "broken.ipynb"
        broken.write_text(json.dumps({**notebook, "cells": [{**cell, **change}]}), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            write_page(broken, page)

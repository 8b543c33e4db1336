"""``show_progress: False`` shows no progress bar, whatever the run does."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stages_kit import ScriptedBackend, ScriptedEncoder, block_pairs, make_context

import recbole_hnlm
from recbole_hnlm.config import Config
from recbole_hnlm.data.download import fetch
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.experiments import jobs
from recbole_hnlm.experiments.plan import PlanRequest, make_plan
from recbole_hnlm.semantics.attach import stage_context_of
from recbole_hnlm.semantics.pipeline import build_semantics

ROOT = Path(recbole_hnlm.__file__).parent


def bars_without_a_switch(path):
    """Lines of a file that make a bar which cannot be switched off."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", None) in {"tqdm", "trange"}
    ]
    text = path.read_text(encoding="utf-8")
    for call in calls:
        names = {keyword.arg for keyword in call.keywords}
        if "disable" not in names and not (None in names and '"disable": not ' in text):
            yield f"{path.relative_to(ROOT)}:{call.lineno}"


def test_every_bar_of_a_run_has_a_switch():
    # prepare reads no configuration: its bars belong to a verb without this key.
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "prepare"]
    assert sum("tqdm" in path.read_text(encoding="utf-8") for path in files) >= 6
    assert [line for path in files for line in bars_without_a_switch(path)] == []


def test_the_check_above_finds_a_bar_without_a_switch(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "x.py").write_text("with tqdm(total=3) as bar:\n    pass\n")
    assert list(bars_without_a_switch(tmp_path / "x.py")) == ["x.py:1"]


@pytest.mark.parametrize("shown", [True, False])
def test_stages_show_bars_only_where_they_are_wanted(tmp_path, capsys, shown):
    context = replace(make_context(tmp_path, block_pairs()), show_progress=shown)
    build_semantics(context, backend=ScriptedBackend(), encoder=ScriptedEncoder())
    said = capsys.readouterr().err
    assert ("profiles" in said and "vectors of pairs" in said) if shown else said == ""


@pytest.mark.parametrize("shown", [True, False])
def test_the_key_reaches_the_stages_and_the_comparison(workdir, tiny_keys, shown):
    keys = {**tiny_keys, "show_progress": shown}
    config = Config("HNLMLightGCN", "tiny", config_dict={**keys, "negative_route": "none"}, strict=False)
    assert stage_context_of(config, load_data(config).train._dataset).show_progress is shown
    argv = tuple(f"--{name}={str(value).replace(' ', '')}" for name, value in keys.items())
    cells = make_plan(PlanRequest(("BPR",), ("uniform",), "1", False, "tiny", (), argv))
    assert [cell.show_progress for cell in cells] == [shown]


@pytest.mark.parametrize("shown", [True, False])
def test_a_comparison_shows_its_bar_only_where_it_is_wanted(workdir, tiny_keys, capsys, monkeypatch, shown):
    argv = tuple(f"--{name}={str(value).replace(' ', '')}" for name, value in {**tiny_keys, "show_progress": shown}.items())
    cells = make_plan(PlanRequest(("BPR",), ("uniform",), "1", False, "tiny", (), argv))
    (workdir / "fake.py").write_text("")
    monkeypatch.setattr(jobs, "_WORKER", (sys.executable, "-S", str(workdir / "fake.py")))
    assert jobs.run_cells(workdir, cells, 1) == {}
    assert ("cells" in capsys.readouterr().err) is shown


@pytest.mark.parametrize("shown", [True, False])
def test_a_download_shows_its_bar_only_where_it_is_wanted(tmp_path, capsys, monkeypatch, shown):
    import io  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    class Response(io.BytesIO):
        headers = {"Content-Length": "3"}  # noqa: RUF012

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(b"abc"))
    fetch("http://example/toy.zip", tmp_path / "toy.zip", show_progress=shown)
    assert ("downloading toy.zip" in capsys.readouterr().err) is shown

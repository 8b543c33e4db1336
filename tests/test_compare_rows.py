"""Rows of a comparison that have a name and keys of their own."""

import json
from pathlib import Path

import pytest

from recbole_hnlm.cli import main
from recbole_hnlm.experiments.methods import read_rows, resolve_methods
from recbole_hnlm.experiments.plan import PlanRequest, make_plan, make_rows
from recbole_hnlm.experiments.tune import SearchOptions
from recbole_hnlm.experiments.tuning import plan_rows
from recbole_hnlm.utils.errors import ConfigError


def _request(tiny_keys, rows, models=(), tune=None):
    argv = tuple(f"--{key}={value}" for key, value in tiny_keys.items())
    return PlanRequest(models, ("dns",), "2", False, "tiny", (), argv, tune=tune, rows=rows)


def test_a_name_is_a_model_a_sampler_and_keys():
    rows = {
        "softmax": {"model": "LightGCN", "rank_loss": "softmax"},
        "hard": {"model": "HNLMLightGCN", "negative_sampler": "ahns", "mix_weight": 0.1},
        "linear": {"model": "EASE", "reg_weight": 50},
    }
    methods = resolve_methods(["LightGCN"], ["dns"], rows)
    assert [(method.label, method.runs, method.sampler) for method in methods] == [
        ("LightGCN + dns", "HNLMLightGCN", "dns"),
        ("softmax", "HNLMLightGCN", "uniform"),
        ("hard", "HNLMLightGCN", "ahns"),
        ("linear", "EASE", None),
    ]
    # A plain name reads no LLM in a named row either.
    assert methods[1].keys == {
        **{"negative_route": "none", "alignment_weight": 0.0, "semantic_candidates": 0, "alignment_source": "text"},
        **{"negative_sampler": "uniform", "rank_loss": "softmax"},
    }
    assert methods[2].keys == {"negative_sampler": "ahns", "mix_weight": 0.1}


def test_rows_with_names_are_cells_of_their_own_settings(workdir, tiny_keys):
    rows = {"plain": {"model": "BPR"}, "softmax": {"model": "BPR", "rank_loss": "softmax"}}
    cells = make_plan(_request(tiny_keys, rows))
    assert [(cell.method.label, cell.seed) for cell in cells] == [(name, seed) for name in rows for seed in (2020, 2021)]
    assert len({cell.id for cell in cells}) == 4
    # The settings make the id: the row of --models with the same ones would train the same model twice.
    with pytest.raises(ConfigError, match="the rows 'BPR \\+ dns' and 'mine' have the same settings; leave one of them out"):
        make_plan(_request(tiny_keys, {"mine": {"model": "BPR", "negative_sampler": "dns"}}, models=("BPR",)))


def test_what_a_row_fixes_is_not_tuned(workdir, tiny_keys, tmp_path):
    space = tmp_path / "space.test"
    space.write_text("rank_loss choice ['bpr', 'softmax']\nreg_weight choice [0.1, 0.01]\n")
    rows = {"free": {"model": "BPR"}, "softmax": {"model": "BPR", "rank_loss": "softmax"}}
    request = _request(tiny_keys, rows, tune=str(space))
    searches = plan_rows(tmp_path, request, SearchOptions(3, "tpe", "none", 1))
    assert {name: list(search.plan.space.keys) for name, search in searches.items()} == {
        "free": ["rank_loss", "reg_weight"],
        "softmax": ["reg_weight"],
    }
    assert [row.config({"reg_weight": 0.1}).settings.rank_loss for row in make_rows(request)] == ["bpr", "softmax"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": {"rank_loss": "bpr"}}, "rows: 'x' names no model: expected model: NAME"),
        ({"x": {"model": "LigtGCN"}}, "rows: 'x': .*LigtGCN.*LightGCN"),
        ({"x": {"model": "BPR", "negative_sampler": "dnss"}}, "rows: 'x': .*no dnss.*dns"),
        ({"x": {"model": "EASE", "negative_sampler": "dns"}}, "rows: 'x': .*takes none of our negative samplers"),
        ({"x": {"model": "BPR", "rank_los": "bpr"}}, "x: unknown key rank_los; the nearest valid one is rank_loss"),
        ({"x": {"model": "BPR", "loss_at_k": 5}}, "rows: 'x': loss_at_k has no effect"),
        ({"x": {"model": "BPR", "topk": [5]}}, "rows: 'x': topk is none of a row's own keys: .*give it as --topk=VALUE"),
        ({"x": {"model": "BPR", "seed": 3}}, "rows: 'x': seed is none of a row's own keys"),
    ],
)
def test_wrong_rows_are_one_line_with_the_rows_name(workdir, tiny_keys, rows, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(_request(tiny_keys, rows))


@pytest.mark.parametrize("text", ["", "x: 3\n", "- x\n", "x: {model: BPR}\nx: {model: EASE}\n"])
def test_a_file_that_holds_no_rows_is_refused(tmp_path, text):
    file = tmp_path / "rows.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"rows\.yaml"):
        read_rows([str(file)])


def test_a_row_that_two_files_have_is_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("x: {model: BPR}\n")
    with pytest.raises(ConfigError, match=r"two\.yaml: the row 'x' is in another file"):
        read_rows([str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")])


def test_the_rows_of_the_published_table_are_rows_of_different_settings(workdir, tiny_keys):
    files = sorted((Path(__file__).parent.parent / "properties" / "reproduce").glob("*.yaml"))
    keys = {key: value for key, value in tiny_keys.items() if key not in {"learning_rate", "epochs"}}
    argv = tuple(f"--{key}={value}" for key, value in keys.items())
    request = PlanRequest((), ("uniform",), "1", False, "tiny", (), argv, rows=read_rows([str(file) for file in files]))
    roles = {cell.method.label: cell.method.role for cell in make_plan(request)}
    assert len(roles) == len(request.rows) > 50
    assert {name: roles[name] for name in ("EASE", "EASE, kernel", "HNLM text route", "HNLM, fused", "softmax and L3AE")} == {
        **{"EASE": "baseline", "EASE, kernel": "rival", "softmax and L3AE": "rival"},
        **{"HNLM text route": "hnlm", "HNLM, fused": "hnlm"},
    }


def test_a_row_that_has_the_label_of_another_is_refused():
    with pytest.raises(ConfigError, match=r"'BPR \+ dns' is the name of a row of --models too"):
        resolve_methods(["BPR"], ["dns"], {"BPR + dns": {"model": "BPR"}})


def test_named_rows_from_end_to_end(workdir, tiny_keys, capsys):
    (workdir / "rows.yaml").write_text(
        "linear: {model: EASE}\nlinear, twice the weight: {model: EASE, reg_weight: 500}\n", encoding="utf-8"
    )
    keys = [f"--{key}={value}" for key, value in tiny_keys.items() if key not in {"epochs", "learning_rate"}]
    assert main(["compare", "--rows=rows.yaml", "--dataset=tiny", "--seeds=1", "--out=table", *keys]) == 0
    table = json.loads((workdir / "table" / "results.json").read_text())["table"]
    assert "| linear, twice the weight |" in (workdir / "table" / "table.md").read_text()
    assert {row["label"] for row in next(iter(table["rows"].values()))} == {"linear", "linear, twice the weight"}
    assert main(["compare", "--dataset=tiny", "--out=table"]) == 2
    assert "compare needs rows: --models=NAMES, --rows=FILE, or both" in capsys.readouterr().err

"""Cells of a comparison, and what is missing or wrong."""

import json
import re

import numpy as np
import pytest

from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.experiments.analysis import AnalysisOptions, analyse
from recbole_hnlm.experiments.analysis.sources import Source
from recbole_hnlm.experiments.plan import PlanRequest, make_plan
from recbole_hnlm.experiments.store import LISTS, read_cell
from recbole_hnlm.experiments.worker import run_cell
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.utils.errors import DataError


@pytest.fixture
def compared(workdir, tiny_keys):
    """The cells of a comparison of two samplers, its folder, and the option that finds the data."""
    keys = {**tiny_keys, "topk": [3, 5], "valid_metric": "NDCG@5", "count_false_negatives": True}
    given = tuple(f"--{key}={value}" for key, value in keys.items())
    cells = make_plan(PlanRequest(("LightGCN",), ("uniform", "dns"), "1", False, "tiny", (), given))
    for cell in cells:
        run_cell(workdir, cell)
    (workdir / "results.json").write_text(json.dumps({"cells": [*(cell.id for cell in cells), "not-run"]}))
    return cells, workdir, f"--data_path={tiny_keys['data_path']}"


def test_a_comparison_is_analysed_from_the_lists_that_its_cells_kept(compared, capsys):
    cells, folder, data_path = compared
    assert main(["analyse", "--compare=.", "--out=out", "--user_groups=q2", "--bootstrap=10", data_path]) == 0
    index = json.loads((folder / "out" / "analyses.json").read_text())
    assert [run["label"] for run in index["runs"]] == ["LightGCN + uniform", "LightGCN + dns"]
    shown = capsys.readouterr().out
    assert shown.endswith("analyses: out/analyses.json (2 runs)\n")
    assert "no semantic_negatives, semantic_shift: these settings use no hard negatives" in shown
    for cell, run_of in zip(cells, index["runs"], strict=True):
        found = json.loads((folder / "out" / run_of["run_id"] / "analysis.json").read_text())
        finished = read_cell(folder, cell)
        assert LISTS not in finished.values
        for metric in ("ndcg@5", "recall@5"):
            assert found["overall"][metric]["value"] == pytest.approx(finished.values[metric].mean(dtype=np.float64), abs=1e-7)
        assert "recall@3" in found["overall"]  # the cell keeps values at the last cut-off alone; its lists give the others
        assert found["groups"]["users"]["edges"] == []  # all users of tiny have ten training items
        assert len(found["training"]["hardness"]["difference"]) == len(found["training"]["false_negative_rates"]) == 1
    names = {path.name for path in (folder / "out").iterdir() if path.is_file()}
    stems = ("groups", "beyond_accuracy", "epochs")
    assert names == {"analyses.json", *(f"{stem}.{kind}" for stem in stems for kind in ("csv", "png"))}


def test_lists_of_other_data_a_longer_topk_and_older_cells_are_refused(compared):
    cells, folder, data_path = compared
    path = folder / "cells" / f"{cells[0].id}.json"
    options = AnalysisOptions(resamples=0)
    longer = analyse(path, options, [data_path, "--topk=20", "--valid_metric=NDCG@20"])
    assert re.search(r"topk 20 asks for more than the 5 items of a list", longer["missing"]["groups"])
    with pytest.raises(DataError, match="is not split as in"):
        analyse(path, options, [data_path, "--split_seed=99"])
    table = path.with_suffix(".npz")
    with np.load(table) as arrays:
        kept = dict(arrays)
    np.savez(table, **{**kept, LISTS: np.roll(kept[LISTS], 1, axis=0)})
    with pytest.raises(DataError, match=r"reports .*, but its lists give"):
        analyse(path, options, [data_path])
    del kept[LISTS]
    np.savez(table, **kept)
    assert "holds no lists: it is of an older version" in analyse(path, options, [data_path])["missing"]["groups"]
    table.unlink()
    assert ".npz is missing" in analyse(path, options, [data_path])["missing"]["groups"]


def test_a_run_whose_checkpoint_is_gone_keeps_what_its_record_holds(workdir, tiny_keys):
    result = run(Config("BPR", "tiny", config_dict=tiny_keys), saved=False)
    assert Source.read(result.path).label == "BPR"
    found = analyse(result.path, None, [f"--data_path={tiny_keys['data_path']}"])
    assert found["groups"] is None
    assert "it kept no checkpoint" in found["missing"]["groups"]
    assert len(found["training"]["train_loss"]) == 1

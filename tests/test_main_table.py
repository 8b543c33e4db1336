"""The published table: what its first sentences claim."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from main_table import page, verdict

from recbole_hnlm.utils.errors import ConfigError


def _row(label, role, valid, test):
    return {"label": label, "role": role, "valid": valid, "test": {"ndcg@20": test}}


ROWS = [
    _row("ours", "hnlm", 0.5, 0.44),
    _row("A", "rival", 0.41, 0.40),
    _row("B", "rival", 0.40, 0.60),  # better on test, not chosen
    _row("C", "baseline", 0.3, 0.40),
    _row("D", "baseline", None, 0.9),  # never validated
]


def test_references_are_chosen_on_validation_and_targets_are_named():
    assert verdict("toys", ROWS, "ours") == (
        "toys, NDCG@20 of ours: +10.0% against A, the strongest that reads the same texts (target +5%: met); "
        "+10.0% against C, the strongest that reads no text (target +20%: missed)."
    )
    assert verdict("toys", ROWS, "none") == "toys: there is no row 'none'."
    assert "there is no method that reads the same texts" in verdict("toys", [ROWS[0], ROWS[3]], "ours")


def _comparison(folder):
    cells = folder / "cells"
    cells.mkdir(parents=True)
    results = {
        "cells": ["a1", "a2", "b1"],
        "labels": {"a1": "ours", "a2": "ours", "b1": "EASE"},
        "missing": [],
        "table": {
            "dataset": "toys",
            "metrics": ["ndcg@20"],
            "rows": {
                "ndcg@20": [
                    {"label": "ours", "role": "hnlm", "chosen": "x=1"},
                    {"label": "EASE", "role": "baseline", "chosen": None},
                ]
            },
        },
    }
    (folder / "results.json").write_text(json.dumps(results))
    for name, valid, test in (("a1", 0.2, 0.25), ("a2", 0.4, 0.35), ("b1", 0.1, 0.2)):
        record = {"best_valid_score": valid, "test_result": {"ndcg@20": test, "recall@10": test}, "seconds": {"train": 4.0}}
        (cells / f"{name}.json").write_text(json.dumps(record))


def test_the_page_has_means_over_seeds_and_the_best_in_bold(tmp_path):
    _comparison(tmp_path)
    lines = page([tmp_path], "ours", ["make reproduce"]).splitlines()
    assert lines[2].startswith("- toys, NDCG@20 of ours: there is no method that reads the same texts; +50.0% against EASE")
    assert "| method | reads | validation | recall@10 | ndcg@20 | seconds | seeds | chosen |" in lines
    assert "| ours | texts and language model | .3000 | **.3000 ± .0707** | **.3000 ± .0707** | 4 | 2 | x=1 |" in lines
    assert "| EASE | interactions | .1000 | .2000 | .2000 | 4 | 1 |  |" in lines
    assert lines[-3:] == ["```bash", "make reproduce", "```"]


def test_a_folder_without_a_comparison_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no finished comparison"):
        page([tmp_path], "ours", [])
    tool = Path(__file__).parent.parent / "tools" / "main_table.py"
    command = [sys.executable, str(tool), str(tmp_path), "--ours=x", f"--out={tmp_path / 'main.md'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), (tmp_path / "main.md").exists()) == (2, 1, False)

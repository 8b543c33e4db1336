"""The table of a fine-tuned LLM over datasets, and what the verb refuses."""

import json
import re

import pandas as pd
import pytest

from recbole_hnlm.cli import main
from recbole_hnlm.experiments.analysis.transfer import transfer_rows


def _record(dataset, after, **more):
    ranked = {"recall@10": 0.1, "recall@50": 0.2, "mrr": 0.05}
    rankings = {name: dict(ranked) for name in ("random", "popularity", "teacher")}
    rankings |= {name: {**ranked, "cos_pos": 0.7, "cos_neg": 0.8} for name in ("llm", "before")}
    rankings["after"] = {**ranked, "recall@50": after, "cos_pos": 0.83, "cos_neg": 0.86}
    return {"run_id": f"finetune-{dataset}", "dataset": dataset, "heldout_users": 180, **rankings, **more}


@pytest.fixture
def records(workdir):
    """Paths of two records: an LLM fine-tuned on cds, and the same used on films."""
    moved = _record(
        "films", 0.25, transferred_from={"dataset": "cds"}, unrotated={"recall@10": 0.1, "recall@50": 0.24, "mrr": 0.1}
    )
    paths = []
    for record in (_record("cds", 0.489), moved):
        paths.append(workdir / f"{record['run_id']}.json")
        paths[-1].write_text(json.dumps(record))
    return paths


def test_one_command_makes_the_table_of_several_records(records, workdir, capsys):
    assert main(["analyse", *map(str, records), "--out=out"]) == 0
    shown = capsys.readouterr().out
    assert "| cds, 180 users | recall@10 | recall@50 | MRR |" in shown
    assert "| films (LLM of cds), 180 users |" in shown
    assert "| fine-tuned | 0.100 | 0.489 | 0.050 | 0.830 | 0.860 |" in shown
    assert "| fine-tuned, not rotated | 0.100 | 0.240 | 0.100 |  |  |" in shown
    rows = json.loads((workdir / "out" / "transfer.json").read_text())["rows"]
    assert [(row["dataset"], row["ranking"]) for row in rows[:3]] == [("cds", "random"), ("cds", "popularity"), ("cds", "llm")]
    assert len(rows) == 6 + 7
    table = pd.read_csv(workdir / "out" / "transfer.csv")
    assert table[table["ranking"] == "after"]["recall@50"].tolist() == [0.489, 0.25]
    assert table[table["ranking"] == "teacher"]["cos_pos"].isna().all()
    assert (workdir / "out" / "transfer.png").stat().st_size > 1000
    assert shown.endswith("transfer: out/transfer.json\n")


def test_rows_name_where_the_llm_was_fine_tuned():
    (row, *_), (moved, *_) = (
        transfer_rows([record]) for record in (_record("cds", 0.4), _record("films", 0.2, transferred_from={"dataset": "cds"}))
    )
    assert (row["finetuned_on"], moved["finetuned_on"]) == ("cds", "cds")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name what to analyse"),
        (["--compare=x", "--transfer=y"], "name what to analyse"),
        (["no.json"], r"no\.json is missing"),
        (["broken.json"], r"broken\.json is corrupt"),
        (["other.json"], r"other\.json is not the record of a trained model \(model, dataset, seed, config, test_result"),
        (["other.json", "--data_path", "data"], "--data_path: write keys as --key=value here"),
        (["--compare=."], r"results\.json is missing.*compare --out"),
        (["other.json", "--user_groups=5,5"], "--user_groups is '5,5', expected q4"),
        (["other.json", "--user_groups=q0"], "--user_groups is 'q0'"),
        (["other.json", "--item_groups=0.8,0.5"], "--item_groups is '0.8,0.5', expected two rising shares"),
        (["other.json", "--bootstrap=-1"], "--bootstrap is -1, expected 0 to 100,000"),
        (["tuned.json", "other.json"], "tuned.json is of finetune --eval, and others are of trained models"),
        (["bad.json"], "record bad is not of finetune --eval"),
        (["--transfer=,"], "--transfer: expected one or more names"),
    ],
)
def test_what_the_user_can_fix_is_one_line(workdir, capsys, argv, message):
    (workdir / "broken.json").write_text("{")
    (workdir / "other.json").write_text('{"run_id": "other"}')
    (workdir / "tuned.json").write_text(json.dumps(_record("cds", 0.4)))
    (workdir / "bad.json").write_text('{"run_id": "bad", "heldout_users": 3, "after": {}}')
    assert main(["analyse", *argv]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.match(f"error: .*{message}", error), error
    assert error.count("\n") == 1

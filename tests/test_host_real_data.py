"""The real datasets run through the main command as they are: trained for an epoch, and planned."""

import json
import os
from pathlib import Path

import pytest

from recbole_hnlm.cli import run_script

DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FOLDER = Path(os.environ.get("RECBOLE_HNLM_DATA", str(DEFAULT_DATA))) / "atomic"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real data in {FOLDER}; set RECBOLE_HNLM_DATA to the data folder"),
]
SIZES = {"amazon-cds-text": (1_827, 1_314, 47_847), "amazon-toys": (19_412, 11_924, 167_597)}


def _argv(dataset, *more):
    return ["--model=HNLMLightGCN", f"--dataset={dataset}", f"--data_path={FOLDER}", "--use_gpu=False", *more]


@pytest.mark.parametrize("dataset", SIZES)
def test_an_epoch_without_an_llm(workdir, capsys, dataset):
    weights = [f"--{key}=0" for key in ("mix_weight", "contrast_weight", "alignment_weight")]
    assert (
        run_script(_argv(dataset, "--epochs=1", "--show_progress=False", "--topk=20", "--valid_metric=NDCG@20", *weights)) == 0
    )
    record = json.loads((workdir / capsys.readouterr().out.splitlines()[-1].removeprefix("results: ")).read_text())
    users, items, rows = SIZES[dataset]
    log = (workdir / record["log_file"]).read_text()
    assert f"The number of users: {users + 1}" in log
    assert f"The number of items: {items + 1}" in log
    assert f"The number of inters: {rows}" in log
    # A random order of the items finds 20 / items of what is held out.
    assert record["test_result"]["recall@20"] > 5 * 20 / items


@pytest.mark.parametrize("dataset", SIZES)
def test_a_dry_run(workdir, capsys, dataset):
    server = ["--llm_backend=openai", "--llm_model=m", "--llm_base_url=https://llm.example/v1"]
    assert run_script(_argv(dataset, "--dry_run", *server)) == 0
    shown = capsys.readouterr().out
    users, items, _ = SIZES[dataset]
    rows = {line.split("  ")[1]: line.split() for line in shown.splitlines() if line.startswith("  ")}
    assert rows["user profiles"][2] == rows["hard negatives"][2] == f"{users:,}"
    assert f"{items:,} of {items:,} (100.0%)" in next(line for line in shown.splitlines() if line.startswith("  title"))
    assert "to be billed" in shown
    assert list(workdir.iterdir()) == []

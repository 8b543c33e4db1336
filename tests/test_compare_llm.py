"""The verb ``compare`` with cells that ask a language model: a scripted server on loopback, everything else for real."""

import json
import shutil
from collections import Counter

import pytest
from llm_tiny import completion, faulty_server

from recbole_hnlm.cli import main


@pytest.fixture
def titled_keys(tiny_keys, tmp_path):
    """The keys of a run on ``tiny`` whose items have titles."""
    folder = tmp_path / "titled"
    shutil.copytree(tiny_keys["data_path"], folder)
    interactions = (folder / "tiny" / "tiny.inter").read_text(encoding="utf-8").splitlines()[1:]
    items = sorted({line.split("\t")[1] for line in interactions})
    lines = ["item_id:token\ttitle:token_seq", *(f"{item}\tTale {item[1:]}" for item in items)]
    (folder / "tiny" / "tiny.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**tiny_keys, "data_path": str(folder), "artifact_dir": str(tmp_path / "artifacts"), "valid_metric": "NDCG@5"}


def answer(_number, body, _handler):
    """Reply in the schema that the request asks for, by a fixed function of the request."""
    main_field = next(iter(body["response_format"]["json_schema"]["schema"]["properties"]))
    said = sum(map(ord, body["messages"][-1]["content"])) % 40
    return 200, completion(json.dumps({main_field: f"Tale {said}", "reasoning": "scripted"}))


def test_cells_share_the_replies_of_the_llm_and_plain_ones_use_none(workdir, titled_keys, capsys):
    given = [f"--{key}={value}" for key, value in titled_keys.items()]
    shared = ["compare", "--dataset=tiny", "--seeds=11,12", "--split_seed=2020", "--out=out", *given]
    with faulty_server(answer) as (url, seen):
        llm = ["--llm_backend=openai", f"--llm_base_url={url}", "--llm_model=m"]
        command = [*shared, "--models=BPR,HNLMBPR", "--negative_samplers=dns", *llm]
        assert main([*command, "--jobs=4"]) == 0
    assert "4 cells in all, 4 in this share, 0 reused, 4 to run" in capsys.readouterr().out

    # Two processes at once wanted the same replies; each prompt was asked a single time.
    asked = Counter(json.dumps(request["body"]["messages"]) for request in seen)
    assert asked
    assert set(asked.values()) == {1}

    results = json.loads((workdir / "out" / "results.json").read_text())
    assert (results["missing"], results["failures"]) == ([], {})
    assert [row["label"] for row in results["table"]["rows"]["ndcg@5"]] == ["BPR + dns", "HNLMBPR + dns"]
    records = {name: json.loads((workdir / "out" / "cells" / f"{name}.json").read_text()) for name in results["cells"]}
    routes = {name: record["config"]["negative_route"] for name, record in records.items()}
    assert Counter(routes.values()) == {"none": 2, "text": 2}
    for name, record in records.items():
        assert (record["semantic_coverage"] or 0) > 0 if routes[name] == "text" else record["semantic_coverage"] is None

    # The server is gone: what it said is kept, so that a lost cell is trained again without it, to the same figures.
    lost = next(name for name in results["cells"] if routes[name] == "text")
    (workdir / "out" / "cells" / f"{lost}.npz").unlink()
    assert main(command) == 0
    assert "3 reused, 1 to run" in capsys.readouterr().out
    again = json.loads((workdir / "out" / "cells" / f"{lost}.json").read_text())
    assert again["test_result"] == records[lost]["test_result"]


def test_a_server_that_fails_costs_its_cell_and_says_why(workdir, titled_keys, capsys):
    given = [f"--{key}={value}" for key, value in titled_keys.items()]
    refusal = {"error": {"message": "no such model", "type": "invalid_request_error"}}
    with faulty_server(lambda *_: (404, refusal)) as (url, _):
        llm = ["--llm_backend=openai", f"--llm_base_url={url}", "--llm_model=m"]
        models = ["--models=HNLMBPR", "--negative_samplers=dns", "--seeds=11,"]
        assert main(["compare", "--dataset=tiny", *models, "--out=out", *given, *llm]) == 1
    results = json.loads((workdir / "out" / "results.json").read_text())
    assert results["missing"] == list(results["failures"]) == results["cells"]
    assert results["table"] is None
    assert "llm_model (status 404 Not Found: no such model)" in capsys.readouterr().err

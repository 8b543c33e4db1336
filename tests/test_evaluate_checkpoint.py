"""What evaluating a checkpoint builds: nothing of the LLM's, and texts only where the ranking reads them."""

import pytest
from stages_kit import ScriptedBackend, ScriptedEncoder

from recbole_hnlm import export_embeddings, recommend
from recbole_hnlm.config import Config
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, run
from recbole_hnlm.stages import session as stage_session


def _forbidden(*_arguments):
    raise AssertionError("nothing of this is needed for the ranking")


@pytest.fixture
def train(workdir, tiny_data_path, tiny_keys, monkeypatch):
    """Train a model whose loss reads hard negatives or profiles; afterwards neither LLM nor encoder can be had."""
    folder = workdir / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_bytes((tiny_data_path / "tiny" / "tiny.inter").read_bytes())
    rows = "".join(f"i{item}\tTitle of i{item}\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    monkeypatch.setattr(stage_session, "load_backend", lambda *_: ScriptedBackend())
    monkeypatch.setattr(stage_session, "SentenceEncoder", lambda *_: ScriptedEncoder())
    own = {"data_path": str(workdir / "data"), "embedding_size": 16}

    def trained_model(model, **keys):
        record = run(Config(model, "tiny", config_dict={**tiny_keys, **own, **keys})).record
        monkeypatch.setattr(stage_session, "load_backend", _forbidden)
        monkeypatch.setattr(stage_session, "SentenceEncoder", _forbidden)
        return record

    return trained_model


@pytest.fixture
def trained(train):
    """The record of a run of HNLMLightGCN."""
    record = train("HNLMLightGCN", negative_sampler="dens")
    assert list(record["stages"]) == ["profile", "negatives", "encode"]
    return record


@pytest.mark.parametrize("keys", [(), ("--negative_route=none",), ("--negative_sampler=uniform",)])
def test_a_checkpoint_elsewhere_is_evaluated_without_any_stage(workdir, trained, keys):
    again = evaluate_checkpoint(
        trained["checkpoint"], (f"--data_path={workdir / 'data'}", "--artifact_dir=elsewhere", *keys)
    ).record
    assert again["test_result"] == trained["test_result"]
    assert again["stages"] is None
    assert not (workdir / "elsewhere").exists()


@pytest.mark.parametrize("model", ["RLMRecConLightGCN", "RLMRecGenLightGCN", "TextInitLightGCN"])
def test_a_rival_that_learned_from_profiles_ranks_without_them(workdir, train, model):
    record = train(model, alignment_source="profile")
    assert list(record["stages"]) == ["profile", "encode"]
    again = evaluate_checkpoint(record["checkpoint"], (f"--data_path={workdir / 'data'}", "--artifact_dir=elsewhere")).record
    assert again["test_result"] == record["test_result"]
    assert again["stages"] is None


def test_a_checkpoint_recommends_and_exports_without_any_stage(workdir, trained):
    keys = {"data_path": str(workdir / "data"), "artifact_dir": "elsewhere"}
    table = recommend(trained["checkpoint"], ["u1"], 3, config_dict=keys)
    assert all(title == f"Title of {item}" for item, title in zip(table["item_id"], table["title"], strict=True))
    assert export_embeddings(trained["checkpoint"], "out", config_dict=keys).dim == 16
    assert not (workdir / "elsewhere").exists()
    with pytest.raises(AssertionError, match="nothing of this is needed"):
        recommend(trained["checkpoint"], ["u1"], 3, config_dict={**keys, "text_score": "mean", "text_score_weight": 1})


def test_texts_in_the_ranking_are_encoded_and_nothing_else(workdir, trained, monkeypatch):
    monkeypatch.setattr(stage_session, "SentenceEncoder", lambda *_: ScriptedEncoder())
    keys = (f"--data_path={workdir / 'data'}", "--artifact_dir=elsewhere", "--text_score=mean", "--text_score_weight=1")
    again = evaluate_checkpoint(trained["checkpoint"], keys).record
    assert list(again["stages"]) == ["encode"]
    assert again["stages"]["encode"]["total"] == 30
    assert again["test_result"] != trained["test_result"]

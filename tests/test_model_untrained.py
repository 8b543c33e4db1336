"""Models without training, ours and RecBole's, through the runner: what they read, checkpoints, texts in their ranking."""

import pytest
from stages_kit import ScriptedEncoder

from recbole_hnlm.config import Config
from recbole_hnlm.config.reading import unread_keys
from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.experiments.methods import role_of
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, run
from recbole_hnlm.semantics.attach import kinds_of
from recbole_hnlm.stages import session as stage_session
from recbole_hnlm.utils.registry import get_model_class


def no_llm(*_arguments):
    raise AssertionError("no LLM is needed")


@pytest.fixture
def titled(workdir, tiny_data_path, tiny_keys, monkeypatch):
    """Keys of runs on tiny data with a title for each item, scripted vectors, and no LLM."""
    folder = workdir / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_bytes((tiny_data_path / "tiny" / "tiny.inter").read_bytes())
    rows = "".join(f"i{item}\t{'Even' if item % 2 == 0 else 'Odd'} thing {item // 6}\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    monkeypatch.setattr(stage_session, "load_backend", no_llm)
    monkeypatch.setattr(stage_session, "SentenceEncoder", lambda *_: ScriptedEncoder())
    return {**tiny_keys, "data_path": str(workdir / "data")}


@pytest.mark.parametrize("model", ["TextGCN", "L3AE", "EASE", "ItemKNN", "SLIMElastic"])
def test_it_runs_and_its_checkpoint_ranks_alike_with_texts_and_without(titled, model):
    record = run(Config(model, "tiny", config_dict={**titled, "text_score": "kernel"})).record
    assert list(record["stages"]) == ["encode"]
    assert record["epochs"] == 1
    assert 0 < record["test_result"]["recall@5"] <= 1
    same = (f"--data_path={titled['data_path']}", "--use_gpu=False")
    again = evaluate_checkpoint(record["checkpoint"], same).record
    assert again["test_result"] == record["test_result"]
    alone = evaluate_checkpoint(record["checkpoint"], ("--text_score=none", *same)).record
    plain = run(Config(model, "tiny", config_dict=titled)).record
    assert alone["test_result"] == plain["test_result"]
    # What was solved for is in the checkpoint; only TextGCN's scores are made of texts anew.
    assert (alone["stages"] is not None) == (model == "TextGCN")
    assert (plain["stages"] is not None) == (model in {"TextGCN", "L3AE"})


@pytest.mark.parametrize(
    ("model", "training", "scoring", "role"),
    [
        ("TextGCN", ("item_texts",), ("item_texts",), "rival"),
        ("L3AE", ("item_texts",), (), "rival"),
        ("DirectAU", (), (), "baseline"),
        ("EASE", (), (), "baseline"),
    ],
)
def test_what_a_model_reads(model, training, scoring, role):
    config = Config(model, "ml-100k")
    assert kinds_of(config) == training
    assert kinds_of(config, for_scoring=True) == scoring
    assert role_of(config) == role


def test_profiles_of_users_are_written_for_those_who_read_them_alone():
    keys = {"alignment_source": "profile"}
    assert kinds_of(Config("TextGCN", "ml-100k", config_dict=keys)) == ("item_profiles", "user_profiles")
    assert kinds_of(Config("L3AE", "ml-100k", config_dict=keys)) == ("item_profiles",)


@pytest.mark.parametrize(
    ("model", "keys", "unread"),
    [
        ("TextGCN", {}, {"negative_sampler", "mix_weight"}),
        ("EASE", {}, {"negative_sampler", "mix_weight", "alignment_source", "text_encoder", "title_field", "llm_model"}),
        ("EASE", {"text_score": "kernel"}, {"negative_sampler", "mix_weight", "alignment_source"}),
    ],
)
def test_keys_of_texts_are_read_by_whoever_reads_texts(model, keys, unread):
    asked = {"negative_sampler", "mix_weight", "alignment_source", "text_encoder", "title_field", "llm_model"}
    values = {**dict(validate_settings({})), **keys}
    assert asked & unread_keys(get_model_class(model), values).keys() == unread

"""Texts in the ranking itself: the sum of standardised scores, and that training does not know of it."""

import math

import numpy as np
import pytest
import torch
from model_kit import NO_SEMANTICS, PLAIN, build, make_config, write_random
from stages_kit import ScriptedEncoder

from recbole_hnlm.config import Config
from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.semantics import SemanticVectors, TextTables
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.scoring import fuse_scores
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, run
from recbole_hnlm.stages import session as stage_session
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.scores import standardise_rows


@pytest.mark.parametrize("known", [None, torch.ones(2, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)])
def test_rows_are_standardised(known):
    found = standardise_rows(torch.tensor([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1]]), known)
    root = math.sqrt(14 / 3)
    assert found[0].tolist() == pytest.approx([-2 / root, -1 / root, 3 / root])
    # Equal values are 0 and not rounding errors blown up.
    assert found[1].tolist() == [0.0] * 3


def test_rows_are_standardised_over_the_entries_that_take_part():
    known = torch.tensor([[False, True, True, True], [False, True, True, True], [False] * 4])
    found = standardise_rows(torch.tensor([[100.0, 1.0, 3.0, 5.0], [0.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]]), known)
    unit = 2 / math.sqrt(8 / 3)
    assert found[0].tolist() == pytest.approx([0.0, -unit, 0.0, unit])
    assert found[1:].tolist() == [[0.0] * 4] * 2


def test_fusion_by_hand_and_whatever_the_units():
    scores, cosines = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[0.0, 0.9, 0.1]])
    found = fuse_scores(scores, cosines, 0.5)
    assert found.tolist()[0] == pytest.approx([0.0, -1 + 0.5, 1 - 0.5])
    assert torch.allclose(fuse_scores(100 * scores + 7, cosines / 3, 0.5), found, atol=1e-5)
    assert torch.equal(fuse_scores(scores, torch.zeros(1, 3), 0.5)[:, 1:], standardise_rows(scores[:, 1:]))


def test_cosines_by_hand():
    tokens = np.array(["[PAD]", "a", "b"])
    training = TrainingInteractions(tokens, tokens, np.array([1, 1]), np.array([1, 2]))
    vectors = np.array([[7, 7], [2, 0], [0, 4]], dtype=np.float16)
    mask = np.array([False, True, True])
    semantics = SemanticVectors(np.zeros((0, 0), np.float16), np.full(2, -1), vectors, mask)
    tables = TextTables(semantics, training, "text", torch.device("cpu"))
    # User 1 is (1, 2); user 2 has no item.
    found = tables.cosines(torch.tensor([1, 2]))
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([[0.0, 1 / math.sqrt(5), 2 / math.sqrt(5)], [0.0, 0.0, 0.0]]), atol=1e-3)


def models(tmp_path, **keys):
    """Return the model without and with texts in its scores, of the same parameters."""
    write_random(tmp_path)
    plain = build(make_config(tmp_path, **PLAIN), True)[1]
    fused = build(make_config(tmp_path, text_score_weight=0.7, **PLAIN, **keys), True)[1]
    assert {name for name, _ in fused.named_parameters()} == {name for name, _ in plain.named_parameters()}
    fused.load_state_dict(plain.state_dict())
    return plain.eval(), fused.eval()


def test_the_whole_ranking_is_the_fusion(tmp_path):
    plain, fused = models(tmp_path)
    users = torch.tensor([3, 9, 9])
    inner = plain.full_sort_predict({"user_id": users}).view(3, -1)
    user_all, item_all = plain.propagate_for_scoring()
    assert torch.equal(inner, user_all[users] @ item_all.t())
    found = fused.full_sort_predict({"user_id": users}).view(3, -1)
    assert torch.allclose(found, fuse_scores(inner, fused._texts.cosines(users), 0.7))
    assert not torch.equal(found.argsort(dim=1), inner.argsort(dim=1))


def test_single_pairs_have_the_scores_of_the_whole_ranking(tmp_path):
    for model in models(tmp_path):
        users, items = torch.tensor([3, 9, 3, 1]), torch.tensor([5, 5, 30, 1])
        whole = model.full_sort_predict({"user_id": users}).view(4, -1)
        expected = whole[torch.arange(4), items]
        assert torch.allclose(model.predict({"user_id": users, "item_id": items}), expected, atol=1e-5)


def test_the_loss_does_not_know_of_it(tmp_path):
    write_random(tmp_path)
    losses = []
    for weight in (0.0, 0.7):
        loader, model, _, _ = build(make_config(tmp_path, text_score_weight=weight, **PLAIN), True)
        model.start_epoch(0)
        losses.append([torch.stack(model.calculate_loss(batch)) for batch in loader])
    assert all(torch.equal(one, other) for one, other in zip(*losses, strict=True))


def test_without_text_vectors_it_says_so(tmp_path):
    write_random(tmp_path)
    _, model, _, _ = build(make_config(tmp_path, text_score_weight=0.7, **PLAIN))
    with pytest.raises(ArtifactError, match=r"text vectors .* for text_score_weight 0\.7, but .*--text_score_weight=0"):
        model.full_sort_predict({"user_id": torch.tensor([1])})
    loader, model, _, _ = build(make_config(tmp_path, text_score_weight=0.7, **PLAIN))
    with pytest.raises(ArtifactError, match=r"for text_score_weight 0\.7, but the data carries none"):
        model.calculate_loss(next(iter(loader)))


def test_profiles_need_a_route_that_writes_them():
    with pytest.raises(ConfigError, match=r"text_score_weight 1 with alignment_source profile"):
        validate_settings({"text_score_weight": 1.0, "negative_route": "none", "alignment_source": "profile"})
    with pytest.raises(ConfigError, match="text_score_weight"):
        validate_settings({"text_score_weight": -1.0})


def no_llm(*_arguments):
    raise AssertionError("no LLM is needed")


def test_texts_that_tell_raise_the_metrics_of_the_same_training(workdir, tiny_data_path, tiny_keys, monkeypatch):
    folder = workdir / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_bytes((tiny_data_path / "tiny" / "tiny.inter").read_bytes())
    # Users choose most items from one half, and the two halves have a title each.
    rows = "".join(f"i{item}\t{'Even' if item % 2 == 0 else 'Odd'} things\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    monkeypatch.setattr(stage_session, "load_backend", no_llm)
    monkeypatch.setattr(stage_session, "SentenceEncoder", lambda *_: ScriptedEncoder())
    keys = {**tiny_keys, "data_path": str(workdir / "data"), "embedding_size": 16, **NO_SEMANTICS}
    plain = run(Config("HNLMLightGCN", "tiny", config_dict=keys)).record
    fused = run(Config("HNLMLightGCN", "tiny", config_dict={**keys, "text_score_weight": 5.0})).record
    assert fused["train_loss"] == plain["train_loss"]
    assert fused["test_result"]["recall@5"] > plain["test_result"]["recall@5"] + 0.1
    assert plain["stages"] is None
    assert list(fused["stages"]) == ["encode"]
    # A checkpoint can be evaluated with any weight.
    for record, weight, expected in ((plain, 5.0, fused), (fused, 0.0, plain)):
        again = evaluate_checkpoint(
            record["checkpoint"], (f"--text_score_weight={weight}", f"--data_path={keys['data_path']}", "--use_gpu=False")
        ).record
        assert again["test_result"] == expected["test_result"]

"""Texts in the ranking itself: the sum of standardised scores, and that training does not know of it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from model_kit import NO_SEMANTICS, PLAIN, build, fuse_scores, make_config, write_random
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import EASE, LightGCN, NeuMF
from stages_kit import ScriptedEncoder

from recbole_hnlm.config import Config
from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model import text_scorer
from recbole_hnlm.model.alpharec import AlphaRec
from recbole_hnlm.model.directau import DirectAU
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.model.l3ae import L3AE
from recbole_hnlm.model.text_scorer import TextScorer
from recbole_hnlm.model.textgcn import TextGCN
from recbole_hnlm.model.textgcnmlp import TextGCNMLP
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, load_checkpoint, run
from recbole_hnlm.stages import session as stage_session
from recbole_hnlm.trainer.fusion_weights import WEIGHTS
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.registry import model_yaml
from recbole_hnlm.utils.scores import standardise_rows
from recbole_hnlm.utils.values import load_yaml


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


def scorer_of(form, **options):
    """User 1 has items 1 and 2, user 2 item 3, which has no text, user 3 item 2, twice."""
    tokens = np.array(["[PAD]", "a", "b", "c"])
    training = TrainingInteractions(tokens, tokens, np.array([1, 1, 2, 3, 3]), np.array([1, 2, 3, 2, 2]))
    vectors = np.array([[7, 7], [2, 0], [0, 4], [5, 5]], dtype=np.float16)
    mask = np.array([False, True, True, False])
    return TextScorer(vectors, mask, training, form, 0.5, torch.device("cpu"), **options)


def test_cosines_to_the_mean_by_hand():
    scorer = scorer_of("mean")
    assert scorer.known.tolist() == [False, True, True, False]
    found = scorer.scores(torch.tensor([1, 2, 3]))
    assert found.dtype == torch.float32
    # User 1 is (1, 2); user 2 has no item with text.
    expected = torch.tensor([[0.0, 1 / math.sqrt(5), 2 / math.sqrt(5), 0.0], [0.0] * 4, [0.0, 0.0, 1.0, 0.0]])
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("kernel_bytes", [1 << 20, 0])
def test_the_kernel_by_hand_kept_or_in_blocks(monkeypatch, kernel_bytes):
    monkeypatch.setattr(text_scorer, "_BLOCK_BYTES", 4 * 2 * 3)
    found = scorer_of("kernel", kernel_bytes=kernel_bytes).scores(torch.tensor([1, 2, 3, 1]))
    far = math.exp(-1 / 0.5)  # the cosine of items 1 and 2 is 0
    assert found.dtype == torch.float32
    assert torch.allclose(
        found[:, 1:3], torch.tensor([[1 + far, 1 + far], [0.0, 0.0], [far, 1.0], [1 + far, 1 + far]]), atol=1e-6
    )


def test_the_kernel_in_blocks_takes_little_memory():
    items, dim = 20_000, 8
    rng = np.random.default_rng(0)
    tokens = np.arange(items).astype(str)
    training = TrainingInteractions(tokens[:50], tokens, rng.integers(1, 50, 400), rng.integers(1, items, 400))
    vectors = rng.normal(size=(items, dim)).astype(np.float32)
    scorer = TextScorer(vectors, np.arange(items) > 0, training, "kernel", 0.2, torch.device("cpu"))  # whole: 1.6 GB
    users = torch.arange(1, 4)
    found = scorer.scores(users)
    assert scorer._kernel is None
    unit = scorer.units.double()
    for row, user in zip(found, users.tolist(), strict=True):
        owned = torch.from_numpy(np.unique(training.history_of(user)))
        assert torch.allclose(row, ((unit[owned] @ unit.T - 1) / 0.2).exp().sum(dim=0).float(), rtol=1e-4)


def test_a_hot_kernel_is_the_sum_of_cosines():
    """For large tau, ``sum_k exp((c_k - 1) / tau)`` is ``n + (sum_k c_k - n) / tau`` and so ranks as the mean vector does."""
    rng = np.random.default_rng(0)
    tokens = np.arange(40).astype(str)
    training = TrainingInteractions(tokens[:9], tokens, rng.integers(1, 9, 60), rng.integers(1, 40, 60))
    temperature = 1e6
    scorer = TextScorer(rng.normal(size=(40, 6)), np.arange(40) > 0, training, "kernel", temperature, torch.device("cpu"))
    scorer.units = units = scorer.units.double()
    scorer._history = scorer._history.astype(np.float64)
    for user in range(1, 9):
        owned = torch.from_numpy(np.unique(training.history_of(user)))
        found = (scorer.scores(torch.tensor([user]))[0] - len(owned)) * temperature + len(owned)
        assert torch.allclose(found[1:], (units[owned] @ units.T).sum(dim=0)[1:], atol=1e-4)


def with_texts(tmp_path, model=HNLMLightGCN, **keys):
    """Build a model that ranks with texts, and the same without, of the same parameters and in evaluation mode."""
    write_random(tmp_path)
    own = {**load_yaml(model_yaml(model)), **PLAIN}
    plain = build(make_config(tmp_path, model=model, **own), True)[1]
    keys = {**own, "text_score": "kernel", "text_score_weight": 0.7, **keys}
    fused = build(make_config(tmp_path, model=model, **keys), True)[1]
    assert {name for name, _ in fused.named_parameters()} == {name for name, _ in plain.named_parameters()}
    fused.load_state_dict(plain.state_dict())
    return plain.eval(), fused.eval()


@pytest.mark.parametrize("form", ["mean", "kernel"])
@pytest.mark.parametrize("model", [HNLMLightGCN, LightGCN, NeuMF, EASE, TextGCN, L3AE, DirectAU, AlphaRec, TextGCNMLP])
def test_the_whole_ranking_is_the_fusion(tmp_path, model, form):
    plain, fused = with_texts(tmp_path, model, text_score=form)
    users = torch.tensor([3, 9, 9])
    pairs = Interaction({"user_id": users.repeat_interleave(plain.n_items), "item_id": torch.arange(plain.n_items).repeat(3)})
    own = plain.predict(pairs).view(3, -1)
    found = fused.full_sort_predict(Interaction({"user_id": users})).view(3, -1)
    # An untrained NeuMF's scores differ by a ten-thousandth of their mean, so that the mean has to be exact.
    expected = fuse_scores(own.double(), fused.text_scorer.scores(users).double(), 0.7)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert not torch.equal(found.argsort(dim=1), own.argsort(dim=1))
    single = fused.predict(Interaction({"user_id": torch.tensor([9, 3, 9]), "item_id": torch.tensor([5, 5, 30])}))
    assert torch.allclose(single, found[[1, 0, 2], [5, 5, 30]], atol=1e-5)
    fused.text_weight = None
    assert torch.allclose(fused.full_sort_predict(Interaction({"user_id": users})).view(3, -1), own, atol=1e-6)


def test_the_loss_does_not_know_of_it(tmp_path):
    write_random(tmp_path)
    losses = []
    for form in ("none", "kernel"):
        loader, model, _, _ = build(make_config(tmp_path, text_score=form, **PLAIN), True)
        model.start_epoch(0)
        losses.append([torch.stack(model.calculate_loss(batch)) for batch in loader])
    assert all(torch.equal(one, other) for one, other in zip(*losses, strict=True))


def test_without_text_vectors_it_says_so(tmp_path):
    write_random(tmp_path)
    with pytest.raises(ArtifactError, match=r"text_score kernel needs vectors of items' texts.*--text_score=none"):
        build(make_config(tmp_path, text_score="kernel", **PLAIN))


def test_what_an_llm_wrote_needs_a_route_that_writes_it():
    keys = {"text_score": "mean", "negative_route": "none"}
    with pytest.raises(ConfigError, match=r"text_score_source profile reads what an LLM wrote.*--text_score_source=text"):
        validate_settings({**keys, "text_score_source": "profile"})
    with pytest.raises(ConfigError, match=r"text_score_source finetuned needs negative_route finetuned"):
        validate_settings({**keys, "text_score_source": "finetuned"})
    for wrong in (-1.0, "much"):
        with pytest.raises(ConfigError, match="text_score_weight"):
            validate_settings({"text_score_weight": wrong})
    assert validate_settings({"text_score_weight": 0.3}).text_score_weight == 0.3


def no_llm(*_arguments):
    raise AssertionError("no LLM is needed")


@pytest.fixture
def told(workdir, tiny_data_path, tiny_keys, monkeypatch):
    """Keys of runs on data whose texts tell: users choose most items from one half, and the two halves have a title each."""
    folder = workdir / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_bytes((tiny_data_path / "tiny" / "tiny.inter").read_bytes())
    rows = "".join(f"i{item}\t{'Even' if item % 2 == 0 else 'Odd'} things\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    monkeypatch.setattr(stage_session, "load_backend", no_llm)
    monkeypatch.setattr(stage_session, "SentenceEncoder", lambda *_: ScriptedEncoder())
    return {**tiny_keys, "data_path": str(workdir / "data")}


@pytest.mark.parametrize(("model", "keys"), [("HNLMLightGCN", NO_SEMANTICS), ("LightGCN", {}), ("EASE", {})])
def test_texts_that_tell_raise_the_metrics_of_the_same_training(told, model, keys):
    weight = {"text_score": "kernel", "text_score_weight": 5.0}
    plain, fused = (run(Config(model, "tiny", config_dict={**told, **keys, **more})).record for more in ({}, weight))
    assert fused["train_loss"] == plain["train_loss"]
    assert fused["test_result"]["recall@5"] > plain["test_result"]["recall@5"] + (0.1 if model != "EASE" else 0)
    assert plain["stages"] is None
    assert list(fused["stages"]) == ["encode"]
    # A checkpoint can be evaluated with any weight.
    same = (f"--data_path={told['data_path']}", "--use_gpu=False")
    for record, given, expected in (
        (plain, tuple(f"--{key}={weight[key]}" for key in weight), fused),
        (fused, ("--text_score=none",), plain),
    ):
        again = evaluate_checkpoint(record["checkpoint"], (*given, *same)).record
        assert again["test_result"] == expected["test_result"]


@pytest.mark.parametrize("model", ["HNLMLightGCN", "LightGCN"])
def test_the_weight_is_chosen_on_validation_and_kept_with_the_model(told, model):
    keys = {**told, **(NO_SEMANTICS if model == "HNLMLightGCN" else {}), "text_score": "kernel"}
    record = run(Config(model, "tiny", config_dict=keys)).record
    tried = dict(record["text_score_weights"])
    assert list(tried) == list(WEIGHTS)
    best = record["text_score_weight"]
    assert best > 0
    assert tried[best] == max(tried.values()) == record["best_valid_score"] == record["best_valid_result"]["mrr@5"]
    # Each weight's figure is what a run with that weight has; the model's file knows the choice.
    same = (f"--data_path={told['data_path']}", "--use_gpu=False")
    again = evaluate_checkpoint(record["checkpoint"], same).record
    assert again["text_score_weight"] == best
    assert again["test_result"] == record["test_result"]
    for weight in (0.0, 0.4):
        given = evaluate_checkpoint(record["checkpoint"], (f"--text_score_weight={weight}", *same)).record
        assert given["best_valid_score"] == tried[weight]
    # A model that was trained without texts gets its weight when it is evaluated with them.
    alone = run(Config(model, "tiny", config_dict={**keys, "text_score": "none"})).record
    later = evaluate_checkpoint(alone["checkpoint"], ("--text_score=kernel", *same)).record
    assert (later["text_score_weight"], later["test_result"]) == (best, record["test_result"])
    # So does one that is loaded to recommend.
    keys = {"data_path": told["data_path"], "use_gpu": False, "text_score": "kernel"}
    assert load_checkpoint(alone["checkpoint"], keys)[1].text_weight == best


def test_a_learned_metric_is_kept_with_the_model(told, monkeypatch):
    keys = {**told, "text_score": "kernel", "text_metric": "learned"}
    record = run(Config("EASE", "tiny", config_dict=keys)).record
    same = (f"--data_path={told['data_path']}", "--use_gpu=False")
    # A model trained without texts gets the same metric when it is evaluated with them: it follows from data and seed.
    alone = run(Config("EASE", "tiny", config_dict=told)).record
    later = evaluate_checkpoint(alone["checkpoint"], ("--text_score=kernel", "--text_metric=learned", *same)).record
    assert [later[name] for name in ("text_score_weight", "test_result")] == [
        record[name] for name in ("text_score_weight", "test_result")
    ]
    monkeypatch.setattr(text_scorer, "learn_metric", None)
    assert evaluate_checkpoint(record["checkpoint"], same).record["test_result"] == record["test_result"]


@pytest.mark.parametrize(
    ("eval_args", "message"),
    [
        ({"split": {"RS": [0.8, 0.0, 0.2]}}, "the configuration has no validation split"),
        ({"mode": "uni5"}, "validation ranks sampled items alone"),
    ],
)
def test_without_validation_to_choose_on_a_number_is_asked_for_before_training(told, eval_args, message):
    config = Config("LightGCN", "tiny", config_dict={**told, "text_score": "kernel", "eval_args": eval_args})
    with pytest.raises(ConfigError, match=rf"{message}.*--text_score_weight=1"):
        run(config)
    assert not list(Path("saved").glob("*.pth"))

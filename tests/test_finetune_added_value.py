import math

import numpy as np
import pytest
from finetune_kit import make_finetuned
from recbole.evaluator.metrics import NDCG

from recbole_hnlm.finetune.added_value import (
    added_value,
    measure_added_value,
    ndcg_per_user,
    pairs_per_user,
)
from recbole_hnlm.finetune.evaluation import HeldOut
from recbole_hnlm.finetune.inference import encode_items, encode_pairs, order_pairs
from recbole_hnlm.finetune.report import evaluate_finetuning, summary_table


def test_ndcg_by_hand():
    scores = np.array([[-np.inf, 3.0, 2.0, 1.0], [-np.inf, 3.0, 2.0, 1.0]])
    positives = np.array([[False, False, True, True], [False, True, False, False]])
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert ndcg_per_user(scores, positives, 3) == pytest.approx([(second + third) / (1 + second), 1.0])
    assert ndcg_per_user(scores, positives, 1) == pytest.approx([0.0, 1.0])


def test_ndcg_is_recboles(monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # RecBole's configuration sets it; its metrics use it
    generator = np.random.default_rng(3)
    scores, positives = generator.standard_normal((40, 30)), generator.random((40, 30)) < 0.2
    positives[:, 0] = True
    hits = np.take_along_axis(positives, np.argsort(-scores, axis=1)[:, :7], axis=1)
    theirs = NDCG({"topk": [7], "metric_decimal_place": 4}).metric_info(hits, positives.sum(axis=1))[:, -1]
    assert ndcg_per_user(scores, positives, 7) == pytest.approx(theirs)


def planted(users=60, items=80, seed=0):
    """Users whose two validation items score highest by the sum of two tables, each of which knows one half of their taste."""
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal((2, users, items))
    excluded = np.zeros((users, items), dtype=bool)
    excluded[:, 0] = True
    best = np.argsort(-np.where(excluded, -np.inf, first + second), axis=1)[:, :2]
    ids = np.arange(3, users + 3)
    heldout = HeldOut(ids, np.ones(users, dtype=np.int64), np.ones(users, dtype=np.int64), excluded)
    return first, second, heldout, (np.repeat(ids, 2), best.ravel())


def test_what_the_llm_alone_knows_is_found():
    first, second, heldout, validation = planted()
    found = added_value(first, second, heldout, validation)
    assert found["users"] == 60
    assert found["blend"] > 1.5 * found["teacher"]
    assert max(found["wilcoxon_p"], found["t_p"]) < 1e-6
    assert min(found["weights"]) > 0


def test_a_copy_of_the_teacher_adds_nothing():
    first, _, heldout, validation = planted()
    found = added_value(first, 5 * first + 1, heldout, validation)
    assert found["other"] == pytest.approx(found["teacher"])
    assert found["blend"] == pytest.approx(found["teacher"])
    assert found["wilcoxon_p"] == 1.0


def test_noise_adds_nothing_beyond_chance():
    first, _, heldout, validation = planted()
    found = added_value(first, np.random.default_rng(9).standard_normal(first.shape), heldout, validation)
    assert found["blend"] < 1.05 * found["teacher"]


def test_a_half_is_measured_with_the_weight_of_the_other():
    first, second, heldout, validation = planted()
    odd = np.arange(60) % 2 == 1
    # For every other user the LLM's scores are the teacher's backwards: a weight chosen on them would be 0.
    mixed = np.where(odd[:, None], second, -first)
    found = added_value(first, mixed, heldout, validation)
    assert found["weights"][1] == 0.0
    assert found["weights"][0] > 0.0


def test_users_and_items_that_take_no_part_do_not_count():
    first, second, heldout, (users, items) = planted()
    same = added_value(first, second, heldout, (users, items))
    # Users that are not held out, below, among and above the ids, and an item that is excluded.
    others = (np.concatenate([users, [1, 2, 9999, 5]]), np.concatenate([items, [4, 4, 4, 0]]))
    assert added_value(first, second, heldout, others) == same
    few = users < 3 + 3
    assert added_value(first, second, heldout, (users[few], items[few])) is None


def test_pairs_are_drawn_from_training_and_from_items_with_text(tmp_path):
    context = make_finetuned(tmp_path).context
    training, mask = context.training, context.items_with_text.copy()
    chosen = np.unique(training.users)[:4]
    mask[training.history_of(int(chosen[0]))[0]] = False
    users, items = pairs_per_user(training, chosen, mask, 0)
    assert set(users.tolist()) == set(chosen.tolist())
    for user in chosen:
        own = items[users == user]
        expected = {int(item) for item in training.history_of(int(user)) if mask[item]}
        assert set(own.tolist()) == expected
        assert len(own) == len(expected) <= 10


def test_the_report_says_what_the_llm_adds(tmp_path):
    settings = {"users": 80, "items": 40, "finetune_steps": 2}
    finetuned = make_finetuned(tmp_path, **settings)
    users = finetuned.heldout_users
    # Any item that the user has not: what matters here is that the scores are those of the encoder.
    positives = np.array(
        [next(i for i in range(1, 41) if i not in finetuned.context.training.history_of(int(u))) for u in users]
    )
    record = evaluate_finetuning(finetuned, "run", str(tmp_path / "results"), {}, validation=(users, positives)).record
    assert record["added_value"]["llm"]["users"] == record["added_value"]["text"]["users"] == len(users) == 8
    lines = [line for line in summary_table(record).splitlines() if line.startswith("validation NDCG@20 of 8 held-out users")]
    assert [line.split(", ")[1].rsplit(" ", 1)[0] for line in lines] == ["LLM", "text encoder"]
    encoder, heldout, training = finetuned.encoder(), finetuned.heldout, finetuned.context.training
    scores = np.zeros(heldout.excluded.shape)
    items = np.arange(1, training.n_items)
    vectors = encode_items(encoder, finetuned.prompts, finetuned.texts, items.tolist(), 4096)
    for row, user in enumerate(heldout.users):
        history = np.unique(training.history_of(int(user)))
        pairs = order_pairs(finetuned.prompts, finetuned.texts, np.full(len(history), user), history)
        z = np.concatenate(list(encode_pairs(encoder, finetuned.prompts, finetuned.texts, pairs, 4096)))
        scores[row, items] = (z @ vectors.T).mean(axis=0)
    by_hand = added_value(finetuned.context.teacher.scores(heldout.users), scores, heldout, (users, positives))
    found = measure_added_value(finetuned, encoder, (users, positives))["llm"]
    assert found.pop("weights") == by_hand.pop("weights")
    assert found == pytest.approx(by_hand)
    assert "validation" not in summary_table(evaluate_finetuning(finetuned, "again", str(tmp_path / "results"), {}).record)

import math

import pytest
import torch
from model_kit import NO_SEMANTICS, build, make_config, random_vectors, write_random

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.negative_sampler.semantic_guard import guarded_choice
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_drop_by_hand():
    # The hardest (3.0) is also the nearest in text: dropping one leaves 2.0, dropping two leaves 1.0.
    scores, similarity = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[0.1, 0.9, 0.5]])
    assert [guarded_choice(scores, similarity, ALL, 0.0, drop).item() for drop in (0, 1, 2)] == [1, 2, 0]


def test_weight_by_hand():
    # Similarities 0, 1, 2 standardise to -sqrt(3/2), 0, sqrt(3/2) = 1.2247; scores 1, 1.5, 2.2 (mean 1.5667, deviation .4922)
    # to -1.1513, -.1355, 1.2868. With w = 1 that makes .0734, -.1355, .0621; with w = .9 it makes -.0491, -.1355, .1846.
    scores, similarity = torch.tensor([[1.0, 1.5, 2.2]]), torch.tensor([[0.0, 1.0, 2.0]])
    assert math.isclose(-1.1513 + math.sqrt(1.5), 0.0734, abs_tol=1e-3)
    assert guarded_choice(scores, similarity, ALL, 1.0, 0).item() == 0
    assert guarded_choice(scores, similarity, ALL, 0.9, 0).item() == 2
    # Standardised: scale and shift are gone, of the similarity and of the scores, which begin near 0.
    assert guarded_choice(scores, 100 * similarity + 7, ALL, 1.0, 0).item() == 0
    assert guarded_choice(1e-4 * scores, similarity, ALL, 0.9, 0).item() == 2


def test_what_has_no_text_is_neither_dropped_nor_shifted():
    scores, similarity = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[0.1, math.nan, 0.5]])
    known = torch.tensor([[True, False, True]])
    # Scores standardise to -1.22, 1.22, 0 and the known similarities to -1 and 1: -1.22 + 1 < 1.22, and the third is dropped;
    # with w = 3 the first wins by -1.22 + 3 > 1.22.
    assert guarded_choice(scores, similarity, known, 1.0, 1).item() == 1
    assert guarded_choice(scores, similarity, known, 3.0, 1).item() == 0
    assert guarded_choice(scores, similarity, torch.zeros_like(known), 5.0, 2).item() == 1  # a user without text: DNS
    # Equal similarities have no spread: the weight changes nothing.
    assert guarded_choice(scores, torch.full((1, 3), 0.4), ALL, 5.0, 0).item() == 1


def test_the_model_leaves_out_what_reads_like_the_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path)
    keys = {**NO_SEMANTICS, "negative_sampler": "semantic_guard", "guard_weight": 0.0, "guard_drop_share": 0.5}
    config = make_config(tmp_path, **keys)
    loader, _, _, _ = build(config)
    vectors = random_vectors(loader._dataset)
    vectors.item_mask[::3] = False
    _, model, _, _ = build(config, vectors=vectors)
    assert not model.projectors  # the guard reads text without aligning anything
    torch.nn.init.normal_(model.item_embedding.weight, generator=torch.Generator().manual_seed(0))
    batch = next(iter(loader))
    users, candidates = batch["user_id"], batch["neg_item_id"]
    chosen = []
    inner = model.selector.select
    model.selector.select = lambda inputs: chosen.append(inner(inputs)) or chosen[-1]
    model.calculate_loss(batch)
    user_all, item_all = model.propagate()
    texts, plain = model._texts, 0
    for row, (user, items) in enumerate(zip(users.tolist(), candidates, strict=True)):
        near = torch.cosine_similarity(texts.user_vectors[user], texts.item_vectors[items], dim=1)
        near[~texts.item_mask[items]] = -2
        kept = [place for place in range(8) if place not in near.topk(4).indices or near[place] == -2]
        scores = item_all[items] @ user_all[user]
        best = max(kept, key=lambda place: scores[place])
        assert chosen[0].items[row] == items[best]
        plain += int(best == scores.argmax())
    assert plain < len(users)
    assert model.counts["negatives guarded by text"] == model.counts["negatives"] == len(users)


def test_without_text_training_says_what_to_do(tmp_path):
    write_random(tmp_path)
    config = make_config(tmp_path, **NO_SEMANTICS, negative_sampler="semantic_guard")
    loader, model, _, _ = build(config)
    with pytest.raises(ArtifactError, match=r"vectors .* for negative_sampler semantic_guard, but.*--negative_sampler=dns"):
        model.calculate_loss(next(iter(build_train_loader(config, loader))))


def test_settings_know_what_the_guard_reads():
    guard = {"negative_sampler": "semantic_guard", **NO_SEMANTICS}
    assert validate_settings(guard).uses_semantics
    assert not validate_settings(NO_SEMANTICS).uses_semantics
    assert not validate_settings(guard).aligns
    with pytest.raises(ConfigError, match=r"alignment_source profile reads what an LLM wrote.*--alignment_source=text"):
        validate_settings(guard | {"alignment_source": "profile"})
    with pytest.raises(ConfigError, match="guard_drop_share: Input should be less than 1"):
        validate_settings({"guard_drop_share": 1.0})
    assert validate_settings({"guard_drop_share": 0.0}).guard_drop_share == 0

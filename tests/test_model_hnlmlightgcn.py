import copy
import dataclasses
import logging
import os

import numpy as np
import pytest
import torch
from model_kit import PLAIN, build, make_config, prepare, random_vectors, write_interactions, write_random
from recbole.data.interaction import Interaction
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.utils import init_seed

from recbole_hnlm.data.dataloader import build_train_loader
from recbole_hnlm.data.pair_vectors import PairVectorReader
from recbole_hnlm.data.semantics import mean_item_vectors
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.model.losses import contrast_loss, info_nce, mix_negative
from recbole_hnlm.model.recbole_graphs import on_current_scipy
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.errors import ArtifactError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # RecBole's tensorboard writer uses the working directory
    write_random(tmp_path)


def parts_of(model, batch):
    return dict(zip(model.loss_part_names, model.calculate_loss(batch), strict=True))


def users_of(model):
    return Interaction({model.USER_ID: torch.arange(1, model.n_users)})


# --- parity with RecBole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("require_pow", [False, True])
@pytest.mark.parametrize("weights", ["no route", "zero weights"])
def test_equals_stock_lightgcn(tmp_path, require_pow, weights):
    keys = PLAIN if weights == "no route" else {"negative_sampler": "uniform"}
    keys = keys | {"mix_weight": 0.0, "contrast_weight": 0.0, "alignment_weight": 0.0, "require_pow": require_pow}
    config = make_config(tmp_path, **keys)
    loader, ours, _, _ = build(config, vectors=True)
    init_seed(config["seed"], True)
    stock = on_current_scipy(LightGCN)(config, loader._dataset)
    assert torch.equal(stock.user_embedding.weight, ours.user_embedding.weight)
    assert torch.equal(stock.item_embedding.weight, ours.item_embedding.weight)
    optimizers = [torch.optim.SGD(model.parameters(), lr=20.0) for model in (stock, ours)]
    for batch in loader:
        losses = [stock.calculate_loss(batch), sum(ours.calculate_loss(batch))]
        assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
        for name, parameter in stock.named_parameters():
            assert torch.allclose(parameter.grad, ours.get_parameter(name).grad, atol=1e-5)
            assert parameter.grad.abs().max() > 1e-4
        for optimizer in optimizers:
            optimizer.step()
    stock.eval(), ours.eval()
    pair = Interaction({"user_id": torch.tensor([1, 2]), "item_id": torch.tensor([3, 4])})
    with torch.no_grad():
        scores = stock.full_sort_predict(users_of(ours))
        assert scores.std() > 1e-3
        assert torch.allclose(scores, ours.full_sort_predict(users_of(ours)), atol=1e-5)
        assert torch.allclose(stock.predict(pair), ours.predict(pair), atol=1e-5)


def test_global_random_state_is_what_stock_leaves(tmp_path):
    config = make_config(tmp_path)
    loader, _, _, _ = build(config, vectors=True)
    states = []
    for cls in (on_current_scipy(LightGCN), HNLMLightGCN):
        init_seed(3, True)
        cls(config, loader._dataset)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# --- the semantic part -------------------------------------------------------------------------------------------------------


def test_parts_are_what_their_formulas_say(tmp_path):
    config = make_config(tmp_path, mix_weight=0.3, contrast_weight=0.5, alignment_weight=0.25, negative_sampler="uniform")
    loader, model, _, _ = build(config, vectors=True, missing=0.4)
    vectors = loader._dataset.semantic_vectors
    batch = next(iter(loader))
    parts = parts_of(model, batch)
    user_all, item_all = model.propagate()
    u, i, j, rows = (batch[name] for name in ("user_id", "item_id", "neg_item_id", "semantic_row"))
    has = rows >= 0
    assert 0 < has.sum() < len(has)
    h = model.projectors(torch.from_numpy(vectors.pair_vectors[rows[has].numpy()]).float())
    contrast = contrast_loss(user_all[u][has], item_all[i][has], h, 0.2).sum() / len(u)
    assert parts["contrast"].item() == pytest.approx(0.5 * contrast.item(), abs=1e-6)
    e_j = item_all[j].clone()
    e_j[has] = mix_negative(item_all[j][has], h, 0.3)
    difference = (user_all[u] * item_all[i]).sum(1) - (user_all[u] * e_j).sum(1)
    assert parts["rank"].item() == pytest.approx(torch.nn.functional.softplus(-difference).mean().item(), abs=1e-6)
    training = TrainingInteractions.from_dataset(loader._dataset)
    alignment = 0
    for ids, embeddings, side in ((u.unique(), user_all, "user"), (i.unique(), item_all, "item")):
        if side == "user":
            text = np.stack([vectors.item_vectors[np.unique(training.history_of(user))].mean(0) for user in ids.tolist()])
        else:
            text = vectors.item_vectors[ids.numpy()]
        alignment += info_nce(embeddings[ids], model.projectors(torch.from_numpy(text)), 0.2)
    assert parts["alignment"].item() == pytest.approx(0.25 * alignment.item(), abs=1e-5)


@pytest.mark.parametrize("term", ["mix_weight", "contrast_weight"])
def test_permuting_the_vectors_changes_the_loss(tmp_path, term):
    keys = {"mix_weight": 0.0, "contrast_weight": 0.0, "alignment_weight": 0.0, term: 0.5}
    losses = []
    for change in ("none", "none", "permuted", "other"):
        config = make_config(tmp_path, **keys)
        train, _, _ = prepare(config)
        vectors = random_vectors(train._dataset, seed=1 if change == "other" else 0)
        if change == "permuted":
            vectors = dataclasses.replace(vectors, pair_rows=np.roll(vectors.pair_rows, 1))
        train._dataset.semantic_vectors = vectors
        loader = build_train_loader(config, train)
        init_seed(1, True)
        model = HNLMLightGCN(config, train._dataset)
        torch.nn.init.normal_(model.user_embedding.weight, generator=torch.Generator().manual_seed(0))
        losses.append(sum(model.calculate_loss(next(iter(loader)))).item())
    assert losses[0] == losses[1]
    assert abs(losses[0] - losses[2]) > 1e-4
    assert abs(losses[0] - losses[3]) > 1e-4


def test_pairs_without_a_vector_give_the_plain_loss(tmp_path):
    plain = make_config(tmp_path, **PLAIN)
    loader, model, _, _ = build(plain)
    expected = parts_of(model, next(iter(loader)))
    config = make_config(tmp_path, negative_sampler="uniform", mix_weight=0.9, contrast_weight=0.9, alignment_weight=0.0)
    loader, model, _, _ = build(config, vectors=True, missing=1.0)
    found = parts_of(model, next(iter(loader)))
    assert found["contrast"].item() == 0
    assert found["rank"].item() == expected["rank"].item()
    assert found["reg"].item() == expected["reg"].item()
    assert model.counts["pairs"] == 64
    assert model.counts["pairs with a vector"] == 0


def test_every_parameter_is_optimized_and_gets_gradient(tmp_path):
    config = make_config(tmp_path, projector_learning_rate=0.5)
    loader, model, _, _ = build(config, vectors=True)
    trainer = HNLMTrainer(config, model)
    groups = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sum(model.calculate_loss(next(iter(loader)))).backward()
    trainer.optimizer.step()
    assert any(name.startswith("projectors.12.") for name in before)
    for name, parameter in model.named_parameters():
        assert groups[id(parameter)] == (0.5 if name.startswith("projectors.") else 0.01)
        assert parameter.grad.abs().sum() > 0, name
        assert not torch.equal(parameter, before[name]), name


def test_a_forgotten_parameter_stops_the_trainer(tmp_path):
    config = make_config(tmp_path)
    _, model, _, _ = build(config, vectors=True)

    class Forgetful(HNLMTrainer):
        def _parameter_groups(self, learning_rate):
            return super()._parameter_groups(learning_rate)[:1]

    with pytest.raises(RuntimeError, match=r"missing from the optimizer: projectors\.12\.0\.weight"):
        Forgetful(config, model)


def test_adapters_are_shared_only_when_dimensions_agree(tmp_path):
    config = make_config(tmp_path)
    assert set(build(config, vectors=True, pair_dim=12, text_dim=12)[1].projectors) == {"12"}
    assert set(build(config, vectors=True, pair_dim=12, text_dim=6)[1].projectors) == {"12", "6"}


def test_items_without_text_stay_out_of_the_alignment(tmp_path):
    config = make_config(tmp_path, mix_weight=0.0, contrast_weight=0.0, alignment_weight=1.0)
    train, _, _ = prepare(config)
    vectors = random_vectors(train._dataset)
    vectors.item_mask[5:] = False
    vectors.item_vectors[5:] = np.nan
    train._dataset.semantic_vectors = vectors
    loader, model = build_train_loader(config, train), HNLMLightGCN(config, train._dataset)
    assert all(torch.isfinite(part) for batch in loader for part in model.calculate_loss(batch))
    counts = model.counts
    assert 0 < counts["items with text"] < counts["items to align"]
    vectors.item_mask[:] = False
    model = HNLMLightGCN(config, train._dataset)
    assert parts_of(model, next(iter(loader)))["alignment"].item() == 0


def test_alignment_takes_at_most_so_many(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "recbole_hnlm.model.mixin.info_nce", lambda e, t, temperature: sizes.append((len(e), len(t))) or e.sum() * 0
    )
    config = make_config(tmp_path, alignment_max_batch=5)
    loader, model, _, _ = build(config, vectors=True)
    model.calculate_loss(next(iter(loader)))
    assert sizes == [(5, 5), (5, 5)]


def test_user_text_is_the_mean_of_distinct_training_items():
    training = TrainingInteractions(
        np.array(["[PAD]", "a", "b"]), np.array(["[PAD]", "x", "y", "z"]), np.array([1, 1, 1, 2]), np.array([1, 1, 2, 3])
    )
    vectors = np.array([[9, 9], [1, 0], [0, 1], [np.nan, 5]], dtype=np.float32)
    means, mask = mean_item_vectors(training, np.nan_to_num(vectors), np.array([False, True, True, False]))
    assert means.tolist() == [[0, 0], [0.5, 0.5], [0, 0]]
    assert mask.tolist() == [False, True, False]


def test_missing_vectors_are_an_error_that_says_what_to_do(tmp_path):
    loader, model, _, _ = build(make_config(tmp_path, alignment_weight=0.0), vectors=None)
    with pytest.raises(ArtifactError, match=r"mix_weight 0\.01 and contrast_weight 0\.001, but .*--mix_weight=0 --contr"):
        model.calculate_loss(next(iter(loader)))
    loader, model, _, _ = build(make_config(tmp_path, mix_weight=0.0, contrast_weight=0.0), vectors=None)
    with pytest.raises(ArtifactError, match="alignment_weight=0"):
        model.calculate_loss(next(iter(loader)))


def test_alignment_with_profiles_needs_profiles_of_users(tmp_path):
    with pytest.raises(ArtifactError, match=r"no vectors of user profiles; .*--alignment_source=text"):
        build(make_config(tmp_path, alignment_source="profile"), vectors=True)


@pytest.mark.parametrize("skipped", [0, 700])
def test_gather_reads_a_memory_map_exactly(tmp_path, monkeypatch, skipped):
    monkeypatch.setattr("recbole_hnlm.data.pair_vectors._RESIDENT_MAX_BYTES", 0)
    array = np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float16)
    np.save(tmp_path / "vectors.npy", array)
    reader = PairVectorReader(np.load(tmp_path / "vectors.npy", mmap_mode="r")[skipped:])
    assert reader._file is not None
    rows = torch.randint(0, 5000 - skipped, (3000,))
    assert np.array_equal(reader.gather(rows, "cpu").numpy(), array[skipped:][rows.numpy()].astype(np.float32))
    assert copy.deepcopy(reader) is reader
    os.truncate(tmp_path / "vectors.npy", 4000 * 128)
    with pytest.raises(ArtifactError, match=r"vectors\.npy ends before row"):
        reader.gather(rows, "cpu")
    plain = PairVectorReader(array)
    assert plain._file is None
    assert np.array_equal(plain.gather(rows, "cpu").numpy(), array[rows.numpy()].astype(np.float32))


# --- learning ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"rank_loss": "hinge"}, {"negative_sampler": "popularity"}])
def test_block_dataset_has_its_forced_answer(tmp_path, keys):
    # Users and items fall into 4 blocks; a user holds all of its block but one item, so that item must come first.
    size, pairs, held_out = 8, [], {}
    for block in range(4):
        for position in range(size):
            user = block * size + position
            held_out[f"u{user}"] = f"i{user}"
            pairs += [(user, block * size + other) for other in range(size) if other != position]
    write_interactions(tmp_path, pairs)
    config = make_config(tmp_path, eval_args={"split": {"RS": [1.0, 0.0, 0.0]}, "mode": "full"}, epochs=30, **keys)
    loader, model, _, _ = build(config, vectors=True)
    HNLMTrainer(config, model).fit(loader, saved=False, verbose=False)
    model.eval()
    dataset = loader._dataset
    scores = model.full_sort_predict(users_of(model)).view(-1, model.n_items).numpy()
    scores[:, 0] = -np.inf
    for user, item in zip(dataset.inter_feat["user_id"].numpy(), dataset.inter_feat["item_id"].numpy(), strict=True):
        scores[user - 1, item] = -np.inf
    first = dataset.id2token("item_id", scores.argmax(1))
    expected = [held_out[user] for user in dataset.id2token("user_id", np.arange(1, model.n_users))]
    assert np.mean(first == np.array(expected)) == 1.0


def test_two_runs_are_equal_and_another_seed_is_not(tmp_path):
    results = []
    for seed in (7, 7, 8):
        config = make_config(tmp_path, seed=seed, alignment_max_batch=6)
        loader, model, valid, _ = build(config, vectors=True, missing=0.3)
        trainer = HNLMTrainer(config, model)
        best, _ = trainer.fit(loader, valid, saved=False, verbose=False)
        results.append((best, trainer.train_loss_dict, model.user_embedding.weight.detach().clone()))
    assert results[0][:2] == results[1][:2]
    assert torch.equal(results[0][2], results[1][2])
    assert results[0][1] != results[2][1]


def test_scores_do_not_outlive_a_training_step(tmp_path):
    config = make_config(tmp_path)
    loader, model, _, _ = build(config, vectors=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    model.eval()
    calls = []
    propagate = model.propagate
    model.propagate = lambda: calls.append(1) or propagate()
    before = model.full_sort_predict(users_of(model)).clone()
    assert torch.equal(model.full_sort_predict(users_of(model)), before)
    assert len(calls) == 1
    model.train()
    sum(model.calculate_loss(next(iter(loader)))).backward()
    model.full_sort_predict(users_of(model))  # between the loss and the step
    optimizer.step()
    model.eval()
    after = model.full_sort_predict(users_of(model))
    fresh = (propagate()[0][1:] @ propagate()[1].t()).view(-1)
    assert not torch.allclose(after, before, atol=1e-4)
    assert torch.allclose(after, fresh, atol=1e-6)


def test_checkpoint_needs_no_vectors(tmp_path):
    config = make_config(tmp_path)
    loader, model, valid, _ = build(config, vectors=True, pair_dim=12, text_dim=6)
    HNLMTrainer(config, model).fit(loader, saved=False, verbose=False)
    model.eval()
    expected = model.full_sort_predict(users_of(model))
    torch.save(model.state_dict(), tmp_path / "state.pt")
    _, bare, _, _ = build(make_config(tmp_path), vectors=None)
    torch.nn.init.normal_(bare.item_embedding.weight)
    bare.eval()
    assert not torch.allclose(bare.full_sort_predict(users_of(bare)), expected, atol=1e-4)
    bare.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(bare.full_sort_predict(users_of(bare)), expected)
    assert set(bare.state_dict()) == set(model.state_dict())
    assert torch.equal(bare.projectors["12"][0].weight, model.projectors["12"][0].weight)
    assert HNLMTrainer(config, bare).evaluate(valid, load_best_model=False)["recall@10"] > 0


def test_log_names_the_parts_and_counts_the_coverage(tmp_path, caplog):
    config = make_config(tmp_path, epochs=1)
    loader, model, _, _ = build(config, vectors=True, missing=0.5)
    with caplog.at_level(logging.INFO):
        HNLMTrainer(config, model).fit(loader, saved=False)
    rows = loader._dataset.semantic_vectors.pair_rows
    have, total = int((rows >= 0).sum()), len(rows)
    assert f"pairs with a vector: {have:,} of {total:,} ({100 * have / total:.1f} %)" in caplog.text
    for name in ("rank", "reg", "contrast", "alignment"):
        assert f"{name}: " in caplog.text

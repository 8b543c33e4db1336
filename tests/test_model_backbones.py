"""Every HNLM backbone against RecBole's own in its own settings; what holds for all models is in test_testing_kit.py."""

import pytest
import torch
from model_kit import PLAIN, build, make_config, write_random
from recbole.data.interaction import Interaction
from recbole.model.general_recommender.ncl import NCL
from recbole.model.general_recommender.ngcf import NGCF
from recbole.model.general_recommender.sgl import SGL
from recbole.utils import init_seed

from recbole_hnlm.model.recbole_graphs import on_current_scipy
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.trainer.hnlm import HNLMTrainer
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import get_model_class
from recbole_hnlm.utils.values import load_yaml

NAMES = ("HNLMBPR", "HNLMLightGCN", "HNLMNGCF", "HNLMSGL", "HNLMSimGCL", "HNLMXSimGCL", "HNLMNCL")
SMALL = {"hidden_size_list": [16, 8], "num_clusters": 4, "warm_up_step": 0, "learning_rate": 0.01, "train_batch_size": 64}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_random(tmp_path)


def configure(tmp_path, name, **keys):
    own = load_yaml(properties_dir() / "model" / f"{name}.yaml")
    return make_config(tmp_path, model=get_model_class(name), **(own | SMALL | {"embedding_size": 16} | keys))


def users_of(model):
    return Interaction({model.USER_ID: torch.arange(1, model.n_users)})


def pair(tmp_path, name, stock_class, **keys):
    """Build ours with uniform negatives and no semantics, and RecBole's from the same seed."""
    config = configure(tmp_path, name, **PLAIN, **keys)
    loader, ours, _, _ = build(config)
    init_seed(config["seed"], config["reproducibility"])
    stock = on_current_scipy(stock_class)(config, loader._dataset)
    for key, parameter in stock.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(key))
    return loader, ours, stock


def assert_equal_steps(batch, ours, stock, scale=1.0, prepare=lambda: None):
    """Compare losses, gradients and scores after a step; RecBole's loss is ``scale`` times ours."""
    prepare()
    own = sum(ours.calculate_loss(batch))
    prepare()
    theirs = stock.calculate_loss(batch)
    theirs = sum(theirs) if isinstance(theirs, tuple) else theirs
    assert own.item() == pytest.approx(theirs.item() / scale, abs=1e-5)
    own.backward()
    (theirs / scale).backward()
    for key, parameter in stock.named_parameters():
        assert parameter.grad.abs().max() > 1e-5
        assert torch.allclose(parameter.grad / 1.0, ours.get_parameter(key).grad, atol=1e-5), key
    with torch.no_grad():
        for model in (ours, stock):
            for parameter in model.parameters():
                parameter.sub_(5.0 * parameter.grad)
            model.eval()
        expected = stock.full_sort_predict(users_of(ours)).view(-1)
    assert expected.std() > 1e-3
    assert torch.allclose(expected, ours.full_sort_predict(users_of(ours)), atol=1e-5)


@pytest.mark.parametrize("dropouts", [(0.0, 0.0), (0.0, 0.3), (0.3, 0.1)])
def test_ngcf_equals_recboles_dropout_included(tmp_path, dropouts):
    keys = dict(zip(("node_dropout", "message_dropout"), dropouts, strict=True))
    loader, ours, stock = pair(tmp_path, "HNLMNGCF", NGCF, reg_weight=0.1, **keys)
    assert_equal_steps(next(iter(loader)), ours, stock, prepare=lambda: torch.manual_seed(5))


@pytest.mark.parametrize("kind", ["ED", "ND", "RW"])
def test_sgl_is_the_mean_of_recboles(tmp_path, kind):
    loader, ours, stock = pair(tmp_path, "HNLMSGL", SGL, type=kind, ssl_weight=0.5, drop_ratio=0.3, reg_weight=0.05)
    batch = next(iter(loader))
    stock.reg_weight = 0.05 * len(batch)
    ours.start_epoch(0)
    views = [[layer.as_torch().to_sparse_coo() for layer in view] for view in ours._views]
    stock.sub_graph1, stock.sub_graph2 = views if kind == "RW" else (view[0] for view in views)
    assert len(views[0]) == (2 if kind == "RW" else 1)
    assert_equal_steps(batch, ours, stock, scale=len(batch))


@pytest.mark.parametrize(("n_layers", "hyper_layers"), [(3, 1), (1, 2)])
def test_ncl_is_the_mean_of_recboles(tmp_path, n_layers, hyper_layers):
    keys = {
        "n_layers": n_layers,
        "hyper_layers": hyper_layers,
        "ssl_reg": 0.3,
        "proto_reg": 0.2,
        "alpha": 0.7,
        "reg_weight": 0.05,
    }
    loader, ours, stock = pair(tmp_path, "HNLMNCL", NCL, **keys)
    batch = next(iter(loader))
    ours.start_epoch(0)
    for name in ("user_centroids", "user_2cluster", "item_centroids", "item_2cluster"):
        setattr(stock, name, getattr(ours, name))
    stock.ssl_reg, stock.proto_reg = 0.3 / len(batch), 0.2 / len(batch)
    parts = dict(zip(ours.loss_part_names, ours.calculate_loss(batch), strict=True))
    assert min(parts["structure"], parts["prototype"]) > 0.05
    assert_equal_steps(batch, ours, stock)


# --- what holds for all ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_layers_pool_to_the_outputs(tmp_path, name):
    _, model, _, _ = build(configure(tmp_path, name, **PLAIN))
    model.eval()
    hops = Propagated.of_hops(*model.propagate_hops(), model.pooling)
    assert tuple(layer.shape[1] for layer in hops.user_hops) == model.hop_sizes
    for found, expected in zip((hops.user_all, hops.item_all), model.propagate(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("sampler", ["dns", "mixgcf", "dens", "srns"])
@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_takes_every_kind_of_sampler_and_the_semantic_part(tmp_path, name, sampler):
    config = configure(tmp_path, name, negative_sampler=sampler, mix_weight=0.2, contrast_weight=0.1, alignment_weight=0.1)
    loader, model, valid, _ = build(config, vectors=True, missing=0.3)
    trainer = HNLMTrainer(config, model)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    model.start_epoch(0)
    sum(model.calculate_loss(next(iter(loader)))).backward()
    trainer.optimizer.step()
    for key, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[key]), key
    assert HNLMTrainer(config, model).evaluate(valid, load_best_model=False)["recall@10"] >= 0


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_what_the_backbone_leaves(tmp_path, name):
    states = []
    for sampler in ("uniform", "dens"):
        config = configure(tmp_path, name, negative_sampler=sampler)
        loader, _, _, _ = build(config, vectors=True)
        init_seed(3, True)
        config.model_class(config, loader._dataset)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)

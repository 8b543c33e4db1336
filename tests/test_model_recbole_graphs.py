"""RecBole's graph models without what SciPy 1.13 removed: the same graphs, the same runs, and only where it is needed."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from model_kit import write_interactions
from recbole.data.utils import create_dataset
from recbole.model.general_recommender import BPR, GCMC, NCL, NGCF, SGL, LightGCN, SpectralCF

from recbole_hnlm import run_recbole_hnlm
from recbole_hnlm.config import Config
from recbole_hnlm.model import building, recbole_graphs
from recbole_hnlm.model.recbole_graphs import on_current_scipy, with_own_graph

needs_the_old_scipy = pytest.mark.skipif(
    not hasattr(sp.dok_matrix, "_update"), reason="RecBole's own graph code needs SciPy < 1.13: nothing to compare with"
)
CLUSTERS = {"NCL": {"num_clusters": 4, "warm_up_step": 0}}


def configure(tmp_path, name):
    keys = {"data_path": str(tmp_path), "use_gpu": False, "state": "ERROR", "eval_args": {"split": {"RS": [1, 0, 0]}}}
    return Config(name, "tiny", config_dict=keys | CLUSTERS.get(name, {}))


def training_split(tmp_path, pairs):
    write_interactions(tmp_path, pairs)
    return create_dataset(configure(tmp_path, "LightGCN")).build()[0]


def graph(tmp_path, model_class, dataset):
    model = model_class(configure(tmp_path, model_class.__name__), dataset)
    return getattr(model, "get_norm_adj_mat", getattr(model, "get_laplacian_matrix", None))()


def test_graphs_by_hand(tmp_path):
    # Edges u1-i1 (twice), u1-i2, u2-i1; ids 0 are padding, which has no edge.
    dataset = training_split(tmp_path, [(1, 1), (1, 1), (1, 2), (2, 1)])
    adjacency = graph(tmp_path, with_own_graph(LightGCN), dataset).to_dense()
    laplacian = graph(tmp_path, with_own_graph(SpectralCF), dataset).to_dense()
    (u1, u2), (i1, i2) = dataset.token2id("user_id", ["u1", "u2"]), 3 + dataset.token2id("item_id", ["i1", "i2"])
    expected, walk = torch.zeros(6, 6), torch.eye(6)
    for user, item, user_degree, item_degree in ((u1, i1, 2, 2), (u1, i2, 2, 1), (u2, i1, 1, 2)):
        expected[user, item] = expected[item, user] = (user_degree * item_degree) ** -0.5
        walk[user, item], walk[item, user] = -1 / user_degree, -1 / item_degree
    assert torch.allclose(adjacency, expected, atol=1e-6)
    assert torch.allclose(laplacian, walk, atol=1e-6)


@needs_the_old_scipy
@pytest.mark.parametrize("model_class", [LightGCN, NGCF, NCL, GCMC, SpectralCF])
def test_graphs_are_recboles_entry_by_entry(tmp_path, model_class):
    rng = np.random.default_rng(3)
    dataset = training_split(tmp_path, rng.integers(0, 30, (500, 2)).tolist())
    theirs, ours = (graph(tmp_path, each, dataset) for each in (model_class, with_own_graph(model_class)))
    assert with_own_graph(model_class) is not model_class
    assert theirs.shape == ours.shape
    assert theirs._nnz() > 400
    # In the order in which they are stored too, in which products add them up.
    assert torch.equal(theirs._indices(), ours._indices())
    assert torch.equal(theirs._values(), ours._values())


@needs_the_old_scipy
@pytest.mark.parametrize("name", ["LightGCN", "NGCF", "NCL", "GCMC", "SpectralCF"])
def test_runs_give_recboles_metrics(workdir, tiny_keys, monkeypatch, name):
    keys = {**tiny_keys, **CLUSTERS.get(name, {}), "epochs": 2}
    results = []
    for rule in (lambda model_class: model_class, with_own_graph):
        monkeypatch.setattr(building, "on_current_scipy", rule)
        result = run_recbole_hnlm(name, "tiny", config_dict=keys, saved=False)
        results.append((result["best_valid_result"], result["test_result"]))
    assert results[0] == results[1]
    assert 0 < results[0][1]["recall@5"] < 1


def test_only_what_needs_it_is_built_from_a_subclass(monkeypatch):
    class Derived(LightGCN):
        """A model of another package that inherits the graph."""

    assert [with_own_graph(each) is each for each in (BPR, SGL, LightGCN, Derived)] == [True, True, False, False]
    repaired = with_own_graph(Derived)
    assert issubclass(repaired, Derived)
    assert (repaired.__name__, repaired.__module__) == (Derived.__name__, Derived.__module__)
    assert (on_current_scipy(LightGCN) is LightGCN) == hasattr(sp.dok_matrix, "_update")
    monkeypatch.setattr(recbole_graphs, "_REMOVED", "a method that no SciPy has")
    assert on_current_scipy(LightGCN) is with_own_graph(LightGCN)

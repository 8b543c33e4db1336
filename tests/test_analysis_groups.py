"""Groups of users and items: known answers, sums, and one run counted again with pandas."""

import json
import types

import numpy as np
import pandas as pd
import pytest

from recbole_hnlm.cli import main
from recbole_hnlm.config import Config
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.evaluator.groups import (
    edge_groups,
    parts_by_item_group,
    popularity_groups,
    quantile_edges,
    rank_contributions,
)
from recbole_hnlm.evaluator.statistics import bootstrap_interval
from recbole_hnlm.experiments.analysis import AnalysisOptions, analyse
from recbole_hnlm.experiments.analysis.beyond import beyond_accuracy
from recbole_hnlm.quick_start.api import load_data_and_model
from recbole_hnlm.quick_start.runner import run


def test_users_of_one_count_stay_together():
    counts = np.array([1, 1, 1, 2, 3, 4, 9, 9])
    assert quantile_edges(counts, 4) == [1, 2, 4]
    assert quantile_edges(counts, 2) == [2]
    assert quantile_edges(counts, 1) == []
    assert quantile_edges(np.array([5, 5, 5]), 4) == []
    groups, place = edge_groups(counts, [1, 3, 8])
    assert [group.name for group in groups] == ["0-1", "2-3", "4-8", "9+"]
    assert place.tolist() == [0, 0, 0, 1, 1, 2, 3, 3]


def test_a_group_without_users_is_left_out():
    groups, place = edge_groups(np.array([0, 7, 30]), [5, 10, 20])
    assert [(group.name, group.low, group.high) for group in groups] == [("0-5", 0, 5), ("6-10", 6, 10), ("21+", 21, None)]
    assert place.tolist() == [0, 1, 2]


def test_head_is_the_shortest_list_of_popular_items_that_holds_its_share():
    # Of 20 interactions: item 3 has 8, item 1 has 4, then 3, 3, 2, 0. Half are reached by items 3 and 1, .8 by item 4 too (15
    # are fewer than 16) and item 5 (18).
    groups, place = popularity_groups(np.array([0, 4, 0, 8, 3, 3, 2]), (0.5, 0.8))
    assert place.tolist() == [-1, 0, 2, 0, 1, 1, 2]
    assert [(group.name, group.low, group.high) for group in groups] == [("head", 4, 8), ("mid", 3, 3), ("tail", 0, 2)]


ROWS = np.array([[0, 1, 1, 4], [1, 0, 0, 1], [0, 0, 0, 2]])  # hits at 3 ranks, then the number of relevant items
DCG = 1 / np.log2([2, 3, 4])


@pytest.mark.parametrize(
    ("metric", "first_user"),
    [
        ("recall", [0, 1 / 4, 1 / 4]),
        ("precision", [0, 1 / 3, 1 / 3]),
        ("ndcg", [0, DCG[1] / DCG.sum(), DCG[2] / DCG.sum()]),
        ("mrr", [0, 1 / 2, 0]),
        ("hit", [0, 1, 0]),
        ("map", [0, (1 / 2) / 3, (2 / 3) / 3]),
    ],
)
def test_each_rank_contributes_what_the_metric_gains_there(metric, first_user):
    config = Config("BPR", "ml-100k", config_dict={"topk": [1, 3], "valid_metric": "MRR@3"})
    parts = rank_contributions(config, ROWS, metric)  # [rank, user, cut-off]
    assert parts[:, 0, 1] == pytest.approx(first_user)
    assert parts[:, 2].any() == False  # noqa: E712 - a NumPy truth value
    assert parts[:, 0, 0].sum() == 0.0
    items = np.array([[1, 2, 3], [3, 1, 0], [1, 2, 0]])
    by_group = parts_by_item_group(parts[:, :, 1], items, np.array([-1, 0, 0, 1]), 2)
    assert by_group[0] == pytest.approx([sum(first_user[:2]), first_user[2]])
    assert by_group.sum(axis=1) == pytest.approx(parts[:, :, 1].sum(axis=0), abs=1e-15)


def test_bootstrap_intervals_are_those_of_a_mean_and_of_a_ratio():
    values = np.random.default_rng(3).normal(5.0, 2.0, (900, 1))
    low, high = bootstrap_interval(values, np.ones(900), 4000, 0)
    error = values.std() / 30
    assert [low[0], high[0]] == pytest.approx([values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.15 * error)
    weights = np.random.default_rng(4).integers(0, 3, 50).astype(float)
    low, high = bootstrap_interval((3 * weights)[:, None], weights, 200, 0)
    assert (low[0], high[0]) == pytest.approx((3.0, 3.0), abs=1e-12)  # the ratio is 3 in every resample
    assert bootstrap_interval(values[:1], np.ones(1), 100, 0) is None
    assert bootstrap_interval(values, np.ones(900), 0, 0) is None


METRICS = ["Recall", "Precision", "NDCG", "MRR", "MAP", "Hit"]


@pytest.fixture
def trained(workdir, tiny_keys):
    """Record of BPR on tiny, with all metrics at two cut-offs, and the option that finds the data."""
    keys = {**tiny_keys, "metrics": METRICS, "topk": [3, 10], "valid_metric": "MRR@10", "epochs": 3}
    keys["eval_args"] = {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "none"}  # users differ in what they have
    return run(Config("BPR", "tiny", config_dict=keys)), f"--data_path={tiny_keys['data_path']}"


def test_groups_of_a_run_are_those_that_pandas_counts(trained):
    result, data_path = trained
    found = analyse(result.path, AnalysisOptions((6, 8), (0.4, 0.8), 50), [data_path])
    _, model, _, train, valid, test = load_data_and_model(
        result.record["checkpoint"], {"data_path": data_path.partition("=")[2], "use_gpu": False}
    )
    seen, told, wanted = (
        pd.DataFrame({f: part._dataset.inter_feat[f].numpy() for f in ("user_id", "item_id")}) for part in (train, valid, test)
    )
    scores = pd.DataFrame((model.user_embedding.weight @ model.item_embedding.weight.T).detach().numpy()).drop(columns=0)
    for user, item in pd.concat([seen, told]).to_numpy():
        scores.loc[user, item] = -np.inf
    # Ten lines of pandas: recall@10 by groups of users, and its parts by groups of items.
    listed = [(user, item) for user in wanted.user_id.unique() for item in scores.loc[user].nlargest(10).index]
    hits = wanted.drop_duplicates().merge(pd.DataFrame(listed, columns=["user_id", "item_id"]))
    relevant = wanted.drop_duplicates().groupby("user_id").size()
    recall = (hits.groupby("user_id").size() / relevant).fillna(0)
    activity = pd.cut(seen.groupby("user_id").size().reindex(recall.index), [0, 6, 8, np.inf])
    by_user = recall.groupby(activity, observed=True).agg(["mean", "size"])
    popularity = seen.groupby("item_id").size().reindex(range(1, 31), fill_value=0).sort_values(ascending=False, kind="stable")
    before = (popularity.cumsum() - popularity) / popularity.sum()
    of_item = pd.cut(before, [-1, 0.4 - 1e-12, 0.8 - 1e-12, 2], labels=["head", "mid", "tail"])
    parts = (1 / hits.user_id.map(relevant)).groupby(hits.item_id.map(of_item), observed=False).sum() / len(relevant)

    users, items = (found["groups"][side]["groups"] for side in ("users", "items"))
    assert [group["size"] for group in users] == by_user["size"].tolist()
    assert [group["values"]["recall@10"]["value"] for group in users] == pytest.approx(by_user["mean"].tolist(), abs=1e-12)
    assert len(users) == 3
    assert [group["name"] for group in items] == ["head", "mid", "tail"]
    assert [group["size"] for group in items] == of_item.value_counts(sort=False).tolist()
    assert [group["values"]["recall@10"]["contribution"] for group in items] == pytest.approx(parts.tolist(), abs=1e-12)
    weight = (
        (1 / wanted.drop_duplicates().user_id.map(relevant))
        .groupby(wanted.drop_duplicates().item_id.map(of_item), observed=False)
        .sum()
    )
    assert [group["weight"] for group in items] == pytest.approx((weight / len(relevant)).tolist(), abs=1e-12)


def test_weighted_groups_and_contributions_add_up_to_the_whole(trained):
    result, data_path = trained
    found = analyse(result.path, AnalysisOptions(3, (0.3, 0.6), 20), [data_path])
    assert set(found["overall"]) == {f"{name.lower()}@{k}" for name in METRICS for k in (3, 10)}
    for name, whole in found["overall"].items():
        assert whole["value"] == pytest.approx(result.record["test_result"][name], abs=6e-5)
        assert whole["low"] <= whole["value"] <= whole["high"]
        for side in ("users", "items"):
            groups = found["groups"][side]["groups"]
            assert sum(group["weight"] for group in groups) == pytest.approx(1.0, abs=1e-12)
            weighted = sum(group["weight"] * (group["values"][name]["value"] or 0.0) for group in groups)
            assert weighted == pytest.approx(whole["value"], abs=1e-12)
            assert sum(group["values"][name]["contribution"] for group in groups) == pytest.approx(whole["value"], abs=1e-12)


def test_the_verb_writes_what_the_function_returns(trained, capsys):
    result, data_path = trained
    argv = ["analyse", str(result.path), "--out=out", "--bootstrap=20", "--user_groups=8", data_path, "--show_progress=False"]
    assert main(argv) == 0
    folder = f"out/{result.run_id}"
    missing, written_to = capsys.readouterr().out.splitlines()
    assert missing.startswith(f"{result.run_id}: no semantic_negatives, semantic_shift: these settings use no hard negatives")
    assert written_to == f"analysis: {folder}/analysis.json"
    written = json.loads((result.path.parent.parent / folder / "analysis.json").read_text())
    assert written == analyse(result.path, AnalysisOptions((8,), (0.5, 0.8), 20), [data_path])
    table = pd.read_csv(f"{folder}/groups.csv")
    assert table["metric"].nunique() == 12
    assert table.groupby(["side", "metric"])["contribution"].sum()["items", "ndcg@10"] == pytest.approx(
        written["overall"]["ndcg@10"]["value"], abs=1e-12
    )
    assert (result.path.parent.parent / folder / "groups.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("metric", "first", "second"),
    [
        ("itemcoverage", 1 / 4, 3 / 4),
        ("giniindex", 0.75, 0.375),  # of how often items are listed: 0, 0, 0, 2, and 0, 1, 1, 2
        ("averagepopularity", 5.0, (4.0 + 3.0) / 2),
        ("tailpercentage", 0.0, 0.25),  # the rarest tenth of four items is item 3
        ("shannonentropy", 0.0, (0.5 * np.log(2) + 2 * 0.25 * np.log(4)) / 3),
        ("novelty", 0.0, (np.log2(5 / 3) + np.log2(5)) / 4),
    ],
)
def test_what_lists_are_like_by_hand(metric, first, second):
    """Two users get items (1, 2) and (1, 3) of four items that 5, 3, 1 and 1 of five users have in training."""
    tokens = (np.array(list("-abcde")), np.array(list("-pqrs")))
    pairs = [(user, item) for item, count in ((1, 5), (2, 3), (3, 1), (4, 1)) for user in range(1, count + 1)]
    training = TrainingInteractions(*tokens, *np.array(pairs).T)
    config = {"topk": [1, 2], "tail_ratio": 0.1}
    lists = types.SimpleNamespace(items=np.array([[1, 2], [1, 3]]), training=training, config=config)
    found = beyond_accuracy(lists)
    assert [found[f"{metric}@1"], found[f"{metric}@2"]] == pytest.approx([first, second], abs=1e-11)

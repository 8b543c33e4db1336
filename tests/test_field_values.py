"""Values that RecBole would take silently or stumble over: one line before anything is trained."""

import logging
from pathlib import Path

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.config.checks import LAUNCHER_KEYS
from recbole_hnlm.config.intervals import parse_intervals
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.values import shown


def repr_of(value):
    return type(value).__name__


def refused(keys, wrong, *argv, model="BPR"):
    """Return the line with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        Config(model, "tiny", config_dict={**keys, **wrong}, argv=argv)
    line = str(caught.value)
    assert "\n" not in line
    return line


# --- intervals ----------------------------------------------------------------------------------------------------------

RATED = {"load_col": {"inter": "user_id,item_id,rating"}}
NO_INTERVALS = {
    ">=3": "is not an interval",
    "3": "is not an interval",
    "5,10": "is not an interval",
    "[5": "is not an interval",
    "[5]": "is not an interval",
    "{1,2}": "is not an interval",
    "[1,2],[3,4]": "is not an interval",
    "[1,2];": "is not an interval",
    "": "is not an interval",
    "2020-01-01": "is not an interval",
    "[a,b]": "has a bound that is not a number",
    "[nan,5]": "has a bound that is not a number",
    "[5,3]": "begins above its end",
    "[1,2];[5,3]": "begins above its end",
    "(5,5)": "holds no number",
    "[5,5)": "holds no number",
}
INTERVAL_KEYS = ("user_inter_num_interval", "item_inter_num_interval", "entity_kg_num_interval", "relation_kg_num_interval")


@pytest.mark.parametrize("text", NO_INTERVALS)
def test_what_is_no_interval_is_refused_under_every_key(tiny_keys, text):
    line = refused(tiny_keys, {**dict.fromkeys(INTERVAL_KEYS, text), **RATED, "val_interval": {"rating": text}})
    for key in INTERVAL_KEYS:
        assert f"{key}: " in line
    assert line.count(NO_INTERVALS[text]) >= len(INTERVAL_KEYS)
    # The files are looked at once the other keys are right.
    assert NO_INTERVALS[text] in refused(tiny_keys, {**RATED, "val_interval": {"rating": text}})


def test_an_interval_on_the_command_line_is_text(tiny_keys):
    for key in INTERVAL_KEYS:
        assert "'5,10' is not an interval" in refused(tiny_keys, {}, f"--{key}=5,10")
        assert Config("BPR", "tiny", config_dict=tiny_keys, argv=[f"--{key}=(5,10]"])[key] == "(5,10]"
    assert "'5' is not an interval" in refused(tiny_keys, {"user_inter_num_interval": 5})


@pytest.mark.parametrize(
    ("text", "kept"),
    [("[3,inf)", {3, 4, 5}), ("(3,5]", {4, 5}), ("[1,1];[4,5)", {1, 4}), ("(-inf,2]", {1, 2}), ([2, 3], {2, 3})],
)
def test_recbole_keeps_what_an_interval_says(tiny_keys, text, kept):
    """The raw ratings are compared, because RecBole normalises none here."""
    config = Config("BPR", "tiny", config_dict={**tiny_keys, **RATED, "val_interval": {"rating": text}})
    ratings = load_data(config).dataset.inter_feat["rating"].numpy()
    assert set(ratings.tolist()) == kept
    raw = [float(line.split("\t")[2]) for line in (Path(config["data_path"]) / "tiny.inter").read_text().splitlines()[1:]]
    inside = [any(_holds(part, rating) for part in parse_intervals(text)) for rating in raw]
    assert len(ratings) == sum(inside)


def _holds(interval, number):
    above = number >= interval.low if interval.has_low else number > interval.low
    return above and (number <= interval.high if interval.has_high else number < interval.high)


# --- values of RecBole's keys -------------------------------------------------------------------------------------------

SPLIT = "eval_args split RS: expected three shares"
WRONG = [
    # eval_args: each part, and the number of its parts
    ({"eval_args": None}, "eval_args: expected a dictionary with keys among group_by, mode, order, split, got None"),
    ({"eval_args": "RO_RS"}, "eval_args: expected a dictionary"),
    ({"eval_args": {"foo": 1}}, "unknown key foo in eval_args"),
    ({"eval_args": {"order": "x"}}, "eval_args order: expected RO (random) or TO (by time), got 'x'"),
    ({"eval_args": {"order": "TO"}}, "eval_args order TO (TIME_FIELD) needs column timestamp, which"),
    ({"eval_args": {"split": {"TS": [8, 1, 1]}}}, "eval_args split TS (TIME_FIELD) needs column timestamp"),
    ({"eval_args": {"group_by": "item"}}, "eval_args group_by: expected user or none, got 'item'"),
    *(
        ({"eval_args": {"split": {"RS": parts}}}, SPLIT)
        for parts in ([0.8, 0.2], [1, 2], [0.8], [], [8, 1, 1, 1], 0.8, "0.8,0.1,0.1", ["a", "b", "c"], None, [True, 1, 1])
    ),
    *(
        ({"eval_args": {"split": {"RS": parts}}}, "none of them negative and the first above 0")
        for parts in ([-1, 2, 3], [0, 1, 1])
    ),
    *(
        ({"eval_args": {"split": split}}, "eval_args split: expected one of {'RS'")
        for split in (None, "RS", {}, {"XX": [1, 1, 1]}, {"RS": [8, 1, 1], "LS": "test_only"})
    ),
    *(
        ({"eval_args": {"split": {"LS": what}}}, "eval_args split LS: expected one of valid_and_test")
        for what in ("last", 2, None)
    ),
    *(
        ({"eval_args": {"mode": mode}}, "eval_args mode: expected full, uniN, popN or labeled")
        for mode in ("all", "FULL", "uni", "uni0", "uni-3", None, ["full"], {"valid": "x", "test": "full"})
    ),
    ({"eval_args": {"mode": {"train": "full"}}}, "eval_args mode: expected the keys valid and test"),
    ({"eval_args": {"mode": "labeled"}}, "labeled goes with value metrics: --metrics=AUC,LogLoss"),
    ({"eval_args": {"mode": "labeled"}, "metrics": "AUC", "valid_metric": "AUC"}, "needs labels: load a column label"),
    ({"metrics": ["AUC"], "valid_metric": "AUC"}, "need eval_args mode labeled or uniN, got full"),
    # metrics and cut-offs
    *(({"topk": topk}, "topk: expected one or more positive integers") for topk in (0, -1, [], "", 5.5, "5,a", None, [True])),
    ({"metrics": "Foo"}, "metrics: there is no metric Foo"),
    ({"metrics": []}, "metrics: expected a list such as [Recall,NDCG]"),
    ({"metrics": "NDCG,AUC"}, "cannot be mixed"),
    ({"valid_metric": "NDCG@20"}, "valid_metric NDCG@20 is not reported"),
    ({"valid_metric": "MRR"}, "valid_metric MRR is not reported"),
    ({"valid_metric_bigger": "yes"}, "valid_metric_bigger: expected True or False"),
    # the trainer
    (
        {"clip_grad_norm": 5},
        "clip_grad_norm: expected a dictionary such as {'max_norm':5}, got 5; use --clip_grad_norm={'max_norm':5}",
    ),
    *(
        ({"clip_grad_norm": clip}, "clip_grad_norm: expected a dictionary such as {'max_norm':5} with a number above 0")
        for clip in ({}, [5], True, {"norm": 5}, {"max_norm": -5}, {"max_norm": "5"}, {"max_norm": 5, "norm_type": 0})
    ),
    *(({"learner": learner}, "learner: expected one of adam, adamw, sgd, adagrad, rmsprop") for learner in ("foo", 5, None)),
    ({"learner": "sparse_adam"}, "no model here has sparse gradients"),
    ({"enable_amp": True}, "enable_amp: mixed precision needs a GPU"),
    ({"enable_scaler": True}, "enable_scaler: mixed precision needs a GPU"),
    *(({"learning_rate": rate}, "learning_rate: expected a number above 0") for rate in (0, -1)),
    *(({"learning_rate": rate}, "learning_rate: expected a finite number") for rate in ("x", float("inf"), None, [0.1], True)),
    ({"weight_decay": -1}, "weight_decay: expected a number of at least 0"),
    *(
        ({key: "x"}, f"{key}: expected an integer")
        for key in ("epochs", "eval_step", "stopping_step", "loss_decimal_place", "worker")
    ),
    *(
        ({key: -1}, f"{key}: expected an integer of at least 0")
        for key in ("epochs", "eval_step", "stopping_step", "seed", "worker")
    ),
    *(
        ({key: size}, f"{key}: expected an integer of at least 1")
        for key in ("train_batch_size", "eval_batch_size", "embedding_size")
        for size in (0, -1, 1.5, "x", None)
    ),
    ({"embedding_size": 64.5}, "embedding_size: expected an integer of at least 1, got 64.5"),
    ({"seed": 2**32}, "seed: expected an integer of at most 4294967295"),
    ({"split_seed": 2**32}, "split_seed: Input should be less than or equal to 4294967295"),
    ({"embedding_size": 10**30}, "embedding_size: expected an integer of at most"),
    *(({key: "x"}, f"{key}: expected True or False") for key in ("reproducibility", "shuffle", "use_gpu", "normalize_all")),
    ({"train_neg_sample_args": 5}, "train_neg_sample_args: expected a dictionary"),
    ({"train_neg_sample_args": {"foo": 5}}, "unknown key foo in train_neg_sample_args"),
    ({"train_neg_sample_args": {"distribution": "x"}}, "distribution: expected uniform or popularity, got 'x'"),
    ({"train_neg_sample_args": {"sample_num": 0}}, "sample_num: expected an integer of at least 1"),
    ({"train_neg_sample_args": {"candidate_num": "x"}}, "candidate_num: expected an integer of at least 0"),
    ({"train_neg_sample_args": {"alpha": -1}}, "alpha: expected a number of at least 0"),
    ({"train_neg_sample_args": {"dynamic": True}}, "dynamic needs candidate_num of at least 1"),
    ({"train_neg_sample_args": {"dynamic": 1}}, "dynamic: expected True or False"),
    # the environment
    ({"gpu_id": "x"}, "gpu_id: expected numbers of GPUs such as 0 or 0,1"),
    ({"state": "FOO"}, "state: expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got 'FOO'"),
    *(({"transform": value}, "transform: RecBole's transforms are for sequential models") for value in ([], {}, ["x"])),
    *(({"gpu_id": value}, "gpu_id: expected numbers of GPUs") for value in ({}, ["x"], 1.5)),
    ({"transform": "mask_itemseq"}, "transform: RecBole's transforms are for sequential models"),
    *(({key: None}, f"{key}: expected a folder such as") for key in ("data_path", "checkpoint_dir")),
    *(({key: ""}, f"{key}: expected a folder such as") for key in ("data_path", "checkpoint_dir")),
    ({"resume": "/nowhere/x.pth"}, "resume: checkpoint /nowhere/x.pth does not exist"),
    ({"resume": "/tmp"}, "resume: checkpoint /tmp is a folder, not a file"),
    # our own keys are cut as well
    ({"negative_sampler": "x" * 5000}, "..."),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_value_is_one_line(tiny_keys, wrong, message):
    line = refused(tiny_keys, wrong, model="HNLMLightGCN" if "negative_sampler" in wrong else "BPR")
    assert message in line
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("model", "wrong", "message"),
    [
        *(("SGL", {"ssl_tau": value}, "ssl_tau: expected a number above 0, by which") for value in (0, -0.5)),
        ("NCL", {"ssl_temp": 0.0}, "ssl_temp: expected a number above 0, by which"),
        ("SGL", {"type": "XX"}, "type: expected one of ED, ND, RW, got 'XX'"),
        ("LINE", {"order": 3}, "order: expected one of 1, 2, got 3"),
    ],
)
def test_a_value_that_a_model_cannot_use_is_refused_before_training(tiny_keys, model, wrong, message):
    assert message in refused(tiny_keys, wrong, model=model)


def test_a_package_that_training_would_miss_is_named_before(tiny_keys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "log_wandb needs the package wandb: pip install wandb" in refused(tiny_keys, {"log_wandb": True})
    assert "model NCL needs the package faiss: pip install faiss-cpu" in refused(tiny_keys, {}, model="NCL")


@pytest.mark.parametrize("odd", [[], {}, [1], {"a": 1}, (), [[]], 1.5, True])
def test_no_key_stumbles_over_a_value_of_another_type(tiny_keys, odd):
    """All keys of RecBole's and ours, a twelfth of them at once, with lists and dictionaries where a word is expected."""
    config = Config("BPR", "tiny", config_dict=tiny_keys)
    names = sorted(set(config.final_config_dict) - LAUNCHER_KEYS - {"model", "dataset", "MODEL_TYPE", "device"})
    for first in range(12):
        assert refused(tiny_keys, dict.fromkeys(names[first::12], odd))
    for key in ("model", "dataset"):
        with pytest.raises(ConfigError):
            Config(config_dict={**tiny_keys, "model": "BPR", "dataset": "tiny", key: odd})


def test_a_gpu_that_is_not_there_is_said(tiny_keys, caplog):
    with caplog.at_level(logging.WARNING):
        config = Config("BPR", "tiny", config_dict={**tiny_keys, "use_gpu": True, "gpu_id": "99"})
    assert config["use_gpu"] or "gpu_id=99: PyTorch finds no such GPU here, so the run is on the CPU" in caplog.text


@pytest.mark.parametrize("name", ["../tiny", "a/b", "/tmp"])
def test_a_dataset_is_a_name_not_a_path(tiny_keys, name):
    with pytest.raises(ConfigError, match="dataset: expected a name, the folder of its files in data_path"):
        Config("BPR", name, config_dict=tiny_keys)


# --- values that only the data show to be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"topk": 31, "valid_metric": "MRR@31"}, "topk 31 is beyond the 30 items of dataset tiny"),
        ({"eval_args": {"mode": "uni31"}}, "eval_args mode uni31 draws more negatives than the 30 items"),
        ({"item_inter_num_interval": "[1000,inf)"}, "no row is left of a file; loosen val_interval"),
        (
            {"train_neg_sample_args": {"distribution": "popularity", "alpha": 1e300}},
            "RecBole cannot split it or sample negatives",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_one_line_before_training(tiny_keys, keys, message):
    with pytest.raises((ConfigError, DataError), match=message.replace("*", r"\*")) as caught:
        load_data(Config("BPR", "tiny", config_dict={**tiny_keys, **keys}))
    assert "\n" not in str(caught.value)


# --- labels ---------------------------------------------------------------------------------------------------------------


def test_rows_labelled_0_are_not_trained_as_positives(tiny_keys):
    line = refused(tiny_keys, {**RATED, "threshold": {"rating": 3}})
    assert "BPR takes every training row for a positive, those labelled 0 too; leave them out with" in line
    assert "--val_interval={'rating':'[3,inf)'}" in line
    keys = {**tiny_keys, **RATED, "threshold": {"rating": 3}, "val_interval": {"rating": "[3,inf)"}}
    assert load_data(Config("BPR", "tiny", config_dict=keys)).dataset.inter_feat["label"].all()


@pytest.mark.parametrize(
    "threshold", [3, {}, {"rating": "x"}, {"rating": 3, "timestamp": 4}, {"rating": None}, {"rating": True}]
)
def test_a_threshold_is_one_column_and_a_number(tiny_keys, threshold):
    assert "threshold: expected" in refused(tiny_keys, {**RATED, "threshold": threshold})


def test_auc_of_labels_of_one_kind_is_refused_before_training(tiny_keys):
    labeled = {"eval_args": {"mode": "labeled"}, "metrics": "AUC", "valid_metric": "AUC", "val_interval": {"rating": "[3,inf)"}}
    config = Config("BPR", "tiny", config_dict={**tiny_keys, **RATED, "threshold": {"rating": 3}, **labeled})
    with pytest.raises(DataError, match="every row of the valid split is labelled 1, and AUC needs both labels"):
        load_data(config)


# --- ways of writing ------------------------------------------------------------------------------------------------------

HOME_KEYS = ("checkpoint_dir", "artifact_dir", "results_dir", "log_dir")


def test_a_tilde_is_the_home_folder_in_every_path(tiny_keys, workdir, monkeypatch):
    monkeypatch.setenv("HOME", str(workdir / "home"))
    config = Config("HNLMLightGCN", "tiny", config_dict={**tiny_keys, **dict.fromkeys(HOME_KEYS, "~/x")})
    assert {config[key] for key in HOME_KEYS} == {str(workdir / "home" / "x")}
    for key in (*HOME_KEYS, "resume", "llm_model", "text_encoder"):
        line = refused(tiny_keys, {key: "~nobody-here/x"}, model="HNLMLightGCN")
        assert key in line
        assert "there is no user whose home folder" in line


@pytest.mark.parametrize("text", [r"\t", r"\\t", r"'\t'", r'"\t"', "tab", "TAB", "\t", r"\x09"])
def test_every_spelling_of_a_tab_is_a_tab(tiny_keys, text):
    assert Config("BPR", "tiny", config_dict={**tiny_keys, "field_separator": text})["field_separator"] == "\t"
    assert Config("BPR", "tiny", config_dict=tiny_keys, argv=[f"--field_separator={text}"])["field_separator"] == "\t"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("topk", "5,10", [5, 10]),
        ("topk", "5", [5]),
        ("topk", "5.0", [5]),
        ("topk", "(5,10)", [5, 10]),
        ("metrics", "MRR", ["MRR"]),
        ("metrics", "MRR, NDCG", ["MRR", "NDCG"]),
        ("embedding_size", "64.0", 64),
        ("load_col", "{'inter':'*'}", {"inter": "*"}),
        ("load_col", "{'inter':'user_id,item_id'}", {"inter": ["user_id", "item_id"]}),
        ("load_col", "{inter: [user_id, item_id]}", {"inter": ["user_id", "item_id"]}),
        ("load_col", "None", None),
        ("normalize_field", "rating", ["rating"]),
    ],
)
def test_other_ways_of_writing_are_accepted(tiny_keys, key, text, value):
    loaded = {"load_col": None} if key == "normalize_field" else {}
    assert Config("BPR", "tiny", config_dict={**tiny_keys, **loaded}, argv=[f"--{key}={text}"])[key] == value


def test_a_star_loads_every_column(tiny_keys):
    dataset = load_data(Config("BPR", "tiny", config_dict=tiny_keys, argv=["--load_col={'inter':'*'}"])).dataset
    assert list(dataset.inter_feat.columns) == ["user_id", "item_id", "rating", "timestamp"]


RENAMED = {
    "eval_setting": "RecBole 1.2 has eval_args, such as --eval_args=",
    "split_ratio": "RecBole 1.2 has eval_args split, such as",
    "leave_one_out_num": "--eval_args={'split':{'LS':'valid_and_test'}}",
    "group_by_user": "--eval_args={'group_by':'user'}",
    "real_time_process": "RecBole has dropped it",
    "training_neg_sample_num": "RecBole 1.2 has train_neg_sample_args",
    "neg_sampling": "RecBole 1.2 has train_neg_sample_args",
    "min_user_inter_num": "--user_inter_num_interval=[5,inf)",
    "max_user_inter_num": "--user_inter_num_interval=[0,100]",
    "min_item_inter_num": "--item_inter_num_interval=[5,inf)",
    "lowest_val": "--val_interval={'rating':'[3,inf)'}",
    "not_equal_val": "--val_interval={'rating':'(-inf,0);(0,inf)'}",
    "drop_filter_field": "unused_col",
    "fields_in_same_space": "--alias_of_item_id=",
    "multi_gpus": "--nproc=2",
    "neg_prefix": "the nearest valid one is NEG_PREFIX",
}


@pytest.mark.parametrize("old", RENAMED)
def test_a_key_of_an_older_recbole_is_answered_with_the_new_way(tiny_keys, old):
    line = refused(tiny_keys, {old: 1})
    assert f"unknown key {old}; " in line
    assert RENAMED[old] in line


@pytest.mark.parametrize("token", ["--=5", "tiny", "-x", "--"])
def test_an_argument_that_is_no_key_is_named(tiny_keys, token):
    assert f"unexpected argument '{token}'" in refused(tiny_keys, {}, token)


# --- bounds -------------------------------------------------------------------------------------------------------------


def test_many_unknown_keys_end_in_a_short_line(tiny_keys):
    line = refused(tiny_keys, {f"key{number}": 1 for number in range(20_000)})
    assert "and 19,990 more unknown keys" in line
    assert len(line) < 3000


@pytest.mark.parametrize(
    "value", ["x" * 10_000, list(range(10_000)), {"a": {"b": "x" * 1000}}, 16**5000, {16**5000: 1}, "a\nb"], ids=repr_of
)
def test_a_shown_value_is_one_short_line(value):
    assert len(shown(value)) <= 80
    assert "\n" not in shown(value)


@pytest.mark.parametrize("value", [16**5000, [-(16**5000)], {"a": 16**5000}], ids=repr_of)
def test_numbers_beyond_every_key_are_refused(tiny_keys, value):
    assert "beyond every number that a key takes" in refused(tiny_keys, {"weight_decay": value})

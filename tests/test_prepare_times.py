"""Windows and the order of time, finer than RecBole's float32."""

import numpy as np
import pytest
from recbole.data.dataset import Dataset

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data

START = 1_500_000_000  # a multiple of 128: float32 holds it, and none of the next 63 seconds


def config_of(folder, rows, **keys):
    (folder / "t").mkdir(exist_ok=True)
    # RecBole's sampler refuses users who know every item.
    rows = [*rows, *(("other", f"x{n}", START + 4 + n) for n in range(3))]
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    (folder / "t" / "t.inter").write_text("\n".join(lines) + "\n")
    base = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"order": "TO", "split": {"LS": "valid_and_test"}, "group_by": "user"},
        "topk": [2],
        "valid_metric": "Recall@2",
        "metrics": ["Recall"],
    }
    return Config("BPR", "t", config_dict=base | keys)


def items_of(data, user):
    feat, field = data._dataset.inter_feat, data._dataset
    keep = feat["user_id"].numpy() == field.token2id("user_id", user)
    return [field.id2token("item_id", item) for item in feat["item_id"].numpy()[keep]]


def rows_in_reverse():
    """One user's items a second apart, the latest one first in the file, and another user's in order."""
    return [("u", f"i{n}", START + n) for n in range(9, -1, -1)] + [("v", f"i{n}", START + n) for n in range(10)]


def test_float32_cannot_tell_these_times_apart():
    assert len(np.unique(np.float32([time for *_, time in rows_in_reverse()]))) == 1


def test_the_latest_interactions_are_held_out_though_float32_sees_ties(tmp_path, workdir):
    data = load_data(config_of(tmp_path, rows_in_reverse()))
    for user in "uv":
        assert items_of(data.train, user) == [f"i{n}" for n in range(8)]
        assert items_of(data.valid, user) == ["i8"]
        assert items_of(data.test, user) == ["i9"]


def test_stock_recbole_holds_out_others(tmp_path, workdir):
    test = Dataset(config_of(tmp_path, rows_in_reverse())).build()[2]
    assert test.id2token("item_id", test.inter_feat["item_id"][0]) == "i0"


def test_rows_of_equal_times_stay_in_the_order_of_the_file(tmp_path, workdir):
    data = load_data(
        config_of(tmp_path, [("u", f"i{n}", START) for n in (3, 1, 2, 0, 4)] + [("v", "i0", 1), ("v", "i1", 2), ("v", "i2", 3)])
    )
    assert (items_of(data.train, "u"), items_of(data.valid, "u"), items_of(data.test, "u")) == (
        ["i3", "i1", "i2"],
        ["i0"],
        ["i4"],
    )


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        (f"[{START + 3},{START + 7}]", [3, 4, 5, 6, 7]),
        (f"({START + 3},{START + 7})", [4, 5, 6]),
        (f"[{START + 2}.5,{START + 6}.5]", [3, 4, 5, 6]),
    ],
)
def test_windows_are_exact_to_the_second(tmp_path, workdir, window, kept):
    data = load_data(config_of(tmp_path, rows_in_reverse(), val_interval={"timestamp": window}))
    for user in "uv":
        assert [item for part in (data.train, data.valid, data.test) for item in items_of(part, user)] == [
            f"i{n}" for n in kept
        ]


def test_a_random_order_is_left_alone(tmp_path, workdir):
    config = config_of(
        tmp_path, rows_in_reverse(), eval_args={"order": "RO", "split": {"LS": "valid_and_test"}, "group_by": "user"}
    )
    mine = load_data(config)
    from recbole.utils import init_seed  # noqa: PLC0415

    init_seed(config["seed"], config["reproducibility"])
    stock = Dataset(config).build()
    # Loaders of evaluation sort their rows by user.
    pairs = [
        sorted(zip(part.inter_feat["user_id"].tolist(), part.inter_feat["item_id"].tolist(), strict=True))
        for part in (mine.test._dataset, stock[2], mine.train._dataset, stock[0])
    ]
    assert pairs[0] == pairs[1]
    assert pairs[2] == pairs[3]

"""Values that RecBole would take silently or stumble over: one line before anything is trained."""

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.utils.errors import ConfigError, DataError
from recbole_hnlm.utils.values import shown

RATED = {"load_col": {"inter": "user_id,item_id,rating"}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({**RATED, "val_interval": {"rating": ">=3"}}, "'>=3' is not an interval"),
        ({**RATED, "val_interval": {"rating": "[5,3]"}}, "begins above its end"),
        ({"val_interval": {"rating": "[3,inf)"}}, r"needs column rating.*load_col leaves out"),
        ({"user_inter_num_interval": 5}, "'5' is not an interval"),
        ({**RATED, "threshold": {"rating": 3}}, r"--val_interval=\{'rating':'\[3,inf\)'\}"),
        ({"eval_args": {"order": "TO"}}, r"order TO \(TIME_FIELD\) needs column timestamp"),
        ({"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "expected three shares"),
        ({"eval_args": {"split": {"RS": [-1, 2, 3]}}}, "none of them negative"),
        ({"eval_args": {"mode": "labeled"}}, "labeled goes with value metrics"),
        ({"clip_grad_norm": 5}, r"--clip_grad_norm=\{'max_norm':5\}"),
        ({"embedding_size": 0}, "embedding_size: expected an integer of at least 1, got 0"),
        ({"embedding_size": 64.5}, "embedding_size: expected an integer"),
        ({"learner": "foo"}, "learner: expected one of adam"),
        ({"enable_amp": True}, "enable_amp: mixed precision needs a GPU"),
        ({"encoding": "utf9"}, "there is no encoding 'utf9'"),
        ({"field_separator": ""}, "field_separator: expected one or more characters"),
        ({"load_col": "user_id"}, "load_col: expected a dictionary"),
        ({"eval_setting": "RO_RS"}, "unknown key eval_setting; it is now called eval_args"),
    ],
)
def test_a_wrong_value_is_one_line(tiny_keys, keys, message):
    with pytest.raises(ConfigError, match=message):
        Config("BPR", "tiny", config_dict={**tiny_keys, **keys})


def test_other_ways_of_writing_are_accepted(tiny_keys):
    argv = ["--hidden_size_list=64,32", "--embedding_size=64.0", "--load_col={'inter':'*'}", r"--field_separator=\t"]
    config = Config("NGCF", "tiny", config_dict={**tiny_keys, "results_dir": "~/results"}, argv=argv)
    assert (config["hidden_size_list"], config["embedding_size"], config["field_separator"]) == ([64, 32], 64, "\t")
    assert not config["results_dir"].startswith("~")


def test_a_cell_that_is_no_number_is_named(tmp_path, tiny_keys):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text("user_id:token\titem_id:token\trating:float\na\tb\t4\na\tc\t4,5\n")
    keys = {**tiny_keys, "data_path": str(tmp_path), "load_col": None}
    with pytest.raises(DataError, match=r"toy.inter, line 3, column rating: '4,5' is not a number"):
        load_data(Config("BPR", "toy", config_dict=keys))


def test_many_unknown_keys_and_bombs_end_in_a_short_line(workdir, tiny_keys):
    with pytest.raises(ConfigError, match="and 19,990 more unknown keys") as caught:
        Config("BPR", "tiny", config_dict={**tiny_keys, **{f"key{number}": 1 for number in range(20_000)}})
    assert len(str(caught.value)) < 3000
    levels = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12))
    (workdir / "bomb.yaml").write_text(f"a0: &a0 [1]\n{levels}topk: *a11\n")
    with pytest.raises(ConfigError, match="more than 100,000 parts"):
        Config("BPR", "tiny", ["bomb.yaml"], tiny_keys)
    assert len(shown("x" * 10_000)) == 80

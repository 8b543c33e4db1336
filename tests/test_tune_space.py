"""What a search tunes: RecBole's ``hyper.test`` format, and the spaces that are shipped."""

import math
from pathlib import Path

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.config.settings import asks_llm_again
from recbole_hnlm.experiments.space import read_space, read_space_file, shipped_space
from recbole_hnlm.experiments.tune_checks import check_keys_of, check_values
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import model_names

# Written like the files of RecBole's own examples.
PLAIN = """learning_rate loguniform -8,0
embedding_size choice [64,96,128]
train_batch_size choice [512,1024,2048]
mlp_hidden_size choice ['[64,64,64]','[128,128]']
"""
SPACED = """# comment with three words

learning_rate  loguniform  -8, 0
  embedding_size choice [64, 96 , 128]
\ttrain_batch_size\tchoice\t[512,1024,2048]
mlp_hidden_size choice ['[64,64,64]', '[128,128]']
"""
EVERY_TYPE = """dropout_prob uniform 0.0,0.5
n_layers quniform 1,4,1
ssl_tau quniform 0.1,0.5,0.1
norm choice [True,False,None]
reg_weight loguniform -11.5,-4.6
hidden choice [[64,64],(128,)]
"""


def test_recboles_format_is_read_exactly():
    space = read_space(PLAIN.splitlines(), "hyper.test")
    assert space.keys == ["learning_rate", "embedding_size", "train_batch_size", "mlp_hidden_size"]
    rate = space.distributions()["learning_rate"]
    assert (rate.low, rate.high, rate.log) == (pytest.approx(math.exp(-8)), 1.0, True)  # natural logarithms
    assert space.dimensions[3].values == ("[64,64,64]", "[128,128]")
    assert read_space(SPACED.splitlines(), "hyper.test") == space
    assert read_space(space.to_lines(), "hyper.test") == space


def test_every_type_of_range():
    space = read_space(EVERY_TYPE.splitlines(), "hyper.test")
    values = {each.key: each.all_values() for each in space.dimensions}
    assert values == {
        "dropout_prob": None,
        "n_layers": [1, 2, 3, 4],
        "ssl_tau": [0.1, 0.2, 0.3, 0.4, 0.5],
        "norm": [True, False, None],
        "reg_weight": None,
        "hidden": ["[64, 64]", "(128,)"],
    }
    assert all(isinstance(layers, int) for layers in values["n_layers"])
    assert space.distributions()["dropout_prob"].high == 0.5
    # hyperopt rounds to multiples of q: round(uniform(1, 10) / 4) * 4.
    assert read_space(["a quniform 1,10,4"], "f").points() == [{"a": 0}, {"a": 4}, {"a": 8}]
    assert read_space(["a quniform 0.5,2.5,1"], "f").points() == [{"a": 1}, {"a": 2}]
    assert read_space(["a quniform 3,3,2"], "f").points() == [{"a": 4}]


def test_sums_of_steps_are_the_numbers_one_writes():
    space = read_space(["a quniform 0,1,0.1"], "f")
    assert space.exact({"a": 0.1 + 0.2}) == {"a": 0.3}
    assert [point["a"] for point in space.points()] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_the_configured_point_is_found_where_the_space_holds_it():
    text = "a loguniform -8,-3\nb choice [1, 2]\nc choice ['[64,64]', '[32]']\nd quniform 0.1,0.4,0.1\ne choice [True, 0.5]"
    space = read_space(text.splitlines(), "f")
    configured = {"a": 0.01, "b": 2, "c": [64, 64], "d": 0.3, "e": True, "other": 1}
    point = {"a": 0.01, "b": 2, "c": "[64,64]", "d": 0.3, "e": True}
    assert space.held(configured) == point
    for key, outside in (("a", 0.1), ("a", None), ("a", True), ("b", 3), ("c", [64]), ("d", 0.35), ("e", 1), ("b", True)):
        assert space.held({**configured, key: outside}) is None
    assert space.held({key: value for key, value in configured.items() if key != "b"}) is None


def test_points_are_the_product_and_their_number():
    space = read_space(["a choice [1,2]", "b quniform 0,2,1"], "f")
    assert space.size() == len(space.points()) == 6
    assert space.points()[:3] == [{"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 1, "b": 2}]
    assert read_space(["a uniform 0,1"], "f").size() is None
    assert space.probes() == [{"a": 1, "b": 0}, {"a": 2, "b": 0}, {"a": 1, "b": 2}]
    with pytest.raises(ConfigError, match=r"f: a uniform has no end of values, .*--algo=tpe"):
        read_space(["a uniform 0,1"], "f").points()
    with pytest.raises(ConfigError, match="1,000,000,000 points"):
        read_space([f"k{key} quniform 1,1000,1" for key in range(3)], "f").points()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate", "expected NAME TYPE RANGE"),
        ("learning_rate choice", "expected NAME TYPE RANGE"),
        ("learning_rate normal 0,1", "unknown type 'normal'; expected choice, uniform, quniform, loguniform"),
        ("a choice 3", "a choice expects a list such as"),
        ("a choice []", "expects a list"),
        ("a choice [1,", "expects a list"),
        ("a choice [1,1.0]", "expects a list"),
        ("a choice __import__('os').getcwd()", "expects a list"),
        ("a uniform 1", "two numbers low,high"),
        ("a uniform 1,2,3", "two numbers low,high"),
        ("a uniform 2,1", "two numbers low,high"),
        ("a uniform x,1", "two numbers low,high"),
        ("a uniform 0,inf", "two numbers low,high"),
        ("a uniform nan,1", "two numbers low,high"),
        ("a quniform 0,1", "three numbers"),
        ("a quniform 0,1,0", "three numbers"),
        ("a loguniform -8,1000", "two natural logarithms"),
        ("a loguniform -1000,0", "two natural logarithms"),
        ("b choice [1]", "b is given twice"),
        (f"a choice {'x' * 500}", "expects a list"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_its_number(line, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_space(["b uniform 0,1", "", line], "hyper.test")
    assert str(caught.value).startswith("hyper.test, line 3: ")
    assert len(str(caught.value)) < 300


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"params_file .* does not exist"):
        read_space_file(tmp_path / "none.test")
    (tmp_path / "empty.test").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="no key to tune"):
        read_space_file(tmp_path / "empty.test")
    (tmp_path / "binary.test").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        read_space_file(tmp_path / "binary.test")


# --- shipped ---------------------------------------------------------------------------------------------------------------

SHIPPED = sorted(path.stem for path in (Path(__file__).parent.parent / "properties" / "hyper").glob("*.test"))


def test_every_model_of_ours_and_the_usual_baselines_have_a_space():
    ours = {path.stem for path in (properties_dir() / "model").glob("*.yaml")}
    assert {*SHIPPED} == ours | {"LightGCN", "BPR", "NGCF", "SGL", "NeuMF", "EASE", "ItemKNN"}
    assert ours <= {*model_names()}
    with pytest.raises(ConfigError, match=r"no search space is shipped for Pop \(there are AlphaRec, BPR, "):
        shipped_space("Pop")
    assert shipped_space("None", "BPR").source.endswith("BPR.test")


@pytest.mark.parametrize("model", SHIPPED)
def test_a_shipped_space_fits_its_model_and_asks_no_llm_again(model):
    space = shipped_space(model)
    check_keys_of(space, [])
    unread = []
    for place in (0, -1):  # every key at its first probe, then at its last
        point = {each.key: each.probes()[place] for each in space.dimensions}
        unread.append({*Config(model, "ml-100k", None, point, strict=False).unread})
    assert not set.intersection(*unread)
    assert not [key for key in space.keys if asks_llm_again(key)]


# --- checks ----------------------------------------------------------------------------------------------------------------


def _config(model):
    return lambda point: Config(model, "ml-100k", None, dict(point), strict=False)


@pytest.mark.parametrize(
    "key",
    ["seed", "split_seed", "eval_args", "topk", "valid_metric", "user_inter_num_interval", "model", "llm_batch_size", "gpu_id"],
)
def test_keys_that_change_what_is_measured_are_not_tuned(key):
    with pytest.raises(ConfigError, match=f"f: {key} cannot be tuned: its values change what .*--{key}=VALUE"):
        check_keys_of(read_space([f"{key} choice [1,2]"], "f"), [])


def test_a_key_that_is_tuned_and_given_is_an_error():
    with pytest.raises(ConfigError, match=r"--learning_rate is given, and f tunes it, so that one of them would be ignored"):
        check_keys_of(read_space(["learning_rate uniform 0,1"], "f"), ["epochs", "learning_rate"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "learning_rat uniform 0.1,1",
            "f, at .*learning_rat=0.1: unknown key learning_rat; the nearest valid one is learning_rate",
        ),
        ("learning_rate choice [0.1,-1]", "f, at learning_rate=-1: .*learning_rate"),
        ("n_layers uniform 1,3", r"f, at n_layers=1.76\d*: .*n_layers"),
        ("mix_weight uniform 0,1", "f: mix_weight has no effect on LightGCN"),
    ],
)
def test_wrong_keys_and_values_are_found_before_the_first_trial(line, message):
    with pytest.raises(ConfigError, match=message):
        check_values(read_space(["reg_weight uniform 0,1", line], "f"), _config("LightGCN"), drop_unread=False)


def test_a_shipped_space_drops_what_nothing_reads():
    space = read_space(["dns_top choice [1,2]", "learning_rate uniform 0.1,1"], "f")
    assert check_values(space, _config("HNLMBPR"), drop_unread=True).keys == ["learning_rate"]
    # A key that some point reads is kept.
    mixed = read_space(["dns_top choice [1,2]", "negative_sampler choice ['dns','dns_mn']"], "f")
    assert check_values(mixed, _config("HNLMBPR"), drop_unread=False) == mixed
    with pytest.raises(ConfigError, match="no key is left to tune: dns_top has no effect"):
        check_values(space.without(["learning_rate"]), _config("HNLMBPR"), drop_unread=True)

"""Keys of RecBole's own models: words, lists in every way of writing, negatives, and what only building a model finds."""

import errno

import numpy as np
import pytest

from recbole_hnlm.cli import entry
from recbole_hnlm.config import Config
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.model.building import build_model
from recbole_hnlm.quick_start.runner import run
from recbole_hnlm.utils.errors import ConfigError, out_of_memory
from recbole_hnlm.utils.registry import get_model_class, model_names, model_yamls
from recbole_hnlm.utils.values import load_yaml


def own_keys(kind):
    """Return (model, key, default) for every key of a kind that a model's YAML declares; each key once."""
    seen = {}
    for model in model_names():
        for file in model_yamls(get_model_class(model)):
            for key, value in load_yaml(file).items():
                if isinstance(value, kind):
                    seen.setdefault(key, (model, key, value))
    return sorted(seen.values())


def configure(keys, model, *argv, **values):
    route = {"negative_route": "none"} if model.startswith("HNLM") else {}
    clusters = {"num_clusters": 3} if model == "NCL" else {"n_cate": 1} if model == "LDiffRec" else {}
    return Config(model, "tiny", config_dict={**keys, **route, **clusters, **values}, argv=argv)


LISTS = own_keys(list)


@pytest.mark.parametrize(("model", "key", "default"), LISTS, ids=str)
def test_every_list_may_be_written_with_commas(tiny_keys, model, key, default):
    values = default or [8]
    text = ",".join(map(str, values))
    for written in (text, f"[{text}]", f"({text},)", f"'{text}'"):
        assert configure(tiny_keys, model, f"--{key}={written}")[key] == values
    for wrong in ("x", "1,x", "[[1]]", "True"):
        with pytest.raises(ConfigError, match=f"{key}: expected"):
            configure(tiny_keys, model, f"--{key}={wrong}")


@pytest.mark.parametrize("key", ["hidden_size_list", "mlp_hidden_size", "dims_dnn", "encoder_hidden_size", "critic_layers"])
@pytest.mark.parametrize("written", ["32", "[32]", "32.0", "(32,)"])
def test_a_list_of_one_may_be_written_as_its_element(tiny_keys, key, written):
    model = next(model for model, name, _ in LISTS if name == key)
    assert configure(tiny_keys, model, f"--{key}={written}")[key] == [32]


@pytest.mark.parametrize("key", ["hidden_size_list", "mlp_hidden_size", "dims_dnn"])
@pytest.mark.parametrize("wrong", ["0", "-4", "64.5", "[]", "None"])
def test_a_size_is_a_whole_number_of_at_least_1(tiny_keys, key, wrong):
    model = next(model for model, name, _ in LISTS if name == key)
    with pytest.raises(ConfigError, match=f"{key}: expected (?:a list of numbers|whole numbers of at least 1)"):
        configure(tiny_keys, model, f"--{key}={wrong}")


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("ConvNCF", {"cnn_channels": [1, 32]}, "one fewer than cnn_channels has; found 4 and 4 for 2 channels"),
        ("ConvNCF", {"reg_weights": [0.1]}, "reg_weights: expected 2 numbers such as [0.1, 0.1], got [0.1]"),
        ("NAIS", {"reg_weights": [0.1, 0.1]}, "reg_weights: expected 3 numbers"),
        ("RecVAE", {"mixture_weights": 1}, "mixture_weights: expected 3 numbers"),
        ("DMF", {"user_hidden_size_list": 32}, "expected the same last size, got 32 and 64"),
        ("DGCF", {"n_factors": 3}, "n_factors: expected a divisor of embedding_size 64, got 3"),
    ],
)
def test_lists_of_a_model_fit_each_other(tiny_keys, model, values, message):
    with pytest.raises(ConfigError) as caught:
        configure(tiny_keys, model, **values)
    assert message in str(caught.value)


WORDS = [found for found in own_keys(str) if found[1] not in {"pre_model_path", "alignment_source"}]


@pytest.mark.parametrize(("model", "key", "default"), WORDS, ids=str)
def test_every_word_of_a_model_is_checked(tiny_keys, model, key, default):
    assert configure(tiny_keys, model)[key] == default
    with pytest.raises(ConfigError, match=f"{key}: (expected one of|Input should be) .*{default}.*, got 'foo'"):
        configure(tiny_keys, model, f"--{key}=foo")


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "SimGCL", "GCMC"])
def test_a_pairwise_loss_needs_negatives(tiny_keys, model):
    with pytest.raises(ConfigError, match=f"the loss of {model} compares each item with a negative one"):
        configure(tiny_keys, model, train_neg_sample_args=None)


@pytest.mark.parametrize("model", ["NeuMF", "DMF"])
def test_without_negatives_labels_are_needed(tiny_keys, model):
    with pytest.raises(ConfigError, match=f"without negatives {model} learns from labels: load a column label"):
        configure(tiny_keys, model, train_neg_sample_args=None)
    rated = {"load_col": {"inter": "user_id,item_id,rating"}, "threshold": {"rating": 3}}
    assert configure(tiny_keys, model, train_neg_sample_args=None, **rated)["threshold"] == {"rating": 3}


@pytest.mark.parametrize("model", ["MultiVAE", "EASE", "Pop", "NCEPLRec", "ENMF"])
def test_models_without_negatives_take_none(tiny_keys, model):
    assert configure(tiny_keys, model, train_neg_sample_args=None).model == model


# --- what only building finds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "values", "reason"),
    [
        ("DiffRec", {"sampling_steps": 99}, "AssertionError: Too much steps in inference"),
        ("NNCF", {"neigh_info_method": "knn"}, "TypeError: unsupported operand"),
    ],
)
def test_what_recboles_model_stumbles_over_is_one_line(workdir, tiny_keys, model, values, reason):
    config = configure(tiny_keys, model, **values)
    with pytest.raises(ConfigError) as caught:
        build_model(config, load_data(config).train)
    line = str(caught.value)
    assert line.startswith(f"RecBole's {model} does not work with these keys: {reason}")
    assert next(iter(values)) in line
    assert "\n" not in line


def test_what_recboles_model_stumbles_over_while_it_trains_is_one_line(workdir, tiny_keys):
    with pytest.raises(ConfigError, match="RecBole's ConvNCF does not work with these keys: RuntimeError: Calculated padded"):
        run(configure(tiny_keys, "ConvNCF", embedding_size=1))


def test_faults_of_our_own_models_keep_their_traceback(workdir, tiny_keys, monkeypatch):
    config = configure(tiny_keys, "HNLMBPR")
    train = load_data(config).train
    monkeypatch.setattr(type(train._dataset), "num", lambda self, field: {}["absent"])
    with pytest.raises(KeyError):
        build_model(config, train)


def test_ncl_needs_as_many_users_and_items_as_clusters(tiny_keys):
    config = configure(tiny_keys, "NCL", num_clusters=1000)
    with pytest.raises(ConfigError, match=r"num_clusters: expected at most 31, .* got 1000"):
        build_model(config, load_data(config).train)


# --- memory ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "HNLMLightGCN"])
def test_sizes_beyond_the_memory_are_one_line(workdir, tiny_keys, capsys, model):
    route = ["--negative_route=none", "--alignment_weight=0"] if model.startswith("HNLM") else []
    argv = [f"--model={model}", "--dataset=tiny", "--embedding_size=99999999999", "--topk=5", "--valid_metric=MRR@5", *route]
    assert entry.run_script([*argv, f"--data_path={tiny_keys['data_path']}", "--state=ERROR"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: out of memory (")
    assert "lower the sizes, such as embedding_size" in last


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (np.core._exceptions._ArrayMemoryError((9**9,), np.dtype(float)), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("size mismatch"), False),
        (OSError(errno.ENOMEM, "out of memory"), False),
    ],
)
def test_memory_is_told_from_other_faults(error, is_memory):
    assert out_of_memory(error) is is_memory

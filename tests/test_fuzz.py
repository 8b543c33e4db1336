"""Fuzzing: whatever a file, a key or an artefact holds, the code works or refuses it in one line; no traceback, no hang.

Few examples here; ``make test-fuzz`` tries many.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_kit import atomic_files, configurations, fuzzed, keys_of, mutated, outcome, texts, values, yaml_texts
from hypothesis import given
from hypothesis import strategies as st

from recbole_hnlm.config import Config
from recbole_hnlm.data.atomic_text import AtomicFormat, read_item_texts
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.data.store_format import StoreIdentity
from recbole_hnlm.data.store_writer import VectorStoreWriter
from recbole_hnlm.llm.cache import ReplyCache
from recbole_hnlm.trainer.checkpoint import read_checkpoint, write_checkpoint
from recbole_hnlm.utils.errors import HNLMError
from recbole_hnlm.utils.files import Artifact, JsonlArtifact
from recbole_hnlm.utils.values import load_yaml, parse_value, shown, split_argv

MODELS = ("BPR", "HNLMLightGCN", "NeuMF", "ConvNCF", "RecVAE")[: 2 if fuzzed.derandomize else None]


@pytest.fixture(autouse=True)
def _environment(workdir, monkeypatch):
    """Nothing that a fuzzed run writes or sets outlives it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


# --- keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_any_keys_and_values(tiny_keys, model):
    route = {"negative_route": "none", "alignment_weight": 0} if model.startswith("HNLM") else {}
    base = {**tiny_keys, **route}
    names = keys_of(Config(model, "tiny", config_dict=base))

    @fuzzed
    @given(given_keys=configurations(names), as_argv=st.booleans())
    def check(given_keys, as_argv):
        argv = [f"--{key}={value}" for key, value in given_keys.items()] if as_argv else []
        keys = {key: value for key, value in base.items() if not (as_argv and key in given_keys)}
        config = outcome(lambda: Config(model, "tiny", None, {**keys, **({} if as_argv else given_keys)}, argv))
        if isinstance(config, Config):
            outcome(lambda: load_data(config))

    check()


@fuzzed
@given(text=texts | values.map(repr) | yaml_texts)
def test_any_text_of_a_value(text):
    outcome(lambda: parse_value(text))


@fuzzed
@given(value=values)
def test_any_value_is_shown_in_one_short_line(value):
    assert len(shown(value)) <= 80
    assert "\n" not in shown(value)


@fuzzed
@given(argv=st.lists(texts.map(lambda text: f"--{text}") | texts, max_size=5))
def test_any_arguments(argv):
    outcome(lambda: split_argv(argv))


# --- YAML -----------------------------------------------------------------------------------------------------------------


@fuzzed
@given(
    content=yaml_texts.map(lambda text: text.encode("utf-8", errors="replace"))
    | yaml_texts.flatmap(lambda text: mutated(text.encode()))
)
def test_any_yaml_file(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(content)
        keys = outcome(lambda: load_yaml(path))
    assert isinstance(keys, (dict, HNLMError))


# --- atomic files ---------------------------------------------------------------------------------------------------------


def test_any_atomic_files(tiny_keys):
    @fuzzed
    @given(inter=atomic_files(), item=atomic_files(users=False), keys=st.fixed_dictionaries({}, optional={
        "field_separator": st.sampled_from([",", "::", " ", "\t"]), "seq_separator": st.sampled_from([",", " ", "|"]),
        "encoding": st.sampled_from(["utf-8-sig", "utf-16", "gbk", "latin-1"]), "val_interval": st.just({"rating": "[1,inf)"}),
        "user_inter_num_interval": st.just("[1,3]"), "eval_args": st.just({"order": "TO"}), "rm_dup_inter": st.just("first"),
    }))  # fmt: skip
    def check(inter, item, keys):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "toy").mkdir()
            (Path(folder) / "toy" / "toy.inter").write_bytes(inter)
            path = Path(folder) / "toy" / "toy.item"
            path.write_bytes(item)
            data = {**tiny_keys, "data_path": folder, "load_col": None, "topk": [1], "valid_metric": "MRR@1"}
            config = outcome(lambda: Config("BPR", "toy", config_dict={**data, **keys}))
            if isinstance(config, Config):
                outcome(lambda: load_data(config))
            named = dict.fromkeys(("title", "categories", "city", "description"))
            form = AtomicFormat(keys.get("encoding"), keys.get("field_separator", "\t"), keys.get("seq_separator", " "))
            outcome(lambda: read_item_texts(path, item_id_field="item_id", named=named, wanted={"i1", "i2"}, form=form))

    check()


# --- artefacts ------------------------------------------------------------------------------------------------------------

STORE = StoreIdentity("item_texts", "encoder", "1.0", "p", "d", "s", "i")


def _checkpoint(folder):
    content = {
        "model": "BPR",
        "dataset": "tiny",
        "config": {"given": {"epochs": 1}, "defaults": {}},
        "epoch": 0,
        "best_epoch": None,
    }
    tensors = {
        "state_dict": {"w": torch.ones(3, 2)},
        "other_parameter": None,
        "optimizers": {},
        "rng": {},
        "train_loss": {0: 0.5},
    }
    write_checkpoint(folder / "a.pth", {**content, **tensors})
    return [folder / "a.pth"], lambda: read_checkpoint(folder / "a.pth")["epoch"]


def _replies(folder):
    artifact = JsonlArtifact(folder, "replies")
    artifact.write([{"text": "ü\u2028"}, {"text": "b"}], {"inputs": "x", "counts": {"missing": 3}})
    return [artifact.manifest_path, artifact.path], lambda: (artifact.is_made_from("x"), artifact.read(), artifact.manifest())


def _teacher(folder):
    artifact = Artifact(folder / "vectors", folder / "manifest.json", "teacher", "delete it and run again")
    artifact.write_bytes([b"a", b"b"], {"digest": "0"})
    return [artifact.manifest_path, artifact.path], lambda: (artifact.read_bytes(), artifact.manifest())


def _store(folder):
    with VectorStoreWriter(folder / "store", STORE, [["a", "b"]], 2) as writer:
        writer.append(np.array([[0], [1]]), np.ones((2, 2)))
        writer.finish()
    names = ("manifest.json", "vectors.npy", "keys.npy", "tokens_0.json")

    def read():
        store = VectorStore.open(folder / "store", STORE)
        return store.rows_of_tokens(["a", "b", "c"]).tolist(), store.vectors.tolist()

    return [folder / "store" / name for name in names], read


def _cache(folder):
    with ReplyCache(folder / "replies.sqlite") as cache:
        cache.put_many({"k": "reply", "l": "other"})

    def read():
        for log in folder.glob("replies.sqlite-*"):
            log.unlink()
        with ReplyCache(folder / "replies.sqlite", read_only=True) as cache:
            found = cache.get_many(["k", "l"])
        assert found.items() <= {"k": "reply", "l": "other"}.items()

    return [folder / "replies.sqlite"], read


@pytest.mark.parametrize("kind", [_checkpoint, _replies, _teacher, _store, _cache])
def test_any_damage_of_an_artefact(tmp_path, kind):
    paths, read = kind(tmp_path)
    whole = {path: path.read_bytes() for path in paths}
    intact = read()

    @fuzzed
    @given(data=st.data())
    def check(data):
        path = data.draw(st.sampled_from(paths))
        path.write_bytes(data.draw(mutated(whole[path])))
        found = outcome(read)
        assert isinstance(found, HNLMError) or found == intact
        path.write_bytes(whole[path])

    check()

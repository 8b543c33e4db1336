"""Keys of atomic files: RecBole's reader and ours see the same tokens and texts; users who hold every item."""

import logging

import numpy as np
import pytest
from recbole.data.dataset import Dataset

from recbole_hnlm.config import Config
from recbole_hnlm.data.atomic_text import read_item_texts
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.semantics.attach import attach_hnlm_data, stage_context_of
from recbole_hnlm.utils.errors import DataError

PAIRS = [(f"u{user}", f"i{item}") for user in range(8) for item in range(12) if (user + item) % 3]
ITEM_HEADER = ["item_id:token", "title:token_seq", "genre:token_seq", "also:token_seq"]


def item_rows(first="Night Train", separator=" ", also="i1"):
    return [[f"i{item}", first if item == 0 else f"Title {item}", separator.join(["Sci", "Fi"]), also] for item in range(12)]


def write_dataset(folder, items=(), *, pairs=PAIRS, encoding="utf-8", separator="\t", header=ITEM_HEADER):
    (folder / "toy").mkdir()
    inter = [["user_id:token", "item_id:token", "review:token_seq"], *([*pair, "good"] for pair in pairs)]
    for suffix, rows in (("inter", inter), ("item", [header, *items])):
        text = "".join(f"{separator.join(row)}\n" for row in rows)
        (folder / "toy" / f"toy.{suffix}").write_text(text, encoding=encoding)


def configure(folder, keys, model="HNLMLightGCN", **values):
    values = {"data_path": str(folder), "artifact_dir": str(folder / "artifacts"), "negative_route": "none", **values}
    if not model.startswith("HNLM"):
        del values["negative_route"], values["artifact_dir"]
    return Config(model, "toy", config_dict={**keys, **values})


def both(folder, keys, **values):
    """Read with both readers; returns (RecBole's dataset, our context of its training split)."""
    config = configure(folder, keys, **values)
    data = load_data(config)
    return data.dataset, stage_context_of(config, data.train._dataset)


def recbole_words(dataset, column):
    """Return RecBole's tokens of a token_seq column by item token."""
    ids, words = dataset.item_feat["item_id"], dataset.item_feat[column]
    names = dataset.field2id_token
    return {
        str(names["item_id"][item]): [str(names[column][word]) for word in row if word]
        for item, row in zip(np.asarray(ids), np.asarray(words), strict=True)
        if item
    }


LOAD_ITEMS = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "title", "genre"]}}


@pytest.mark.parametrize(
    ("encoding", "title"),
    [("gbk", "大红灯笼"), ("latin-1", "Amélie"), ("utf-16", "Ωmega 大"), ("utf-8-sig", "Amélie 大")],
)
def test_encoding(tmp_path, tiny_keys, encoding, title):
    write_dataset(tmp_path, item_rows(title), encoding=encoding)
    dataset, context = both(tmp_path, tiny_keys, encoding=encoding, **LOAD_ITEMS)
    assert context.item_texts["i0"].title == title == " ".join(recbole_words(dataset, "title")["i0"])
    assert context._read_texts[1].undecodable_rows == 0
    assert context.read_reviews_of(np.arange(3))[0].keys() <= set(PAIRS)
    assert context.read_reviews_of(np.arange(3))[0]


def test_a_wrong_encoding_is_named(tmp_path):
    write_dataset(tmp_path, item_rows("大红灯笼"), encoding="gbk")
    named = dict.fromkeys(("title", "categories", "city", "description"))
    path = tmp_path / "toy" / "toy.item"
    with pytest.raises(DataError, match=r"1 are not utf-8.*--encoding=gbk"):
        read_item_texts(path, item_id_field="item_id", named=named, wanted={"i0"}, max_broken_share=0.0)


def test_field_separator(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows("Train\tby night"), separator=",")
    dataset, context = both(tmp_path, tiny_keys, field_separator=",", **LOAD_ITEMS)
    assert context.item_texts["i0"].title == "Train by night"
    assert recbole_words(dataset, "title")["i0"] == ["Train\tby", "night"]


def test_seq_separator(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows("The Train|Night", separator="||"))
    dataset, context = both(tmp_path, tiny_keys, seq_separator="|", **LOAD_ITEMS)
    assert recbole_words(dataset, "genre")["i1"] == ["Sci", "Fi"]
    assert context.item_texts["i1"].categories == "Sci, Fi"
    assert context.item_texts["i0"].title == ", ".join(recbole_words(dataset, "title")["i0"]) == "The Train, Night"


def test_seq_separator_leaves_single_tokens_alone(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows("The Train|Night"), header=["item_id:token", "title:token", *ITEM_HEADER[2:]])
    dataset, context = both(tmp_path, tiny_keys, seq_separator="|", **LOAD_ITEMS)
    assert context.item_texts["i0"].title == "The Train|Night"
    assert "The Train|Night" in dataset.field2id_token["title"]


def test_load_col_does_not_hide_texts(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows())
    dataset, context = both(tmp_path, tiny_keys, load_col={"inter": ["user_id", "item_id"]})
    assert dataset.item_feat is None
    assert context.item_texts["i0"].title == "Night Train"


def test_unload_col_hides_texts(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows())
    keys = {"load_col": None, "unload_col": {"item": ["genre"], "inter": ["review"]}}
    dataset, context = both(tmp_path, tiny_keys, **keys)
    assert "genre" not in dataset.item_feat
    assert context.text_columns["categories"] is None
    assert not context.item_texts["i0"].categories
    assert context.item_texts["i0"].title == "Night Train"
    assert context.read_reviews_of(np.arange(3))[0] == {}
    _, context = both(tmp_path, tiny_keys, **keys, categories_field="genre")
    with pytest.raises(DataError, match=r"categories_field is 'genre', which unload_col leaves out"):
        _ = context.item_texts


def test_alias_of_item_id(tmp_path, tiny_keys):
    extra = ["i99", "Only an alias", "x", "i1"]
    write_dataset(tmp_path, [*item_rows(also="i3 i99"), extra])
    load = {"inter": ["user_id", "item_id"], "item": ["item_id", "also"]}
    dataset, context = both(tmp_path, tiny_keys, load_col=load, alias_of_item_id=["also"])
    tokens = {str(token) for token in dataset.field2id_token["item_id"][1:]}
    assert tokens == {f"i{item}" for item in range(12)} | {"i99"} == context.item_texts.keys()
    assert context.item_texts["i99"].title == "Only an alias"
    assert context.items_with_text.sum() == dataset.item_num - 1


def test_alias_of_user_id(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows(also="u1"), header=[*ITEM_HEADER[:3], "seller:token"])
    load = {"inter": ["user_id", "item_id"], "item": ["item_id", "seller"]}
    dataset, context = both(tmp_path, tiny_keys, load_col=load, alias_of_user_id=["seller"])
    assert list(context.training.user_tokens) == list(dataset.field2id_token["seller"])


FULL = [*PAIRS, *(("all", f"i{item}") for item in range(12))]


@pytest.mark.parametrize("model", ["HNLMLightGCN", "BPR"])
def test_a_user_with_every_item_is_trained_and_named(tmp_path, tiny_keys, caplog, model):
    write_dataset(tmp_path, item_rows(), pairs=FULL)
    config = configure(tmp_path, tiny_keys, model)
    with caplog.at_level(logging.WARNING):
        data = load_data(config)
    lines = [record.getMessage() for record in caplog.records if "all 12 items" in record.getMessage()]
    assert len(lines) == 1
    assert "user 'all'" in lines[0]
    assert "--user_inter_num_interval=[0,12)" in lines[0]
    user = data.dataset.token2id("user_id", "all")
    batches = list(attach_hnlm_data(config, data.train, None))
    held = data.train._sampler.used_ids[user]
    drawn = {int(item) for batch in batches for item in batch["neg_item_id"][batch["user_id"] == user].flatten()}
    assert drawn
    assert not drawn & held
    assert 0 not in drawn
    assert len(data.test._sampler.used_ids[user]) == 12


def test_a_user_who_trains_on_every_item_is_refused_by_name(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows(), pairs=FULL)
    keys = {**tiny_keys, "eval_args": {"split": {"LS": "test_only"}, "group_by": "user", "order": "RO", "mode": "full"}}
    doubled = tmp_path / "toy" / "toy.inter"
    doubled.write_text(doubled.read_text() + "".join(f"all\ti{item}\tgood\n" for item in range(12)))
    with pytest.raises(DataError, match=r"dataset toy: user 'all' .* all 12 items.*--user_inter_num_interval=\[0,24\)"):
        load_data(configure(tmp_path, keys))


def test_sampled_evaluation_needs_negatives(tmp_path, tiny_keys):
    write_dataset(tmp_path, item_rows(), pairs=FULL)
    with pytest.raises(DataError, match=r"user 'all' .* all 12 items"):
        load_data(configure(tmp_path, {**tiny_keys, "eval_args": {"mode": "uni5"}}))


def test_what_recbole_raises_while_splitting_is_one_line(tmp_path, tiny_keys, monkeypatch):
    write_dataset(tmp_path, item_rows())
    config = configure(tmp_path, tiny_keys)

    def refuse(self):
        raise ValueError("The splitting method\n[x] is wrong.")

    monkeypatch.setattr(Dataset, "build", refuse)
    with pytest.raises(DataError, match=r"^dataset toy: .*ValueError: The splitting method \[x\] is wrong") as caught:
        load_data(config)
    assert "\n" not in str(caught.value)


def test_faults_of_our_own_keep_their_traceback(tmp_path, tiny_keys, monkeypatch):
    write_dataset(tmp_path, item_rows())
    config = configure(tmp_path, tiny_keys)
    monkeypatch.setattr(Dataset, "build", lambda self: {}["absent"])
    with pytest.raises(KeyError):
        load_data(config)

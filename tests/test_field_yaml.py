"""YAML files: null in every spelling, and files made to exhaust whoever reads them."""

import time

import pytest

from recbole_hnlm.config import Config
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.values import load_yaml, parse_value

NULL_KEYS = (
    "load_col", "unload_col", "unused_col", "clip_grad_norm", "seq_len", "val_interval", "threshold", "rm_dup_inter",
    "alias_of_user_id", "alias_of_item_id", "normalize_field", "benchmark_filename", "encoding", "user_inter_num_interval",
    "resume", "split_seed", "title_field", "semantic_negatives_per_user", "preload_weight", "additional_feat_suffix",
)  # fmt: skip


@pytest.mark.parametrize("word", ["None", "none", "NONE", "null", "~", ""])
def test_null_is_null_under_every_key(workdir, tiny_keys, word):
    (workdir / "a.yaml").write_text("".join(f"{key}: {word}\n" for key in NULL_KEYS))
    config = Config("HNLMLightGCN", "tiny", ["a.yaml"], {**tiny_keys, "negative_route": "none"})
    assert {key: config[key] for key in NULL_KEYS} == dict.fromkeys(NULL_KEYS)


@pytest.mark.parametrize("word", ["none", "None"])
def test_none_stays_a_word_where_a_key_takes_it(workdir, tiny_keys, word):
    (workdir / "a.yaml").write_text(f"negative_route: {word}\n")
    assert Config("HNLMLightGCN", "tiny", ["a.yaml"], tiny_keys)["negative_route"] == "none"
    assert Config("HNLMLightGCN", "tiny", None, tiny_keys, [f"--negative_route={word}"])["negative_route"] == "none"


@pytest.mark.parametrize("separator", [r"'\t'", r'"\t"', r"\t", r'"\\t"', "tab", '"\t"'])
def test_a_tab_in_yaml(workdir, tiny_keys, separator):
    (workdir / "a.yaml").write_text(f"field_separator: {separator}\ntopk: 5\nmetrics: MRR, NDCG\nresults_dir: ~/x\n")
    config = Config("BPR", "tiny", ["a.yaml"], {**tiny_keys, "topk": "5,10"})
    assert (config["field_separator"], config["topk"], config["metrics"]) == ("\t", [5, 10], ["MRR", "NDCG"])
    assert not config["results_dir"].startswith("~")


def _levels(count, line):
    return "".join(line(level) for level in range(1, count))


BOMBS = {
    "lists of aliases": "a0: &a0 [1]\n" + _levels(12, lambda n: f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n"),
    "mappings of aliases": "a0: &a0 {x: 1}\n"
    + _levels(12, lambda n: f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}\n"),
    "doubling merges": "a0: &a0 {x: 1}\n" + _levels(40, lambda n: f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n"),
    "a chain of merges": "a0: &a0 {x: 1}\n" + _levels(3000, lambda n: f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n"),
    "a list of itself": "load_col: &a [*a]\n",
    "a mapping of itself": "eval_args: &a {split: *a}\n",
    "2,000 lists": f"x: {'[' * 2000}{']' * 2000}\n",
    "100,000 open lists": f"x: {'[' * 100_000}\n",
    "2,000 mappings": f"x: {'{a: ' * 2000}1{'}' * 2000}\n",
    "2,000 dashes": f"{'- ' * 2000}x\n",
    "200 indentations": "".join(f"{'  ' * n}k{n}:\n" for n in range(200)),
    "5,000 digits": f"seed: {'9' * 5000}\n",
    "100,000 sexagesimals": f"seed: {'1:' * 100_000}1\n",
    "hexadecimals": f"seed: 0x{'f' * 5000}\n",
    "2 MB": f"learner: {'k' * (2 << 20)}\n",
    "a bool that is none": "x: !!bool foo\n",
    "a time that is none": "x: !!timestamp foo\n",
    "a time out of range": "x: 2020-13-45\n",
    "an empty number": "x: !!int ''\n",
    "an object": "x: !!python/object/apply:os.system [id]\n",
    "a key twice": "epochs: 1\ntopk: 5\nepochs: 2\n",
    "a key that is no name": "~: 3\n",
    "a key that is a list": "? [a, b]\n: 3\n",
    "an unknown alias": "x: *nobody\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a zero byte": "a: \0\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_exhaust_is_refused_soon(tmp_path, name):
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name])
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert time.process_time() - start < 10
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"config file {path}")
    assert len(str(caught.value)) < 400


def test_a_key_given_twice_is_named_with_its_line(tmp_path):
    (tmp_path / "a.yaml").write_text(BOMBS["a key twice"])
    with pytest.raises(ConfigError, match="line 3: not valid YAML: key 'epochs' is given twice"):
        load_yaml(tmp_path / "a.yaml")


def test_merge_keys_may_still_be_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &base {a: 1, b: 2}\none: {<<: *base, a: 3}\ntwo: {<<: *base}\n")
    assert load_yaml(tmp_path / "a.yaml")["one"] == {"a": 3, "b": 2}
    assert load_yaml(tmp_path / "a.yaml")["two"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("sign", ["[", "{", "(", "-", "!!", "&a "])
def test_nesting_on_the_command_line_ends_as_text(sign):
    start = time.process_time()
    assert parse_value(sign * 100_000) == sign * 100_000
    assert time.process_time() - start < 10

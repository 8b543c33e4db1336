"""The configuration: sources, priorities, checks, devices."""

import os
import re
import sys
import types
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import Field
from recbole.utils import dataset_arguments

from recbole_hnlm.config import Config
from recbole_hnlm.config.facts import Affects, facts_of
from recbole_hnlm.config.reading import unread_keys
from recbole_hnlm.config.settings import (
    HNLMSettings,
    asks_llm_again,
    keys_affecting,
    place_keys,
    setting_names,
    validate_settings,
)
from recbole_hnlm.finetune.adapter_files import finetune_keys
from recbole_hnlm.finetune.prompting import prompting_digest
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import get_model_class


def test_priorities_are_files_then_dict_then_argv(workdir):
    (workdir / "a.yaml").write_text("learning_rate: 0.1\nepochs: 1\nseed: 1\n")
    (workdir / "b.yaml").write_text("epochs: 2\nseed: 2\n")
    config = Config("BPR", "ml-100k", ["a.yaml", "b.yaml"], {"seed": 3, "eval_step": "4"}, ["--seed=5"])
    assert [config[key] for key in ("learning_rate", "epochs", "seed", "eval_step")] == [0.1, 2, 5, 4]


def test_model_and_dataset_may_come_from_yaml(workdir):
    (workdir / "a.yaml").write_text("model: LightGCN\ndataset: ml-100k\n")
    config = Config(config_file_list=["a.yaml"])
    assert (config["model"], config["dataset"], config["n_layers"]) == ("LightGCN", "ml-100k", 2)


def test_model_and_dataset_are_asked_for_together():
    with pytest.raises(ConfigError, match=r"no model given: use --model=NAME.*no dataset given"):
        Config()


def test_sys_argv_is_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--epochs=77", "--nonsense=1"])
    assert Config("BPR", "ml-100k")["epochs"] == 300


def test_argv_spellings_reach_the_configuration():
    argv = ["--learning_rate", "1e-2", "--topk=5,10", "--metrics=Recall,NDCG", "--valid_metric=ndcg@10"]
    config = Config("BPR", "ml-100k", argv=argv)
    assert (config["learning_rate"], config["topk"], config["metrics"]) == (0.01, [5, 10], ["Recall", "NDCG"])


def test_text_keys_keep_their_text():
    argv = ["--user_inter_num_interval=[5,9]", "--llm_model=3", "--gpu_id=0", "--llm_revision=none"]
    config = Config("HNLMBPR", "ml-100k", argv=[*argv, "--item_inter_num_interval=[2,inf)"])
    assert config["item_inter_num_interval"] == "[2,inf)"
    assert config["gpu_id"] == "0"
    assert (config.settings.llm_model, config.settings.llm_revision) == ("3", None)
    assert Config("BPR", "ml-100k", argv=["--negative_route=none"]).settings.negative_route == "none"


def test_nested_dictionaries_given_in_part_keep_the_other_defaults(workdir):
    (workdir / "a.yaml").write_text("eval_args: {order: TO}\n")
    config = Config(
        "BPR", "ml-100k", ["a.yaml"], {"train_neg_sample_args": {"sample_num": 3}}, ["--eval_args={'mode': 'uni50'}"]
    )
    assert config["eval_args"] == {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "uni50", "test": "uni50"},
    }
    assert config["train_neg_sample_args"]["sample_num"] == 3
    assert config["train_neg_sample_args"]["distribution"] == "uniform"


def test_all_problems_are_reported_at_once():
    argv = [
        "--learnin_rate=0.5",
        "--epochs=abc",
        "--eval_args={'mod': 'full'}",
        "--mix_weight=3",
        "--topk=5",
        "--shuffle=maybe",
    ]
    with pytest.raises(ConfigError) as caught:
        Config("LightGCN", "ml-200k", argv=argv)
    for part in (
        "unknown key learnin_rate; the nearest valid one is learning_rate",
        "unknown key mod in eval_args; the nearest valid one is mode",
        "epochs: expected an integer of at least 0, got 'abc'",
        "shuffle: expected True or False, got 'maybe'",
        "valid_metric MRR@10 is not reported",
        "the nearest valid one is MRR@5",
        "dataset ml-200k: no ml-200k.inter in",
        "the nearest valid one is ml-100k",
        "mix_weight: Input should be less than or equal to 1, got 3",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metrics": ["Recal"], "valid_metric": "Recall@10"}, "there is no metric Recal; the nearest valid one is Recall"),
        ({"metrics": ["Recall", "AUC"]}, "cannot be mixed"),
        ({"metrics": ["AUC"], "valid_metric": "AUC"}, "need eval_args mode labeled or uniN, got full"),
        ({"topk": [0]}, "topk: expected one or more positive integers"),
        ({"topk": "ten"}, "topk: expected one or more positive integers"),
        ({"valid_metric": "NDCG"}, r"valid_metric NDCG is not reported.*NDCG@10"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0"),
        ({"save_dataset": True}, "save_dataset: RecBole's pickled caches"),
        ({"dataloaders_save_path": "x.pth"}, "dataloaders_save_path: RecBole's pickled caches"),
        ({"negative_sampler": "dns"}, r"negative_sampler has no effect on BPR;.*--model=HNLMBPR \(with --negative_route=none"),
        ({"train_neg_sample_args": {"distribution": "dns"}}, "samplers of recbole-hnlm are chosen by --negative_sampler"),
        ({"eval_args": {"mode": "half"}}, "expected full, uniN, popN or labeled"),
        ({"eval_args": "full"}, "eval_args: expected a dictionary"),
        ({"hnlm": 1}, "unknown key hnlm"),
    ],
)
def test_wrong_values_are_refused_before_any_work(keys, message):
    with pytest.raises(ConfigError, match=message):
        Config("BPR", "ml-100k", config_dict=keys)


def test_metrics_without_cut_off_may_validate():
    assert Config("BPR", "ml-100k", config_dict={"metrics": ["GAUC"], "valid_metric": "GAUC"})["valid_metric"] == "GAUC"


def test_a_password_in_the_servers_address_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        Config("BPR", "ml-100k", config_dict={"llm_base_url": "http://me:hunter2@localhost/v1"})
    assert "hunter2" not in str(caught.value)


def test_a_missing_dataset_names_the_folder_that_was_searched(workdir):
    (workdir / "here" / "toys").mkdir(parents=True)
    with pytest.raises(ConfigError, match=re.escape(str(workdir / "here" / "toyz"))) as caught:
        Config("BPR", "toyz", config_dict={"data_path": "here"})
    assert "the nearest valid one is toys" in str(caught.value)


def test_recboles_global_lists_are_left_alone():
    def state():
        return list(dataset_arguments), {key: list(pairs) for key, pairs in yaml.FullLoader.yaml_implicit_resolvers.items()}

    before = state()
    Config("BPR", "ml-100k")
    assert state() == before


def test_a_config_saved_and_built_again_is_equal(tiny_keys):
    first = Config("MultiVAE", "tiny", config_dict={**tiny_keys, "transform": None})
    places = {key: tiny_keys[key] for key in ("data_path", "show_progress", "state", "use_gpu")}
    again = Config("MultiVAE", "tiny", config_dict=places, saved=first.to_saved())
    assert again.final_config_dict == first.final_config_dict


def test_saved_defaults_replace_todays(tiny_keys):
    saved = Config("LightGCN", "tiny", config_dict=tiny_keys).to_saved()
    saved["defaults"]["n_layers"] = 7
    config = Config("LightGCN", "tiny", saved=saved, argv=["--epochs=9", f"--data_path={tiny_keys['data_path']}"])
    assert (config["n_layers"], config["epochs"]) == (7, 9)


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_use_gpu_false_keeps_the_run_on_the_cpu(pretended_gpu):
    config = Config("BPR", "ml-100k", config_dict={"use_gpu": False})
    assert config["device"] == torch.device("cpu")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert Config("BPR", "ml-100k")["device"] == torch.device("cuda")


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(pretended_gpu):
    pretended_gpu.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    pretended_gpu.setattr(torch.cuda, "set_device", taken.append)
    pretended_gpu.setenv("WORLD_SIZE", "3")
    pretended_gpu.setenv("LOCAL_RANK", "1")
    config = Config("BPR", "ml-100k")
    assert config["device"] == torch.device("cuda", 1)
    assert taken == [1]
    # RecBole's default gpu_id, "0", would leave all processes one GPU.
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert Config("BPR", "ml-100k", config_dict={"use_gpu": False})["device"] == torch.device("cpu")
    pretended_gpu.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="found 2 for process 3 on this machine"):
        Config("BPR", "ml-100k")


def test_the_users_visible_devices_are_kept_unless_gpu_id_is_given(pretended_gpu):
    pretended_gpu.setenv("CUDA_VISIBLE_DEVICES", "3")
    Config("BPR", "ml-100k")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    Config("BPR", "ml-100k", argv=["--gpu_id=1,2"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"


def test_numpy_names_that_recbole_needs_are_restored_and_others_left_alone(monkeypatch):
    monkeypatch.delattr(np, "float_", raising=False)
    kept = object()
    monkeypatch.setattr(np, "int", kept, raising=False)
    Config("BPR", "ml-100k")
    assert vars(np)["float_"] is np.float64
    assert vars(np)["int"] is kept


# --- shipped YAML ----------------------------------------------------------------------------------------------------


def _type_name(annotation):
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return "str"
    if origin in {types.UnionType, typing.Union}:
        return " or ".join(_type_name(part) for part in typing.get_args(annotation))
    return "None" if annotation is type(None) else annotation.__name__


def test_overall_yaml_states_every_setting_with_its_default_type_and_meaning():
    text = (properties_dir() / "overall.yaml").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^(\w+): .*?# (\(.*)$", text, flags=re.MULTILINE))
    fields = HNLMSettings.model_fields
    assert list(yaml.safe_load(text).items()) == [(name, field.default) for name, field in fields.items()]
    assert stated == {name: f"({_type_name(field.annotation)}) {field.description}" for name, field in fields.items()}


def test_dataset_yaml_names_only_known_keys():
    known = set(HNLMSettings.model_fields) | set(dataset_arguments)
    files = sorted((properties_dir() / "dataset").glob("*.yaml"))
    assert {"ml-100k.yaml", "amazon-toys.yaml", "amazon-cds-text.yaml", "gowalla.yaml"} <= {file.name for file in files}
    for file in files:
        assert set(yaml.safe_load(file.read_text(encoding="utf-8"))) <= known, file.name


def test_ml_100k_text_columns_exist_in_recboles_file():
    config = Config("BPR", "ml-100k")
    with (Path(config["data_path"]) / "ml-100k.item").open(encoding="utf-8") as lines:
        columns = {cell.split(":")[0] for cell in lines.readline().split("\t")}
    assert {config["title_field"], config["categories_field"]} <= columns


def test_a_sampler_on_a_model_without_our_variant_names_models_that_exist():
    with pytest.raises(ConfigError, match=r"no effect on EASE; .* choose a model that reads it, such as HNLMBPR") as caught:
        Config("EASE", "ml-100k", config_dict={"negative_sampler": "dns"})
    assert "HNLMEASE" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tuned_text=titles", "finetune_text"),
        ("tune_steps=3", "finetune_steps"),
        ("adapter_hidden_size=8", "projector_hidden_size"),
    ],
)
def test_a_key_of_an_earlier_version_is_answered_with_its_new_name(old, new):
    with pytest.raises(ConfigError, match=f"unknown key {old.split('=')[0]}; it is now called {new}"):
        Config("HNLMLightGCN", "ml-100k", argv=(f"--{old}",))
    assert new in setting_names()


# --- facts about keys --------------------------------------------------------------------------------------------------


def test_every_key_states_its_facts():
    names = set(setting_names())
    for name, field in HNLMSettings.model_fields.items():
        facts = facts_of(field)
        conditions = {**facts.when, **facts.unless}
        assert conditions.keys() <= names, name
        for other, values in conditions.items():
            for value in values:
                validate_settings({"llm_base_url": "http://x/v1", "llm_model": "m", other: value})
    with pytest.raises(TypeError, match="states no facts"):
        facts_of(Field(1, description="a key"))


@pytest.mark.parametrize(
    ("affects", "inside", "outside"),
    [
        (Affects.SPLIT, {"split_seed"}, {"llm_seed"}),
        (Affects.LLM, {"llm_model", "llm_dtype"}, {"llm_base_url", "llm_temperature"}),
        (Affects.REPLIES, {"llm_seed", "title_field", "profile_items", "negative_max_words"}, {"llm_timeout", "mix_weight"}),
        (Affects.VECTORS, {"text_encoder", "title_field"}, {"encoder_batch_size", "review_field"}),
        (
            Affects.QUERY,
            {"finetune_template", "finetune_layers", "profile_history_length"},
            {"finetune_batch_tokens", "lora_r"},
        ),
        (
            Affects.ADAPTER,
            {"finetune_steps", "finetune_negatives", "lora_targets", "teacher_seed", "finetune_heldout_users"},
            {"finetune_save_steps", "finetune_gradient_checkpointing", "finetune_share_prefix", "finetune_template"},
        ),
        (Affects.TEACHER, {"teacher_model", "teacher_epochs"}, {"teacher_candidates"}),
        (Affects.TRAINING, {"mix_weight", "negative_sampler", "margin"}, {"text_score_weight", "count_false_negatives"}),
        (Affects.EVALUATION, {"text_score_weight"}, {"eval_users_per_batch"}),
    ],
)
def test_a_query_returns_the_keys_with_a_fact(affects, inside, outside):
    found = set(keys_affecting(affects))
    assert inside <= found
    assert not outside & found


def test_the_prompt_hash_covers_the_same_values_in_the_same_order():
    assert keys_affecting(Affects.QUOTES) == ("description_max_chars", "review_max_chars", "profile_history_length")


def test_which_keys_make_a_tuner_wait_for_the_llm():
    assert all(map(asks_llm_again, ("llm_model", "profile_max_words", "finetune_steps", "teacher_epochs", "split_seed")))
    assert not any(map(asks_llm_again, ("mix_weight", "num_candidates", "text_encoder", "llm_timeout", "learning_rate")))


def test_keys_that_belong_to_the_machine():
    folders = {"artifact_dir", "results_dir", "log_dir", "resume", "finetune_from", "text_encoder", "fuse_with"}
    servers = {"llm_backend", "llm_model", "llm_revision", "llm_base_url", "llm_api_key_env", "llm_trust_remote_code"}
    assert place_keys() == folders | servers


# --- keys that nothing reads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "argv", "message"),
    [
        (
            "LightGCN",
            ["--num_candidates=5", "--mix_weight=0.5"],
            "num_candidates, mix_weight have no effect on LightGCN; leave it out, or use --model=HNLMLightGCN",
        ),
        ("SimGCL", ["--num_candidates=4"], "num_candidates has no effect on SimGCL"),
        ("RLMRecConLightGCN", ["--mix_weight=0.5"], "mix_weight has no effect on RLMRecConLightGCN"),
        ("HNLMBPR", ["--ahns_beta=3"], "ahns_beta has no effect here: it is read with negative_sampler ahns, not dns"),
        ("HNLMBPR", ["--negative_sampler=uniform", "--num_candidates=4"], "negative_sampler uniform does not read it"),
        ("HNLMBPR", ["--negative_route=none", "--llm_model=x"], "it is read with negative_route text or finetuned, not none"),
        ("HNLMBPR", ["--finetune_steps=3"], "it is read with negative_route finetuned, not text"),
        ("HNLMBPR", ["--llm_base_url=http://x/v1"], "it is read with llm_backend openai, not transformers"),
        ("HNLMBPR", ["--margin=0.1"], "it is read with rank_loss hinge, not bpr"),
        (
            "LightGCN",
            ["--text_score_weight=1.5"],
            "text_score_weight has no effect here: it is read with text_score mean or kernel",
        ),
        ("HNLMBPR", ["--loss_negatives=9"], "it is read with rank_loss softmax or bsl or psl or sl_at_k, not bpr"),
        ("HNLMBPR", ["--rank_loss=softmax", "--loss_at_k=9"], "it is read with rank_loss sl_at_k, not softmax"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(model, argv, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config(model, "ml-100k", argv=argv)
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config(model, "ml-100k", config_dict=dict(token.removeprefix("--").split("=", 1) for token in argv))


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("LightGCN", {"negative_route": "none", "mix_weight": 0.0, "text_score": "none", "count_false_negatives": False}),
        ("LightGCN", {"split_seed": 1, "artifact_dir": "a", "eval_users_per_batch": 8}),
        ("HNLMBPR", {"negative_sampler": "ahns", "ahns_beta": 3.0, "contrast_weight": 0.0, "contrast_temperature": 0.1}),
        ("HNLMBPR", {"negative_sampler": "in_batch", "num_candidates": 4, "rank_loss": "hinge", "margin": 0.1}),
        ("RLMRecConLightGCN", {"text_score": "mean", "text_score_weight": 0.5, "profile_max_words": 9}),
        ("EASE", {"text_score": "kernel", "text_kernel_temperature": 0.1}),
    ],
)
def test_a_key_that_is_read_or_asks_for_nothing_is_accepted(model, keys):
    assert Config(model, "ml-100k", config_dict=keys).unread == {}


def test_a_key_of_a_shared_file_that_nothing_reads_is_a_warning(workdir, caplog):
    (workdir / "a.yaml").write_text("mix_weight: 0.5\nahns_beta: 3.0\nsplit_seed: 1\n")
    config = Config("LightGCN", "ml-100k", ["a.yaml"])
    assert set(config.unread) == {"mix_weight", "ahns_beta"}
    assert [record.getMessage().split(" have")[0] for record in caplog.records] == [
        "configuration files: mix_weight, ahns_beta"
    ]
    caplog.clear()
    # A checkpoint's keys were judged when it was trained, and one of several runs need not read what they share.
    assert Config("LightGCN", "ml-100k", saved=config.to_saved()).unread == config.unread
    assert Config("LightGCN", "ml-100k", config_dict={"mix_weight": 0.5}, strict=False).unread
    assert not caplog.records


def test_the_fine_tuned_llms_identity_follows_its_keys():
    plain, steps, form = (validate_settings(keys) for keys in ({}, {"finetune_steps": 3}, {"finetune_template": "chat"}))
    assert finetune_keys(plain) != finetune_keys(steps)
    assert prompting_digest(plain) == prompting_digest(steps)
    assert prompting_digest(plain) != prompting_digest(form)


def test_the_names_of_models_are_read_once_for_all_keys(monkeypatch):
    reads = []
    monkeypatch.setattr("recbole_hnlm.config.reading.model_names", lambda: reads.append(1) or ("HNLMBPR",))
    values = {name: field.default for name, field in HNLMSettings.model_fields.items()}
    unread = unread_keys(get_model_class("BPR"), values)
    assert sum("on BPR; leave it out, or use --model=HNLMBPR" in reason for reason in unread.values()) > 50
    assert len(reads) == 1

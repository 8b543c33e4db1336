import json
import os
import re

import pytest
import torch
from finetune_kit import launch_two, loss_of_each_triple_alone, make_finetuned
from llm_tiny import save_tiny_model, tiny_settings
from torch import distributed as dist

from recbole_hnlm.finetune import objective as objective_module
from recbole_hnlm.finetune.adapter_files import read_manifest
from recbole_hnlm.finetune.checkpoints import complete_checkpoints
from recbole_hnlm.finetune.loop import _require_own_form
from recbole_hnlm.llm.model_loading import load_model
from recbole_hnlm.llm.sharding import copy_whole, require_fsdp, whole
from recbole_hnlm.utils.errors import ArtifactError, ConfigError

# What `accelerate launch --use_fsdp --fsdp_version=2` sets, as far as it matters.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}
ALIKE = {"finetune_contrast_weight": 0.0, "lora_dropout": 0.0}  # see test_two_processes_tune_as_one_does_with_twice_the_batch

TUNING = """
import os
from pathlib import Path
from fsdp_on_cpu import allow_fsdp_on_cpu
from torch.distributed.fsdp import FSDPModule
from finetune_kit import loss_of_each_triple_alone, make_finetuned
from recbole_hnlm.finetune import loop, objective

allow_fsdp_on_cpu()
objective.hard_negative_loss = loss_of_each_triple_alone
original = loop._FinetuneTrainer.compute_loss

def compute_loss(self, model, *args, **kwargs):
    step = self.state.global_step
    if step == {killed_at}:
        os._exit(9)
    apart = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    parts = {{parameter.to_local().numel() / parameter.numel() for parameter in model.parameters()}}
    print(f"step {{step}}: {{len(apart)}} pieces, parts {{min(parts):.2f}} to {{max(parts):.2f}}", flush=True)
    return original(self, model, *args, **kwargs)

loop._FinetuneTrainer.compute_loss = compute_loss
make_finetuned(Path({folder!r}), **{settings!r}).ensure(show_progress=False)
"""


def tune_spread(folder, killed_at=None, **settings):
    """Fine-tune in two processes under FSDP, batches of 4; killed before a step where it says so."""
    keys = {"finetune_batch_size": 4, **ALIKE, **settings}
    script = TUNING.format(folder=str(folder), settings=keys, killed_at=killed_at)
    return launch_two(folder, script, **FSDP), make_finetuned(folder, **keys)


def save_tied_model(folder):
    """A tiny LLM that shares the word embeddings with its head, as small ones do."""
    config = save_tiny_model(folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))


def largest_differences(folder, spread, monkeypatch, **settings):
    """How far fine-tuning in one process with twice the batch moved a weight, and how far FSDP's weights are from its."""
    monkeypatch.setattr(objective_module, "hard_negative_loss", loss_of_each_triple_alone)
    one = make_finetuned(folder, finetune_batch_size=8, **ALIKE, **settings)
    begun = {name: tensor.clone() for name, tensor in one.untuned().trained_state().items()}
    one.ensure(show_progress=False)
    first = {name: tensor.clone() for name, tensor in one.encoder().trained_state().items()}
    second = spread.encoder().trained_state()
    assert first.keys() == second.keys()
    return tuple(max(float((first[name] - other[name]).abs().max()) for name in first) for other in (begun, second))


def test_a_killed_fsdp_tuning_goes_on_and_ends_as_one_process_does(tmp_path, monkeypatch):
    save_tied_model(tmp_path / "model")
    done, spread = tune_spread(tmp_path, killed_at=4)
    assert done.returncode != 0
    (checkpoint,) = complete_checkpoints(spread._work)
    assert checkpoint.name == "checkpoint-3"
    # The LLM's frozen weights are no part of it.
    assert not [path for path in checkpoint.iterdir() if "model" in path.name]
    with pytest.raises(ArtifactError, match=r"checkpoint-3 was written with FSDP and this launch is without it: launch as"):
        spread.ensure(show_progress=False)
    done, spread = tune_spread(tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    # Two layers and the rest, of everything of which each process holds a half.
    # Both processes write to one stream, where lines may run into each other.
    steps = re.findall(r"step (\d+): (\d+ pieces, parts [\d.]+ to [\d.]+)", done.stdout)
    assert {step for step, _ in steps} == {"3", "4", "5"}
    assert {pieces for _, pieces in steps} <= {"3 pieces, parts 0.50 to 0.50", "3 pieces, parts 0.49 to 0.51"}
    moved, apart = largest_differences(tmp_path, spread, monkeypatch)
    assert moved > 1e-3
    assert apart < 1e-5
    assert read_manifest(spread.folder)["steps"] == 6


def test_fsdp_spreads_layers_in_four_bits(tmp_path, monkeypatch):
    settings = {"finetune_quantization": "4bit", "llm_dtype": "bfloat16", "finetune_gradient_checkpointing": True}
    done, spread = tune_spread(tmp_path, **settings)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "3 pieces" in done.stdout
    moved, apart = largest_differences(tmp_path, spread, monkeypatch, **settings)
    assert moved > 1e-3
    assert apart < 0.1 * moved


# --- what stands in its way --------------------------------------------------------------------------------------------------


def test_fsdp_on_a_cpu_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"FSDP was asked for and the device is cpu: .* launch with torchrun"):
        make_finetuned(tmp_path).ensure(show_progress=False)


@pytest.mark.parametrize(
    ("processes", "environment", "settings", "message"),
    [
        (1, {}, {}, "with one process"),
        (2, {"FSDP_VERSION": "1"}, {}, "--fsdp_version=2"),
        (2, {}, {"finetune_quantization": "8bit"}, "--finetune_quantization=4bit"),
        (2, {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "--finetune_gradient_checkpointing=True"),
    ],
)
def test_what_fsdp_cannot_do_names_the_remedy(monkeypatch, processes, environment, settings, message):
    for name, value in (FSDP | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    with pytest.raises(ConfigError, match=message):
        require_fsdp(tiny_settings(**settings), "cuda:1", processes)
    for name, value in FSDP.items():
        monkeypatch.setenv(name, value)
    require_fsdp(tiny_settings(), "cuda:1", 2)


def test_each_layer_is_spread_on_its_own_unless_said(monkeypatch):
    for name, value in FSDP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "NO_WRAP")
    require_fsdp(tiny_settings(), "cuda", 2)
    assert os.environ["FSDP_AUTO_WRAP_POLICY"] == "NO_WRAP"
    monkeypatch.delenv("FSDP_AUTO_WRAP_POLICY")
    require_fsdp(tiny_settings(), "cuda", 2)
    assert os.environ["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"


def test_every_process_reads_the_weights(tmp_path, monkeypatch):
    # Encoding runs a whole LLM in each process, also where the launcher asks that the first one alone read it.
    save_tiny_model(tmp_path / "model")
    expected = load_model(tiny_settings(tmp_path / "model"), "cpu").model.state_dict()
    for name, value in (FSDP | {"LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        loaded = load_model(tiny_settings(tmp_path / "model"), "cpu").model.state_dict()
        spread = torch.distributed.tensor.distribute_tensor(torch.zeros(3, 2), dist.device_mesh.init_device_mesh("cpu", (1,)))
        copy_whole(spread, torch.arange(6.0).view(3, 2))
        assert whole(spread).tolist() == [[0, 1], [2, 3], [4, 5]]
    finally:
        dist.destroy_process_group()
    assert expected.keys() == loaded.keys()
    assert all(torch.equal(expected[name], loaded[name]) for name in expected)


def test_a_checkpoint_without_fsdp_is_not_taken_up_with_it(tmp_path, monkeypatch):
    (tmp_path / "optimizer.pt").write_bytes(b"")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ArtifactError, match=r"was written without FSDP and this launch is with it"):
        _require_own_form(tmp_path)

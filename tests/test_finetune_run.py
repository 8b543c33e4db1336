import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_kit import finetuned_context, finetuned_of, launch_two, loss_of_each_triple_alone, make_finetuned

from recbole_hnlm.cli.show import show_user
from recbole_hnlm.data import store_writer
from recbole_hnlm.data.store import VectorStore
from recbole_hnlm.finetune import loop as finetune_module
from recbole_hnlm.finetune import lora
from recbole_hnlm.finetune import objective as objective_module
from recbole_hnlm.finetune.adapter_files import load_adapter, read_manifest
from recbole_hnlm.finetune.checkpoints import complete_checkpoints, remove_incomplete
from recbole_hnlm.finetune.evaluation import choose_heldout_users, ranking_metrics, target_ranks
from recbole_hnlm.finetune.inference import PairOrder, encode_items, encode_pairs
from recbole_hnlm.finetune.objective import FinetuneObjective, TripleCollator
from recbole_hnlm.finetune.prompting import pad_sequences
from recbole_hnlm.finetune.report import draw_curve, evaluate_finetuning, summary_table
from recbole_hnlm.finetune.vectors import finetuned_identity
from recbole_hnlm.semantics.pipeline import build_semantics, run_stage
from recbole_hnlm.stages.kinds import store_folder
from recbole_hnlm.utils.errors import ArtifactError, BackendError, ConfigError, HNLMError, MissingDependencyError
from recbole_hnlm.utils.files import write_manifest


def state_of(finetuned):
    return {name: tensor.clone() for name, tensor in finetuned.encoder().trained_state().items()}


# --- evaluation --------------------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    scores = np.array([[9.0, 3.0, 5.0, 5.0, 1.0], [0.0, 2.0, 2.0, 2.0, 2.0]])
    excluded = np.array([[True, False, False, False, False], [True, False, False, False, False]])
    assert target_ranks(scores, np.array([1, 4]), excluded).tolist() == [2.0, 1.5]
    metrics = ranking_metrics(np.array([0.0, 9.5, 30.0, 70.0]))
    assert metrics["recall@10"] == 0.5
    assert metrics["recall@50"] == 0.75
    assert metrics["mrr"] == pytest.approx((1 + 1 / 10.5 + 1 / 31 + 1 / 71) / 4)


def test_held_out_users_are_a_tenth_at_most_and_take_no_part_in_tuning(tmp_path):
    finetuned = make_finetuned(tmp_path, users=40)
    assert len(finetuned.heldout_users) == 4
    assert finetuned.heldout_users.tolist() == choose_heldout_users(finetuned.context.training, 180, 0).tolist()
    assert set(finetuned.heldout.users) == set(finetuned.heldout_users)
    for row, user in enumerate(finetuned.heldout.users):
        history = set(finetuned.context.training.history_of(int(user)))
        assert finetuned.heldout.items[row] in history
        assert finetuned.heldout.targets[row] not in history
        assert set(np.flatnonzero(finetuned.heldout.excluded[row])) == history | {0}


def test_no_held_out_users_is_a_clear_error_for_the_evaluation(tmp_path):
    with pytest.raises(ConfigError, match="finetune_heldout_users"):
        _ = make_finetuned(tmp_path, finetune_heldout_users=0).heldout


# --- the objective -----------------------------------------------------------------------------------------------------------


def test_the_collator_encodes_each_item_once_and_leaves_out_what_the_user_chose(tmp_path):
    finetuned = make_finetuned(tmp_path)
    finetuned.untuned()
    training = finetuned.context.training
    first, second = training.history_of(1)[:2]
    batch = TripleCollator(finetuned.prompts, finetuned.texts, training)(
        [(1, int(first), 20), (1, int(second), 20), (9, 12, 22)]
    )
    distinct = batch["distinct"].tolist()
    assert distinct == sorted({int(first), int(second), 12, 20, 22})
    assert [distinct[place] for place in batch["hard_index"]] == [20, 20, 22]
    assert [distinct[place] for place in batch["item_index"]] == [first, second, 12]
    out = [{distinct[place] for place in torch.nonzero(row).flatten()} for row in batch["left_out"]]
    assert out[0] == {int(second)}
    assert out[1] == {int(first)}
    assert not out[2] & {20, 22, 12}
    loss = FinetuneObjective(finetuned.untuned(), temperature=0.05, contrast_weight=1.0)(**batch)["loss"]
    assert loss.ndim == 0
    assert torch.isfinite(loss)


# --- fine-tuning ------------------------------------------------------------------------------------------------------------


LEARNABLE = {
    "users": 200,
    "items": 60,
    "finetune_layers": 1,
    "finetune_steps": 120,
    "finetune_batch_size": 16,
    "teacher_guard_share": 0.0,
    "teacher_candidates": 32,
    "finetune_learning_rate": 3e-3,
    "finetune_projection_learning_rate": 1e-2,
}


def test_tuning_learns_hard_negatives_of_users_it_never_saw(tmp_path):
    result = evaluate_finetuning(make_finetuned(tmp_path, **LEARNABLE), "run", str(tmp_path / "results"), {"key": 1}, every=60)
    record = json.loads(result.path.read_text())
    before, after = record["before"], record["after"]
    assert after["cos_pos"] - after["cos_neg"] > 1.5 * (before["cos_pos"] - before["cos_neg"])
    assert after["recall@10"] > before["recall@10"]
    assert record["teacher"]["mrr"] > after["mrr"] > 2 * max(record["random"]["mrr"], record["popularity"]["mrr"])
    assert record["loss"][-1]["loss"] < 0.8 * record["loss"][0]["loss"]
    assert [point["step"] for point in record["curve"]] == [0, 60, 120]
    assert Path(record["picture"]).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    # The LLM as it comes reads no collaborative vector, so it knows nothing of this data's hard negatives.
    alone = make_finetuned(tmp_path, **{**LEARNABLE, "finetune_soft_tokens": False, "finetune_layers": None})
    assert record["llm"] == alone.evaluate(alone.untuned())
    assert record["llm"]["mrr"] < before["mrr"]
    assert "llm" in summary_table(record)
    # Asked again, nothing is fine-tuned and the figures are the same.
    again = evaluate_finetuning(make_finetuned(tmp_path, **LEARNABLE), "again", str(tmp_path / "results"), {}).record
    assert again["after"] == after


class Killed(BaseException):
    pass


def kill_at(monkeypatch, step):
    original = finetune_module._FinetuneTrainer.compute_loss

    def compute_loss(self, *args, **kwargs):
        if self.state.global_step == step:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(finetune_module._FinetuneTrainer, "compute_loss", compute_loss)


def test_a_killed_tuning_goes_on_and_ends_as_if_never_killed(tmp_path, monkeypatch):
    whole = make_finetuned(tmp_path, artifact_dir=str(tmp_path / "whole"))
    whole.ensure(show_progress=False)
    killed = make_finetuned(tmp_path)
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(Killed):
            killed.ensure(show_progress=False)
    assert not killed.exists
    work = killed.folder.with_name(killed.folder.name + ".work")
    assert [path.name for path in complete_checkpoints(work)] == ["checkpoint-3"]
    # What a kill in the middle of writing leaves is not taken for a checkpoint.
    shutil.copytree(work / "checkpoint-3", work / "checkpoint-5")
    (work / "checkpoint-5" / "trainer_state.json").write_text("{")
    make_finetuned(tmp_path).ensure(show_progress=False)
    assert not list(work.glob("checkpoint-*"))
    first, second = state_of(whole), state_of(make_finetuned(tmp_path))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert [entry["step"] for entry in read_manifest(killed.folder)["loss"]] == [6.0] or read_manifest(killed.folder)[
        "steps"
    ] == 6


def test_the_curve_of_a_killed_tuning_begins_where_the_tuning_did(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(Killed):
            make_finetuned(tmp_path).ensure(evaluate_every=1, show_progress=False)
    # Steps 1 to 4 were evaluated, the checkpoint is that of step 3.
    going_on = make_finetuned(tmp_path)
    assert [point["step"] for point in json.loads((going_on._work / "curve.json").read_text())["evaluations"]] == [1, 2, 3, 4]
    manifest = going_on.ensure(evaluate_every=2, show_progress=False)
    assert [point["step"] for point in manifest["recall"]] == [1, 2, 3, 4]
    assert not list(going_on._work.glob("*.json"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Folder of a fine-tuning killed in step 5, with checkpoints of steps 2 and 4, and what one that was not killed learned."""
    folder = tmp_path_factory.mktemp("interrupted")
    whole = make_finetuned(folder, artifact_dir=str(folder / "whole"), finetune_save_steps=2)
    whole.ensure(show_progress=False)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(Killed):
            make_finetuned(folder, finetune_save_steps=2).ensure(show_progress=False)
    return folder, state_of(whole)


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one byte": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "garbage": lambda content: b"\xff garbage",
    "deep": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, "half") for name in ("trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")),
        *(("trainer_state.json", damage) for damage in DAMAGES),
        *(("files.json", damage) for damage in DAMAGES),
        *((("trained.safetensors", damage)) for damage in ("empty", "one byte", "garbage", "gone")),
        ("optimizer.pt", "gone"),
    ],
)
def test_a_damaged_checkpoint_of_a_tuning_is_deleted_with_one_line(interrupted, tmp_path, caplog, name, damage):
    source = next((interrupted[0]).glob("**/checkpoint-4")).parent
    shutil.copytree(source, tmp_path / "work")
    path = tmp_path / "work" / "checkpoint-4" / name
    path.unlink() if damage == "gone" else path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.INFO, "recbole_hnlm"):
        assert [found.name for found in remove_incomplete(tmp_path / "work")] == ["checkpoint-2"]
    assert sorted(found.name for found in (tmp_path / "work").glob("checkpoint-*")) == ["checkpoint-2"]
    (line,) = caplog.messages
    assert "checkpoint-4 is deleted, and its steps are done again" in line
    assert name in line
    assert len(line) < 700


def test_a_tuning_goes_on_from_the_checkpoint_before_a_damaged_one(interrupted, tmp_path):
    folder, whole = interrupted
    going_on = make_finetuned(folder, finetune_save_steps=2)
    weights = going_on._work / "checkpoint-4" / "trained.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    going_on.ensure(show_progress=False)
    found = state_of(make_finetuned(folder, finetune_save_steps=2))
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_a_damaged_curve_of_a_killed_tuning_is_one_line(tmp_path, monkeypatch):
    finetuned = make_finetuned(tmp_path)
    monkeypatch.setattr("recbole_hnlm.finetune.run.complete_checkpoints", lambda _: [Path("checkpoint-3")])
    write_manifest(finetuned._work / "curve.json", {"evaluations": [{"step": 1}, {"step": 4}]})
    assert finetuned._kept_curve() == [{"step": 1}]
    content = (finetuned._work / "curve.json").read_bytes()
    for damaged in (*(damage(content) for damage in DAMAGES.values()), b"[3]", content.replace(b"1", b"2"), b'[{"step": "x"}]'):
        (finetuned._work / "curve.json").write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"curve\.json is corrupt.*delete that file") as error:
            finetuned._kept_curve()
        assert "\n" not in str(error.value)


def test_a_loss_that_is_no_number_stops_with_the_step_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    original = FinetuneObjective.forward
    calls = []

    def forward(self, **inputs):
        calls.append(1)
        return {"loss": original(self, **inputs)["loss"] * (float("nan") if len(calls) > 4 else 1)}

    monkeypatch.setattr(FinetuneObjective, "forward", forward)
    finetuned = make_finetuned(tmp_path)
    with pytest.raises(HNLMError, match="nan at step 5; the checkpoint of step 3 is kept; lower finetune_learning_rate"):
        finetuned.ensure(show_progress=False)
    assert not finetuned.exists


def test_no_memory_suggests_batch_and_length(tmp_path, monkeypatch):
    def forward(self, **inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FinetuneObjective, "forward", forward)
    with pytest.raises(BackendError, match="finetune_batch_size 4 and finetune_max_length 400"):
        make_finetuned(tmp_path).ensure(show_progress=False)


def test_bitsandbytes_that_fails_names_the_key(tmp_path, monkeypatch):
    def fail(*_args):
        raise BackendError("cannot load llm_model")

    monkeypatch.setattr(lora, "load_model", fail)
    with pytest.raises(BackendError, match="--finetune_quantization=none"):
        make_finetuned(tmp_path, finetune_quantization="4bit").untuned()


def test_four_bits_tune_on_a_cpu(tmp_path):
    finetuned = make_finetuned(tmp_path, finetune_quantization="4bit", llm_dtype="bfloat16", finetune_steps=2)
    encoder = finetuned.untuned()
    assert {type(layer.self_attn.q_proj.base_layer).__name__ for layer in encoder.decoder.layers} == {"Linear4bit"}
    assert encoder.decoder.layers[0].self_attn.q_proj.base_layer.weight.quant_state.nested
    before = {name: tensor.clone() for name, tensor in encoder.trained_state().items()}
    finetuned.ensure(show_progress=False)
    after = state_of(finetuned)
    assert any(not torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_eight_bits_tune_on_a_cpu(tmp_path, dtype):
    keys = {"llm_dtype": dtype, "lora_dropout": 0.0, "finetune_steps": 20, "finetune_learning_rate": 1e-3}
    plain, finetuned = make_finetuned(tmp_path, **keys), make_finetuned(tmp_path, finetune_quantization="8bit", **keys)
    encoder, items = finetuned.untuned(), range(1, 25)
    layers = encoder.decoder.layers
    assert {type(layer.self_attn.q_proj.base_layer).__name__ for layer in layers} == {"Linear8bitLt"}
    vectors, exact = (encode_items(own.untuned(), own.prompts, own.texts, items, 2000) for own in (finetuned, plain))
    assert (vectors * exact).sum(axis=1).mean() > 0.99
    batch = pad_sequences([finetuned.prompts.item("a title", "a text")], items=[3])
    encoder.train().encode(batch)[0, 0].backward()
    # lora_A gets its first gradient when lora_B is no longer zero.
    reached = {name for name, part in encoder.named_parameters() if part.grad is not None and part.grad.abs().sum() > 0}
    assert reached >= {name for name in encoder.trained_state() if "lora_A" not in name}
    losses = finetuned.ensure(show_progress=False)["loss"]
    assert losses[-1]["loss"] < losses[0]["loss"]
    # Inference with the fine-tuned weights, over layers that were loaded anew.
    after = encode_items(finetuned.encoder(), finetuned.prompts, finetuned.texts, items, 2000)
    assert np.isfinite(after).all()
    assert (after * vectors).sum(axis=1).min() < 0.999


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_an_evaluation_in_between_leaves_gradients_whole(tmp_path, quantization):
    finetuned = make_finetuned(tmp_path, finetune_quantization=quantization, llm_dtype="bfloat16", lora_dropout=0.0)
    encoder = finetuned.untuned()
    batch = pad_sequences([finetuned.prompts.item("a title", "a text")], items=[3])

    def gradient():
        encoder.train()
        encoder.zero_grad()
        encoder.encode(batch)[0, 0].backward()
        return encoder.projections["shared"].weight.grad.clone()

    before = gradient()
    assert before.abs().sum() > 0
    finetuned.evaluate(encoder)
    assert torch.equal(gradient(), before)


# --- on GPUs, as far as it shows without one ----------------------------------------------------------------------------------


def test_a_process_that_sees_several_gpus_tunes_on_one(tmp_path):
    arguments = finetune_module._arguments(finetuned_context(tmp_path).settings, tmp_path, torch.device("cpu"))
    _ = arguments.device  # counts the GPUs
    arguments._n_gpu = 4
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == 4


def test_float16_on_a_gpu_scales_the_loss_and_nothing_else_does(tmp_path, monkeypatch):
    def scaled(dtype, device):
        settings = finetuned_context(tmp_path, llm_dtype=dtype).settings
        return finetune_module._arguments(settings, tmp_path, torch.device(device)).fp16

    assert scaled("float16", "cuda")
    assert not scaled("bfloat16", "cuda:1")
    assert not scaled("float32", "cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert scaled("auto", "cuda")


def test_processes_do_not_send_each_other_the_teachers_vectors(tmp_path):
    assert (
        finetune_module._arguments(finetuned_context(tmp_path).settings, tmp_path, torch.device("cpu")).ddp_broadcast_buffers
        is False
    )


def test_layers_in_few_bits_without_bitsandbytes_name_the_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install bitsandbytes, or set .*finetune_quantization\) to none"):
        make_finetuned(tmp_path, finetune_quantization="8bit").untuned()


# --- what is kept ------------------------------------------------------------------------------------------------------------


def test_an_adapter_is_never_the_base_model_in_disguise(tmp_path):
    finetuned = make_finetuned(tmp_path)
    with pytest.raises(ArtifactError, match="holds no fine-tuned adapter"):
        finetuned.encoder()
    finetuned.ensure(show_progress=False)
    manifest = read_manifest(finetuned.folder)
    assert manifest["steps"] == 6
    other = make_finetuned(tmp_path, teacher_seed=1)
    own, others = (each.context.teacher.vectors_digest for each in (finetuned, other))
    assert manifest["identity"]["teacher"] == own != others
    with pytest.raises(ArtifactError, match=f"teacher is {own}, expected {others}"):
        load_adapter(finetuned.folder, other.untuned(), other.identity)
    with pytest.raises(ArtifactError, match="does not fit the LLM"):
        load_adapter(finetuned.folder, make_finetuned(tmp_path, lora_r=8).untuned())
    weights = finetuned.folder / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match="corrupt or was edited"):
        finetuned.encoder()


def test_every_key_of_tuning_gives_an_adapter_of_its_own(tmp_path):
    digests = {
        make_finetuned(tmp_path, **keys).identity.digest
        for keys in ({}, {"lora_r": 5}, {"finetune_steps": 7}, {"finetune_pooling": "mean"})
    }
    digests |= {
        make_finetuned(tmp_path, **keys).identity.digest for keys in ({"teacher_seed": 1}, {"finetune_negatives": "random"})
    }
    assert len(digests) == 6
    assert make_finetuned(tmp_path, finetune_save_steps=2, finetune_batch_tokens=99).identity.digest in digests


# --- the stages --------------------------------------------------------------------------------------------------------------


def test_the_tuned_route_covers_every_pair_without_asking_for_a_word(tmp_path):
    context = finetuned_context(tmp_path)
    semantics, reports = build_semantics(context)
    assert [report.name for report in reports] == ["finetune", "encode"]
    assert semantics.coverage == 1
    assert semantics.dim == 32
    finetuned = make_finetuned(tmp_path)
    row = semantics.pair_rows[7]
    user, item = int(context.training.users[7]), int(context.training.items[7])
    encoder = finetuned.encoder()
    alone = next(encode_pairs(encoder, finetuned.prompts, finetuned.texts, PairOrder(np.array([user]), np.array([item])), 999))[
        0
    ]
    np.testing.assert_allclose(semantics.pair_vectors[row], alone, atol=2e-3)
    _, again = build_semantics(finetuned_context(tmp_path))
    assert [report.generated for report in again] == [0, 0]


def test_show_names_the_items_nearest_to_each_tuned_vector(tmp_path):
    def no_teacher():
        pytest.fail("show must not train a teacher")

    context = finetuned_context(tmp_path)
    with pytest.raises(ArtifactError, match="run `recbole-hnlm encode --dataset=toy`"):
        show_user(replace(context, teacher_source=no_teacher), "u1")
    semantics, _ = build_semantics(context)
    text = show_user(finetuned_context(tmp_path), "u1")
    training = context.training
    items = VectorStore.open(
        store_folder(context, "finetuned_items"), finetuned_identity(finetuned_of(context), "finetuned_items")
    )
    units = items.vectors.astype(np.float64) / np.linalg.norm(items.vectors.astype(np.float64), axis=1, keepdims=True)
    user = [str(token) for token in training.user_tokens].index("u1")
    rows = training.rows_of(user)
    own = {str(training.item_tokens[training.items[row]]) for row in rows}
    assert f"vectors of {len(rows)} pairs" in text
    assert finetuned_of(context).texts.users[user] in text
    for row in rows:
        item = str(training.item_tokens[training.items[row]])
        vector = semantics.pair_vectors[semantics.pair_rows[row]].astype(np.float64)
        cosines = dict(zip(items.tables[0], units @ vector / np.linalg.norm(vector), strict=True))
        best = sorted((token for token in cosines if token not in own), key=lambda token: -cosines[token])[:3]
        shown = text.split(f"  for Title of {item} [{item}]\n")[1].splitlines()[:3]
        assert [line.split("[")[1].split("]")[0] for line in shown] == best
        assert [float(line.split()[0]) for line in shown] == pytest.approx([cosines[token] for token in best], abs=1e-3)


def test_encoding_goes_on_after_a_kill(tmp_path, monkeypatch):
    context = finetuned_context(tmp_path, finetune_batch_tokens=300)
    run_stage(context, "finetune")
    original, calls = store_writer.VectorStoreWriter.append, []

    def append(self, keys, vectors):
        if self.identity.kind == "pairs":
            calls.append(len(keys))
            if len(calls) == 6:
                raise Killed
        original(self, keys, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(store_writer.VectorStoreWriter, "append", append)
        with pytest.raises(Killed):
            build_semantics(context)
    semantics, reports = build_semantics(finetuned_context(tmp_path, finetune_batch_tokens=300))
    assert reports[-1].reused > 0
    assert semantics.coverage == 1
    fresh, _ = build_semantics(finetuned_context(tmp_path, artifact_dir=str(tmp_path / "fresh")))
    np.testing.assert_allclose(semantics.pair_vectors[semantics.pair_rows], fresh.pair_vectors[fresh.pair_rows], atol=2e-3)


RANKED = """
from pathlib import Path
from finetune_kit import loss_of_each_triple_alone, finetuned_context
from recbole_hnlm.semantics.pipeline import run_stage
from recbole_hnlm.finetune import objective
if {each_alone!r}:
    objective.hard_negative_loss = loss_of_each_triple_alone
run_stage(finetuned_context(Path({folder!r}), **{settings!r}), {stage!r})
"""


def run_ranked(folder, stage, each_alone=False, **settings):
    """Run a stage in two processes under ``torchrun``."""
    done = launch_two(folder, RANKED.format(folder=str(folder), stage=stage, each_alone=each_alone, settings=settings))
    assert done.returncode == 0, done.stderr[-6000:]


def test_two_processes_tune_as_one_does_with_twice_the_batch(tmp_path, monkeypatch):
    # With a loss that knows no other triples of the batch, the mean of two processes' gradients over 4 triples each is that
    # of one process over 8.
    keys = {"finetune_contrast_weight": 0.0, "lora_dropout": 0.0}
    monkeypatch.setattr(objective_module, "hard_negative_loss", loss_of_each_triple_alone)
    one = make_finetuned(tmp_path, finetune_batch_size=8, **keys)
    one.ensure(show_progress=False)
    run_ranked(tmp_path, "finetune", each_alone=True, finetune_batch_size=4, **keys)
    two = make_finetuned(tmp_path, finetune_batch_size=4, **keys)
    assert two.exists
    assert two.folder != one.folder
    assert not list(two._work.glob("checkpoint-*"))
    first, second = state_of(one), state_of(two)
    begun = {name: tensor.clone() for name, tensor in one.untuned().trained_state().items()}
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-5)
    # That is not because nothing moved.
    moved = max(float((first[name] - begun[name]).abs().max()) for name in first)
    assert moved > 1e-3


def test_two_processes_make_one_store(tmp_path):
    context = finetuned_context(tmp_path)
    run_stage(context, "finetune")
    one, _ = build_semantics(finetuned_context(tmp_path))
    stores = context.split_artifacts / "vectors"
    shutil.rmtree(stores / "finetuned_pairs")
    run_ranked(tmp_path, "encode")
    assert not list(stores.glob("*part*"))
    two, reports = build_semantics(finetuned_context(tmp_path))
    assert reports[-1].generated == 0
    np.testing.assert_allclose(one.pair_vectors[one.pair_rows], two.pair_vectors[two.pair_rows], atol=2e-3)


def test_stages_of_the_other_route_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="text route"):
        run_stage(finetuned_context(tmp_path), "negatives")
    with pytest.raises(ConfigError, match="nothing to fine-tune for"):
        run_stage(finetuned_context(tmp_path, negative_route="text"), "finetune")


def test_the_picture_needs_a_folder_that_can_be_written(tmp_path):
    record = {
        "loss": [],
        "curve": [],
        "dataset": "d",
        **{name: {"recall@50": 0.1} for name in ("teacher", "popularity", "llm", "random")},
    }
    (tmp_path / "file").write_text("")
    with pytest.raises((ArtifactError, OSError)):
        draw_curve(record, tmp_path / "file" / "x.png")

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from finetune_kit import make_finetuned, make_teacher
from hypothesis import given
from hypothesis import strategies as st
from llm_tiny import tiny_tokenizer

from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.finetune.encoder import pool_positions, standardised
from recbole_hnlm.finetune.inference import encode_items, encode_pairs, order_pairs, token_batches
from recbole_hnlm.finetune.lora import build_encoder
from recbole_hnlm.finetune.objective import FinetuneObjective, TripleCollator
from recbole_hnlm.finetune.prompting import ITEM_TOKEN, USER_TOKEN, PairPrompts, pad_sequences
from recbole_hnlm.utils.errors import ConfigError


def make_prompts(template="chat", **keys):
    values = {"finetune_max_length": 400, "finetune_template": template, **keys}
    return PairPrompts(tiny_tokenizer(), validate_settings(values), keys.get("positions"))


# --- sequences ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_budgets_cut_texts_but_neither_instruction_nor_collaborative_tokens(template):
    prompts = make_prompts(template, finetune_user_tokens=5, finetune_title_tokens=4, finetune_item_tokens=3)
    short, long = prompts.user_part("ab"), prompts.user_part("x" * 500)
    assert len(long) == len(short) + 3
    assert long[: len(short) - 2] == short[:-2]
    assert prompts.item_part("y" * 500, "z" * 500)[-2:] == [ITEM_TOKEN, USER_TOKEN]
    assert prompts.item("y" * 500, "")[-1] == ITEM_TOKEN
    assert prompts.truncated == {"user text": 1, "title": 1, "item text": 1}
    prompts.user_part("x" * 500)
    assert prompts.truncated["user text"] == 1


def test_without_collaborative_tokens_the_projections_get_a_gradient_of_zero(tmp_path):
    # Under data parallelism a trained weight without a gradient stops the fine-tuning.
    finetuned = make_finetuned(tmp_path, finetune_soft_tokens=False)
    encoder = finetuned.untuned()
    encoder.encode(pad_sequences([finetuned.prompts.item("a title", "a text")], items=[3]))[0, 0].backward()
    assert all(part.grad is not None for part in encoder.parameters() if part.requires_grad)
    assert encoder.projections["shared"].weight.grad.abs().max() == 0


def test_without_collaborative_tokens_the_query_is_text_alone():
    prompts = make_prompts(finetune_soft_tokens=False)
    sequence = prompts.user_part("likes films") + prompts.item_part("Alien", "horror")
    assert min(sequence) >= 0
    assert min(prompts.item("Alien", "horror")) >= 0


def test_text_cannot_become_a_special_token():
    prompts = make_prompts()
    special = set(tiny_tokenizer().convert_tokens_to_ids(["<|im_end|>", "[INST]"]))
    assert not special & set(prompts.item("<|im_end|>[INST]", ""))


def test_lengths_that_do_not_fit_name_the_key():
    with pytest.raises(ConfigError, match="set finetune_max_length to "):
        make_prompts(finetune_max_length=150)
    with pytest.raises(ConfigError, match="the LLM has 300 positions"):
        PairPrompts(tiny_tokenizer(), validate_settings({"finetune_max_length": 400}), 300)


def test_a_model_without_chat_template_is_told_to_use_plain_text():
    settings = validate_settings({"finetune_template": "chat", "finetune_max_length": 400})
    with pytest.raises(ConfigError, match="--finetune_template=plain"):
        PairPrompts(tiny_tokenizer(template=None), settings)


# --- pooling and batches -----------------------------------------------------------------------------------------------------


def test_pooling_by_hand_on_either_side_of_the_padding():
    hidden = torch.arange(12.0).reshape(1, 4, 3)
    right, left = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[0, 0, 1, 1]])
    assert pool_positions(hidden, right, "last").tolist() == [[3.0, 4.0, 5.0]]
    assert pool_positions(hidden, left, "last").tolist() == [[9.0, 10.0, 11.0]]
    assert pool_positions(hidden, right, "mean").tolist() == [[1.5, 2.5, 3.5]]


def test_standardised_keeps_angles():
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0], [-6.0, 8.0]])
    scaled = standardised(vectors)
    assert scaled[1:].std().item() == pytest.approx(1)
    assert torch.allclose(scaled[1] / scaled[1].norm(), vectors[1] / 5)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100))
def test_token_batches_cover_everything_within_the_budget(lengths, budget):
    parts = list(token_batches(lengths, budget))
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in parts:
        assert part.stop - part.start == 1 or max(lengths[part]) * (part.stop - part.start) <= budget


# --- the encoder -------------------------------------------------------------------------------------------------------------


def sequences(finetuned):
    prompts, texts = finetuned.prompts, finetuned.texts
    users, items = [1, 2, 2, 3], [4, 5, 6, 7]
    return (
        [
            prompts.user_part(texts.users[u]) + prompts.item_part(texts.titles[i], texts.items[i])
            for u, i in zip(users, items, strict=True)
        ],
        users,
        items,
    )


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_the_side_of_the_padding_and_the_batch_change_nothing(tmp_path, pooling):
    finetuned = make_finetuned(tmp_path, finetune_pooling=pooling)
    encoder = finetuned.untuned().eval()
    rows, users, items = sequences(finetuned)
    right, left = (encoder.encode(pad_sequences(rows, users, items, side=side)) for side in ("right", "left"))
    alone = torch.cat([encoder.encode(pad_sequences([rows[k]], [users[k]], [items[k]])) for k in range(len(rows))])
    assert torch.allclose(right, left, atol=1e-5)
    assert torch.allclose(right, alone, atol=1e-5)
    assert torch.allclose(right.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_shared_prefix_gives_the_vectors_of_whole_sequences(tmp_path, template, pooling):
    finetuned = make_finetuned(tmp_path, finetune_pooling=pooling, finetune_template=template)
    encoder = finetuned.untuned()
    training = finetuned.context.training
    pairs = order_pairs(finetuned.prompts, finetuned.texts, training.users, training.items)
    shared, whole = (
        np.concatenate(list(encode_pairs(encoder, finetuned.prompts, finetuned.texts, pairs, 2000, share=share)))
        for share in (True, False)
    )
    assert shared.shape == (len(training), encoder.dim)
    np.testing.assert_allclose(shared, whole, atol=1e-5)


def test_in_bfloat16_a_shared_prefix_agrees_to_its_rounding(tmp_path):
    finetuned = make_finetuned(tmp_path, llm_dtype="bfloat16")
    encoder = finetuned.untuned()
    training = finetuned.context.training
    pairs = order_pairs(finetuned.prompts, finetuned.texts, training.users, training.items)
    shared, whole = (
        np.concatenate(list(encode_pairs(encoder, finetuned.prompts, finetuned.texts, pairs, 2000, share=share)))
        for share in (True, False)
    )
    assert (shared * whole).sum(axis=1).min() > 0.995


def test_every_input_moves_the_vector_and_the_projection_learns(tmp_path):
    finetuned = make_finetuned(tmp_path)
    encoder = finetuned.untuned().eval()
    rows, users, items = sequences(finetuned)
    base = encoder.encode(pad_sequences(rows, users, items))
    for changed in (encoder.encode(pad_sequences(rows, [9] * 4, items)), encoder.encode(pad_sequences(rows, users, [9] * 4))):
        assert (base - changed).abs().max() > 1e-3
    (base[:, 0].sum()).backward()
    names = {
        name for name, parameter in encoder.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert any("projections" in name for name in names)
    assert any("lora_B" in name for name in names)
    assert all("lora_" in name or "projections" in name for name in names)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_nothing_stays_behind_when_the_encoder_lies_on_another_device(tmp_path, monkeypatch, pooling):
    # The meta device computes shapes alone and, as a GPU does, refuses operands from another device.
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_keys: nullcontext())  # does not know meta
    finetuned = make_finetuned(tmp_path, finetune_pooling=pooling)
    encoder = finetuned.untuned()
    encoder.lm.set_attn_implementation("eager")  # sdpa looks at the mask's values
    objective = FinetuneObjective(encoder, temperature=0.05, contrast_weight=1.0).to("meta")
    batch = TripleCollator(finetuned.prompts, finetuned.texts, finetuned.context.training)(
        [(1, 2, 20), (1, 3, 20), (9, 12, 22)]
    )
    assert encoder.device.type == "meta"
    # The trainer moves its batches; those for inference come as they are padded.
    loss = objective(**{name: part.to("meta") for name, part in batch.items()})["loss"]
    loss.backward()
    assert loss.device.type == "meta"
    assert all(part.grad is not None for part in encoder.parameters() if part.requires_grad)
    rows, users, items = sequences(finetuned)
    assert encoder.encode(pad_sequences(rows, users, items)).device.type == "meta"
    begun = pad_sequences([finetuned.prompts.user_part("a"), finetuned.prompts.user_part("ab c")], [1, 2], side="left")
    rest = pad_sequences([finetuned.prompts.item_part("title", "text")] * 3, [1, 1, 2], [3, 4, 5])
    assert encoder.encode_shared(begun, rest, torch.tensor([0, 0, 1])).shape == (3, encoder.dim)


def test_untrained_lora_layers_leave_the_llm_as_it_was(tmp_path):
    finetuned = make_finetuned(tmp_path)
    rows, users, items = sequences(finetuned) if finetuned.untuned() else ([], [], [])
    with_lora = finetuned.untuned().eval().encode(pad_sequences(rows, users, items))
    bare, _ = build_encoder(finetuned.settings, finetuned.context.teacher, "cpu", lora=False)
    assert torch.equal(bare.eval().encode(pad_sequences(rows, users, items)), with_lora)


def test_building_draws_nothing_from_the_global_random_state(tmp_path):
    finetuned = make_finetuned(tmp_path)
    torch.manual_seed(3)
    finetuned.untuned()
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)


def test_fewer_layers_are_the_first_ones(tmp_path):
    finetuned = make_finetuned(tmp_path, finetune_layers=1)
    encoder = finetuned.untuned().eval()
    assert len(encoder.decoder.layers) == 1
    assert encoder.decoder.config.num_hidden_layers == 1
    training = finetuned.context.training
    pairs = order_pairs(finetuned.prompts, finetuned.texts, training.users, training.items)
    assert sum(len(part) for part in encode_pairs(encoder, finetuned.prompts, finetuned.texts, pairs, 2000)) == len(training)
    with pytest.raises(ConfigError, match="the LLM has 2 layers"):
        make_finetuned(tmp_path, finetune_layers=3).untuned()


def test_lora_targets_that_are_not_there_name_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match=r"c_attn.*its linear layers are.*q_proj"):
        make_finetuned(tmp_path, lora_targets=["q_proj", "c_attn"]).untuned()


def test_items_come_back_in_the_order_asked(tmp_path):
    finetuned = make_finetuned(tmp_path)
    encoder = finetuned.untuned()
    there = encode_items(encoder, finetuned.prompts, finetuned.texts, [3, 1, 2], 100)
    back = encode_items(encoder, finetuned.prompts, finetuned.texts, [2, 1, 3], 2000)
    np.testing.assert_allclose(there, back[::-1], atol=1e-5)


def test_the_teacher_of_another_dataset_is_refused(tmp_path):
    finetuned = make_finetuned(tmp_path)
    finetuned.context.__dict__["teacher"] = make_teacher(3, 4)
    with pytest.raises(Exception, match="of another dataset"):
        finetuned.ensure(show_progress=False)

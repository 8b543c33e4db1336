"""Tests of using an LLM fine-tuned on one dataset on another: the maps by hand, and z_ui that survives a turned teacher."""

import json
from dataclasses import replace

import numpy as np
import pytest
from finetune_kit import finetuned_context, finetuned_of, make_finetuned, texts_that_tell

from recbole_hnlm.finetune.inference import PairOrder, encode_pairs
from recbole_hnlm.finetune.report import evaluate_finetuning, summary_table
from recbole_hnlm.finetune.transfer import TextMap, fit_text_map, rotated, rotation_onto
from recbole_hnlm.finetune.transferred import finetuned_llm
from recbole_hnlm.semantics.pipeline import run_stage
from recbole_hnlm.utils.errors import ArtifactError, ConfigError


def orthogonal(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


# --- the maps ----------------------------------------------------------------------------------------------------------------


def test_a_planted_rotation_is_found_whatever_the_scale_of_the_targets():
    vectors, planted = np.random.default_rng(1).standard_normal((50, 6)), orthogonal(6)
    np.testing.assert_allclose(rotation_onto(vectors, 0.1 * vectors @ planted), planted, atol=1e-12)


def test_a_quarter_turn_by_hand():
    # (1, 0) must come to lie on (0, 1) and (0, 2) on (-2, 0).
    rotation = rotation_onto(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 1.0], [-2.0, 0.0]]))
    np.testing.assert_allclose(rotation, [[0.0, 1.0], [-1.0, 0.0]], atol=1e-12)


def test_a_planted_rotation_under_noise_is_found_nearly():
    rng, planted = np.random.default_rng(2), orthogonal(6)
    vectors = rng.standard_normal((2000, 6))
    found = rotation_onto(vectors, vectors @ planted + rng.standard_normal((2000, 6)))
    np.testing.assert_allclose(found, planted, atol=0.1)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-12)


def test_the_text_map_finds_a_planted_affine_map_and_says_when_texts_tell_nothing():
    rng = np.random.default_rng(3)
    texts, weight, bias = rng.standard_normal((300, 5)), rng.standard_normal((5, 3)), np.array([1.0, -2.0, 3.0])
    text_map = fit_text_map(texts, texts @ weight + bias, "encoder 1")
    np.testing.assert_allclose(text_map.weight, weight, atol=1e-3)
    np.testing.assert_allclose(text_map(texts[:4]), texts[:4] @ weight + bias, atol=1e-2)
    assert text_map.explained > 0.999
    half = fit_text_map(texts, texts @ weight + rng.standard_normal((300, 3)) * np.sqrt((weight**2).sum(axis=0)), "encoder 1")
    assert half.explained == pytest.approx(0.5, abs=0.08)
    assert abs(fit_text_map(texts, rng.standard_normal((300, 3)), "encoder 1").explained) < 0.05


def test_a_rotated_teacher_scores_the_same_under_another_digest(tmp_path):
    teacher = finetuned_context(tmp_path).teacher
    turned = rotated(teacher, orthogonal(8))
    np.testing.assert_allclose(turned.scores([1, 5]), teacher.scores([1, 5]), atol=1e-5)
    assert np.abs(turned.item_vectors - teacher.item_vectors).max() > 0.5
    assert turned.digest != teacher.digest


def test_items_without_training_interactions_or_text_take_no_part(tmp_path):
    finetuned = make_finetuned(tmp_path)
    texts = finetuned.item_text_vectors()
    unread = np.flatnonzero(texts.mask)[:2]
    texts.mask[unread[0]] = False
    kept = finetuned.context.training.items != unread[1]
    training = replace(
        finetuned.context.training, users=finetuned.context.training.users[kept], items=finetuned.context.training.items[kept]
    )
    finetuned.context = replace(finetuned.context, training=training)
    assert set(np.flatnonzero(texts.mask)) - set(finetuned.described_items(texts)) == {unread[1]}
    assert unread[0] not in finetuned.described_items(texts)


# --- files -------------------------------------------------------------------------------------------------------------------


def test_a_text_map_is_read_back_and_a_damaged_one_is_refused(tmp_path):
    text_map = fit_text_map(np.eye(4), np.arange(8.0).reshape(4, 2), "encoder 1")
    with pytest.raises(ArtifactError, match="finetune` on its dataset again"):
        TextMap.read(tmp_path)
    text_map.save(tmp_path, "toys")
    back, manifest = TextMap.read(tmp_path)
    np.testing.assert_array_equal(back.weight, text_map.weight)
    np.testing.assert_array_equal(back.bias, text_map.bias)
    assert (back.encoder, back.explained, manifest["dataset"]) == ("encoder 1", text_map.explained, "toys")
    weights, stored = tmp_path / "text_map.safetensors", tmp_path / "text_map.json"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\x07")
    with pytest.raises(ArtifactError, match="corrupt or was edited"):
        TextMap.read(tmp_path)
    weights.write_bytes(content)
    stored.write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ArtifactError, match="format is 99"):
        TextMap.read(tmp_path)


# --- the transferred LLM -----------------------------------------------------------------------------------------------------


def transferred_of(context):
    return finetuned_llm(context, lambda: texts_of_unturned(context))


def texts_of_unturned(context):
    """Texts say what they say, however the teacher of this dataset is turned."""
    return replace(texts_that_tell(context), vectors=texts_that_tell(finetuned_context(context.dataset_dir.parent)).vectors)


def turned_context(folder, source, **settings):
    """The same interactions and texts with a teacher in another rotation, and the adapter of ``source``."""
    context = finetuned_context(folder, finetune_from=str(source.folder), llm_model=source.settings.llm_model, **settings)
    turned = rotated(context.teacher, orthogonal(8, seed=5))
    return replace(context, teacher_source=lambda: turned)


def vectors_of(finetuned, encoder):
    pairs = PairOrder(np.array([1, 2, 3]), np.array([4, 5, 6]))
    return np.concatenate(list(encode_pairs(encoder, finetuned.prompts, finetuned.texts, pairs, 999)))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    finetuned = make_finetuned(tmp_path_factory.mktemp("source"), finetune_steps=20, finetune_learning_rate=3e-3)
    finetuned.ensure(show_progress=False)
    return finetuned


def test_vectors_survive_a_turned_teacher_and_would_not_without_the_rotation(tmp_path, source):
    expected = vectors_of(source, source.encoder())
    finetuned = transferred_of(turned_context(tmp_path, source))
    found = vectors_of(finetuned, finetuned.encoder())
    unrotated = vectors_of(finetuned, finetuned._load(finetuned.context.teacher))
    untuned = vectors_of(finetuned, finetuned.untuned())
    assert (found * expected).sum(axis=1).min() > 0.9999
    assert (unrotated * expected).sum(axis=1).min() < 0.99
    assert (untuned * expected).sum(axis=1).min() < 0.99


def test_the_evaluation_says_that_nothing_was_tuned_and_tunes_nothing(tmp_path, source):
    before = sorted(path.name for path in source.folder.iterdir())
    assert len(transferred_of(turned_context(tmp_path, source)).heldout_users) == 20  # none of them was fine-tuned on
    finetuned = transferred_of(turned_context(tmp_path, source, finetune_heldout_users=2))
    record = evaluate_finetuning(finetuned, "moved", str(tmp_path / "results"), {}).record
    same = evaluate_finetuning(source, "source", str(tmp_path / "results"), {}).record
    for metric in ("recall@10", "recall@50", "mrr"):
        assert record["after"][metric] == pytest.approx(same["after"][metric], abs=0.02)
    assert record["transferred_from"]["dataset"] == "toy"
    assert set(record["unrotated"]) == set(record["after"])
    assert record["unrotated"]["cos_pos"] != pytest.approx(record["after"]["cos_pos"], abs=1e-4)
    assert len(record["curve"]) == 2
    assert summary_table(record).startswith("nothing was fine-tuned on toy: 'after' is the LLM fine-tuned on toy")
    assert "unrotated" not in summary_table(same)
    assert (record["heldout_users"], same["heldout_users"]) == (2, 2)
    assert not (finetuned.context.split_artifacts / "finetuned").exists()
    assert sorted(path.name for path in source.folder.iterdir()) == before


def test_vectors_of_a_transferred_llm_are_kept_apart(tmp_path, source):
    context = turned_context(tmp_path, source)
    moved = transferred_of(context).identity
    own = finetuned_of(replace(context, settings=context.settings.model_copy(update={"finetune_from": None}))).identity
    assert moved.digest != own.digest
    # Reading the adapter's manifest first must not change what the vectors are said to depend on.
    other = transferred_of(context)
    other.ensure()
    assert other.identity == moved


def test_encode_uses_the_adapter_of_the_other_dataset(tmp_path, source):
    report = run_stage(turned_context(tmp_path, source), "finetune")
    assert (report.generated, report.reused) == (0, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_r": 5}, "its lora_r is 4, here it is 5"),
        ({"lora_alpha": 3.0}, "its lora_alpha is 64.0, here it is 3.0"),
        ({"finetune_pooling": "mean"}, "form of its prompts"),
        ({"llm_dtype": "bfloat16"}, "its LLM is"),
    ],
)
def test_an_adapter_of_other_keys_is_refused(tmp_path, source, change, message):
    finetuned = transferred_of(turned_context(tmp_path, source, **change))
    with pytest.raises(ArtifactError, match=message):
        finetuned.ensure()
    with pytest.raises(ArtifactError, match=message):
        finetuned.encoder()


def test_a_folder_without_adapter_is_refused(tmp_path, source):
    context = turned_context(tmp_path, source)
    settings = context.settings.model_copy(update={"finetune_from": str(tmp_path / "nothing")})
    with pytest.raises(ArtifactError, match="holds no fine-tuned adapter"):
        transferred_of(replace(context, settings=settings)).encoder()


def test_another_dimension_encoder_or_too_few_items_are_refused(tmp_path, source):
    context = turned_context(tmp_path, source)
    narrow = replace(
        context.teacher, user_vectors=context.teacher.user_vectors[:, :4], item_vectors=context.teacher.item_vectors[:, :4]
    )
    with pytest.raises(ArtifactError, match="8 dimensions, this dataset's has 4; set embedding_size to 8"):
        transferred_of(replace(context, teacher_source=lambda: narrow)).encoder()
    texts = texts_of_unturned(context)
    with pytest.raises(ArtifactError, match="made with text_encoder made-up 1, here it is made-up 2"):
        finetuned_llm(context, lambda: replace(texts, encoder="made-up 2")).encoder()
    few = np.zeros_like(texts.mask)
    few[1:6] = True
    with pytest.raises(ConfigError, match=r"at least 8 items with text .* has 5"):
        finetuned_llm(context, lambda: replace(texts, mask=few)).encoder()

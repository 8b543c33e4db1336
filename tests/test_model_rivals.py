"""The LLM-driven rivals: their formulas by hand, what they read, and one epoch of each through the real runner."""

import numpy as np
import pytest
import torch
from model_kit import PLAIN, build, make_config, random_vectors, write_random
from stages_kit import ScriptedBackend, ScriptedEncoder

from recbole_hnlm.config import Config
from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.model.expert_adaptor import HybridExpertAdaptor, mix_experts
from recbole_hnlm.model.rlmrec import masked_nodes, profile_contrast, profile_reconstruction
from recbole_hnlm.model.textinitlightgcn import principal_axes
from recbole_hnlm.quick_start.runner import load_checkpoint, run
from recbole_hnlm.semantics.pipeline import stages_needed
from recbole_hnlm.stages import session as stage_session
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import get_model_class
from recbole_hnlm.utils.values import load_yaml

CON, GEN = ("RLMRecConLightGCN", "RLMRecConSGL"), ("RLMRecGenLightGCN", "RLMRecGenSGL")
RIVALS = ("TextInitLightGCN", "SDRLightGCN", "KARLightGCN", *CON, *GEN)


def configure(tmp_path, name, **keys):
    own = load_yaml(properties_dir() / "model" / f"{name}.yaml")
    fixed = {"embedding_size": 16, "train_batch_size": 64, "alignment_source": "text", "negative_sampler": "uniform"}
    return make_config(tmp_path, model=get_model_class(name), **(own | fixed | keys))


def with_profiles(train_dataset, users_without=(), items_without=(), dim=12):
    """Random profile vectors of users and items, none for the ids named."""
    vectors = random_vectors(train_dataset, text_dim=dim)
    rng = np.random.default_rng(5)
    n_users = train_dataset.user_num
    user_mask, item_mask = np.ones(n_users, dtype=bool), vectors.item_mask.copy()
    user_mask[[0, *users_without]] = False
    item_mask[list(items_without)] = False
    user_vectors = rng.normal(size=(n_users, dim)).astype(np.float32)
    return SemanticVectors(vectors.pair_vectors, vectors.pair_rows, vectors.item_vectors, item_mask, user_vectors, user_mask)


def build_rival(tmp_path, name, *, users_without=(), items_without=(), dim=12, **keys):
    """Return (loader, model) with random profiles."""
    write_random(tmp_path)
    train, _, _, _ = build(configure(tmp_path, "HNLMLightGCN", **PLAIN))
    config = configure(tmp_path, name, alignment_source="profile", **keys)
    return build(config, with_profiles(train._dataset, users_without, items_without, dim))[:2]


# --- what all rivals share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "stages"),
    [
        ({"alignment_source": "profile"}, ("profile", "encode")),
        ({"alignment_source": "text"}, ("encode",)),
        ({"alignment_source": "text", "negative_route": "none"}, ("encode",)),
        ({"alignment_source": "profile", "negative_route": "finetuned", "mix_weight": 0.5}, ("profile", "encode")),
    ],
)
def test_a_rival_needs_no_negatives_stage(keys, stages):
    assert stages_needed(validate_settings(keys, SemanticNeeds(texts=True))) == stages


def test_profiles_without_an_llm_are_refused():
    with pytest.raises(ConfigError, match="this model with alignment_source profile reads what an LLM wrote"):
        Config("TextInitLightGCN", "ml-100k", config_dict={"negative_route": "none"})


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_without_text_vectors_says_so(tmp_path, name):
    write_random(tmp_path)
    message = f"{name} needs text vectors of users and items for this model, but"
    if name == "KARLightGCN":  # its scores read texts
        with pytest.raises(ArtifactError, match=message):
            build(configure(tmp_path, name))
        return
    loader, model, *_ = build(configure(tmp_path, name))
    with pytest.raises(ArtifactError, match=message):
        model.calculate_loss(next(iter(loader)))


@pytest.mark.parametrize("name", RIVALS)
def test_an_epoch_through_the_runner_asks_for_profiles_alone(workdir, tiny_data_path, tiny_keys, monkeypatch, name):
    folder = workdir / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.inter").write_bytes((tiny_data_path / "tiny" / "tiny.inter").read_bytes())
    rows = "".join(f"i{item}\tTitle {item}\n" for item in range(30))
    (folder / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    backend = ScriptedBackend()
    monkeypatch.setattr(stage_session, "load_backend", lambda *_: backend)
    monkeypatch.setattr(stage_session, "SentenceEncoder", lambda *_: ScriptedEncoder())
    keys = {**tiny_keys, "data_path": str(workdir / "data"), "embedding_size": 16, "negative_sampler": "dns"}
    result = run(Config(name, "tiny", config_dict=keys))
    assert list(result.record["stages"]) == ["profile", "encode"]
    assert not any("hard_negative" in prompt.system for prompt in backend.asked)
    assert 0 < result.record["test_result"]["recall@5"] <= 1
    assert np.isfinite(result.record["train_loss"][0]).all()
    asked = len(backend.asked)
    _, model, *_ = load_checkpoint(result.record["checkpoint"], {"data_path": keys["data_path"], "use_gpu": False})
    assert len(backend.asked) == asked == 30 + 41
    trained = torch.load(result.record["checkpoint"], weights_only=True)["state_dict"]
    assert all(key.startswith(model.training_only) for key in trained.keys() - model.state_dict().keys())
    assert all(torch.equal(value, trained[key]) for key, value in model.state_dict().items())


# --- text initialisation -----------------------------------------------------------------------------------------------------


def test_principal_axes_by_hand():
    points = torch.tensor([[3.0, 3.0, 0.0], [-3.0, -3.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    half = 0.5**0.5
    axes = principal_axes(points, 3)
    assert axes.shape == (3, 2)
    assert torch.allclose(axes[:, 0], torch.tensor([half, half, 0.0]).double())
    assert torch.allclose(axes[:, 1].abs(), torch.tensor([half, half, 0.0]).double())
    assert torch.allclose((points.double() @ axes)[:, 0].abs(), torch.tensor([18.0, 18.0, 0.0, 0.0]).double().sqrt())


def test_initial_embeddings_have_the_angles_of_the_centred_texts_and_the_usual_size(tmp_path):
    _, model = build_rival(tmp_path, "TextInitLightGCN", users_without=[3], items_without=[5], dim=8)
    _, plain, _, _ = build(configure(tmp_path, "HNLMLightGCN", **PLAIN))
    sides = ((model.texts.user_vectors, model.texts.user_mask), (model.texts.item_vectors, model.texts.item_mask))
    for table, before, (vectors, mask) in zip(model.ego_embeddings(), plain.ego_embeddings(), sides, strict=True):
        texts = vectors[mask] - vectors[mask].mean(dim=0)
        expected = torch.nn.functional.normalize(texts) @ torch.nn.functional.normalize(texts).t()
        start = torch.nn.functional.normalize(table[mask][:, :8])
        assert torch.allclose(start @ start.t(), expected, atol=1e-5)
        assert torch.equal(table[~mask], before[~mask])
        assert torch.equal(table[:, 8:], before[:, 8:])
    known = torch.cat([table[mask][:, :8] for table, (_, mask) in zip(model.ego_embeddings(), sides, strict=True)])
    random = torch.cat([table[mask][:, :8] for table, (_, mask) in zip(plain.ego_embeddings(), sides, strict=True)])
    assert known.square().mean().item() == pytest.approx(random.square().mean().item(), rel=1e-5)


# --- RLMRec ------------------------------------------------------------------------------------------------------------------


def test_profile_contrast_by_hand():
    embeddings = torch.tensor([[9.0, 9.0], [2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    mask = torch.tensor([False, True, True, False])
    mapped = torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    # Node 1: cosines 1 and 0 with the profiles of nodes 1 and 2; node 3 has no profile.
    expected = np.log(1 + np.exp(-1 / 0.5))
    found = profile_contrast(embeddings, mapped, mask, torch.tensor([1, 3, 1]), 0.5)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    swapped = profile_contrast(embeddings, mapped.flip(0), mask, torch.tensor([1, 2, 2]), 0.5)
    assert swapped.item() == pytest.approx(np.log(1 + np.exp(1 / 0.5)), abs=1e-6)
    assert profile_contrast(embeddings, mapped, mask, torch.tensor([3]), 0.5).item() == 0.0


def test_profile_reconstruction_by_hand():
    rebuilt, profiles = torch.tensor([[2.0, 0.0], [3.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    # Cosines: row 0: 1, 0; row 1: both 1/sqrt 2.
    expected = (np.log(1 + np.exp(-1 / 0.2)) + np.log(2)) / 2
    assert profile_reconstruction(rebuilt, profiles, 0.2).item() == pytest.approx(expected, abs=1e-6)


def test_masked_nodes_are_distinct_and_as_many_as_asked():
    known = torch.tensor([3, 4, 8, 9, 11])
    found = masked_nodes(known, 0.7, torch.Generator().manual_seed(0))
    assert len(set(found.tolist())) == 3
    assert set(found.tolist()) <= set(known.tolist())
    assert len(masked_nodes(known, 0.01, torch.Generator())) == 1


@pytest.mark.parametrize("name", [*CON, *GEN, "KARLightGCN"])
def test_without_its_text_a_rival_is_its_backbone(tmp_path, name):
    loader, model = build_rival(tmp_path, name, rlmrec_weight=0, kar_weight=0)
    backbone = "HNLMSGL" if name.endswith("SGL") else "HNLMLightGCN"
    _, plain, _, _ = build(configure(tmp_path, backbone, **PLAIN))
    batch = next(iter(loader))
    losses = []
    for each in (model, plain):
        torch.manual_seed(3)
        each.start_epoch(0)
        losses.append(sum(each.calculate_loss(batch)).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.equal(model.ego_embeddings()[0], plain.ego_embeddings()[0])


@pytest.mark.parametrize("name", [*CON, *GEN])
def test_the_term_reaches_the_mlp_and_the_embeddings(tmp_path, name):
    loader, model = build_rival(tmp_path, name, users_without=[2], items_without=[4])
    model.start_epoch(0)
    parts = dict(zip(model.loss_part_names, model.calculate_loss(next(iter(loader))), strict=True))
    parts["rlmrec"].backward()
    reached = {key for key, value in model.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}
    expected = {key for key, _ in model.named_parameters()}
    assert reached == expected
    assert {"profile_mlp.0.weight", "profile_mlp.2.weight", "user_embedding.weight", "item_embedding.weight"} <= reached


@pytest.mark.parametrize("name", GEN)
def test_a_step_masks_known_nodes_alone_and_scoring_masks_none(tmp_path, name):
    loader, model = build_rival(tmp_path, name, users_without=[2], items_without=[4], rlmrec_mask_ratio=0.4)
    with torch.no_grad():
        model.mask_token.fill_(7.0)
    model.start_epoch(1)
    model.training_propagation(with_hops=False)
    nodes, tables = torch.cat(model.input_embeddings()), torch.cat(model.ego_embeddings())
    masked = (nodes == 7.0).all(dim=1)
    assert set(masked.nonzero().squeeze(1).tolist()) == set(model._masked.tolist())
    assert torch.equal(nodes[~masked], tables[~masked])
    without = [0, 2, model.n_users, model.n_users + 4]
    assert not masked[without].any()
    assert masked.sum() == int(0.4 * (len(masked) - len(without)))
    first = model._masked
    model.start_epoch(1)
    model.calculate_loss(next(iter(loader)))
    assert model._masked is None
    model.start_epoch(1)
    model.training_propagation(with_hops=False)
    assert torch.equal(model._masked, first)
    model.eval()
    assert torch.equal(torch.cat(model.input_embeddings()), tables)


# --- KAR ---------------------------------------------------------------------------------------------------------------------


def test_experts_are_mixed_by_their_gates():
    outputs = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]])
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    assert torch.allclose(mix_experts(logits, outputs), torch.tensor([[(1 + 20) / 8, (4 + 20) / 8]]))


def test_sides_share_the_shared_experts_alone():
    adaptor, vectors = HybridExpertAdaptor(5, 4, 3, shared=2, dedicated=1), torch.randn(6, 5)
    adaptor(vectors, "user").sum().backward()
    reached = {key for key, value in adaptor.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}
    assert reached == {key for key, _ in adaptor.named_parameters() if ".item." not in key}
    logits = adaptor.gates["item"](vectors).softmax(dim=1)
    experts = [*adaptor.shared, adaptor.dedicated["item"][0]]
    by_hand = sum(logits[:, [place]] * expert(vectors) for place, expert in enumerate(experts))
    assert torch.allclose(adaptor(vectors, "item"), by_hand, atol=1e-6)


def test_kar_augments_known_nodes_and_learns_both_parts(tmp_path):
    loader, model = build_rival(tmp_path, "KARLightGCN", users_without=[2], items_without=[4], kar_weight=0.5)
    for table, found, side in zip(model.ego_embeddings(), model.input_embeddings(), ("user", "item"), strict=True):
        mask = getattr(model.texts, f"{side}_mask")
        added = model.adaptor(getattr(model.texts, f"{side}_vectors")[mask], side)
        assert torch.equal(found[~mask], table[~mask])
        assert torch.allclose(found[mask], table[mask] + 0.5 * added, atol=1e-6)
    model.start_epoch(0)
    sum(model.calculate_loss(next(iter(loader)))).backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in model.parameters())


def test_kar_without_experts_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="both 0, expected at least 1 expert"):
        build_rival(tmp_path, "KARLightGCN", kar_shared_experts=0, kar_dedicated_experts=0)


# --- keys --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("KARLightGCN", "kar_hidden_size", 0, "kar_hidden_size is 0, expected an integer of at least 1"),
        ("RLMRecConLightGCN", "rlmrec_weight", -1, "rlmrec_weight is -1, expected a number of at least 0"),
        ("RLMRecConSGL", "rlmrec_temperature", 0, "rlmrec_temperature is 0, expected a number above 0"),
        ("RLMRecGenLightGCN", "rlmrec_mask_ratio", 1.5, "rlmrec_mask_ratio is 1.5, expected a number above 0 and at most 1"),
    ],
)
def test_keys_out_of_range_are_refused(tmp_path, name, key, value, message):
    with pytest.raises(ConfigError, match=message):
        build_rival(tmp_path, name, **{key: value})

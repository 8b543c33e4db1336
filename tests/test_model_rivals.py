"""The LLM-driven rivals: their formulas by hand, what they read, and one epoch of each through the real runner."""

import numpy as np
import pytest
import torch
from model_kit import build, make_config, random_vectors, write_random
from stages_kit import ScriptedBackend, ScriptedEncoder

from recbole_hnlm.config import Config
from recbole_hnlm.data.semantics import SemanticVectors
from recbole_hnlm.errors import ArtifactError, ConfigError
from recbole_hnlm.model.textinitlightgcn import principal_axes
from recbole_hnlm.paths import properties_dir
from recbole_hnlm.registry import get_model_class
from recbole_hnlm.runner import load_checkpoint, run
from recbole_hnlm.settings import TextSettings, validate_settings
from recbole_hnlm.stages import session as stage_session
from recbole_hnlm.stages import stages_needed
from recbole_hnlm.values import load_yaml

RIVALS = ("TextInitLightGCN",)


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
    config = configure(tmp_path, name, alignment_source="profile", **keys)
    train, _, _, _ = build(configure(tmp_path, "HNLMLightGCN", negative_route="none"))
    return build(config, with_profiles(train._dataset, users_without, items_without, dim))[:2]


# --- what all rivals share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "stages"),
    [
        ({"alignment_source": "profile"}, ("profile", "encode")),
        ({"alignment_source": "text"}, ("encode",)),
        ({"alignment_source": "text", "negative_route": "none"}, ("encode",)),
        ({"alignment_source": "profile", "negative_route": "tuned", "mix_weight": 0.5}, ("profile", "encode")),
    ],
)
def test_a_rival_needs_no_negatives_stage(keys, stages):
    assert stages_needed(validate_settings(keys, TextSettings)) == stages


def test_profiles_without_an_llm_are_refused():
    with pytest.raises(ConfigError, match="this model with alignment_source profile reads what an LLM wrote"):
        Config("TextInitLightGCN", "ml-100k", config_dict={"negative_route": "none"})


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_without_text_vectors_says_so(tmp_path, name):
    write_random(tmp_path)
    with pytest.raises(ArtifactError, match=f"{name} reads text vectors"):
        build(configure(tmp_path, name))


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
    _, model, *_ = load_checkpoint(result.record["checkpoint"])
    assert len(backend.asked) == asked == 30 + 41
    trained = torch.load(result.record["checkpoint"], weights_only=True)["state_dict"]
    assert trained.keys() == model.state_dict().keys()
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
    _, plain, _, _ = build(configure(tmp_path, "HNLMLightGCN", negative_route="none"))
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

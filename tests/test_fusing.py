"""Other models in the ranking: the sum of standardised scores, weights of validation, parts that are trained or loaded."""

from pathlib import Path

import pytest
import torch
from model_kit import PLAIN, build, make_config, text_part, write_random
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import EASE, NeuMF

from recbole_hnlm.config import Config
from recbole_hnlm.config.settings import validate_settings
from recbole_hnlm.experiments.methods import role_of
from recbole_hnlm.experiments.plan import PlanRequest, make_plan
from recbole_hnlm.model.fused_ranking import Part, fused_ranking
from recbole_hnlm.quick_start.recommending import recommend
from recbole_hnlm.quick_start.runner import evaluate_checkpoint, load_checkpoint, run
from recbole_hnlm.trainer.fusion_weights import WEIGHTS
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.scores import standardise_rows


def test_the_ranking_is_the_sum_of_standardised_scores(tmp_path):
    write_random(tmp_path)
    keys = {**PLAIN, "fuse_with": ["part.pth"], "text_score": "kernel", "text_score_weight": 0.7}
    fused = fused_model(tmp_path, **keys)
    parts = [build(make_config(tmp_path, model=model, **PLAIN, **own))[1].eval() for model, own in ((EASE, {}), (NeuMF, NEUMF))]
    fused.add_parts([Part(part, "part.pth", str(place)) for place, part in enumerate(parts)])
    users = Interaction({"user_id": torch.tensor([3, 9])})
    alone = fused.full_sort_predict(users).view(2, -1)
    texts = 0.7 * text_part(fused.text_scorer.scores(users["user_id"]), fused.text_scorer.known)
    own = standardise_rows(fused.model_scores(users)[:, 1:])
    assert torch.allclose(alone[:, 1:], own + texts, atol=1e-6)  # open weights add nothing
    fused.part_weights = [0.5, 2.0]
    pairs = Interaction({"user_id": torch.tensor([3, 9]).repeat_interleave(31), "item_id": torch.arange(31).repeat(2)})
    others = [standardise_rows(part.predict(pairs).view(2, -1)[:, 1:].double()).float() for part in parts]
    expected = own + 0.5 * others[0] + 2.0 * others[1] + texts
    found = fused.full_sort_predict(users).view(2, -1)
    assert torch.allclose(found[:, 1:], expected, atol=1e-5)
    single = fused.predict(Interaction({"user_id": torch.tensor([9, 3]), "item_id": torch.tensor([5, 30])}))
    assert torch.allclose(single, found[[1, 0], [5, 30]], atol=1e-5)
    # Weights are known again by the checkpoint they were chosen for, in any order; that of another one is open.
    state = fused.fusion
    fused.add_parts([Part(parts[1], "b.pth", "1"), Part(parts[0], "a.pth", "new")])
    fused.fusion = state
    assert fused.fusion_weights == [2.0, None, 0.7]


NEUMF = {"mlp_hidden_size": [8], "mf_embedding_size": 8, "mlp_embedding_size": 8, "dropout_prob": 0.0, "mf_train": True}
NEUMF |= {"mlp_train": True, "use_pretrain": False}


def fused_model(tmp_path, **keys):
    config = make_config(tmp_path, **keys)
    loader, *_ = build(config, True)
    return fused_ranking(config.model_class)(config, loader._dataset).eval()


@pytest.fixture
def keys(workdir, tiny_keys):
    return {**tiny_keys, "learning_rate": 0.01}


def same_place(keys, *more):
    return (f"--data_path={keys['data_path']}", "--use_gpu=False", *more)


def test_a_named_model_is_trained_first_and_weighed_on_validation(keys):
    given = {**keys, "fuse_with": "EASE", "reg_weight": 3.0}
    record = run(Config("ItemKNN", "tiny", config_dict={**given, "k": 3})).record
    (part,) = record["fused_with"]
    tried = dict(part["weights"])
    assert (part["model"], list(tried)) == ("EASE", list(WEIGHTS))
    assert tried[part["weight"]] == max(tried.values()) == record["best_valid_score"]
    assert part["weight"] == min(weight for weight, score in tried.items() if score == max(tried.values()))
    assert record["text_score_weight"] is None
    # The part is the run that EASE is alone with these keys, and the model's own training is as it is alone.
    alone = run(Config("EASE", "tiny", config_dict={**keys, "reg_weight": 3.0})).record
    own = run(Config("ItemKNN", "tiny", config_dict={**keys, "k": 3})).record
    assert evaluate_checkpoint(part["checkpoint"], same_place(keys)).record["test_result"] == alone["test_result"]
    assert tried[0.0] == own["best_valid_score"]
    # A checkpoint knows its weights, and says that it needs its parts.
    checkpoint, again = record["checkpoint"], f"--fuse_with={part['checkpoint']}"
    with pytest.raises(
        ConfigError, match=r"ranks together with others.*repeat --fuse_with=\[.*\.pth\], or give --fuse_with=\[\]"
    ):
        evaluate_checkpoint(checkpoint, same_place(keys))
    found = evaluate_checkpoint(checkpoint, same_place(keys, again)).record
    assert (found["test_result"], found["fused_with"][0]["weight"]) == (record["test_result"], part["weight"])
    assert found["fused_with"][0]["weights"] is None
    assert evaluate_checkpoint(checkpoint, same_place(keys, "--fuse_with=[]")).record["test_result"] == own["test_result"]
    # Trained models are fused by their checkpoints alone, to the same end; a given weight is that which was tried.
    later = evaluate_checkpoint(own["checkpoint"], same_place(keys, f"--fuse_with={alone['checkpoint']}")).record
    assert (later["test_result"], later["fused_with"][0]["weights"]) == (record["test_result"], part["weights"])
    fixed = evaluate_checkpoint(own["checkpoint"], same_place(keys, again, "--fuse_weight=0.4")).record
    assert fixed["best_valid_score"] == tried[0.4]


def test_recommendations_are_fused(keys):
    ease, knn = (run(Config(name, "tiny", config_dict=keys)).record["checkpoint"] for name in ("EASE", "ItemKNN"))
    places = {"data_path": keys["data_path"], "use_gpu": False, "fuse_with": [ease], "fuse_weight": 1.0}
    _, model, dataset, *_ = load_checkpoint(knn, places)
    found = recommend(knn, ["u1"], 3, config_dict=places)
    user = dataset.token2id("user_id", "u1")
    scores = model.full_sort_predict(Interaction({"user_id": torch.tensor([user])}))
    items = dataset.token2id("item_id", found["item_id"].to_numpy())
    assert scores[torch.from_numpy(items)].tolist() == pytest.approx(found["score"].tolist())
    assert (
        found["score"].tolist()
        != recommend(knn, ["u1"], 3, config_dict={**places, "fuse_with": [], "fuse_weight": "auto"})["score"].tolist()
    )


def test_several_parts_are_weighed_one_after_another_and_again(keys):
    parts = [run(Config(name, "tiny", config_dict=keys)).record["checkpoint"] for name in ("EASE", "ItemKNN")]
    record = run(Config("Pop", "tiny", config_dict={**keys, "fuse_with": parts})).record
    first, second = (dict(part["weights"]) for part in record["fused_with"])
    weights = [part["weight"] for part in record["fused_with"]]
    assert (first[weights[0]], second[weights[1]]) == (max(first.values()), max(second.values()))
    # The second one was scored with the first at its choice.
    assert second[weights[1]] == record["best_valid_score"]
    fixed = evaluate_checkpoint(record["checkpoint"], same_place(keys, f"--fuse_with={','.join(parts)}")).record
    assert fixed["test_result"] == record["test_result"]


def test_keys_of_a_part_are_accepted_and_reach_it(keys):
    given = {"fuse_with": "L3AE", "l3ae_ridge": 7.0, "n_layers": 1}
    config = Config("LightGCN", "tiny", config_dict={**keys, **given})
    assert config.given_for(config.model_class)["n_layers"] == 1
    own = config.given_for(type("L3AE", (), {"__module__": "recbole_hnlm.model.l3ae"}))
    assert (own["l3ae_ridge"], "n_layers" in own) == (7.0, False)
    assert role_of(config) == "rival"  # L3AE reads texts
    assert role_of(Config("LightGCN", "tiny", config_dict={**keys, "fuse_with": "EASE"})) == "baseline"
    with pytest.raises(ConfigError, match="l3ae_ridge"):
        Config("LightGCN", "tiny", config_dict={**keys, "l3ae_ridge": 7.0})


def test_a_comparison_names_what_it_fuses(keys):
    given = tuple(f"--{key}={value}" for key, value in keys.items())
    plain, fused = (
        make_plan(PlanRequest(("ItemKNN",), ("uniform",), "1", False, "tiny", (), (*given, *more)))
        for more in ((), ("--ItemKNN.fuse_with=EASE", "--ItemKNN.reg_weight=3.0"))
    )
    assert fused[0].id.split("-")[:2] == plain[0].id.split("-")[:2]
    assert fused[0].id != plain[0].id
    Path("part.pth").touch()
    with pytest.raises(ConfigError, match=r"ItemKNN: fuse_with part.pth is of one seed and split.*name the model"):
        make_plan(PlanRequest(("ItemKNN",), ("uniform",), "1", False, "tiny", (), (*given, "--fuse_with=part.pth")))


def test_what_does_not_fit_is_refused(keys):
    with pytest.raises(ConfigError, match="fuse_weight has no effect here"):
        validate_settings({"fuse_weight": 1.0})
    with pytest.raises(ConfigError, match=r"fuse_with: checkpoint saved/none.pth does not exist"):
        Config("EASE", "tiny", config_dict={**keys, "fuse_with": "saved/none.pth"})
    with pytest.raises(ConfigError, match="LightGNC"):
        Config("EASE", "tiny", config_dict={**keys, "fuse_with": "LightGNC"})
    other = run(Config("EASE", "tiny", config_dict={**keys, "split_seed": 9})).record["checkpoint"]
    with pytest.raises(ArtifactError, match=r"was trained on another split of tiny.*--split_seed"):
        run(Config("ItemKNN", "tiny", config_dict={**keys, "fuse_with": other}))
    assert not list(Path("saved").glob("ItemKNN*"))

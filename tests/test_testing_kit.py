"""The conformance tests over all of our models and samplers, and that they find what is wrong."""

import pytest
import torch

from recbole_hnlm.model.hnlmlightgcn import HNLMLightGCN
from recbole_hnlm.testing import ModelConformance, SamplerConformance
from recbole_hnlm.testing.data import write_random
from recbole_hnlm.utils.paths import properties_dir
from recbole_hnlm.utils.registry import get_model_class, model_names, negative_sampler_names
from recbole_hnlm.utils.values import load_yaml

_SMALL = {"embedding_size": 16}
_MODELS = {
    "HNLMBPR": {"parity_with": "BPR", "parity_keys": {"reg_weight": 0.0}},
    "HNLMLightGCN": {"parity_with": "LightGCN"},
    "HNLMNGCF": {"parity_with": "NGCF", "keys": {"hidden_size_list": [16, 8]}, "parity_keys": {"reg_weight": 0.1}},
    "HNLMSGL": {},
    "HNLMSimGCL": {},
    "HNLMXSimGCL": {},
    "HNLMNCL": {"keys": {"num_clusters": 3, "warm_up_step": 0, "m_step": 3}},
    "SimGCL": {},
    "XSimGCL": {},
    "KARLightGCN": {},
    "TextInitLightGCN": {},
    "SDRLightGCN": {},
    "RLMRecConLightGCN": {},
    "RLMRecConSGL": {},
    "RLMRecGenLightGCN": {},
    "RLMRecGenSGL": {},
    # The kit's texts are noise: many layers, and a small share, let the interactions speak.
    "TextGCN": {"learning_keys": {"n_layers": 8}},
    "L3AE": {"learning_keys": {"l3ae_share": 0.1, "l3ae_ridge": 5.0}},
    "AlphaRec": {},
    "TextGCNMLP": {},
    "DirectAU": {"learning_keys": {"epochs": 100, "gamma": 0.3}},
}


def test_every_model_of_ours_is_here():
    ours = {name for name in model_names() if get_model_class(name).__module__.startswith("recbole_hnlm.")}
    assert set(_MODELS) == ours


for _name, _facts in _MODELS.items():
    _own = load_yaml(properties_dir() / "model" / f"{_name}.yaml")
    _small = {key: value for key, value in _SMALL.items() if key in _own}
    _body = {"model": _name, **_facts, "keys": _small | _facts.get("keys", {})}
    globals()[f"Test{_name}"] = type(f"Test{_name}", (ModelConformance,), _body)


class TestSoftmax(ModelConformance):
    model = "HNLMLightGCN"
    keys = _SMALL | {"rank_loss": "softmax", "loss_negatives": 64}


class TestStockLightGCN(ModelConformance):
    model = "LightGCN"


class TestStockEASE(ModelConformance):
    model = "EASE"


for _name in negative_sampler_names():
    _body = {"sampler": _name, "keys": {"dens_warmup_epochs": 3} if _name == "dens" else {}}
    globals()[f"TestSampler_{_name}"] = type(f"TestSampler_{_name}", (SamplerConformance,), _body)


# --- it finds what is wrong --------------------------------------------------------------------------------------------------


class Idle(HNLMLightGCN):
    """Has a weight that nothing reads."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.idle = torch.nn.Linear(2, 2)


class Unlike(HNLMLightGCN):
    """Scores pairs otherwise than the whole ranking."""

    def predict(self, interaction):
        return super().predict(interaction) + 1.0


class Restless(HNLMLightGCN):
    """Scores by more than its checkpoint keeps."""

    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) + self.bias

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.bias = torch.rand(self.n_items).repeat(self.n_users - 1)


class Backwards(HNLMLightGCN):
    """Learns the contrary."""

    def ranking_loss(self, positive_scores, negative_scores):
        return super().ranking_loss(negative_scores, positive_scores)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Idle, "test_loss_has_named_finite_parts_and_reaches_every_parameter"),
        (Unlike, "test_predict_equals_full_sort_predict"),
        (Restless, "test_checkpoint_gives_the_same_scores"),
        (Backwards, "test_data_with_a_known_answer_are_learned"),
        (Backwards, "test_without_its_semantic_part_it_is_the_reference_model"),
    ],
)
def test_a_broken_model_fails(workdir, broken, check):
    write_random(workdir)
    kit = type("Kit", (ModelConformance,), {"model": broken, "parity_with": "LightGCN", "learning_keys": {"epochs": 5}})
    with pytest.raises(AssertionError):
        getattr(kit(), check)(workdir)

"""The conformance tests over all of our models and samplers, and that they find what is wrong."""

from recbole_hnlm.testing import ModelConformance, SamplerConformance
from recbole_hnlm.utils.registry import model_names, negative_sampler_names

_SMALL = {"embedding_size": 16}
_MODELS = {
    "HNLMBPR": {"parity_with": "BPR", "parity_keys": {"reg_weight": 0.0}},
    "HNLMLightGCN": {"parity_with": "LightGCN"},
    "HNLMNGCF": {"parity_with": "NGCF", "keys": {"hidden_size_list": [16, 8]}, "parity_keys": {"reg_weight": 0.1}},
    "HNLMSGL": {},
    "HNLMSimGCL": {},
    "HNLMXSimGCL": {},
    "HNLMNCL": {"keys": {"num_clusters": 3, "warm_up_step": 0}},
    "SimGCL": {},
    "XSimGCL": {},
    "KARLightGCN": {},
    "TextInitLightGCN": {},
    "RLMRecConLightGCN": {},
    "RLMRecConSGL": {},
    "RLMRecGenLightGCN": {},
    "RLMRecGenSGL": {},
}


def test_every_model_of_ours_is_here():
    ours = {name for name in model_names() if name.startswith(("HNLM", "KAR", "RLMRec", "TextInit")) or "SimGCL" in name}
    assert set(_MODELS) == ours


for _name, _facts in _MODELS.items():
    _body = {"model": _name, **_facts, "keys": _SMALL | _facts.get("keys", {})}
    globals()[f"Test{_name}"] = type(f"Test{_name}", (ModelConformance,), _body)


class TestStockLightGCN(ModelConformance):
    model = "LightGCN"


for _name in negative_sampler_names():
    globals()[f"TestSampler_{_name}"] = type(f"TestSampler_{_name}", (SamplerConformance,), {"sampler": _name})

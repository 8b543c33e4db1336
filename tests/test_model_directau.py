"""DirectAU: alignment and uniformity by hand, its encoders and keys."""

import math

import pytest
import torch
from model_kit import build, make_config, write_random

from recbole_hnlm.model.directau import DirectAU, alignment, uniformity
from recbole_hnlm.utils.errors import ConfigError

KEYS = {"encoder": "LightGCN", "gamma": 0.5}


def test_alignment_and_uniformity_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    others = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert alignment(vectors, others).item() == pytest.approx((0 + 2 + 4) / 3)
    # Squared distances of the three pairs: 2, 4, 2.
    assert uniformity(vectors).item() == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))


def test_equal_rows_and_a_single_row_have_finite_gradients():
    for rows in (1, 3):
        vectors = torch.tensor([[0.6, 0.8]]).repeat(rows, 1).requires_grad_()
        value = uniformity(vectors)
        value.backward()
        assert value.item() == pytest.approx(0.0, abs=1e-6)
        assert torch.isfinite(vectors.grad).all()


def built(tmp_path, **keys):
    write_random(tmp_path)
    return build(make_config(tmp_path, model=DirectAU, **{**KEYS, **keys}))


@pytest.mark.parametrize("encoder", ["LightGCN", "MF"])
def test_the_loss_is_that_of_the_batch_on_the_sphere(tmp_path, encoder):
    loader, model, *_ = built(tmp_path, encoder=encoder)
    batch = next(iter(loader))
    tables = model.ego_embeddings() if encoder == "MF" else model.propagate()
    users, items = (
        torch.nn.functional.normalize(table[batch[field]], dim=1)
        for table, field in zip(tables, ("user_id", "item_id"), strict=True)
    )
    spread = [torch.pdist(side).square().mul(-2).exp().mean().log() for side in (users, items)]
    align, uniform = model.calculate_loss(batch)
    assert align.item() == pytest.approx((users - items).norm(dim=1).square().mean().item(), abs=1e-5)
    assert uniform.item() == pytest.approx(0.5 * sum(spread).item() / 2, abs=1e-5)
    assert torch.equal(model.propagate()[0], model.ego_embeddings()[0]) == (encoder == "MF")


def test_wrong_keys_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"encoder is 'NGCF', expected one of LightGCN, MF"):
        built(tmp_path, encoder="NGCF")
    with pytest.raises(ConfigError, match="gamma is -1, expected a number of at least 0"):
        built(tmp_path, gamma=-1)

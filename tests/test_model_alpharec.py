"""AlphaRec and TextGCNMLP: what they score, what they learn, and their loss, by independent computations."""

import pytest
import torch
from model_kit import build, make_config, write_random

from recbole_hnlm.model.alpharec import AlphaRec, text_mlp
from recbole_hnlm.model.set_losses import Excluded, log_sum_exp_shared, softmax_loss
from recbole_hnlm.model.textgcnmlp import TextGCNMLP
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.registry import model_yaml
from recbole_hnlm.utils.values import load_yaml


def config_of(tmp_path, model=AlphaRec, **keys):
    write_random(tmp_path)
    small = {"embedding_size": 5, "text_hidden_size": 6, "train_batch_size": 64, "negative_sampler": "uniform"}
    return make_config(tmp_path, model=model, **{**load_yaml(model_yaml(model)), **small, **keys})


def test_the_mlp_by_hand():
    mlp = text_mlp(2, 2, 1)
    with torch.no_grad():
        mlp[0].weight.copy_(torch.eye(2))
        mlp[0].bias.copy_(torch.tensor([0.0, -3.0]))
        mlp[2].weight.copy_(torch.tensor([[2.0, 10.0]]))
        mlp[2].bias.fill_(1.0)
    # Hidden: 1 and leaky(2 - 3) = -0.01.
    assert mlp(torch.tensor([[1.0, 2.0]])).item() == pytest.approx(2 * 1 + 10 * -0.01 + 1)


def adjacency_of(loader, model):
    inter = loader._dataset.inter_feat
    has = torch.zeros(model.n_users, model.n_items)
    has[inter["user_id"], inter["item_id"]] = 1.0
    return has, has / has.sum(1, keepdim=True).clamp_min(1).sqrt() / has.sum(0).clamp_min(1).sqrt()


def mean_of_layers(adjacency, users, items, n_layers):
    sums = [users, items]
    for _ in range(n_layers):
        users, items = adjacency @ items, adjacency.t() @ users
        sums = [sums[0] + users, sums[1] + items]
    return [side / (n_layers + 1) for side in sums]


def expected_outputs(loader, model):
    """Propagate with dense matrices, from the items' vectors alone."""
    has, adjacency = adjacency_of(loader, model)
    items = model.texts.item_vectors
    users = has @ items / has.sum(1, keepdim=True).clamp_min(1)
    if isinstance(model, TextGCNMLP):
        inputs = [torch.nn.functional.normalize(side) for side in mean_of_layers(adjacency, users, items, model.n_layers)]
        return [mlp(side) for mlp, side in zip((model.user_mlp, model.item_mlp), inputs, strict=True)]
    known = (has.sum(1, keepdim=True) > 0, torch.arange(model.n_items)[:, None] > 0)
    return mean_of_layers(adjacency, model.mlp(users) * known[0], model.mlp(items) * known[1], model.n_layers)


@pytest.mark.parametrize("model_class", [AlphaRec, TextGCNMLP])
def test_scores_are_cosines_of_the_outputs_and_there_is_no_embedding_of_an_id(tmp_path, model_class):
    loader, model, *_ = build(config_of(tmp_path, model_class), True)
    model.eval()
    users, items = (torch.nn.functional.normalize(side) for side in expected_outputs(loader, model))
    found = model.full_sort_predict({"user_id": torch.arange(1, model.n_users)}).view(-1, model.n_items)
    assert torch.allclose(found[:, 1:], (users @ items.t())[1:, 1:], atol=1e-5)
    assert found[:, 1:].std() > 0
    sizes = {12 * 6 + 6 + 6 * 5 + 5}
    assert sum(value.numel() for value in model.parameters()) in {*sizes, *(2 * size for size in sizes)}


@pytest.mark.parametrize("model_class", [AlphaRec, TextGCNMLP])
def test_the_loss_is_the_sampled_softmax_of_cosines(tmp_path, model_class):
    loader, model, *_ = build(config_of(tmp_path, model_class, loss_negatives=9, loss_temperature=0.2), True)
    model.start_epoch(0)
    batch = next(iter(loader))
    generator = torch.Generator()
    generator.set_state(model.generator.get_state())
    (rank,) = model.calculate_loss(batch)
    drawn = torch.randint(1, model.n_items, (9,), generator=generator)
    has, _ = adjacency_of(loader, model)
    users, items = (torch.nn.functional.normalize(side) for side in expected_outputs(loader, model))
    scores = (users @ items.t() / 0.2).exp()
    rows, positives = batch["user_id"], batch["item_id"]
    others = (scores[rows][:, drawn] * (1 - has[rows][:, drawn])).sum(1)
    own = scores[rows, positives]
    assert rank.item() == pytest.approx(-(own / (own + others)).log().mean().item(), abs=1e-5)


def test_the_loss_of_one_row_by_hand():
    users, negatives = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    sums = log_sum_exp_shared(users, negatives, Excluded.none(1), 0.5)
    found = softmax_loss(sums, torch.tensor([0.5]), None, temperature=0.5, hard_weight=0.0)
    e = torch.e
    assert found.item() == pytest.approx(-torch.tensor(e / (e + 1 + e**2)).log().item())


def test_without_texts_or_with_a_wrong_key_it_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="AlphaRec needs text vectors of users and items for this model, but"):
        build(config_of(tmp_path))
    for key, value in (("text_hidden_size", 0), ("embedding_size", 0), ("n_layers", -1)):
        with pytest.raises(ConfigError, match=f"{key} is {value}, expected an integer"):
            build(config_of(tmp_path, **{key: value}), True)

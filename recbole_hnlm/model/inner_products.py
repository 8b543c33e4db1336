"""The vectors of a model whose scores are inner products, for an index outside."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction

from recbole_hnlm.model.backbone import PairwiseBackbone
from recbole_hnlm.utils.errors import ConfigError

__all__ = ["scoring_embeddings"]

_CHECKED_USERS = 16
_TOLERANCE = 1e-5
# Where RecBole's graph models keep what they have propagated, and where its other models have their tables.
_TABLES = (("restore_user_e", "restore_item_e"), ("user_embedding", "item_embedding"))


@torch.no_grad()
def scoring_embeddings(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a vector of every user and item whose inner products are the model's scores: of graph models, the propagated ones.

    It is not taken on trust: the products are compared with the scores of all items for up to 16 users.

    Args:
        model: a trained model, which is put into evaluation mode and stays in it.

    Returns:
        Float ``[U, d]`` and ``[I, d]``, U users and I items including the padding id 0.

    Raises:
        ConfigError: the model scores in another way.
    """
    if not isinstance(model, PairwiseBackbone) and not any(hasattr(model, users) for users, _ in _TABLES):
        raise _refusal(model)
    model.eval()
    last = model.n_users - 1
    users = torch.linspace(1, last, min(_CHECKED_USERS, last)).long()
    try:
        asked = Interaction({model.USER_ID: users}).to(model.device)
        scores = model.full_sort_predict(asked).view(len(users), -1)  # [n, I]
    except NotImplementedError:
        raise _refusal(model) from None
    tables = _tables(model)
    if tables is None:
        raise _refusal(model)
    products = tables[0][users.to(model.device)] @ tables[1].t()  # [n, I]
    if (products - scores)[:, 1:].abs().max() > _TOLERANCE * scores[:, 1:].abs().max().clamp_min(1.0):
        raise _refusal(model)
    return tables


def _tables(model: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    if isinstance(model, PairwiseBackbone):
        return model.propagate_for_scoring()
    for names in _TABLES:
        pair = [getattr(model, name, None) for name in names]
        users, items = (side.weight if isinstance(side, torch.nn.Embedding) else side for side in pair)
        if isinstance(users, torch.Tensor) and isinstance(items, torch.Tensor):
            fits = (len(users), len(items)) == (model.n_users, model.n_items) and users.shape[1:] == items.shape[1:]
            return (users.detach(), items.detach()) if fits else None
    return None


def _refusal(model: Any) -> ConfigError:
    if any(getattr(model, "part_weights", ())):
        return ConfigError(
            f"{type(model).__name__} ranks together with other models (fuse_with), which inner products of embeddings do not "
            "give: export with --fuse_with=[]"
        )
    if weight := getattr(model, "text_weight", None):
        return ConfigError(
            f"{type(model).__name__} ranks with texts at weight {weight:g} (text_score), which inner products of embeddings do "
            "not give: export with --text_score=none"
        )
    return ConfigError(
        f"{type(model).__name__} does not score by inner products of one vector for each user and item, so it has no "
        "embeddings to export; models that do are BPR, LightGCN, NGCF, SGL, NCL and all HNLM models"
    )

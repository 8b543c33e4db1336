"""TextInitLightGCN: LightGCN whose embeddings start from the text vectors, the simplest control for any use of text."""

from __future__ import annotations

from typing import Any

import torch

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.text_rival import TextRivalMixin

__all__ = ["TextInitLightGCN", "principal_axes"]

_LEAST_SHARE = 1e-10


def principal_axes(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """Return the directions of greatest variance: eigenvectors of ``X^T X``, the greatest eigenvalue first.

    Axes whose eigenvalue is below 1e-10 of the greatest are left out. An axis points where its entry of greatest magnitude
    is positive, so that the answer does not depend on the eigenvalue routine.

    Args:
        vectors: X, already centred, ``[n, T]``.
        count: axes at most.

    Returns:
        Orthonormal columns, float64 ``[T, k]``, k <= ``count``.
    """
    exact = vectors.double()
    values, axes = torch.linalg.eigh(exact.t() @ exact)
    kept = int((values > _LEAST_SHARE * values[-1].clamp_min(torch.finfo(torch.float64).tiny)).sum())
    axes = axes.flip(1)[:, : min(count, kept)]
    return axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()


class TextInitLightGCN(TextRivalMixin, LightGraphBackbone):
    """LightGCN with initial embeddings ``e_x = c (t_x - mean) W``, W the first d principal axes of all text vectors.

    Users' vectors are centred by the users' mean and items' by the items', then share W, so that a user and an item with alike
    text start near each other. c gives the table the root mean square that random initialisation has. Nodes without text, and
    columns beyond the rank of the texts, keep their random values. Everything after that is LightGCN (He et al., SIGIR 2020);
    the model is a control of this project, not one from a paper.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build LightGCN and overwrite its tables.

        Raises:
            ArtifactError: as :class:`TextRivalMixin`.
        """
        super().__init__(config, dataset)
        if not self.has_texts:  # a trained model is loaded, to rank
            return
        tables = self.ego_embeddings()
        masks = (self.texts.user_mask.cpu(), self.texts.item_mask.cpu())
        vectors = (self.texts.user_vectors.cpu().float(), self.texts.item_vectors.cpu().float())
        sides = [side[mask] for side, mask in zip(vectors, masks, strict=True)]
        centred = torch.cat([side - side.mean(dim=0) for side in sides])  # [n, T]
        axes = principal_axes(centred, int(self.latent_dim))  # [T, k]
        reduced = (centred.double() @ axes).float()  # [n, k]
        start = torch.cat([table.detach().cpu() for table in tables])  # [U + I, d]
        rows, columns = torch.cat(masks).nonzero(), torch.arange(axes.shape[1])
        usual = start[rows, columns].square().mean().sqrt()
        start[rows, columns] = reduced * usual / reduced.square().mean().sqrt()
        with torch.no_grad():
            for table, part in zip(tables, (start[: self.n_users], start[self.n_users :]), strict=True):
                table.copy_(part)

r"""L3AE: EASE pulled towards an EASE of the items' texts, in closed form.

Reference:
    "LLM-Enhanced Linear Autoencoders for Recommendation" (L3AE), CIKM 2025 (arXiv 2508.13500).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import scipy.linalg
import scipy.sparse as sp
import torch

from recbole_hnlm.config.needs import SemanticNeeds
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.text_rival import number_of
from recbole_hnlm.model.untrained import Untrained, item_texts_of
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.pairs import pair_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from recbole.data.interaction import Interaction

__all__ = ["L3AE", "bytes_needed", "inverse_of_gram", "item_weights", "text_weights"]

_ROWS = 512


def text_weights(
    texts: NDArray[np.float32], ridge: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    r"""Solve phase 1, EASE on text vectors, as a product of low rank.

    Formula: ``min_C ||F - F C||^2 + l ||C||^2, diag C = 0``, so ``C = I - P / diag(P)`` by columns with
    ``P = (F'F + l I)^-1``. By Woodbury's identity ``P = (I - F' M F) / l``, ``M = (F F' + l I)^-1``, so that outside its
    diagonal ``C = F' (M F S)`` with ``S = diagMat(1 / (l diag P))``: nothing of items x items is formed.

    Args:
        texts: F' , one row an item, ``[I, T]``.
        ridge: l > 0.

    Returns:
        The factors ``F'`` ``[I, T]`` and ``M F S`` ``[T, I]``, and the diagonal of their product ``[I]``, which C lacks.
    """
    wide = texts.astype(np.float64)
    small = wide.T @ wide  # [T, T]
    small[np.diag_indices_from(small)] += ridge
    right = scipy.linalg.solve(small, wide.T, assume_a="pos")  # [T, I]
    inside = np.einsum("it,ti->i", wide, right)
    right /= 1.0 - inside
    diagonal = np.einsum("it,ti->i", wide, right)
    return texts, right.astype(np.float32), diagonal.astype(np.float32)


def inverse_of_gram(history: sp.csr_matrix, ridge: float) -> NDArray[np.float32]:
    """Return ``(X'X + r I)^-1``, float32 ``[I, I]``, computed in the memory of one such matrix.

    Args:
        history: X, ``[U, I]``.
        ridge: r > 0.
    """
    gram = (history.T @ history).astype(np.float32).toarray(order="F")
    gram[np.diag_indices_from(gram)] += np.float32(ridge)
    factor, failed = scipy.linalg.lapack.spotrf(gram, lower=1, clean=0, overwrite_a=1)
    if not failed:
        factor, failed = scipy.linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ConfigError(
            f"l3ae_ridge {ridge:g} is too small: the matrix of items x items cannot be inverted in single precision; raise it"
        )
    for start in range(0, len(factor), _ROWS):
        stop = start + _ROWS
        block = factor[start:stop, start:stop]
        block[:] = np.tril(block) + np.tril(block, -1).T
        factor[start:stop, stop:] = factor[stop:, start:stop].T
    # Symmetric, so that the transposed view is the same matrix with contiguous rows.
    return np.asarray(factor).T


def item_weights(
    history: sp.csr_matrix, texts: NDArray[np.float32], *, text_ridge: float, ridge: float, share: float
) -> NDArray[np.float32]:
    r"""Solve phase 2, ``min_B ||X - X B||^2 + l_X ||B||^2 + l_E ||B - C||^2, diag B = 0``; float32 ``[I, I]``.

    Formula: with ``P = (X'X + (l_X + l_E) I)^-1`` and C of :func:`text_weights`, outside the diagonal
    ``B = l_E P C - P diagMat( (1 + l_E diag(P C)) / diag P )``. C is of low rank but for its diagonal c, so
    ``P C = (P F') (M F S) - P diagMat(c)``, and B replaces P row by row: one matrix of items x items is all there is.

    Args:
        history: X, the training interactions, ``[U, I]``.
        texts: of the items, 0 where there is none, ``[I, T]``.
        text_ridge: l of :func:`text_weights`.
        ridge: l_X + l_E > 0.
        share: l_E / (l_X + l_E) >= 0; 0 is EASE, and above 1 l_X is negative.
    """
    weight = np.float32(ridge * share)
    inverse = inverse_of_gram(history, ridge)
    left, right, diagonal = text_weights(texts, text_ridge)
    left = inverse @ left  # P F', [I, T]
    own = np.diag(inverse).copy()
    of_texts = np.einsum("it,ti->i", left, right) - own * diagonal  # diag(P C)
    scale = (1.0 + weight * of_texts) / own + weight * diagonal
    for start in range(0, len(inverse), _ROWS):
        rows = slice(start, start + _ROWS)
        inverse[rows] *= -scale
        inverse[rows] += weight * (left[rows] @ right)
    np.fill_diagonal(inverse, 0.0)
    return inverse


def bytes_needed(n_items: int) -> int:
    """Return the memory that solving for ``n_items`` items takes at its peak: two matrices of float32, with the sparse Gram."""
    return 2 * 4 * n_items * n_items


class L3AE(Untrained):
    """Ranks by ``X_u B``, B of :func:`item_weights`.

    B takes 4 bytes for each pair of items: 0.6 GB for 12,000 items, 40 GB for 100,000. It is solved for when training starts,
    which counts as its time, and is what the checkpoint holds; texts are not read again. RecBole's EASE is ``l3ae_share: 0``.

    Departures: keys are the sum of both ridges and the text's share of it, since the sum is what has to fit the data.
    Texts and their encoder are those of the run.

    Attributes:
        item_similarity: B, float32 ``[I, I]`` on the CPU; None until it is solved for or read from a checkpoint.
    """

    needs = SemanticNeeds(texts=True, texts_of_items_alone=True)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Read the keys.

        Raises:
            ConfigError: a key is out of range.
        """
        super().__init__(config, dataset)
        self.text_ridge = number_of(config, "l3ae_text_ridge", 0, above=True)
        self.ridge = number_of(config, "l3ae_ridge", 0, above=True)
        self.share = number_of(config, "l3ae_share", 0)
        training = TrainingInteractions.from_dataset(dataset)
        self.history = pair_matrix(training.users, training.items, (self.n_users, self.n_items))
        self.item_similarity: torch.Tensor | None = None
        self._dataset = dataset
        self.other_parameter_name = ["item_similarity"]

    def solve(self) -> torch.Tensor:
        """Return B, solved for once.

        Raises:
            ConfigError: there are more items than the machine's available memory allows.
            ArtifactError: the data carries no vectors of items' texts.
        """
        if self.item_similarity is None:
            needed, available = bytes_needed(self.n_items), psutil.virtual_memory().available
            if needed > available:
                raise ConfigError(
                    f"{type(self).__name__} computes a matrix of items x items, which takes {needed / 2**30:.1f} GiB for "
                    f"{self.n_items:,} items, but {available / 2**30:.1f} GiB of memory is available; leave out rare items by "
                    "item_inter_num_interval, or use a model whose memory grows with the number of items, such as TextGCN"
                )
            vectors, mask, _ = item_texts_of(self._dataset, type(self).__name__)
            texts = np.where(mask[:, None], vectors, 0.0).astype(np.float32)
            solved = item_weights(self.history, texts, text_ridge=self.text_ridge, ridge=self.ridge, share=self.share)
            self.item_similarity = torch.from_numpy(solved)
        return self.item_similarity

    def calculate_loss(self, interaction: Interaction) -> Any:
        """Solve for B at the first batch; return zero, a tensor ``[1]``."""
        self.solve()
        return super().calculate_loss(interaction)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Return the scores of every item for each user of the batch, float ``[n * I]``."""
        users = interaction[self.USER_ID].cpu().numpy()
        return torch.from_numpy(self.history[users] @ self.solve().cpu().numpy()).to(self.device).view(-1)

    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Return the scores of pairs (user_id, item_id), float ``[n]``."""
        users, places = np.unique(interaction[self.USER_ID].cpu().numpy(), return_inverse=True)
        whole = self.history[users] @ self.solve().cpu().numpy()
        return torch.from_numpy(whole[places, interaction[self.ITEM_ID].cpu().numpy()]).to(self.device)

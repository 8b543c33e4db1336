"""Parts of the training objective, as pure functions.

Symbols: B rows of the batch, M rows with a semantic vector, d the embedding size; e_u, e_i, e_j the embeddings of user,
positive and negative, h_ui = f(z_ui) the projected semantic vector.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from recbole_hnlm.model.cosine_contrast import cosine_contrast

__all__ = [
    "bpr_loss",
    "contrast_loss",
    "embedding_regularization",
    "hinge_loss",
    "info_nce",
    "info_nce_against",
    "info_nce_over_table",
    "mix_negative",
]

_BPR_GAMMA = 1e-10
_TINY_NORM = 1e-12


def bpr_loss(positive_scores: torch.Tensor, negative_scores: torch.Tensor) -> torch.Tensor:
    """Bayesian personalised ranking: ``-mean log sigmoid(s_i - s_j)``.

    Source: Rendle et al., "BPR", UAI 2009, section 4.1. RecBole computes ``-log(1e-10 + sigmoid(x))``; to equal it without
    its underflow this is ``-logaddexp(log 1e-10, log sigmoid(x))``: the same value where RecBole's is accurate, finite and
    bounded by ``-log 1e-10`` = 23.03 elsewhere.

    Args:
        positive_scores: ``[B]``.
        negative_scores: ``[B]``.
    """
    log_sigmoid = F.logsigmoid(positive_scores - negative_scores)  # [B]
    floor = torch.full_like(log_sigmoid, _BPR_GAMMA).log()
    return -torch.logaddexp(log_sigmoid, floor).mean()


def hinge_loss(positive_scores: torch.Tensor, negative_scores: torch.Tensor, margin: float) -> torch.Tensor:
    """Pairwise hinge: ``mean max(0, s_j - s_i + m)``.

    Source: HNLMRec (arXiv 2504.04726), ranking objective (docs/method.md, section 5).

    Args:
        positive_scores: ``[B]``.
        negative_scores: ``[B]``.
        margin: m, in units of a score.
    """
    return F.relu(negative_scores - positive_scores + margin).mean()


def contrast_loss(
    users: torch.Tensor, positives: torch.Tensor, semantic_negatives: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Pull e_u to e_i and push it from h_ui.

    Formula, one row: ``-log( exp(cos(e_u,e_i)/t) / (exp(cos(e_u,e_i)/t) + exp(cos(e_u,h_ui)/t)) )``
    ``= softplus((cos(e_u,h_ui) - cos(e_u,e_i)) / t)``, the form that is computed, since it cannot overflow.
    Source: HNLMRec (arXiv 2504.04726), contrastive term (docs/method.md, section 5).

    Args:
        users: e_u, ``[M, d]``.
        positives: e_i, ``[M, d]``.
        semantic_negatives: h_ui, ``[M, d]``.
        temperature: t > 0.

    Returns:
        The value of each row, ``[M]``; the caller decides what to divide by.
    """
    to_positive = F.cosine_similarity(users, positives, dim=1)  # [M]
    to_negative = F.cosine_similarity(users, semantic_negatives, dim=1)  # [M]
    return F.softplus((to_negative - to_positive) / temperature)


def info_nce(left: torch.Tensor, right: torch.Tensor, temperature: float) -> torch.Tensor:
    """Two-way InfoNCE between matching rows.

    Formula: ``1/2 (CE(S, identity) + CE(S^T, identity))`` with ``S_ab = cos(left_a, right_b) / t``, each cross entropy a mean
    over rows. Source: van den Oord et al., arXiv 1807.03748, formula 4; two-way as in CLIP (arXiv 2103.00020, figure 3).

    Args:
        left: ``[n, d]``, n >= 1.
        right: ``[n, d]``.
        temperature: t > 0.
    """
    similarities = F.normalize(left, dim=1) @ F.normalize(right, dim=1).t() / temperature  # [n, n]
    targets = torch.arange(len(left), device=left.device)
    return 0.5 * (F.cross_entropy(similarities, targets) + F.cross_entropy(similarities.t(), targets))


def info_nce_against(anchors: torch.Tensor, others: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """One-way InfoNCE of rows against a table that holds each row's partner.

    Formula: ``-mean_a log( exp(cos(x_a, y_t(a))/t) / sum_b exp(cos(x_a, y_b)/t) )``, a cross entropy.
    Source: van den Oord et al., arXiv 1807.03748, formula 4.

    Args:
        anchors: x, ``[n, d]``.
        others: y, ``[m, d]``.
        targets: t(a), the partner's row in ``others``, int64 ``[n]``.
        temperature: t > 0.
    """
    weights = anchors.new_full((len(anchors),), 1.0 / max(len(anchors), 1))
    return cosine_contrast(anchors, others, targets, weights, temperature)


def info_nce_over_table(one: torch.Tensor, other: torch.Tensor, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE of the batch's rows of one table against *all* rows of another, a mean over the batch.

    Formula: :func:`info_nce_against` with ``x = one[ids]``, ``y = other``, ``t(a) = ids_a``. Rows of one id are equal, so each
    id is computed once and weighted by how often it stands in the batch.

    Args:
        one: ``[n, d]``.
        other: ``[n, d]``.
        ids: rows, repetitions allowed, int64 ``[B]``.
        temperature: t > 0.
    """
    distinct, counts = torch.unique(ids, return_counts=True)
    return cosine_contrast(one.index_select(0, distinct), other, distinct, counts / len(ids), temperature)


def mix_negative(negatives: torch.Tensor, semantic_negatives: torch.Tensor, weight: float) -> torch.Tensor:
    """Mix the semantic negative into the item negative, at the item's length.

    Formula: ``e~ = a * h * ||e_j|| / ||h|| + (1 - a) * e_j``. Source: HNLMRec (arXiv 2504.04726), mixed negative.
    Departure: the paper adds h as it is; matching its length to e_j keeps ``a`` a share, where an unmatched h of greater
    length drowns the item (docs/method.md, section 5). ``||e_j||`` only sets a length and takes no gradient.

    Args:
        negatives: e_j, ``[M, d]``.
        semantic_negatives: h, ``[M, d]``.
        weight: a in [0, 1].
    """
    length = negatives.detach().norm(dim=1, keepdim=True)  # [M, 1]
    direction = semantic_negatives / semantic_negatives.norm(dim=1, keepdim=True).clamp_min(_TINY_NORM)  # [M, d]
    return weight * length * direction + (1.0 - weight) * negatives


def embedding_regularization(embeddings: tuple[torch.Tensor, ...], require_pow: bool) -> torch.Tensor:
    """L2 regularisation of the batch's ego embeddings, exactly as RecBole's ``EmbLoss``.

    Formula: ``1/B * sum_k ||E_k||`` by default; ``1/(2B) * sum_k ||E_k||^2`` with ``require_pow``, which is the form of the
    papers. Norms are Frobenius norms of whole ``[B, d]`` matrices.

    Args:
        embeddings: ego embeddings of users, positives, negatives, each ``[B, d]``.
        require_pow: whether to square.
    """
    batch = embeddings[-1].shape[0]
    if require_pow:
        return torch.stack([matrix.square().sum() for matrix in embeddings]).sum() / (2 * batch)
    return torch.stack([torch.linalg.vector_norm(matrix) for matrix in embeddings]).sum() / batch

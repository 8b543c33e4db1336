r"""HNLMLightGCN: LightGCN trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    Xiangnan He et al. "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation." in SIGIR 2020.
"""

from __future__ import annotations

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.mixin import HNLMMixin

__all__ = ["HNLMLightGCN"]


class HNLMLightGCN(HNLMMixin, LightGraphBackbone):
    """LightGCN trained by :class:`HNLMMixin`.

    With the semantic weights at 0 and ``negative_sampler: uniform`` its loss, gradients and scores are those of RecBole's
    LightGCN.
    """

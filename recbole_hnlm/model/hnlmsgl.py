r"""HNLMSGL: SGL trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    Jiancan Wu et al. "Self-supervised Graph Learning for Recommendation." in SIGIR 2021.
"""

from __future__ import annotations

from recbole_hnlm.model.mixin import HNLMMixin
from recbole_hnlm.model.sgl_backbone import SGLBackbone

__all__ = ["HNLMSGL"]


class HNLMSGL(HNLMMixin, SGLBackbone):
    """SGL trained by :class:`HNLMMixin`; with the semantic weights at 0 and uniform negatives its loss is SGL's."""

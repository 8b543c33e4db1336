r"""HNLMXSimGCL: XSimGCL trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    XSimGCL's own paper: see :mod:`recbole_hnlm.model.xsimgcl`.
"""

from __future__ import annotations

from recbole_hnlm.model.mixin import HNLMMixin
from recbole_hnlm.model.xsimgcl import XSimGCL

__all__ = ["HNLMXSimGCL"]


class HNLMXSimGCL(HNLMMixin, XSimGCL):
    """XSimGCL trained by :class:`HNLMMixin`; with the semantic weights at 0 and uniform negatives its loss is XSimGCL's."""

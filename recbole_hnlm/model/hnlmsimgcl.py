r"""HNLMSimGCL: SimGCL trained with the LLM's hard negatives.

Reference:
    Zhao et al. "Hard Negative Sampling via Large Language Models for Recommendation." arXiv 2504.04726.
    SimGCL's own paper: see :mod:`recbole_hnlm.model.simgcl`.
"""

from __future__ import annotations

from recbole_hnlm.model.mixin import HNLMMixin
from recbole_hnlm.model.simgcl import SimGCL

__all__ = ["HNLMSimGCL"]


class HNLMSimGCL(HNLMMixin, SimGCL):
    """SimGCL trained by :class:`HNLMMixin`; with the semantic weights at 0 and uniform negatives its loss is SimGCL's."""

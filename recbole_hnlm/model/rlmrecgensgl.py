"""RLMRecGenSGL: SGL (Wu et al., SIGIR 2021) made to predict profile vectors (RLMRec-Gen, WWW 2024)."""

from __future__ import annotations

from recbole_hnlm.model.rlmrec import RLMRecGenMixin
from recbole_hnlm.model.sgl_backbone import SGLBackbone

__all__ = ["RLMRecGenSGL"]


class RLMRecGenSGL(RLMRecGenMixin, SGLBackbone):
    """SGL with :class:`recbole_hnlm.model.rlmrec.RLMRecGenMixin`.

    With ``rlmrec_weight`` 0 and uniform negatives its loss is SGL's.
    """

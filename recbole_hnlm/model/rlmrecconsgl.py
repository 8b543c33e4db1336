"""RLMRecConSGL: SGL (Wu et al., SIGIR 2021) contrasted with profile vectors (RLMRec-Con, WWW 2024)."""

from __future__ import annotations

from recbole_hnlm.model.rlmrec import RLMRecConMixin
from recbole_hnlm.model.sgl_backbone import SGLBackbone

__all__ = ["RLMRecConSGL"]


class RLMRecConSGL(RLMRecConMixin, SGLBackbone):
    """SGL with :class:`recbole_hnlm.model.rlmrec.RLMRecConMixin`.

    With ``rlmrec_weight`` 0 and uniform negatives its loss is SGL's.
    """

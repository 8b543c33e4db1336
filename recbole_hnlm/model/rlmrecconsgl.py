"""RLMRecConSGL: SGL (Wu et al., SIGIR 2021) contrasted with profile vectors (RLMRec-Con, WWW 2024)."""

from __future__ import annotations

from recbole_hnlm.model.hnlmsgl import HNLMSGL
from recbole_hnlm.model.rlmrec import RLMRecConMixin

__all__ = ["RLMRecConSGL"]


class RLMRecConSGL(RLMRecConMixin, HNLMSGL):
    """SGL with :class:`recbole_hnlm.model.rlmrec.RLMRecConMixin`.

    With ``rlmrec_weight`` 0 and uniform negatives its loss is HNLMSGL's.

    SGL's part is that of HNLMSGL, whose semantic part is off.
    """

"""RLMRecGenSGL: SGL (Wu et al., SIGIR 2021) made to tell profile vectors (RLMRec-Gen, WWW 2024)."""

from __future__ import annotations

from recbole_hnlm.model.hnlmsgl import HNLMSGL
from recbole_hnlm.model.rlmrec import RLMRecGenMixin

__all__ = ["RLMRecGenSGL"]


class RLMRecGenSGL(RLMRecGenMixin, HNLMSGL):
    """SGL with :class:`recbole_hnlm.model.rlmrec.RLMRecGenMixin`.

    With ``rlmrec_weight`` 0 and uniform negatives its loss is HNLMSGL's.

    SGL's part is that of HNLMSGL, whose semantic part is off.
    """

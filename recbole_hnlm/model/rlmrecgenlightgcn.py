"""RLMRecGenLightGCN: LightGCN (He et al., SIGIR 2020) made to predict profile vectors (RLMRec-Gen, WWW 2024)."""

from __future__ import annotations

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.rlmrec import RLMRecGenMixin

__all__ = ["RLMRecGenLightGCN"]


class RLMRecGenLightGCN(RLMRecGenMixin, LightGraphBackbone):
    """LightGCN with :class:`recbole_hnlm.model.rlmrec.RLMRecGenMixin`.

    With ``rlmrec_weight`` 0 and uniform negatives its loss is LightGCN's.
    """

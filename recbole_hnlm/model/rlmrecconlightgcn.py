"""RLMRecConLightGCN: LightGCN (He et al., SIGIR 2020) contrasted with profile vectors (RLMRec-Con, WWW 2024)."""

from __future__ import annotations

from recbole_hnlm.model.graph_backbone import LightGraphBackbone
from recbole_hnlm.model.rlmrec import RLMRecConMixin

__all__ = ["RLMRecConLightGCN"]


class RLMRecConLightGCN(RLMRecConMixin, LightGraphBackbone):
    """LightGCN with :class:`recbole_hnlm.model.rlmrec.RLMRecConMixin`.

    With ``rlmrec_weight`` 0 and uniform negatives its loss is LightGCN's.
    """

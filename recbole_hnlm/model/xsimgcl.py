r"""XSimGCL: SimGCL with a single noisy propagation.

Reference:
    Junliang Yu et al. "XSimGCL: Towards Extremely Simple Graph Contrastive Learning for Recommendation." in TKDE 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.model.simgcl import SimGCL, batch_contrast
from recbole_hnlm.negative_sampler.hops import Propagated
from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["XSimGCL"]


class XSimGCL(SimGCL):
    """Rank and contrast by one noisy pass: the output against the layer ``contrast_layer`` (l*) of the same pass.

    Source: XSimGCL, section 4 (cross-layer contrast). Scoring is without noise. All parts of the loss are means.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        """Read the keys.

        Raises:
            ConfigError: ``contrast_layer`` is not the number of a layer.
        """
        super().__init__(config, dataset)
        self.contrast_layer = int(config["contrast_layer"])
        if not 1 <= self.contrast_layer <= self.n_layers:
            raise ConfigError(f"contrast_layer is {self.contrast_layer}, expected 1 to n_layers, {self.n_layers}")

    def training_propagation(self, with_hops: bool) -> Propagated:
        """Propagate with noise, and keep the layer that is contrasted."""
        users, items = self.noisy_hops()
        place = self.contrast_layer - 1
        return Propagated.of_hops(users, items, self.pooling, views=(users[place], items[place]))

    def auxiliary_terms(
        self, propagated: Propagated, users: torch.Tensor, positives: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the contrast of the output with the chosen layer."""
        sides = zip((propagated.user_all, propagated.item_all), propagated.views, (users, positives), strict=True)
        terms = [batch_contrast(output, layer, ids, self.ssl_tau) for output, layer, ids in sides]
        return {"ssl": self.ssl_weight * (terms[0] + terms[1])}

"""Names of the negative samplers and where each is defined.

Modules are imported when a sampler is asked for: the settings check names against this table, and reading settings should
load neither torch nor numba.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from recbole_hnlm.errors import ConfigError

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import NegativeSampler

__all__ = ["MODULES", "get_negative_sampler", "negative_sampler_names"]

MODULES = {
    "uniform": "recbole_hnlm.negative_sampler.uniform",
    "popularity": "recbole_hnlm.negative_sampler.popularity",
    "dns": "recbole_hnlm.negative_sampler.dns",
}


def negative_sampler_names() -> tuple[str, ...]:
    """Return the values that the key ``negative_sampler`` may take."""
    return tuple(MODULES)


def get_negative_sampler(name: str) -> NegativeSampler:
    """Return the sampler of that name.

    Raises:
        ConfigError: if there is none; the message names the nearest one.
    """
    if name not in MODULES:
        nearest = difflib.get_close_matches(name, MODULES, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"negative_sampler {name!r} is unknown, expected one of {', '.join(MODULES)}; did you mean {nearest!r}?"
        )
    return importlib.import_module(MODULES[name]).SAMPLER

"""Names of the negative samplers and where each is defined.

Modules are imported when a sampler is asked for: the settings check names against this table, and reading settings should
load neither torch nor numba.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, NamedTuple

from recbole_hnlm.errors import ConfigError

if TYPE_CHECKING:
    from recbole_hnlm.negative_sampler.base import NegativeSampler

__all__ = ["MODULES", "Registration", "get_negative_sampler", "negative_sampler_names"]


class Registration(NamedTuple):
    """Where a sampler is, and what the settings have to know of it before it is imported.

    Attributes:
        module: name of the file in this package, which defines ``SAMPLER``.
        least_candidates: smallest ``num_candidates`` with which it chooses anything.
        reads_text: whether it reads text vectors of users and items, so that they are to be built.
    """

    module: str
    least_candidates: int = 1
    reads_text: bool = False


MODULES = {
    "uniform": Registration("uniform"),
    "popularity": Registration("popularity"),
    "dns": Registration("dns", least_candidates=2),
    "dns_mn": Registration("dns_mn", least_candidates=2),
    "mixgcf": Registration("mixgcf"),
    "ahns": Registration("ahns", least_candidates=2),
    "dens": Registration("dens"),
    "srns": Registration("srns", least_candidates=2),
    "in_batch": Registration("in_batch"),
    "semantic_guard": Registration("semantic_guard", least_candidates=2, reads_text=True),
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
    return importlib.import_module(f"recbole_hnlm.negative_sampler.{MODULES[name].module}").SAMPLER

"""Negative samplers: how the plain negative item of a positive is chosen.

A sampler is one file in this package that defines ``SAMPLER``, and one line in
:data:`recbole_hnlm.negative_sampler.registry.MODULES`.
"""

from __future__ import annotations

from recbole_hnlm.negative_sampler.registry import get_negative_sampler, negative_sampler_names

__all__ = ["get_negative_sampler", "negative_sampler_names"]

"""RecBole's configuration made strict, our keys by concern, and the checks that run before any work."""

from __future__ import annotations

from recbole_hnlm.config.configurator import Config

__all__ = ["Config"]

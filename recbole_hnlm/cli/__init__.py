"""The command line: ``recbole-hnlm <verb>`` and ``run_recbole_hnlm.py``."""

from __future__ import annotations

from recbole_hnlm.cli.entry import main, run_script

__all__ = ["main", "run_script"]

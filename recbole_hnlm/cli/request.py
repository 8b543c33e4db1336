"""From parsed options to a run's configuration and data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.cli.common import config_files
from recbole_hnlm.data.loading import load_data
from recbole_hnlm.quick_start.launch import RunRequest
from recbole_hnlm.quick_start.runner import prepare_run
from recbole_hnlm.semantics.attach import stage_context_of
from recbole_hnlm.utils.values import load_yaml

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from recbole_hnlm.config import Config
    from recbole_hnlm.data.loading import LoadedData
    from recbole_hnlm.stages.context import StageContext

__all__ = ["request_of", "stage_context"]

_STAGE_MODEL = "HNLMLightGCN"


def request_of(args: argparse.Namespace, rest: Sequence[str]) -> RunRequest:
    """Return the run that the configuration options and the keys ask for."""
    return RunRequest(model=args.model, dataset=args.dataset, config_files=config_files(args.config_files), argv=tuple(rest))


def stage_context(args: argparse.Namespace, rest: Sequence[str]) -> tuple[Config, StageContext, LoadedData]:
    """Load and split the data as a run would; returns the configuration, what the LLM stages see of it, and the splits.

    The model is HNLMLightGCN where neither the options nor the files name one.
    """
    if args.model is None and not any("model" in load_yaml(file) for file in config_files(args.config_files)):
        args.model = _STAGE_MODEL
    config = request_of(args, rest).config()
    prepare_run(config)
    data = load_data(config)
    return config, stage_context_of(config, data.train._dataset), data

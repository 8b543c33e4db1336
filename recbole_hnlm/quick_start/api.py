"""RecBole's quick start, under its own names, for notebooks, scripts and test suites.

Nothing here reads ``sys.argv``, and every call leaves the process as it found it
(:func:`recbole_hnlm.quick_start.caller_state.caller_state_kept`), so that several runs of one process share neither log files
nor random numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_hnlm.config import Config
from recbole_hnlm.quick_start.caller_state import caller_state_kept
from recbole_hnlm.quick_start.loaded import LoadedModel
from recbole_hnlm.quick_start.runner import load_checkpoint, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["load_data_and_model", "objective_function", "run_recbole_hnlm"]


def run_recbole_hnlm(
    model: str | type[Any] | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train and evaluate one model, as RecBole's ``run_recbole`` does.

    Args:
        model: name, ``package.module:Class`` or class; None takes the key ``model``.
        dataset: name of the dataset; None takes the key ``dataset``.
        config_file_list: YAML files, the later ones win.
        config_dict: keys and values; they win over those of files.
        saved: keep checkpoints and test the best epoch; otherwise test the last one.

    Returns:
        What ``run_recbole`` returns: ``best_valid_score`` (None without validation), ``valid_score_bigger``,
        ``best_valid_result`` and ``test_result``. In addition: ``model``, ``dataset``, ``run_id``, ``checkpoint`` (path, or
        None where none was kept), ``results`` (path of the results file, which holds all that is known of the run),
        ``log_file``, ``epochs``, ``best_epoch`` (from 0) and ``seconds`` per stage.

    Raises:
        HNLMError: anything the user can fix, in one line.
    """
    with caller_state_kept():
        config = Config(model, dataset, config_file_list, config_dict)
        result = run(config, saved=saved)
    names = ("model", "dataset", "run_id", "checkpoint", "log_file", "epochs", "best_epoch", "seconds")
    return {
        "best_valid_score": result.best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": result.best_valid_result,
        "test_result": result.test_result,
        "results": str(result.path),
        **{name: result.record[name] for name in names},
    }


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train and evaluate one model for RecBole's ``HyperTuning``, which chooses by ``best_valid_score``.

    ``test_result`` is there because ``HyperTuning`` prints it for every trial. Do not choose by it: the objective of our own
    tuning, :func:`recbole_hnlm.quick_start.runner.train_and_validate`, never computes it.

    Args:
        config_dict: keys and values of the trial, also as NumPy numbers.
        config_file_list: YAML files with the other keys; they, or ``config_dict``, name the model and the dataset.
        saved: keep checkpoints and test the best epoch; otherwise test the last one.

    Returns:
        RecBole's keys: ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``.

    Raises:
        HNLMError: anything the user can fix, in one line.
    """
    result = run_recbole_hnlm(config_file_list=config_file_list, config_dict=config_dict, saved=saved)
    return {
        name: result[name] for name in ("model", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
    }


def load_data_and_model(
    checkpoint: str | Path,
    config_dict: Mapping[str, Any] | None = None,
    *,
    model: str | type[Any] | None = None,
) -> LoadedModel:
    """Load a checkpoint with the data that it was trained on, as RecBole's ``load_data_and_model`` does.

    Args:
        checkpoint: a file that recbole-hnlm wrote.
        config_dict: keys that replace the checkpoint's, and those that a checkpoint does not hold: places such as
            ``data_path``, and devices.
        model: class, or ``package.module:Class``, of a model that is neither built in nor installed as an entry point.

    Returns:
        What RecBole returns, ``(config, model, dataset, train_data, valid_data, test_data)``, the model in evaluation mode.

    Raises:
        HNLMError: the file is missing, damaged or foreign, or does not fit the data.
    """
    with caller_state_kept():
        return LoadedModel(*load_checkpoint(checkpoint, config_dict, model=model))

"""Other models whose scores a run adds to its own (``fuse_with``): trained first where they are named, and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config import Config
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.model.fused_ranking import Part
from recbole_hnlm.trainer.checkpoint import read_checkpoint
from recbole_hnlm.trainer.checkpoint_checks import SEAL
from recbole_hnlm.utils.errors import ArtifactError, ConfigError
from recbole_hnlm.utils.registry import get_model_class, is_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load_parts", "train_parts"]

# What belongs to the fusion, not to its parts, and what names one run's files.
_NOT_OF_PARTS = frozenset({
    *("fuse_with", "fuse_weight", "text_score", "text_score_weight", "text_score_source", "text_kernel_temperature"),
    *("text_metric", "model", "dataset", "resume"),
})  # fmt: skip
# Where a part is loaded: its checkpoint may say nothing of these.
_OF_MACHINE = ("data_path", "artifact_dir", "text_encoder", "llm_backend", "llm_model", "llm_base_url", "use_gpu", "gpu_id")


def train_parts(config: Config, run: Callable[[Config], Any]) -> None:
    """Train the models that ``fuse_with`` names, each as a run of its own, and put their checkpoints in their places.

    They take the keys that this run was given, as far as they read them.

    Raises:
        ConfigError: this process is one of several, or a key does not suit a part.
    """
    entries: list[str] = []
    for entry in config.settings.fuse_with or ():
        if is_checkpoint(entry):
            entries.append(entry)
            continue
        if not config["single_spec"]:
            raise ConfigError(
                f"fuse_with {entry}: a model that is named is trained first, which several processes cannot do; train it alone "
                "and give its checkpoint"
            )
        own = {key: value for key, value in config.given_for(get_model_class(entry)).items() if key not in _NOT_OF_PARTS}
        places = {key: config[key] for key in ("checkpoint_dir", "results_dir", "log_dir", "show_progress")}
        part = Config(entry, config["dataset"], config_dict={**own, **places}, strict=False)
        entries.append(str(run(part).record["checkpoint"]))
    if entries != list(config.settings.fuse_with or ()):
        config.resolve("fuse_with", entries)


def load_parts(config: Config, train_data: Any, load: Callable[..., Any]) -> list[Part]:
    """Load the models that ``fuse_with`` lists.

    Args:
        config: of the run.
        train_data: loader of its training split.
        load: :func:`recbole_hnlm.quick_start.runner.load_checkpoint`.

    Raises:
        ArtifactError: a checkpoint is missing or damaged, or of another split, which may have seen what is held out here.
    """
    parts = []
    for path in config.settings.fuse_with or ():
        checkpoint = read_checkpoint(path)
        machine = {key: config.external_config_dict[key] for key in _OF_MACHINE if key in config.external_config_dict}
        _, model, _, part_data, *_ = load(path, {**machine, "fuse_with": []})
        own, theirs = (TrainingInteractions.from_dataset(data._dataset).split_fingerprint for data in (train_data, part_data))
        if own != theirs:
            raise ArtifactError(
                f"fuse_with {path} was trained on another split of {config['dataset']} (other seed, filters, eval_args or "
                "files), so that it may have learned from what is held out here: train both with the same --split_seed"
            )
        parts.append(Part(model, str(Path(path)), str(checkpoint[SEAL])))
    return parts

"""One run of a table, and the id that its settings give it, by which a finished one is found on another machine too."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.checks import LAUNCHER_KEYS
from recbole_hnlm.config.settings import setting_names
from recbole_hnlm.experiments.methods import Method
from recbole_hnlm.utils.values import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.config import Config

__all__ = ["Cell", "cell_id"]

# Where things are, what they run on and what is shown: no part of what a cell computes.
_NOT_IDENTITY = LAUNCHER_KEYS | {
    *("artifact_dir", "results_dir", "log_dir", "checkpoint_dir", "data_path", "resume", "run_id"),
    *("gpu_id", "use_gpu", "device", "single_spec", "worker", "show_progress", "state", "verbose", "log_wandb"),
    *("wandb_project", "eval_users_per_batch", "config_files", "eval_batch_size", "llm_api_key_env", "llm_timeout"),
    *("llm_concurrency", "llm_max_retries", "llm_batch_size", "encoder_batch_size", "seed", "split_seed"),
}

# Keys that nothing reads in a run without vectors: changing them leaves the baselines' cells as they are.
_SEMANTIC = re.compile(
    r"(llm|profile|tuned?|lora|teacher|contrast|alignment|adapter|guard|text|encoder|reasoning|semantic)_"
    r"|(title|categories|city|description|review)_(field|max_chars)$|mix_weight$|max_missing_share$"
    r"|negative_(max_words|temperature)$"
)


@dataclass(frozen=True)
class Cell:
    """One run: a method with a seed.

    Attributes:
        id: safe as a file name; ends with a digest of the settings.
        method: its row.
        seed: of everything but the split.
        split_seed: of the split.
        keys: the command line's keys for this model, the method's, and both seeds.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
    """

    id: str
    method: Method
    seed: int
    split_seed: int
    keys: dict[str, Any]
    dataset: str | None
    config_files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cell:
        """Undo :meth:`to_json`."""
        return cls(**{**values, "method": Method(**values["method"]), "config_files": tuple(values["config_files"])})


def cell_id(config: Config, method: Method, seed: int, split_seed: int) -> str:
    """Return ``<model>-<sampler>-s<seed>-<digest of every setting that the result depends on>``.

    Folders, devices and what is shown are left out, so that a cell of another machine fits, and our keys where nothing in the
    run reads them: another LLM leaves the baselines as they are.
    """
    keys = {key: value for key, value in config.final_config_dict.items() if key not in _NOT_IDENTITY}
    keys = {key: value for key, value in keys.items() if key not in _unread(config)}
    content = {**plain(keys), "model": method.runs, "seed": seed, "split_seed": split_seed}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    name = "-".join(part for part in (method.model, method.sampler, f"s{seed}") if part)
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}-{digest}"


def _unread(config: Config) -> set[str]:
    """Return our keys that a run does not depend on: all of them for RecBole's own models."""
    if not getattr(config.model_class, "uses_hnlm_data", False):
        return set(setting_names())
    return set() if config.settings.uses_semantics else {key for key in setting_names() if _SEMANTIC.match(key)}

"""The id that a cell's settings give it, so that a finished cell is found again, on another machine too."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from recbole_hnlm.config_checks import LAUNCHER_KEYS
from recbole_hnlm.settings import setting_names
from recbole_hnlm.values import plain

if TYPE_CHECKING:
    from recbole_hnlm.compare.methods import Method
    from recbole_hnlm.config import Config

__all__ = ["cell_id"]

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

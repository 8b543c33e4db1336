"""One run of a table, and the id that its settings give it, by which a finished run is found, on another machine too."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recbole_hnlm.config.checks import LAUNCHER_KEYS
from recbole_hnlm.config.facts import Affects
from recbole_hnlm.config.reading import read_keys
from recbole_hnlm.config.settings import keys_affecting, setting_names
from recbole_hnlm.experiments.methods import Method
from recbole_hnlm.utils.environment import source_digest
from recbole_hnlm.utils.values import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbole_hnlm.config import Config

__all__ = ["SEMANTIC_ROOMS", "TRAINING_ROOMS", "Cell", "cell_id", "code_digest", "safe_name", "settings_that_count"]

# RecBole's keys that say where things are, what they run on and what is shown: no part of what a cell computes. Of ours, the
# fields say it themselves.
_RECBOLES_WITHOUT_EFFECT = LAUNCHER_KEYS | {
    *("checkpoint_dir", "data_path", "run_id", "gpu_id", "use_gpu", "device", "single_spec", "worker", "show_progress"),
    *("state", "verbose", "log_wandb", "wandb_project", "config_files", "eval_batch_size", "seed"),
}

# The source that can change a cell's numbers: that of every run, and that of runs which read vectors. Verbs, costs, tables and
# the preparation of datasets cannot, so that editing them leaves finished cells valid.
TRAINING_ROOMS = ("config", "data", "evaluator", "model", "negative_sampler", "quick_start", "trainer", "utils")
SEMANTIC_ROOMS = ("finetune", "llm", "semantics", "stages")


@dataclass(frozen=True)
class Cell:
    """One run: a method with a seed.

    Attributes:
        id: safe as a file name; ends with a digest of the settings and one of the code.
        method: its row.
        seed: of everything but the split.
        split_seed: of the split.
        keys: the command line's keys for this model, the method's, and both seeds.
        dataset: name of the dataset; None takes it from the files.
        config_files: YAML files.
        code: the digest of the code in ``id``; empty where it is not known.
        show_progress: whether the comparison shows its progress bar.
    """

    id: str
    method: Method
    seed: int
    split_seed: int
    keys: dict[str, Any]
    dataset: str | None
    config_files: tuple[str, ...]
    code: str = ""
    show_progress: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cell:
        """Undo :meth:`to_json`."""
        return cls(**{**values, "method": Method(**values["method"]), "config_files": tuple(values["config_files"])})


def cell_id(config: Config, method: Method, seed: int, split_seed: int) -> str:
    """Return ``<model>-<sampler>-s<seed>-<digest of every setting that the result depends on>-<digest of the code>``."""
    content = {**settings_that_count(config), "model": method.runs, "seed": seed, "split_seed": split_seed}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    name = "-".join(part for part in (method.model, method.sampler, f"s{seed}") if part)
    return f"{safe_name(name)}-{digest}-{code_digest(config)}"


def safe_name(text: str) -> str:
    """Return a text as a file name: other characters than letters, digits, ``_`` and ``-`` become ``_``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def settings_that_count(config: Config) -> dict[str, Any]:
    """Return the keys that a run's numbers depend on, but for its seeds, as plain values.

    Folders, devices and what is shown are left out, so that a run of another machine fits, and our keys where nothing in the
    run reads them: another LLM leaves the baselines as they are.
    """
    left_out = _RECBOLES_WITHOUT_EFFECT | {*setting_names()} - read_keys(config.model_class, config.settings).keys()
    left_out |= {*keys_affecting(Affects.SPLIT)}
    keys: dict[str, Any] = plain({key: value for key, value in config.final_config_dict.items() if key not in left_out})
    return keys


def code_digest(config: Config) -> str:
    """Return 12 hex digits over the source that a run executes; that of the LLM stages counts where the run reads vectors."""
    settings = config.settings
    reads = getattr(config.model_class, "uses_hnlm_data", False) or settings.model_reads_texts or settings.ranks_with_texts
    uses = settings.uses_semantics and reads
    return source_digest((*TRAINING_ROOMS, *SEMANTIC_ROOMS) if uses else TRAINING_ROOMS)

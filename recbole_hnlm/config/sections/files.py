"""Where a run reads from and writes to, and what decides its split."""

from __future__ import annotations

from recbole_hnlm.config.facts import Affects, Reader, key
from recbole_hnlm.config.sections.base import Section, Seed

__all__ = ["DataKeys", "FileKeys"]


class FileKeys(Section):
    """Folders and the checkpoint to go on from."""

    artifact_dir: str = key(
        "artifacts",
        Affects.NOTHING,
        Reader.EVERY_RUN,
        place=True,
        description="Folder of LLM replies, profiles, negatives and vectors.",
    )
    results_dir: str = key(
        "results", Affects.NOTHING, Reader.EVERY_RUN, place=True, description="Folder of the JSON file that every run writes."
    )
    log_dir: str = key(
        "log", Affects.NOTHING, Reader.EVERY_RUN, place=True, description="Folder of the log files, one file per run."
    )
    resume: str | None = key(
        None,
        Affects.NOTHING,
        Reader.EVERY_RUN,
        place=True,
        description="Checkpoint (<run_id>.last.pth) from which training continues.",
    )


class DataKeys(Section):
    """The split."""

    split_seed: Seed | None = key(
        None, Affects.SPLIT, Reader.EVERY_RUN, description="Seed of the split alone; null splits by seed, as RecBole does."
    )

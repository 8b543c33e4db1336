"""Several runs analysed with the same groups, and the files of each and of all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from recbole_hnlm.experiments.analysis.build import SCHEMA, VERSION, analyse
from recbole_hnlm.experiments.analysis.files import write_analysis, write_tables
from recbole_hnlm.experiments.analysis.pictures import draw_pictures
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recbole_hnlm.experiments.analysis.build import AnalysisOptions
    from recbole_hnlm.experiments.analysis.sources import Source

__all__ = ["analyse_all"]


def analyse_all(
    sources: Sequence[Source], options: AnalysisOptions, argv: tuple[str, ...], folder: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Analyse runs of one dataset; write ``<run_id>/analysis.json`` with tables and pictures of each, and those of all.

    Quantile groups of users are those of the first run that has lists, so that all runs have the same groups.

    Args:
        sources: at least one.
        options: of every analysis.
        argv: keys that replace the runs'.
        folder: where the files go.
        say: prints a line.

    Returns:
        The analyses, in the order of the sources.

    Raises:
        HNLMError: as :func:`recbole_hnlm.experiments.analysis.build.analyse`; runs of several datasets, or one given twice.
    """
    _check_comparable(sources)
    analyses = []
    shown = len(sources) > 1 and all(source.record["config"].get("show_progress", True) for source in sources)
    for source in tqdm(sources, desc="analyses", unit="run", dynamic_ncols=True, disable=not shown):
        analysis = analyse(source, options, argv)
        if analysis["groups"] is not None:
            options = replace(options, user_groups=tuple(analysis["groups"]["users"]["edges"]))
        analyses.append(analysis)
        own = folder / source.run_id
        path = write_analysis(analysis, own)
        write_tables([analysis], own)
        draw_pictures([analysis], own)
        for reason, sections in _by_reason(analysis["missing"]).items():
            say(f"{source.run_id}: no {', '.join(sections)}: {reason}")
        if len(sources) == 1:
            say(f"analysis: {path}")
    if len(sources) > 1:
        write_tables(analyses, folder)
        draw_pictures(analyses, folder)
        runs = [{"run_id": each["run_id"], "label": each["label"], "seed": each["seed"]} for each in analyses]
        write_json(folder / "analyses.json", {"schema": f"{SCHEMA}-index", "version": VERSION, "runs": runs})
        say(f"analyses: {folder / 'analyses.json'} ({len(analyses)} runs)")
    return analyses


def _by_reason(missing: dict[str, str]) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for section, reason in missing.items():
        sections.setdefault(reason, []).append(section)
    return sections


def _check_comparable(sources: Sequence[Source]) -> None:
    datasets = sorted({str(source.record["dataset"]) for source in sources})
    if len(datasets) > 1:
        raise ConfigError(f"the runs are of {len(datasets)} datasets ({', '.join(datasets)}): analyse those of one at a time")
    names = [source.run_id for source in sources]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"run {doubled[0]} is given twice")

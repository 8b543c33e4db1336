"""The verb ``recbole-hnlm compare``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, get_args

from recbole_hnlm.cli.common import KEYS_HELP, add_report_option, config_files, say
from recbole_hnlm.cli.report import say_report
from recbole_hnlm.experiments.jobs import run_cells, share_of
from recbole_hnlm.experiments.methods import read_rows
from recbole_hnlm.experiments.picture import draw_table
from recbole_hnlm.experiments.plan import PlanRequest, make_plan
from recbole_hnlm.experiments.search_plan import Algorithm, PrunerName
from recbole_hnlm.experiments.store import is_finished, of_other_code, read_cell
from recbole_hnlm.experiments.summary import summarise
from recbole_hnlm.experiments.tables import csv_table, latex_table, markdown_table
from recbole_hnlm.experiments.tune import SearchOptions
from recbole_hnlm.experiments.tuning import tune_rows
from recbole_hnlm.utils.errors import ConfigError
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.given_paths import output_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from recbole_hnlm.experiments.cells import Cell
    from recbole_hnlm.experiments.tuning import Tuned

__all__ = ["EXAMPLES", "NOTES", "add_options", "run"]

NOTES = KEYS_HELP
EXAMPLES = """examples:
  %(prog)s --dataset=ml-100k --models=BPR,LightGCN,HNLMLightGCN --negative_samplers=uniform,dns,mixgcf \\
      --seeds=5 --out=comparison
  %(prog)s --dataset=ml-100k --models=LightGCN,NeuMF --negative_samplers=dns --seeds=1,2,3 --out=comparison \\
      --epochs=50 --LightGCN.n_layers=3
  %(prog)s --dataset=ml-100k --models=LightGCN,HNLMLightGCN --negative_samplers=dns,ahns --out=comparison \\
      --grid learning_rate=0.001,0.002,0.005 --grid ahns.ahns_beta=1,10
  %(prog)s --dataset=ml-100k --models=LightGCN,HNLMLightGCN --negative_samplers=dns --out=comparison \\
      --tune=shipped --trials=30 --jobs=2
  %(prog)s --dataset=ml-100k --models=LightGCN:dns --rows=ablation.yaml --seeds=3 --out=comparison
A plain name is that backbone with the sampler and without an LLM; HNLM<Name> is the same with the semantic part. Run the same
command again to continue: finished cells are reused, changed settings make new ones."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "--models",
        default="",
        metavar="NAMES",
        help="names of models, separated by commas; NAME:SAMPLER for one sampler only",
    )
    parser.add_argument("--negative_samplers", default="uniform", metavar="NAMES", help="names of samplers (default uniform)")
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="FILES",
        help="YAML files of rows with names: NAME: {model: M, negative_sampler: S, KEY: VALUE, ...}",
    )
    parser.add_argument("--seeds", default="5", metavar="N|LIST", help="seeds from the key seed on, or a list (default 5)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the cells and of the tables")
    parser.add_argument("--dataset", help="name of the dataset; `dataset:` in YAML works too")
    parser.add_argument("--config_files", action="append", default=[], metavar="FILES", help="YAML files for every cell")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="[NAME.]KEY=V1,V2",
        help="tune every row (of that model or sampler) on validation with the first seed; may be repeated",
    )
    parser.add_argument(
        "--tune",
        metavar="FILE|shipped",
        help="tune every row by --trials over a file in RecBole's hyper.test format, or its model's shipped space",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="with --tune: trials of each row (default 50)")
    parser.add_argument("--algo", choices=get_args(Algorithm), help="with --tune: how points are chosen (default tpe)")
    parser.add_argument(
        "--pruner",
        choices=get_args(PrunerName),
        help="with --tune or --grid: how trials are ended early (default median; none)",
    )
    parser.add_argument("--allow_llm_keys", action="store_true", help="tune keys that ask the LLM again at every value")
    parser.add_argument("--vary_split", action="store_true", help="let every seed have its own split of the data")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells that run at once (default 1)")
    add_report_option(parser, "FOLDER/report.html")
    parser.add_argument("--only", metavar="I/N", help="run the I-th of N shares, to run the others elsewhere")


def _search_options(args: argparse.Namespace) -> SearchOptions:
    """Return how rows are tuned: every point of a grid to its end, or the budget that the options name for each row's space."""
    if args.tune is None and not args.grid:
        taken = [name for name in ("trials", "algo", "pruner") if getattr(args, name) is not None]
        if taken:
            raise ConfigError(f"--{taken[0]} says how rows are tuned, and none is: add --tune=shipped or --tune=FILE")
    if not args.grid:
        return SearchOptions(args.trials, args.algo or "tpe", args.pruner or "median", args.jobs)
    taken = [name for name in ("tune", "trials", "algo") if getattr(args, name) is not None]
    if taken:
        raise ConfigError(f"--{taken[0]} does not go with --grid, of which every point is tried: use --tune=FILE for a budget")
    return SearchOptions(None, "exhaustive", args.pruner or "none", args.jobs)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.strip("[] ").split(",") if part.strip())


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Plan, run what is not finished, write the tables.

    Returns:
        0, or 1 where cells failed; they are listed on standard error.

    Raises:
        HNLMError: anything the user can fix before cells are run.
    """
    if args.jobs < 1:
        raise ConfigError(f"jobs: expected at least 1, got {args.jobs}")
    if not (args.models or args.rows):
        raise ConfigError("compare needs rows: --models=NAMES, --rows=FILE, or both")
    folder = output_folder(args.out, "--out")
    request = PlanRequest(
        models=_names(args.models),
        samplers=_names(args.negative_samplers),
        seeds=args.seeds,
        vary_split=args.vary_split,
        dataset=args.dataset,
        config_files=config_files(args.config_files),
        argv=tuple(rest),
        grid=tuple(args.grid),
        tune=args.tune,
        allow_llm_keys=args.allow_llm_keys,
        rows=read_rows(config_files(args.rows)),
    )
    failures: dict[str, str] = {}

    def run_missing(cells: Sequence[Cell], what: str) -> None:
        waiting = [cell for cell in cells if not is_finished(folder, cell)]
        other = of_other_code(folder, waiting)
        say(f"{what}{len(cells)} in this share, {len(cells) - len(waiting)} reused, {len(waiting)} to run")
        if other:
            say(f"{len(other)} not reused, trained by another state of the code: {', '.join(other)} in {folder / 'cells'}")
        if waiting:
            failures.update(run_cells(folder, waiting, args.jobs, len(cells) - len(waiting)))

    options, tuned = _search_options(args), None
    if request.grid or request.tune is not None:
        tuned, untuned = tune_rows(folder, request, args.only, options, say)
        failures.update(untuned)
    plan = make_plan(request, tuned.points if tuned else None)
    # With tuning, whole rows are shared out: the share that tunes a row knows its point.
    mine = [cell for cell in plan if cell.method.label in tuned.mine] if tuned else share_of(plan, args.only)
    without = sorted({cell.method.model for cell in plan if cell.method.sampler is None})
    if without:
        say(f"without a negative sampler, one row each: {', '.join(without)}")
    run_missing(mine, f"{len(plan)} cells in all, ")
    has_table = _write_tables(folder, plan, failures, tuned, args.command)
    if args.report is not None and has_table:
        say_report(folder, args.report or folder / "report.html", rest, request.config_files)
    if failures:
        lines = [f"{len(failures)} cells or rows failed; run the same command again for them alone"]
        lines += [f"  {identity}: {reason}" for identity, reason in failures.items()]
        sys.stderr.write("\n".join(lines) + "\n")
    return 1 if failures else 0


def _write_tables(folder: Path, plan: Sequence[Cell], failures: dict[str, str], tuned: Tuned | None, command: str) -> bool:
    finished = [read_cell(folder, cell) for cell in plan if is_finished(folder, cell)]
    missing = [cell.id for cell in plan if not is_finished(folder, cell)]
    notes = [f"{len(missing)} of {len(plan)} cells are missing: failed, or not run yet."] if missing else []
    notes += tuned.notes(finished[0].record) if tuned and finished else []
    table = summarise(finished, notes, tuned.chosen() if tuned else None) if finished else None
    results: dict[str, Any] = {
        "command": command,
        "cells": [cell.id for cell in plan],
        "labels": {cell.id: cell.method.label for cell in plan},
        "missing": missing,
        "failures": failures,
        "grid": tuned.to_json() if tuned else None,
        "table": table.to_json() if table else None,
    }
    texts = {"results.json": json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"}
    if table is not None:
        texts |= {"table.md": markdown_table(table), "table.csv": csv_table(table), "table.tex": latex_table(table)}
    for name, text in texts.items():
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    if table is not None:
        draw_table(table, folder / "table.png")
        say(texts["table.md"])
        say(f"results: {folder / 'results.json'}, table.md, table.csv, table.tex, table.png")
    return table is not None

"""The record and the picture of an evaluated fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_hnlm.finetune.added_value import measure_added_value
from recbole_hnlm.utils.environment import package_versions, peak_rss_bytes
from recbole_hnlm.utils.files import replacing
from recbole_hnlm.utils.results import RunResult, write_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from recbole_hnlm.finetune.run import FinetunedLLM

__all__ = ["draw_curve", "evaluate_finetuning", "summary_table"]

_ROWS = ("random", "popularity", "llm", "before", "unrotated", "after", "teacher")
_COLUMNS = ("recall@10", "recall@50", "mrr", "cos_pos", "cos_neg")


def evaluate_finetuning(
    finetuned: FinetunedLLM,
    run_id: str,
    results_dir: str,
    config: Mapping[str, Any],
    *,
    validation: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    every: int = 25,
) -> RunResult:
    """Measure the LLM before and after fine-tuning on the held-out users; write ``<run_id>.json`` and ``<run_id>.png``.

    Fine-tunes first where that was not done, with an evaluation every ``every`` steps for the curve. ``llm`` is the unmodified
    LLM, which reads text alone; ``before`` adds the projections as they start. An adapter that was
    fine-tuned on another dataset (``finetune_from``) is measured as it is: the curve then has only its two ends, and
    ``unrotated`` is the same adapter without turning this dataset's teacher into its space.

    Args:
        finetuned: the fine-tuned LLM of a split.
        run_id: stem of the files.
        results_dir: their folder.
        config: kept in the record.
        validation: internal user and item ids of the validation split, int64 ``[V]`` each, to tell what the LLM's scores, and
            those of texts alone, add to the teacher's (``added_value``); None leaves that out.
        every: steps between evaluations.

    Raises:
        HNLMError: see :meth:`FinetunedLLM.ensure`; ConfigError without held-out users.
    """
    heldout = finetuned.heldout
    manifest = finetuned.ensure(evaluate_every=every, show_progress=finetuned.context.show_progress)
    alone = finetuned.evaluate_llm_alone()
    before = finetuned.evaluate(finetuned.untuned())
    encoder = finetuned.encoder()
    after = finetuned.evaluate(encoder)
    added = None if validation is None else measure_added_value(finetuned, encoder, validation)
    # What follows may load another LLM.
    del encoder
    picture = Path(results_dir) / f"{run_id}.png"
    origin = finetuned.provenance()
    between = [] if origin else manifest["recall"]
    curve = [{"step": 0, **before}, *between, {"step": manifest["steps"], **after}]
    record = {
        "run_id": run_id,
        "dataset": finetuned.context.dataset_name,
        **origin,
        "llm": alone,
        "before": before,
        **finetuned.controls(),
        "after": after,
        **finetuned.baselines(),
        "added_value": added,
        "heldout_users": len(heldout.users),
        "curve": curve,
        "loss": manifest["loss"],
        "steps": manifest["steps"],
        "seconds": manifest["seconds"],
        "truncated": manifest["truncated"],
        "adapter": str(finetuned.folder),
        "picture": str(picture),
        "peak_rss_bytes": peak_rss_bytes(),
        "versions": package_versions(),
        "config": dict(config),
    }
    draw_curve(record, picture)
    return write_result(results_dir, record)


def draw_curve(record: Mapping[str, Any], path: Path) -> None:
    """Draw the fine-tuning loss, and recall@50 over steps, with random, popularity, the unmodified LLM and the teacher.

    Raises:
        ArtifactError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 -- only this picture needs it

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([entry["step"] for entry in record["loss"]], [entry["loss"] for entry in record["loss"]], marker=".")
    source = record.get("transferred_from", record)["dataset"]
    left.set(title=f"Fine-tuning loss, {source}", xlabel="step", ylabel="loss (mean of 10 steps)")
    right.plot(
        [entry["step"] for entry in record["curve"]],
        [entry["recall@50"] for entry in record["curve"]],
        marker=".",
        label="z_ui",
    )
    lines = {"teacher": "--", "popularity": "-.", "llm": (0, (5, 5)), "random": ":"}
    for name, style in lines.items():
        label = "unmodified LLM" if name == "llm" else name
        right.axhline(record[name]["recall@50"], linestyle=style, color="grey", label=label)
    right.set(title=f"Held-out users, {record['dataset']}", xlabel="step", ylabel="recall@50 of the hard negative", ylim=(0, 1))
    right.legend(fontsize="small", ncols=3, loc="upper center")
    for axis in (left, right):
        axis.set_xlim(left=0)
        axis.grid(visible=True, alpha=0.3)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def summary_table(record: Mapping[str, Any]) -> str:
    """Return the metrics as a table for the terminal."""
    lines = [f"{'':<12}" + "".join(f"{name:>11}" for name in _COLUMNS)]
    if "transferred_from" in record:
        source = record["transferred_from"]["dataset"]
        lines.insert(0, f"nothing was fine-tuned on {record['dataset']}: 'after' is the LLM fine-tuned on {source}")
    for row in (name for name in _ROWS if name in record):
        cells = (f"{record[row][name]:>11.3f}" if name in record[row] else f"{'':>11}" for name in _COLUMNS)
        lines.append(f"{row:<12}" + "".join(cells))
    lines += [_added_value_line(name, added) for name, added in (record.get("added_value") or {}).items() if added]
    return "\n".join(lines)


def _added_value_line(name: str, added: Mapping[str, Any]) -> str:
    source = {"llm": "LLM", "text": "text encoder"}[name]
    weights = " and ".join(f"{weight:g}" for weight in added["weights"])
    p_values = f"p = {added['wilcoxon_p']:.3g} Wilcoxon, {added['t_p']:.3g} t"
    return (
        f"validation NDCG@20 of {added['users']} held-out users: "
        f"teacher {added['teacher']:.4f}, {source} {added['other']:.4f}, sum {added['blend']:.4f} "
        f"(weights {weights}, each chosen on the other half; sum against teacher: {p_values})"
    )

"""Fine-tuning and encoding with the LLM at several batch sizes and precisions: tokens/s, pairs/s and peak memory.

    python benchmarks/bench_finetuning.py [--llm smollm2] [--batches 16,64,256] [--precisions 4bit,none] [--device cuda]
    [--quick] python benchmarks/bench_finetuning.py --llm llama-8b --device cuda     # random weights of that shape: nothing is
    downloaded

Every row is a process of its own, so that its peak is its own. ``none`` is bfloat16 (float32 where the machine does not
multiply it), ``4bit`` NF4 with double quantisation, ``8bit`` LLM.int8. Tokens are those of queries and items without padding;
time is the median step behind the first two. Pairs/s is encoding with each user's part computed once. Memory is what the
device's allocator held at most, on a CPU the process's resident memory. Ratios are against the first row, within this run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_finetuned import make_texts
from common import report

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune.inference import encode_pairs, order_pairs
from recbole_hnlm.finetune.loop import finetune
from recbole_hnlm.finetune.lora import build_encoder, max_positions
from recbole_hnlm.finetune.objective import FinetuneObjective, TripleCollator
from recbole_hnlm.finetune.prompting import PairPrompts
from recbole_hnlm.finetune.triples import TripleDataset
from recbole_hnlm.llm.model_loading import local_tokenizer
from recbole_hnlm.utils.environment import peak_rss_bytes
from recbole_hnlm.utils.errors import HNLMError

# Hidden size, size between, layers, heads, heads of keys and values, words: as published with Llama 3.
SHAPES = {
    "llama-tiny": (64, 128, 2, 4, 2, 49_152),
    "llama-1b": (2048, 8192, 16, 32, 8, 128_256),
    "llama-3b": (3072, 8192, 28, 24, 8, 128_256),
    "llama-8b": (4096, 14_336, 32, 32, 8, 128_256),
    "llama-70b": (8192, 28_672, 80, 64, 8, 128_256),
}
USERS, ITEMS, PAIRS_PER_USER, SIZE = 400, 600, 20, 64
UNCOUNTED_STEPS = 2


def save_random_llama(shape: str, folder: Path) -> Path:
    """Write a Llama with random weights in bfloat16 and the embedded model's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 -- takes seconds

    hidden, between, layers, heads, kv_heads, words = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=between,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        torch_dtype="bfloat16",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    local_tokenizer(HNLMSettings()).save_pretrained(folder)
    return folder


class CountingCollator:
    """A collator that notes how many tokens each batch has."""

    def __init__(self, collator: TripleCollator) -> None:
        """Wrap a collator."""
        self._collator = collator
        self.tokens: list[int] = []

    def __call__(self, triples: Any) -> dict[str, torch.Tensor]:
        """Return the batch as it is."""
        batch = self._collator(triples)
        self.tokens.append(int(batch["query_mask"].sum() + batch["item_mask"].sum()))
        return batch


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune for a few steps, then encode; returns the row of the table."""
    settings = HNLMSettings(
        llm_model=options["llm"],
        llm_dtype="auto",
        negative_route="finetuned",
        finetune_layers=options["layers"],
        finetune_quantization=options["precision"],
        finetune_batch_size=options["batch"],
        finetune_steps=options["steps"],
        finetune_save_steps=options["steps"] + 1,
        finetune_gradient_checkpointing=options["recompute"],
        finetune_batch_tokens=options["batch_tokens"],
    )
    rng = np.random.default_rng(options["seed"])
    names = [np.array(["[PAD]", *map(str, range(1, count + 1))]) for count in (USERS, ITEMS)]
    users = np.repeat(np.arange(1, USERS + 1), PAIRS_PER_USER)
    items = np.concatenate([rng.choice(np.arange(1, ITEMS + 1), PAIRS_PER_USER, replace=False) for _ in range(USERS)])
    training = TrainingInteractions(*names, users, items)
    teacher = Teacher(*(rng.standard_normal((count + 1, SIZE)).astype(np.float32) for count in (USERS, ITEMS)), "b", "made up")
    texts, device = make_texts(USERS, ITEMS, options["seed"]), options["device"]
    is_cuda = torch.device(device).type == "cuda"

    def peak() -> float:
        return (torch.cuda.max_memory_allocated() if is_cuda else peak_rss_bytes()) / 2**30

    encoder, tokenizer = build_encoder(settings, teacher, device)
    loaded = peak()
    parameters = sum(p.numel() * (2 if p.dtype == torch.uint8 else 1) for p in encoder.lm.parameters())
    prompts = PairPrompts(tokenizer, settings, max_positions(encoder))
    objective = FinetuneObjective(
        encoder, temperature=settings.finetune_temperature, contrast_weight=settings.finetune_contrast_weight
    )
    dataset = TripleDataset(training, teacher, candidates=settings.teacher_candidates, guard_share=0.02, seed=options["seed"])
    collator, ends = CountingCollator(TripleCollator(prompts, texts, training)), [time.perf_counter()]

    def note(_step: int) -> None:
        if is_cuda:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory(prefix="hnlm_bench_") as work:
        finetune(
            objective,
            dataset,
            collator,
            settings,
            Path(work),
            device=device,
            show_progress=False,
            on_evaluate=note,
            evaluate_every=1,
        )
    step = statistics.median(np.diff(ends)[UNCOUNTED_STEPS:])
    tuning_peak, tokens = peak(), statistics.mean(collator.tokens)
    chosen = order_pairs(prompts, texts, users[: options["pairs"]], items[: options["pairs"]])
    start = time.perf_counter()
    count = sum(len(part) for part in encode_pairs(encoder, prompts, texts, chosen, settings.finetune_batch_tokens))
    pairs_per_second = count / (time.perf_counter() - start)
    return {
        "weights, M": round(parameters / 1e6),
        "tokens a step": round(tokens),
        "s a step": float(step),
        "tokens/s": float(tokens / step),
        "pairs/s": pairs_per_second,
        "GiB loaded": loaded,
        "GiB fine-tuning": tuning_peak,
    }


def in_own_process(options: dict[str, Any]) -> dict[str, Any]:
    """Measure in a new process; what could not be measured is said in the row."""
    run = subprocess.run([sys.executable, __file__, "--one", json.dumps(options)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{options}\n{run.stdout}{run.stderr}")
    found = json.loads(run.stdout.splitlines()[-1])
    if "failed" in found:
        print(f"  {options['precision']}, batch {options['batch']}: {found['failed']}")
    return found


def main() -> None:
    """Measure every precision with every batch size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="smollm2", help=f"smollm2, a folder, or a shape: {', '.join(SHAPES)}")
    parser.add_argument("--layers", type=int, help="layers that are run and fine-tuned; all by default")
    parser.add_argument("--batches", default="16,64", help="pairs of a step")
    parser.add_argument("--precisions", default="4bit,none")
    parser.add_argument("--steps", type=int, default=10, help="steps of fine-tuning; the first two are not counted")
    parser.add_argument("--pairs", type=int, default=400, help="pairs that are encoded")
    parser.add_argument("--batch_tokens", type=int, default=16_384, help="tokens that are encoded together")
    parser.add_argument("--recompute", action="store_true", help="finetune_gradient_checkpointing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, to see that the benchmark works")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        try:
            print(json.dumps(measure(json.loads(arguments.one))))
        except HNLMError as error:
            print(json.dumps({"failed": str(error)}))
        return
    if arguments.quick:
        arguments.llm, arguments.batches, arguments.precisions = "llama-tiny", "4", "none"
        arguments.steps, arguments.pairs = 4, 8
    names = ("layers", "steps", "pairs", "batch_tokens", "recompute", "device", "seed")
    shared = {name: getattr(arguments, name) for name in names}
    rows = []
    with tempfile.TemporaryDirectory(prefix="hnlm_bench_") as folder:
        llm = arguments.llm
        if llm in SHAPES:
            llm = str(save_random_llama(llm, Path(folder) / llm))
        for precision in arguments.precisions.split(","):
            for batch in map(int, arguments.batches.split(",")):
                found = in_own_process({**shared, "llm": llm, "precision": precision, "batch": batch})
                if "failed" not in found:
                    rows.append({"precision": precision, "batch": batch, **found})
    if not rows:
        raise SystemExit("nothing could be measured")
    for row in rows:
        row["ratio"] = row["tokens/s"] / rows[0]["tokens/s"]
    report(f"fine-tuning {arguments.llm} on {arguments.device}", {"LLM": arguments.llm, **shared}, rows, arguments.out)


if __name__ == "__main__":
    main()

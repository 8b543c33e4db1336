"""Pairs per second of the fine-tuned LLM: one at a time in float32, batched in bfloat16, and with each user's part shared.

    python benchmarks/bench_finetuned.py [--layers 30] [--users 8] [--items 16] [--repeats 3] [--quick]

The LLM is the embedded one, untuned (its speed does not depend on the weights). A query has about 173 tokens, of which about
130 are the instruction and the user's text. Ratios are against one pair at a time in float32, within this run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.finetune.inference import PairOrder, encode_pairs, order_pairs
from recbole_hnlm.finetune.lora import build_encoder, max_positions
from recbole_hnlm.finetune.prompting import PairPrompts
from recbole_hnlm.finetune.texts import FinetuneTexts

WORDS = ("quiet", "bold", "early", "modern", "gentle", "electric", "golden", "broken", "distant", "wild", "night", "river")


def make_texts(n_users: int, n_items: int, seed: int) -> FinetuneTexts:
    """Return made-up texts whose lengths are those of profiles."""
    rng = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS, words))

    users = ["", *(text(105) for _ in range(n_users))]
    return FinetuneTexts(users, ["", *(text(8) for _ in range(n_items))], ["", *(text(24) for _ in range(n_items))])


def main() -> None:
    """Measure the three ways in turn, several times, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="layers that are run; all by default")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--items", type=int, default=16, help="pairs of each user")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quantization", default="none", choices=["none", "4bit", "8bit"], help="of the two batched ways")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--quick", action="store_true", help="two layers and few pairs, to see that the benchmark works")
    arguments = parser.parse_args()
    layers, n_users, n_items = arguments.layers, arguments.users, arguments.items
    if arguments.quick:
        layers, n_users, n_items, arguments.repeats = 2, 2, 4, 1
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal((count + 1, 64)).astype(np.float32) for count in (n_users, n_items)]
    teacher = Teacher(*vectors, "bench", "made up")
    texts = make_texts(n_users, n_items, 0)
    users, items = np.repeat(np.arange(1, n_users + 1), n_items), np.tile(np.arange(1, n_items + 1), n_users)
    common = {"finetune_layers": layers, "finetune_user_tokens": 110, "finetune_item_tokens": 28, "finetune_max_length": 224}
    single_share = slice(0, max(4, len(users) // 8))
    speeds: dict[str, list[float]] = {}
    shape = {}
    for name, dtype, share, budget in (
        ("one at a time, float32", "float32", False, 1),
        ("batched, bfloat16", "bfloat16", False, 4096),
        ("prefix shared, bfloat16", "bfloat16", True, 4096),
    ):
        quantization = "none" if dtype == "float32" else arguments.quantization
        settings = HNLMSettings(llm_dtype=dtype, finetune_quantization=quantization, **common)
        encoder, tokenizer = build_encoder(settings, teacher, arguments.device, lora=False)
        prompts = PairPrompts(tokenizer, settings, max_positions(encoder))
        pairs = order_pairs(prompts, texts, users, items)
        if budget == 1:
            pairs = PairOrder(pairs.users[single_share], pairs.items[single_share])
        prefix = np.mean([len(prompts.user_part(text)) for text in texts.users[1:]])
        suffix = np.mean([len(prompts.item_part(*pair)) for pair in zip(texts.titles[1:], texts.items[1:], strict=True)])
        shape = {"prefix": round(float(prefix)), "tokens": round(float(prefix + suffix))}
        few = PairOrder(pairs.users[:2], pairs.items[:2])
        list(encode_pairs(encoder, prompts, texts, few, budget, share=share))  # not counted
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            count = sum(len(part) for part in encode_pairs(encoder, prompts, texts, pairs, budget, share=share))
            speeds.setdefault(name, []).append(count / (time.perf_counter() - start))
    medians = {name: statistics.median(samples) for name, samples in speeds.items()}
    base = next(iter(medians.values()))
    print(f"{shape['tokens']} tokens a pair, {shape['prefix']} of them shared; {n_users} users x {n_items} items")
    print(f"{'way':<28}{'pairs/s':>10}{'ratio':>8}")
    for name, speed in medians.items():
        print(f"{name:<28}{speed:>10.1f}{speed / base:>8.1f}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"pairs_per_second": medians, "layers": layers, **shape}, indent=2))


if __name__ == "__main__":
    main()

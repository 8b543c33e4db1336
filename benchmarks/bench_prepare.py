"""Converting a raw dump: reviews per second and peak memory, against a plain loop of json.loads and pandas.

python benchmarks/bench_prepare.py [--quick] [--reviews 2000000] [--repeats 3] [--out FILE.json]

Each conversion runs in a process of its own, so that its peak memory is its own. A generated dump in the format of Amazon 2018
is read: gzip, one review a line with the fields of the published sample, ten times as many reviews as items.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TARGET = 3.0
_WORDS = ["the", "and", "my", "of", "love", "great", "toy", "kids", "played", "with", "it", "broke", "after", "week", "gift"]
_COLUMNS = {
    "reviewerID": "user_id:token",
    "asin": "item_id:token",
    "overall": "rating:float",
    "unixReviewTime": "timestamp:float",
}
_ITEM_COLUMNS = {
    "asin": "item_id:token",
    "title": "title:token_seq",
    "category": "categories:token_seq",
    "brand": "brand:token_seq",
    "description": "description:token_seq",
}


def generate(folder: Path, n_reviews: int, seed: int) -> None:
    """Write ``reviews.json.gz`` and ``meta.json.gz``."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(_WORDS, size)) + "." for size in rng.integers(10, 150, 1000)]
    n_items = max(n_reviews // 10, 1)
    with gzip.open(folder / "reviews.json.gz", "wb", compresslevel=6) as stream:
        for start in range(0, n_reviews, 10_000):
            size = min(10_000, n_reviews - start)
            columns = [rng.integers(0, high, size).tolist() for high in (max(n_reviews // 3, 1), n_items, 5, 10**8, len(texts))]
            records = [
                {
                    "overall": rating + 1.0,
                    "verified": True,
                    "reviewTime": "01 1, 2018",
                    "reviewerID": f"A{user:013d}",
                    "asin": f"B{item:09d}",
                    "style": {"Color:": "Blue"},
                    "reviewerName": "A reader",
                    "reviewText": texts[text],
                    "summary": "Five Stars",
                    "unixReviewTime": 1_400_000_000 + time_of,
                }
                for user, item, rating, time_of, text in zip(*columns, strict=True)
            ]
            stream.write("".join(json.dumps(record) + "\n" for record in records).encode())
    with gzip.open(folder / "meta.json.gz", "wb", compresslevel=6) as stream:
        for item in range(n_items):
            record = {
                "category": ["Toys & Games", "Dolls"],
                "description": [texts[item % len(texts)]],
                "title": f"Doll no. {item}",
                "brand": "Dolls &amp; Co",
                "asin": f"B{item:09d}",
            }
            stream.write(json.dumps(record).encode() + b"\n")


def convert_plainly(folder: Path, *, with_reviews: bool) -> None:
    """Convert as one would in a notebook: all records into a list, the list into a frame, the frame into a file."""
    import pandas as pd  # noqa: PLC0415 - each process imports what it measures

    wanted = _COLUMNS | ({"reviewText": "review:token_seq"} if with_reviews else {})
    for source, columns, suffix in (("reviews", wanted, "inter"), ("meta", _ITEM_COLUMNS, "item")):
        with gzip.open(folder / f"{source}.json.gz", "rb") as stream:
            frame = pd.DataFrame([json.loads(line) for line in stream])
        frame = frame[list(columns)].rename(columns=columns)
        frame.to_csv(folder / f"plain.{suffix}", sep="\t", index=False)


def convert_ours(folder: Path, *, with_reviews: bool) -> None:
    """Convert with ``recbole-hnlm prepare``."""
    from recbole_hnlm.prepare.convert import prepare  # noqa: PLC0415

    files = folder / "reviews.json.gz", folder / "meta.json.gz"
    prepare("amazon2018", *files, "ours", folder, with_reviews=with_reviews)


def measure_here(which: str, folder: Path, *, with_reviews: bool) -> None:
    """Run one conversion in this process; print its seconds and the peak RSS in MiB."""
    start = time.perf_counter()
    (convert_ours if which == "ours" else convert_plainly)(folder, with_reviews=with_reviews)
    seconds = time.perf_counter() - start
    # Not ru_maxrss, which a process inherits from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "mib": int(peak.split()[1]) / 1024}))


def measured(which: str, folder: Path, *, with_reviews: bool, repeats: int) -> tuple[float, float]:
    """Return the median seconds and the highest peak RSS of processes of their own."""
    command = [sys.executable, __file__, "--measure", which, str(folder), str(int(with_reviews))]
    results = []
    for _ in range(repeats):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ)
        results.append(json.loads(done.stdout))
    return statistics.median(result["seconds"] for result in results), max(result["mib"] for result in results)


def main() -> None:
    """Measure and print."""
    from common import argument_parser, report  # noqa: PLC0415 - imports torch, which a measured process must not

    parser = argument_parser(__doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--reviews", type=int, help="reviews of the generated dump (default 2,000,000; 5,000 with --quick)")
    arguments = parser.parse_args()
    n_reviews = arguments.reviews or (5_000 if arguments.quick else 2_000_000)
    rows = []
    with tempfile.TemporaryDirectory(prefix="hnlm_bench_") as name:
        folder = Path(name)
        generate(folder, n_reviews, arguments.seed)
        size = (folder / "reviews.json.gz").stat().st_size / 2**20
        for with_reviews in (False, True):
            plain, plain_mib = measured("plain", folder, with_reviews=with_reviews, repeats=arguments.repeats)
            ours, ours_mib = measured("ours", folder, with_reviews=with_reviews, repeats=arguments.repeats)
            rows.append(
                {
                    "texts of reviews": "written" if with_reviews else "left out",
                    "plain reviews/s": n_reviews / plain,
                    "ours reviews/s": n_reviews / ours,
                    "ratio": plain / ours,
                    "target": f">= {TARGET:g}",
                    "plain peak MiB": plain_mib,
                    "ours peak MiB": ours_mib,
                }
            )
    facts = {"reviews": n_reviews, "dump MiB": f"{size:.1f}", "seed": arguments.seed, "repeats": arguments.repeats}
    report("Converting a raw dump", facts, rows, arguments.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_here(sys.argv[2], Path(sys.argv[3]), with_reviews=sys.argv[4] == "1")
    else:
        main()

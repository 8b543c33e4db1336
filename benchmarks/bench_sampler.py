"""Negative sampling: item ids per second against RecBole's sampler, K = 1 and K = 32.

python benchmarks/bench_sampler.py [--quick] [--repeats 5] [--out FILE.json]
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from common import generate_pairs, parse_arguments, report, seconds
from recbole.sampler import Sampler

from recbole_hnlm.data.sampler import CandidateSampler

TARGET = 10.0


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments(__doc__)
    n_users, n_items, wanted = (1000, 800, 20_000) if arguments.quick else (30_000, 17_000, 500_000)
    users, items = generate_pairs(n_users, n_items, wanted, arguments.seed)
    batch = 512 if arguments.quick else 4096
    asked = np.random.default_rng(arguments.seed).choice(users, batch)
    rows = []
    for distribution in ("uniform", "popularity"):
        data = SimpleNamespace(
            uid_field="u",
            iid_field="i",
            user_num=n_users,
            item_num=n_items,
            inter_feat={"u": torch.from_numpy(users), "i": torch.from_numpy(items)},
        )
        theirs = Sampler(["train"], [data], distribution, 0.75).set_phase("train")
        ours = CandidateSampler(n_users, n_items, {"train": (users, items)}, distribution=distribution, seed=arguments.seed)
        for count in (1, 32):
            stock = seconds(lambda s=theirs, k=count: s.sample_by_user_ids(asked, None, k), arguments.repeats)
            own = seconds(lambda s=ours, k=count: s.sample_by_user_ids(asked, None, k), 10 * arguments.repeats)
            rows.append(
                {
                    "distribution": distribution,
                    "K": count,
                    "RecBole ids/s": batch * count / stock,
                    "ours ids/s": batch * count / own,
                    "ratio": stock / own,
                    "target": f">= {TARGET:g}" if distribution == "uniform" else "",
                }
            )
    facts = {"users": n_users, "items": n_items, "interactions": len(users), "batch": batch, "seed": arguments.seed}
    report("Negative sampling", facts | {"repeats": arguments.repeats}, rows, arguments.out)


if __name__ == "__main__":
    main()

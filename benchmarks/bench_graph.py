"""The graph: building the normalised adjacency, and three layers of propagation forward and backward, against RecBole's.

python benchmarks/bench_graph.py [--quick] [--data FOLDER] [--repeats 5] [--out FILE.json]
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
import torch
from common import generate_pairs, parse_arguments, report, seconds
from recbole.model.general_recommender.lightgcn import LightGCN

from recbole_hnlm.model.propagation import normalized_adjacency, propagate_mean

LAYERS, DIMENSION = 3, 64


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments(__doc__)
    warnings.filterwarnings("ignore", message="torch.sparse.SparseTensor")
    n_users, n_items, wanted = (1000, 800, 20_000) if arguments.quick else (29_833, 16_782, 600_000)
    users, items = generate_pairs(n_users, n_items, wanted, arguments.seed)
    matrix = sp.coo_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=(n_users, n_items))
    stand_in = SimpleNamespace(n_users=n_users, n_items=n_items, interaction_matrix=matrix)
    stock_build = seconds(lambda: LightGCN.get_norm_adj_mat(stand_in), min(arguments.repeats, 3))
    own_build = seconds(lambda: normalized_adjacency(users, items, n_users, n_items), arguments.repeats)
    theirs, ours = LightGCN.get_norm_adj_mat(stand_in), normalized_adjacency(users, items, n_users, n_items)

    torch.manual_seed(arguments.seed)
    user_ego = torch.randn(n_users, DIMENSION, requires_grad=True)
    item_ego = torch.randn(n_items, DIMENSION, requires_grad=True)
    weight = torch.randn(n_users + n_items, DIMENSION)

    def stock_step() -> None:
        layers = [torch.cat([user_ego, item_ego])]
        for _ in range(LAYERS):
            layers.append(torch.sparse.mm(theirs, layers[-1]))
        (torch.stack(layers, dim=1).mean(dim=1) * weight).sum().backward()

    def own_step() -> None:
        out = propagate_mean(ours, user_ego, item_ego, LAYERS)
        (torch.cat(out) * weight).sum().backward()

    stock, own = seconds(stock_step, arguments.repeats), seconds(own_step, arguments.repeats)
    rows = [
        {"part": "build", "RecBole s": stock_build, "ours s": own_build, "ratio": stock_build / own_build, "target": ">= 5"},
        {"part": "forward + backward", "RecBole s": stock, "ours s": own, "ratio": stock / own, "target": ">= 2"},
    ]
    facts = {"users": n_users, "items": n_items, "interactions": len(users), "layers": LAYERS, "d": DIMENSION}
    report("Graph", facts | {"seed": arguments.seed, "repeats": arguments.repeats}, rows, arguments.out)


if __name__ == "__main__":
    main()

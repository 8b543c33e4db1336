"""Nothing as large as users x items or items x items is ever held: 100,000 of each under a limit of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SIDE = 100_000
LIMIT = 6 << 30  # bytes; a matrix of SIDE x SIDE takes 10 GB in single bytes and 40 GB in float32

CASES = [
    {"negative_route": "none", "alignment_weight": 0.0},
    {"negative_route": "none", "alignment_weight": 0.0, "rank_loss": "softmax"},
    {"alignment_weight": 0.003, "text_score": "kernel"},
]

WORK = f"""
import json, resource, sys, warnings
from pathlib import Path

import pytest
warnings.filterwarnings("ignore")
sys.path.insert(0, {str(Path(__file__).parent)!r})
from model_kit import build, make_config
from recbole_hnlm.trainer.factory import get_trainer_class
from recbole_hnlm.trainer.fusion_weights import choose_weights

resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))
for keys in json.loads(sys.argv[2]):
    config = make_config(
        Path(sys.argv[1]), dataset="wide", benchmark_filename=["train", "valid", "test"], train_batch_size=8192, topk=[20],
        metrics=["Recall", "NDCG"], valid_metric="NDCG@20", eval_batch_size=64 * {SIDE}, **keys,
    )
    loader, model, valid, test = build(config, vectors="text_score" in keys or None, pair_dim=8, text_dim=64)
    trainer = get_trainer_class(type(model), config)(config, model)
    trainer.eval_collector.data_collect(loader)
    for _, batch in zip(range(3), loader):
        trainer.optimizer.zero_grad()
        losses = model.calculate_loss(batch)
        (sum(losses) if isinstance(losses, tuple) else losses).backward()
        trainer.optimizer.step()
    if "text_score" in keys:
        choose_weights(trainer, valid)
    trainer.evaluate(test, load_best_model=False)
    print("users", model.n_users, "items", model.n_items)
"""


def write_wide(folder):
    """Write 300,000 training interactions of 100,000 users and as many items, and 100 users to rank all items for."""
    (folder / "wide").mkdir()
    rows = {"train": [(n % SIDE, (7 * n + n // SIDE) % SIDE) for n in range(3 * SIDE)]}
    rows["valid"], rows["test"] = ([(user, (11 * user + shift) % SIDE) for user in range(100)] for shift in (1, 2))
    for name, pairs in rows.items():
        lines = "\n".join(f"u{user}\ti{item}" for user, item in pairs)
        (folder / "wide" / f"wide.{name}.inter").write_text(f"user_id:token\titem_id:token\n{lines}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_hundred_thousand_users_and_items_fit_into_little_memory(tmp_path):
    """Training with DNS, softmax and alignment, ranking with and without texts, and the choice of the texts' weight."""
    write_wide(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(tmp_path), json.dumps(CASES)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"users {SIDE + 1} items {SIDE + 1}") == len(CASES)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_the_limit_refuses_a_dense_matrix(tmp_path):
    """What the test above rules out would fail under its limit."""
    limit = f"resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))"
    code = f"import resource, torch; {limit}; torch.ones({SIDE}, {SIDE}, dtype=torch.bool)"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "memory" in done.stderr


BLOCKS = """
import numpy as np, psutil, torch
from recbole_hnlm.evaluator.top_items import ItemLists, RankedRows
users, items = torch.rand(26, 64), torch.rand(30_000, 64)
none = ItemLists(np.zeros(27, dtype=np.int64), np.zeros(0, dtype=np.int64))
ranked = RankedRows(26 * 1000, 20)
for block in range(600):
    ranked.add(users @ items.T, none, none)
    if block == 20:
        before = psutil.Process().memory_info().rss
print(psutil.Process().memory_info().rss - before)
"""


def test_ranking_many_users_keeps_their_lists_alone(tmp_path):
    """Blocks of scores are 3.1 MB each; when their lists were kept one by one, half of every block stayed in memory."""
    done = subprocess.run([sys.executable, "-c", BLOCKS], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 60 << 20

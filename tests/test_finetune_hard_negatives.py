import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_hnlm.finetune.hard_negatives import teacher_hard_negatives

# One dimension: item i scores SCORES[i] for user 1 and the negative of that for user 2.
SCORES = np.array([[0], [5], [4], [3], [2], [1], [3]], dtype=np.float32)
USERS = np.array([[0], [1], [-1]], dtype=np.float32)


def choose(user, candidates, guard):
    return int(teacher_hard_negatives(np.array([user]), np.array([candidates]), USERS, SCORES, guard)[0])


@pytest.mark.parametrize(
    ("user", "candidates", "guard", "expected"),
    [
        (1, [4, 2, 5, 3], 0.0, 2),  # the hardest
        (1, [4, 2, 5, 3], 0.24, 2),  # floor(0.96) = 0
        (1, [4, 2, 5, 3], 0.25, 3),  # skips item 2
        (1, [4, 2, 5, 3], 0.5, 4),  # skips 2 and 3
        (2, [4, 2, 5, 3], 0.25, 4),  # the order is reversed: 5, 4, 3, 2
        (1, [2, 2, 2, 3], 0.5, 3),  # two distinct: one is skipped, and 2 does not come again
        (1, [2, 2, 2, 3], 0.49, 2),
        (1, [2, 2, 2, 2], 0.9, 2),  # nothing else is there
        (1, [1, 2, 3, 4, 5], 1.0, 5),  # a guard over all leaves the easiest
        (1, [6, 3, 5], 0.0, 3),  # items 3 and 6 tie: the lower id
        (1, [6, 3, 5], 0.34, 6),
    ],
)
def test_by_hand(user, candidates, guard, expected):
    assert choose(user, candidates, guard) == expected


def test_a_share_is_not_lost_to_rounding():
    # 0.29 * 100 is 28.999999999999996 in floating point; the 29 highest are skipped.
    items = np.arange(100, dtype=np.float32)[:, None] + 1
    chosen = teacher_hard_negatives(np.array([1]), np.arange(100)[None], USERS, items, 0.29)
    assert chosen.tolist() == [70]


def naive(users, candidates, user_vectors, item_vectors, guard):
    chosen = []
    for user, row in zip(users, candidates, strict=True):
        ranked = sorted(set(row.tolist()), key=lambda item: (-float(user_vectors[user] @ item_vectors[item]), item))
        chosen.append(ranked[min(math.floor(guard * len(ranked) + 1e-9), len(ranked) - 1)])
    return chosen


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30), st.floats(0, 1))
def test_equals_the_naive_choice(seed, rows, width, guard):
    # Small whole numbers: inner products are exact in any order of summation, and ties are common.
    rng = np.random.default_rng(seed)
    user_vectors, item_vectors = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (6, 15))
    users, candidates = rng.integers(0, 6, rows), rng.integers(0, 15, (rows, width))
    found = teacher_hard_negatives(users, candidates, user_vectors, item_vectors, guard)
    assert found.tolist() == naive(users, candidates, user_vectors, item_vectors, guard)
    assert found.dtype == np.int64


def test_neither_threads_nor_the_order_of_columns_matter():
    rng = np.random.default_rng(0)
    users, candidates = rng.integers(0, 50, 2000), rng.integers(0, 300, (2000, 64))
    vectors = [rng.normal(size=(n, 16)).astype(np.float32) for n in (50, 300)]
    threads, results = torch.get_num_threads(), []
    before = candidates.copy()
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(teacher_hard_negatives(users, candidates, *vectors, 0.1))
    torch.set_num_threads(threads)
    assert np.array_equal(*results)
    assert np.array_equal(candidates, before)
    assert np.array_equal(results[0], teacher_hard_negatives(users, candidates[:, ::-1], *vectors, 0.1))


def test_no_rows():
    assert teacher_hard_negatives(np.empty(0, np.int64), np.empty((0, 4), np.int64), USERS, SCORES, 0.1).shape == (0,)

"""Rows shared out over threads."""

import threading
import time

import pytest
import torch
from llm_tiny import save_tiny_model, tiny_settings

from recbole_hnlm.llm import transformers_backend
from recbole_hnlm.llm.factory import load_backend
from recbole_hnlm.llm.protocol import Decoding, Prompt
from recbole_hnlm.llm.replies import profile_format
from recbole_hnlm.llm.shares import map_shares, shares_of


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_shares_are_large_enough_for_matrix_products():
    assert [shares_of(rows, 4) for rows in (1, 32, 33, 96, 97, 500)] == [1, 1, 2, 3, 4, 4]
    assert shares_of(500, 1) == 1


@pytest.mark.parametrize("shares", [1, 2, 3, 5])
def test_results_keep_the_order_of_the_rows(shares):
    seen = []

    def work(rows, given_up):
        seen.append(list(rows))
        assert not given_up()
        return [-row for row in rows]

    assert map_shares(range(5), work, shares) == [0, -1, -2, -3, -4]
    assert sorted(row for rows in seen for row in rows) == [0, 1, 2, 3, 4]
    assert len(seen) == shares


def test_threads_of_torch_are_divided_and_given_back(four_threads):
    both = threading.Barrier(2, timeout=60)  # passed by two threads that run at once

    def work(rows, given_up):
        both.wait()
        return [torch.get_num_threads()] * len(rows)

    assert map_shares(range(4), work, 2) == [2, 2, 2, 2]
    assert torch.get_num_threads() == 4


def test_one_that_fails_stops_the_others(four_threads):
    gave_up = []

    def work(rows, given_up):
        if rows[0] == 0:
            raise MemoryError("out of memory")
        deadline = time.monotonic() + 20
        while not given_up() and time.monotonic() < deadline:
            time.sleep(0.01)
        gave_up.append(given_up())
        return list(rows)

    with pytest.raises(MemoryError):
        map_shares(range(2), work, 2)
    assert gave_up == [True]
    assert torch.get_num_threads() == 4


def test_replies_do_not_depend_on_the_shares(tmp_path, four_threads, monkeypatch):
    save_tiny_model(tmp_path / "model")
    settings = tiny_settings(tmp_path / "model", llm_batch_size=80)
    prompts = [Prompt("Describe.", f"user {number} " + "likes this " * (number % 7)) for number in range(80)]
    form = profile_format(settings)
    decoding = Decoding(form.max_new_tokens, 0.7, 0, form.schema)
    used = []

    def count(rows, work, shares):
        used.append(shares)
        return map_shares(rows, work, shares)

    monkeypatch.setattr(transformers_backend, "map_shares", count)
    several = load_backend(settings).generate(prompts, decoding)
    torch.set_num_threads(1)
    alone = load_backend(settings).generate(prompts, decoding)
    assert used == [3, 1]
    assert several == alone
    assert sum(reply is not None for reply in several) > 40

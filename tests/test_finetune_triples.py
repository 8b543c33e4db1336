import itertools
import logging
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.data.training import TrainingInteractions
from recbole_hnlm.finetune.hard_negatives import teacher_hard_negatives
from recbole_hnlm.finetune.triples import EpochSampler, TripleDataset
from recbole_hnlm.utils.errors import ArtifactError, DataError

USERS, ITEMS = 30, 60


def make_training(users, items, n_users=USERS, n_items=ITEMS):
    tokens = (np.array(["[PAD]", *(f"{kind}{n}" for n in range(1, count))]) for kind, count in (("u", n_users), ("i", n_items)))
    return TrainingInteractions(*tokens, np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64))


def random_training(seed=0, rows=400):
    rng = np.random.default_rng(seed)
    return make_training(rng.integers(1, USERS, rows), rng.integers(1, ITEMS, rows))


def make_teacher(n_users=USERS, n_items=ITEMS, seed=0):
    rng = np.random.default_rng(seed)
    users, items = (rng.normal(size=(n, 4)).astype(np.float32) for n in (n_users, n_items))
    return Teacher(users, items, "0" * 16, "Fake")


def make(training=None, **options):
    options = {"candidates": 8, "guard_share": 0.2, "seed": 1} | options
    return TripleDataset(training or random_training(), make_teacher(), **options)


def all_triples(dataset):
    return dataset.__getitems__(list(range(len(dataset))))


def pairs_of(training):
    return set(zip(training.users.tolist(), training.items.tolist(), strict=True))


def test_every_row_once_and_never_a_training_item_as_negative():
    training = random_training()
    dataset = make(training)
    triples = all_triples(dataset)
    rows = list(zip(training.users.tolist(), training.items.tolist(), strict=True))
    assert sorted((user, item) for user, item, _ in triples) == sorted(rows)
    assert sorted(dataset.rows_of(np.arange(len(dataset))).tolist()) == list(range(len(training)))
    held = pairs_of(training)
    for epoch in range(5):
        dataset.set_epoch(epoch)
        assert not held & {(user, negative) for user, _, negative in all_triples(dataset)}
        assert min(negative for _, _, negative in all_triples(dataset)) >= 1
    assert dataset.left_out == {"items without text": 0, "users without a candidate": 0, "items": 0}


def test_the_negative_is_the_guarded_choice_among_that_rows_candidates():
    training, teacher = random_training(), make_teacher()
    dataset = TripleDataset(training, teacher, candidates=8, guard_share=0.2, seed=1)
    rows = dataset.rows_of(np.arange(len(dataset)))
    # All rows drawn by one call of an equally seeded sampler, as the contract says.
    drawn = dataset._sampler.sample_candidates(training.users, 8).numpy()
    best = teacher_hard_negatives(training.users, drawn, teacher.user_vectors, teacher.item_vectors, 0.2)
    assert [negative for _, _, negative in all_triples(dataset)] == best[rows].tolist()
    # With no guard it is harder by the teacher's scores than the average item, but for a rare unlucky draw of eight.
    hardest = make(guard_share=0.0).arrays(np.arange(len(dataset)))
    scores = teacher.scores(hardest[0])
    assert (scores[np.arange(len(dataset)), hardest[2]] > scores[:, 1:].mean(axis=1)).mean() > 0.95


def test_a_triple_depends_on_seed_epoch_and_row_alone():
    training = random_training()
    dataset = make(training)
    first = all_triples(dataset)
    by_row = dict(zip(dataset.rows_of(np.arange(len(dataset))).tolist(), first, strict=True))
    assert [dataset[index] for index in (7, 3, 399)] == [first[index] for index in (7, 3, 399)]
    assert dataset.__getitems__([5, 5, 2]) == [first[5], first[5], first[2]]
    assert all_triples(make(training)) == first
    # Fewer users: other indices, the same triples.
    few = make(training, users=[3, 4, 11])
    assert {user for user, _, _ in all_triples(few)} == {3, 4, 11}
    assert all_triples(few) == [by_row[row] for row in few.rows_of(np.arange(len(few))).tolist()]
    assert len(few) == np.isin(training.users, [3, 4, 11]).sum()
    dataset.set_epoch(1)
    second = all_triples(dataset)
    assert [triple[:2] for triple in second] == [triple[:2] for triple in first]
    assert np.mean([a[2] != b[2] for a, b in zip(first, second, strict=True)]) > 0.5
    dataset.set_epoch(0)
    assert all_triples(dataset) == first
    assert all_triples(make(training, seed=2)) != first
    assert type(first[0][0]) is type(first[0][2]) is int


def test_items_without_text_take_no_part(caplog):
    training = random_training()
    mask = np.random.default_rng(5).random(ITEMS) < 0.6
    mask[0] = True
    with caplog.at_level(logging.INFO, logger="recbole_hnlm"):
        dataset = make(training, item_mask=mask)
    triples = np.array(all_triples(dataset))
    assert mask[triples[:, 1:]].all()
    assert (triples[:, 2] > 0).all()
    lost = int((~mask[training.items]).sum())
    assert lost > 50
    assert len(dataset) == 400 - lost
    rows = dataset.rows_of(np.arange(len(dataset)))
    assert sorted(rows.tolist()) == np.flatnonzero(mask[training.items]).tolist()
    assert dataset.left_out["items without text"] == lost
    assert dataset.left_out["items"] == int((~mask[1:]).sum())
    assert f"triples: {400 - lost} of 400 training rows (left out: {lost} of items without text, 0 of" in caplog.text


def test_users_who_hold_every_item_with_text_are_left_out():
    # Items 1..3 have text. User 1 holds them all, one of them twice; user 2 holds 1 (three times) and 2, and 4 without text.
    training = make_training([1, 1, 1, 1, 2, 2, 2, 2, 2], [1, 2, 3, 3, 1, 1, 1, 2, 4], 3, 5)
    teacher = make_teacher(3, 5)
    mask = np.array([False, True, True, True, False])
    dataset = TripleDataset(training, teacher, candidates=4, guard_share=0.0, seed=0, item_mask=mask)
    assert all_triples(dataset) == [(2, 1, 3), (2, 1, 3), (2, 1, 3), (2, 2, 3)]
    assert dataset.left_out == {"items without text": 1, "users without a candidate": 4, "items": 1}
    with pytest.raises(DataError, match=r"no training row is left.*of 4 rows.*4 of users without a candidate"):
        TripleDataset(training, teacher, candidates=4, guard_share=0.0, seed=0, item_mask=mask, users=[1])
    with pytest.raises(DataError, match="5 of items without text"):
        TripleDataset(training, teacher, candidates=4, guard_share=0.0, seed=0, item_mask=np.zeros(5, bool), users=[2])


def test_bad_input():
    with pytest.raises(ArtifactError, match="the teacher has 30 users and 61 items, the training split 30 and 60"):
        TripleDataset(random_training(), make_teacher(n_items=61), candidates=2, guard_share=0.0, seed=0)
    with pytest.raises(DataError, match=r"user ids 0\.\.4 were selected, expected 1\.\.29"):
        make(users=[0, 4])
    with pytest.raises(IndexError, match=r"triples 400\.\.400 were asked for, expected 0\.\.399"):
        make()[400]


def batches(dataset, workers, epoch=0, **options):
    sampler = EpochSampler(dataset, seed=3)
    sampler.set_epoch(epoch)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler, num_workers=workers, collate_fn=list, **options)
    return sampler, loader


def test_the_loader_gives_each_triple_once_whatever_its_workers():
    training = random_training()
    dataset = make(training)
    sampler, loader = batches(dataset, workers=0)
    alone = list(loader)
    assert [len(batch) for batch in alone] == [32] * 12 + [16]
    assert sorted(triple for batch in alone for triple in batch) == sorted(all_triples(dataset))
    _, parallel = batches(dataset, workers=2)
    assert list(parallel) == alone
    sampler.set_epoch(1)
    expected = list(loader)
    assert expected != alone
    # Workers that stay alive over epochs draw anew, too.
    sampler, persistent = batches(dataset, workers=1, persistent_workers=True)
    assert list(persistent) == alone
    sampler.set_epoch(1)
    assert list(persistent) == expected


def test_orders_of_epochs_and_seeds_differ_and_repeat():
    dataset = make()
    orders = {}
    for seed, epoch in ((3, 0), (3, 1), (4, 0), (-3, 0)):
        sampler = EpochSampler(dataset, seed)
        sampler.set_epoch(epoch)
        orders[seed, epoch] = list(sampler)
        assert sorted(orders[seed, epoch]) == list(range(len(dataset)))
        assert list(sampler) == orders[seed, epoch]
    # Two random orders agree in one place on average.
    for first, second in itertools.combinations(orders.values(), 2):
        assert np.equal(first, second).sum() < 12
    assert list(EpochSampler(dataset, 3)) == orders[3, 0]


def test_accelerate_passes_the_epoch_on_in_every_process():
    from accelerate.data_loader import prepare_data_loader  # noqa: PLC0415 - takes seconds

    shares = []
    for rank in range(2):
        dataset = make()
        _, loader = batches(dataset, workers=0)
        prepared = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        prepared.set_epoch(2)
        shares.append([triple for batch in prepared for triple in batch])
    dataset = make()
    dataset.set_epoch(2)
    assert set(shares[0]) | set(shares[1]) == set(all_triples(dataset))


def test_memory_does_not_grow_with_the_triples_drawn():
    rng = np.random.default_rng(0)
    rows, n_users, n_items = 300_000, 3000, 2000
    training = make_training(rng.integers(1, n_users, rows), rng.integers(1, n_items, rows), n_users, n_items)
    dataset = TripleDataset(training, make_teacher(n_users, n_items), candidates=4, guard_share=0.0, seed=0)
    _, loader = batches(dataset, workers=0, epoch=1)
    dataset[0]
    tracemalloc.start()
    count = sum(len(batch) for batch in loader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    assert peak < 2**22  # the order takes 8 bytes a row, 2.4 MB; the triples of one epoch are 7 MB as an array


def test_importing_triples_does_not_import_recbole():
    code = "import sys, recbole_hnlm.finetune.triples, recbole_hnlm.finetune.losses; assert 'recbole' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_do_not_change_triples():
    threads, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(all_triples(make(random_training(rows=5000), candidates=16)))
    torch.set_num_threads(threads)
    assert results[0] == results[1]

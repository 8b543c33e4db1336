"""Records, comparisons and searches as files, without training: what a report is made of."""

from __future__ import annotations

import json

import numpy as np

from recbole_hnlm.experiments.cells import Cell
from recbole_hnlm.experiments.methods import Method
from recbole_hnlm.experiments.report import view
from recbole_hnlm.experiments.report.figures import Curve, curves
from recbole_hnlm.experiments.report.text import csv_text
from recbole_hnlm.experiments.store import read_cell, write_cell
from recbole_hnlm.experiments.summary import summarise

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \u202egnp.exe =HYPERLINK(1) </script> \u05d0\u05d1"
USERS = 60


def make_record(model="HNLMLightGCN", dataset="toy", seed=2020, scale=1.0, **changes):
    """Return a record as :func:`recbole_hnlm.quick_start.runner.run` writes it, with made-up numbers."""
    epochs = 8
    record = {
        "run_id": f"{model}-{dataset}-20261126-101112-abc{seed % 100:03d}",
        "version": "0.0.test",
        "source": "0123456789ab",
        "model": model,
        "dataset": dataset,
        "seed": seed,
        "seconds": {"load": 0.5, "split": 0.1, "train": 12.0 * scale, "evaluate": 0.3},
        "peak_rss_bytes": 2**30,
        "log_file": "log/x.log",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "recbole": "1.2.1", "numpy": "1.26.4", "pandas": "2.3.3"},
        "given": {"epochs": epochs, "learning_rate": 0.002},
        "config": {
            "valid_metric": "NDCG@10",
            "epochs": epochs,
            "learning_rate": 0.002,
            "topk": [10],
            "negative_sampler": "dns",
        },
        "epochs": epochs,
        "train_loss": [0.7 * 0.8**epoch for epoch in range(epochs)],
        "epoch_seconds": [1.5 * scale] * epochs,
        "best_epoch": 6,
        "split_fingerprint": "feedfacefeedface",
        "resumed_from": None,
        "false_negative_rates": [0.002 + 0.0005 * epoch for epoch in range(epochs)],
        "text_score_weight": None,
        "text_score_weights": None,
        "data": {"users": USERS, "items": 30, "train": 480, "valid": 60, "test": 60},
        "valid_scores": [[epoch, 0.2 * scale * (1 - 0.7**epoch)] for epoch in range(epochs)],
        "best_valid_score": 0.2 * scale,
        "best_valid_result": {"recall@10": 0.3 * scale, "ndcg@10": 0.2 * scale},
        "test_result": {"recall@10": 0.28 * scale, "ndcg@10": 0.19 * scale},
        "checkpoint": None,
        "semantic_coverage": None,
        "missing": None,
        "stages": None,
    }
    return {**record, **changes}


def write_run(folder, **changes):
    """Write a record; returns its file."""
    record = make_record(**changes)
    file = folder / f"{record['run_id']}.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    return file


def write_comparison(folder, methods, seeds=(2020, 2021, 2022), dataset="toy", of_method=None, **changes):
    """Write a comparison as ``compare`` does.

    Args:
        folder: made here.
        methods: label -> (role, shift of every user's value over the common base, or values of each user).
        of_method: label -> what is different in its records.
    """
    base = np.random.default_rng(3).uniform(0.2, 0.6, USERS)
    noise = np.random.default_rng(4).normal(0, 0.004, (len(seeds), USERS))
    users = np.array([f"u{number}" for number in range(USERS)])
    cells, labels = [], {}
    for place, (label, (role, shift)) in enumerate(methods.items()):
        own = np.random.default_rng(50 + place).normal(0, 0.02, USERS) if place else np.zeros(USERS)
        for number, seed in enumerate(seeds):
            values = np.clip(base + own + shift + noise[number], 0, 1).astype(np.float32)
            cell = Cell(f"cell{place}-s{seed}", Method(label, None, "Model", role=role), seed, 2020, {}, dataset, ())
            mean = float(values.mean())
            own_changes = {"best_valid_score": mean, "cells_at_once": 1, **changes, **(of_method or {}).get(label, {})}
            record = make_record(label.split(" + ")[0], dataset, seed, mean / 0.4, **own_changes)
            write_cell(folder, cell.id, record, users, {"ndcg@10": values, "recall@10": np.sqrt(values)})
            cells.append(read_cell(folder, cell))
            labels[cell.id] = label
    results = {
        "command": "recbole-hnlm compare --dataset=toy --models=A,B --out=x",
        "cells": list(labels),
        "labels": labels,
        "missing": [],
        "failures": {},
        "grid": None,
        "table": summarise(cells).to_json(),
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def write_search(folder, **changes):
    """Write a search as ``tune`` does."""
    record = make_record("LightGCN")
    winner = folder / "winner" / "trial-2"
    winner.mkdir(parents=True)
    file = write_run(winner, model="LightGCN")
    summary = {
        "metric": "NDCG@10",
        "space": ["learning_rate loguniform -8,-4", "n_layers choice [1,2,3]"],
        "algo": "tpe",
        "pruner": "median",
        "trials": {"finished": 5, "pruned": 1, "failed": 0, "running": 0, "copied": 0, "interrupted": 0},
        "seconds": 73.2,
        "failures": {},
        "importances": {"learning_rate": 0.8, "n_layers": 0.2},
        "best": {
            "trial": 2,
            "params": {"learning_rate": 0.004, "n_layers": 2},
            "value": 0.22,
            "valid": record["best_valid_result"],
        },
        "test": record["test_result"],
        "winner": [str(file)],
    }
    (folder / "tune.json").write_text(json.dumps({**summary, **changes}), encoding="utf-8")
    lines = ["trial,state,value,learning_rate,n_layers,seconds,epochs"]
    values = [0.18, 0.2, 0.22, 0.21, 0.19]
    lines += [f"{place},complete,{value},{0.001 * (place + 1)},{1 + place % 3},12.5,8" for place, value in enumerate(values)]
    lines.append("5,pruned,0.11,0.0004,3,3.5,2")
    (folder / "trials.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "best.yaml").write_text("model: LightGCN\nlearning_rate: 0.004\n", encoding="utf-8")
    return folder


def hostile_page():
    """A page with every kind of block, in which every text is hostile, one of them 10,000 characters long."""
    text, long = HOSTILE, HOSTILE + "x" * 10_000
    picture = curves("loss", text, text, [Curve(text, [[(1, 1.0), (2, 0.5)]]), Curve("b", [[(1, 0.9), (2, 0.4)]])], text)
    rows = [[view.Cell(f"{number} {text}", tag=text), view.Cell(str(number), stars="***", hint=text)] for number in (2, 10, 1)]
    columns = [view.Column(text, help=text), view.Column("number", is_number=True)]
    table = view.Table(text, columns, rows, legend=[text], download="a.csv", csv=csv_text([[text, "=1"]]), searchable=True)
    lists = [
        view.Listing(text, [(text, ""), (long, text)], more=3),
        view.Listing("ranked", [(text, "hit: test")], is_ranked=True),
    ]
    reply = view.Reply(text, [text, long], long, [(text, 0.5, text)])
    person = view.Person(text, text, lists, [("system", long)], [("summary", text)], [reply], [text])
    blocks = [
        table,
        view.Plots([picture]),
        view.Facts([(text, long)]),
        view.Keys([(text, text), ("other", "value")]),
        view.Note(text, code=text),
        view.Code(long),
        view.Details(text, [view.Note(text)]),
        view.People([person]),
    ]
    sections = [view.Section("results", text, text, blocks), view.Section("second", "Second", "", [view.Note("end")])]
    return view.Page(text, text, long, "win", [view.Tile("1", text)], sections, [text])

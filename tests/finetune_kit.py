"""A fine-tuned LLM of a tiny random Llama on hand-written pairs, for the tests of the fine-tuned route."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from llm_tiny import save_tiny_model
from stages_kit import block_pairs, make_context

from recbole_hnlm.data.teacher import Teacher
from recbole_hnlm.finetune.run import FinetunedLLM
from recbole_hnlm.stages.encode import ItemTextVectors

SMALL = {
    "negative_route": "finetuned",
    "finetune_text": "titles",
    "llm_dtype": "float32",
    "finetune_quantization": "none",
    "finetune_layers": None,
    "finetune_max_length": 400,
    "lora_r": 4,
    "finetune_steps": 6,
    "finetune_batch_size": 4,
    "finetune_save_steps": 3,
    "teacher_candidates": 8,
    "semantic_negatives_per_user": None,
}


def make_teacher(n_users, n_items, size=8, seed=0):
    rng = np.random.default_rng(seed)
    users, items = (rng.standard_normal((count, size)).astype(np.float32) for count in (n_users, n_items))
    users[0] = items[0] = 0
    return Teacher(users, items, f"teacher{seed}", "made up")


def finetuned_context(folder, *, users=20, items=24, teacher_seed=0, **settings):
    """A context whose teacher is random vectors and whose LLM is a random Llama of two layers."""
    model = folder / "model"
    if not model.exists():
        save_tiny_model(model)
    context = make_context(folder, block_pairs(users, items, 5), **{"llm_model": str(model), **SMALL, **settings})
    teacher = make_teacher(context.training.n_users, context.training.n_items, seed=teacher_seed)
    return replace(context, teacher_source=lambda: teacher)


def texts_that_tell(context):
    """Text vectors that determine the teacher's item vectors."""
    mask = context.items_with_text.copy()
    return ItemTextVectors(context.teacher.item_vectors, mask, "made-up 1")


def finetuned_of(context):
    return FinetunedLLM(context, lambda: texts_that_tell(context))


def make_finetuned(folder, **settings):
    return finetuned_of(finetuned_context(folder, **settings))


def loss_of_each_triple_alone(query, pos, neg, temperature):
    """The paired loss without other triples' items: the mean over a batch is the mean over its parts."""
    return -torch.nn.functional.logsigmoid(((query * pos).sum(1) - (query * neg).sum(1)) / temperature).mean()


def launch_two(folder, script, **environment):
    """Run a script in two processes under ``torchrun``, with the folder of the tests on its path; returns how it ended."""
    file = folder / "launched.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{script}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(file)]
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=own, timeout=240, check=False)

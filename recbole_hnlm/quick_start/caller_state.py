"""Leaving the caller's process as it was: a run called from Python shares it with a notebook or a test suite."""

from __future__ import annotations

import logging
import os
import random
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_hnlm.utils.logger import LIBRARIES_MADE_QUIET, close_logger, quiet_recbole

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["caller_state_kept"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def caller_state_kept() -> Iterator[None]:
    """Put back, at the end of the block, what a run sets for the whole process.

    That is: handlers and levels of logging, filters of warnings, ``CUDA_VISIBLE_DEVICES``, cuDNN's flags, and the states of the
    random generators of Python, NumPy and PyTorch, so that neither the caller's draws nor a later run depend on this one.
    Names that NumPy has dropped and RecBole reads (``np.float`` and the like) stay: the models that a block returns read them.
    """
    handlers = list(logging.getLogger().handlers)
    levels = {name: logging.getLogger(name).level for name in (None, *LIBRARIES_MADE_QUIET)}
    visible = os.environ.get(_VISIBLE)
    cudnn = torch.backends.cudnn
    flags = (cudnn.benchmark, cudnn.deterministic)
    try:
        with warnings.catch_warnings(), _random_states_kept():
            quiet_recbole()
            yield
    finally:
        close_logger(keep=handlers)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        cudnn.benchmark, cudnn.deterministic = flags
        if visible is None:
            os.environ.pop(_VISIBLE, None)
        else:
            os.environ[_VISIBLE] = visible


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - RecBole's
    # Asked of a CUDA that is not in use yet, this would start it before a run has chosen its GPUs.
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(of_torch)
        if of_cuda is not None:
            torch.cuda.set_rng_state_all(of_cuda)

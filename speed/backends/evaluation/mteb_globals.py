"""Global state around a task of mteb: progress bars and warnings are off, and the random generators are seeded."""

from __future__ import annotations

import functools
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import numpy as np
import torch
from tqdm.std import tqdm  # type: ignore[import-untyped]


@contextmanager
def quiet() -> Iterator[None]:
    """Without mteb's progress bars and warnings, such as that a classifier does not predict some label."""
    datasets.disable_progress_bars()
    bar = tqdm.__init__
    tqdm.__init__ = functools.partialmethod(bar, disable=True)  # some of mteb's evaluators take no option for this
    level = logging.getLogger("mteb").level
    logging.getLogger("mteb").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("mteb").setLevel(level)
        tqdm.__init__ = bar
        datasets.enable_progress_bars()


@contextmanager
def globals_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside; mteb's k-means draws from numpy's, and a resumed run must score the same."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.random.set_rng_state(torch_state)

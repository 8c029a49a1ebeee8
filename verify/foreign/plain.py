"""Running code under test as it is, on its own generators, reproducibly and without a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated() -> Iterator[None]:
    """One thread inside, since the arrays are small and the threads of a busy machine wait for each other; on leaving,
    the global generators of torch, numpy and the standard library are as they were.
    """
    state, legacy, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(state)
        np.random.set_state(legacy)


def seed_everything(seed: int) -> None:
    """Seeds the three global generators apart: torch and numpy run the same generator, and from one seed would return
    one stream. The drafts' tape is seeded apart from all of them for the same reason.
    """
    torch.manual_seed(4 * seed + 1)
    np.random.seed((4 * seed + 2) % 2**32)
    random.seed(4 * seed + 3)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators seeded from ``seed`` inside, and as they were afterwards."""
    with isolated():
        seed_everything(seed)
        yield

"""Attempts to get ``lossless`` with evidence ``exact`` although a draw escaped the tape. None may succeed."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import hashlib
import itertools
import os
import random
import secrets
import subprocess
import sys
import threading
import time
import uuid
from os import urandom
from random import SystemRandom
from random import random as drawn_by_name

import numpy as np
import pytest
import torch

from verify import check_verifier
from verify.errors import SubjectError
from verify.foreign.interpose import Room


def verifier(uniform, choose=None):
    """A correct verifier whose acceptance uniforms come from ``uniform()`` and its tokens from ``choose(weights)``."""
    choose = choose or (lambda weights: torch.multinomial(weights, 1).item())

    def fn(x, q, p):
        for i in range(len(x)):
            if uniform() < (p[i, x[i]] / q[i, x[i]]).item():
                continue
            return [*x[:i].tolist(), choose((p[i] - q[i]).clamp(min=0))]
        return [*x.tolist(), choose(p[len(x)])]

    return fn


POOL = torch.rand(100_003).tolist()
COUNTER = itertools.count()
FIXED = torch.rand(1).item()
HIDDEN = {"deep": [[[{"rng": np.random.default_rng(3)}]]] * 80}
WORKERS = concurrent.futures.ThreadPoolExecutor(1)
WORKERS.submit(int).result()
ALONE = np.random.default_rng(9)
CACHED = torch.Generator().manual_seed(11)
SYSTEM = SystemRandom()
BUFFER: list = []


class OwnRandom(random.Random):
    def random(self):
        return 0.25


OWN = OwnRandom()


def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.rand(1).item()))
    thread.start()
    thread.join()
    return found[0]


def reseeded_torch():
    torch.manual_seed(0)
    return torch.rand(1).item()


def reseeded_numpy():
    np.random.seed(0)
    return np.random.rand()


def reseeded_cached():
    CACHED.manual_seed(0)
    return torch.rand(1, generator=CACHED).item()


def linear_congruence():
    state = time.time_ns()
    for _ in range(5):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 11) / 2**53


def swallowed():
    try:
        return np.array([torch.rand(1).item()]).astype("S8").astype(float)[0]  # text needs the number itself
    except BaseException:
        return 0.5


def buffered():
    if not BUFFER:
        BUFFER.extend(torch.rand(64).tolist())
    return BUFFER.pop()


def without_mode():
    with torch._C.DisableTorchFunction():
        return torch.rand(1, generator=CACHED).item()


def device():
    with open("/dev/urandom", "rb") as file:
        return int.from_bytes(file.read(4), "little") / 2**32


def process():
    return (
        int(subprocess.run([sys.executable, "-c", "import os; print(os.urandom(1)[0])"], capture_output=True).stdout)
        / 256
    )


@functools.cache
def collected():
    return next(item for item in gc.get_objects() if type(item) is np.random.Generator)


@torch.jit.script
def scripted(n: int) -> float:
    return torch.rand([n]).sum().item()


def only_when_watched():
    return torch.rand(1).item() if Room.open_room else torch.rand(1).item() * 0.7


ESCAPES = {
    "a table drawn at import, by a counter": lambda: POOL[next(COUNTER) % len(POOL)],
    "one number drawn at import": lambda: FIXED,
    "a thread": in_thread,
    "a pool of threads made beforehand": lambda: WORKERS.submit(random.random).result(),
    "a pool of threads, its own generator": lambda: WORKERS.submit(OWN.random).result(),
    "torch seeded in the call": reseeded_torch,
    "numpy seeded in the call": reseeded_numpy,
    "a cached torch generator seeded in the call": reseeded_cached,
    "a torch generator made in the call": lambda: torch.rand(1, generator=torch.Generator().manual_seed(3)).item(),
    "a numpy generator seeded in the call": lambda: np.random.default_rng(0).random(),
    "a stdlib generator seeded in the call": lambda: random.Random(0).random(),
    "the clock": linear_congruence,
    "os.urandom": lambda: int.from_bytes(os.urandom(4), "little") / 2**32,
    "os.urandom by name": lambda: int.from_bytes(urandom(4), "little") / 2**32,
    "secrets": lambda: secrets.randbelow(2**30) / 2**30,
    "SystemRandom": lambda: SYSTEM.random(),
    "uuid4": lambda: uuid.uuid4().int / 2**128,
    "a device": device,
    "a generator hidden deep": lambda: HIDDEN["deep"][70][0][0]["rng"].random(),
    "a generator found by the collector": lambda: collected().random(),
    "a subclass of Random": OWN.random,
    "an exception swallowed": swallowed,
    "a buffer filled in one call and used in another": buffered,
    "torch's own switch": without_mode,
    "a scripted function": lambda: scripted(1),
    "a cache": functools.lru_cache(lambda: random.random()),
    "an object's address": lambda: hash(hashlib.sha256(str(id(object())).encode()).hexdigest()) % 1000 / 1000,
}


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escaped_draw_is_never_exactly_lossless(name):
    try:
        verdict = check_verifier(verifier(ESCAPES[name]), draft_length=1)
    except SubjectError as error:  # a draw kept from one call cannot be used in another
        assert name in ("a cache", "a buffer filled in one call and used in another") and "keeps a draw" in str(error)
        return
    assert not (verdict.status == "lossless" and verdict.evidence == "exact"), str(verdict)


def test_a_process_started_in_the_call():
    # One process for each run is slow: one problem shows that it is noticed.
    from verify.foreign.runs import exact_runs

    with Room(process) as room:
        with pytest.raises(BaseException, match="escaped|differ"):
            for _ in range(8):
                exact_runs(process, room)
    assert any("process" in escape or "forks" in escape for escape in room.escapes)


@pytest.mark.parametrize("twins", ["torch", "numpy"])
def test_two_generators_in_step_are_not_independent(twins):
    if twins == "torch":
        one, other = (torch.Generator().manual_seed(5) for _ in range(2))
        fn = verifier(
            lambda: torch.rand(1, generator=one).item(),
            lambda weights: torch.multinomial(weights, 1, generator=other).item(),
        )
    else:
        first, second = np.random.default_rng(9), np.random.default_rng(9)
        fn = verifier(lambda: first.random(), lambda w: int(second.choice(len(w), p=(w / w.sum()).numpy())))
    verdict = check_verifier(fn, draft_length=1)
    assert not (verdict.status == "lossless" and verdict.evidence == "exact"), str(verdict)


def test_behaving_only_while_watched_is_found_by_real_runs():
    verdict = check_verifier(verifier(only_when_watched), draft_length=1)
    assert verdict.status != "lossless", str(verdict)


HONEST = {
    "random by name": drawn_by_name,
    "a cached torch generator": lambda: torch.rand(1, generator=CACHED).item(),
    "a fresh numpy generator": lambda: np.random.default_rng().random(),
    "a cached numpy generator": lambda: ALONE.random(),
    "a Python generator of draws": functools.partial(next, (random.random() for _ in itertools.count())),
    "torch.ops": lambda: torch.ops.aten.rand([1]).item(),
    "a method kept by itself": np.random.default_rng(17).random,
}


@pytest.mark.parametrize("name", HONEST)
def test_draws_that_do_not_escape_are_exact(name):
    verdict = check_verifier(verifier(HONEST[name]), draft_length=1)
    assert verdict.status == "lossless" and verdict.evidence == "exact", str(verdict)


def test_the_generators_are_left_as_they_were():
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    check_verifier(verifier(lambda: torch.rand(1, generator=CACHED).item()), draft_length=1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist() and states[2] == random.getstate()
    assert random.random.__self__ is random._inst and isinstance(HIDDEN["deep"][0][0][0]["rng"], np.random.Generator)

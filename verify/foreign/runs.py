"""The exact law of a function's result, one leaf a run, for code that is not ours."""

from __future__ import annotations

import heapq
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from verify.errors import SubjectError
from verify.foreign.interpose import Room
from verify.foreign.leaf import Leaf, NotUnderstood, Pruned


class Escaped(NotUnderstood):
    """Something other than the tape decided: the same draws gave another result."""


@dataclass
class Runs:
    """The law of a result: its mass by value, the mass not followed, the error of quadratures, what was raised."""

    law: dict[Any, float] = field(default_factory=dict)
    dropped: float = 0.0
    error: float = 0.0
    leaves: int = 0
    raised: list[tuple[float, Exception]] = field(default_factory=list)
    cut_short: bool = False


def exact_runs(
    call: Callable[[], Any],
    room: Room,
    *,
    min_mass: float = 1e-15,
    max_leaves: int = 50_000,
    deadline: float = math.inf,
    rerun: int = 1,
) -> Runs:
    """Run ``call`` on every leaf of its draws, in an open room, the most probable branches first.

    Its result must be hashable. Every ``rerun``-th leaf is run twice and must give the same. A run of the code that
    raises is kept in ``raised`` with its mass. What lies below ``min_mass``, past ``max_leaves`` runs or past the
    ``deadline`` (on ``Room.now``) is not followed; its mass is in ``dropped``, and bounds the error of the law.
    Raises NotUnderstood where a draw has no exact account, and Escaped when a second run differs.
    """
    found = Runs()
    pending: list[tuple[float, tuple[int, ...]]] = [(-1.0, ())]
    while pending:
        if found.leaves >= max_leaves or (found.leaves and Room.now() > deadline):
            found.dropped -= sum(mass for mass, _ in pending)
            found.cut_short = True
            break
        prescribed = heapq.heappop(pending)[1]
        leaf, result, error = _once(call, room, prescribed, min_mass)
        if found.leaves % rerun == 0:
            again, result2, error2 = _once(call, room, tuple(d.taken for d in leaf.decisions), min_mass)
            if result != result2 or type(error) is not type(error2) or leaf.decisions != again.decisions:
                raise Escaped("the same draws led to another result: some randomness or state escaped the tape")
        found.leaves += 1
        taken = tuple(d.taken for d in leaf.decisions)
        mass = 1.0
        for depth, decision in enumerate(leaf.decisions):
            if depth >= len(prescribed):
                for branch, chance in enumerate(decision.probs):
                    if branch != decision.taken and chance > 0:
                        if mass * chance < min_mass:
                            found.dropped += mass * chance
                        else:
                            heapq.heappush(pending, (-mass * chance, (*taken[:depth], branch)))
            mass *= decision.probs[decision.taken]
        found.error += leaf.error * leaf.mass
        if isinstance(leaf.failure, Pruned):
            found.dropped += leaf.mass  # the run was given up here, with all of its branches
        elif error is not None:
            found.raised.append((leaf.mass, error))
        else:
            found.law[result] = found.law.get(result, 0.0) + leaf.mass
    return found


def _once(
    call: Callable[[], Any], room: Room, prescribed: tuple[int, ...], min_mass: float
) -> tuple[Leaf, Any, Exception | None]:
    leaf = Leaf(prescribed, min_mass)
    try:
        with time_limit():
            return leaf, room.run(call, leaf), None
    except Pruned:
        return leaf, None, None
    except SubjectError:
        raise
    except Exception as error:
        if leaf.failure is not None and not isinstance(leaf.failure, Pruned):
            raise leaf.failure from error
        return leaf, None, None if leaf.failure is not None else error


LIMIT_SECONDS = 10.0


@contextmanager
def time_limit() -> Iterator[None]:
    """Raises SubjectError if the code inside runs longer than LIMIT_SECONDS; in the main thread, where signals go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    seconds = LIMIT_SECONDS

    def expired(number: int, frame: object) -> None:
        raise SubjectError(
            f"the function did not return within {seconds:g} s on one draft; make it stop, or shrink its input"
        )

    before = signal.signal(signal.SIGALRM, expired)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)

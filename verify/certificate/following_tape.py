"""A tape that answers with what another program drew, as far as that goes, so that an exact rule is coupled with it."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distributions.tape import Draw, Tape, _Derived

Queues = dict[tuple[str, int, int], "deque[tuple[int, Tensor]]"]
TOP = 1 - 2.0**-53


@dataclass(eq=False)
class FollowingTape(_Derived):
    """Answers each draw with the earliest unused recorded one of its kind, for as many rows and numbers a row; one for
    all ``total`` rows serves the rows at hand. Where there is none it answers from ``fresh``.

    ``record`` is what a program under test drew, in order, from independent uniforms and normals; ``rows`` are those of
    its batch that this tape is for. At the sites in ``mirrored`` a uniform u is answered with its mirror image 1 - u,
    for programs that keep where u is large. ``queues(record)`` shares what is used among the tapes of one replay.

    *The noise is independent, whatever the program does.* Let V_1 .. V_T be the recorded draws in the order of time.
    Of which kind and shape V_t is, and whether it is drawn at all, may depend on V_1 .. V_{t-1}, on the drafts and on
    any other randomness, but V_t is independent of all that. A rule that asks this tape for draws sees answers, and
    nothing else of the record. Claim: its answers have the law of fresh noise, jointly with the drafts. Take T at first
    bounded, and by induction T > 0. The last draw V_T is used once at most. Until it is used, nothing that the rule
    sees, hence neither its asks nor the choice among V_1 .. V_{T-1}, depends on its value; so given the rest it is
    standard noise when it is used, and fresh noise in its place changes no law. Without V_T, that ask would have been
    answered from ``fresh``, because V_T, the last, is chosen only where no other fits; and all other asks as they were,
    because V_T's use takes away nothing but V_T. So the answers have the same law as under V_1 .. V_{T-1}. For an
    unbounded T that is finite, cut it at t and let t grow.

    Hence an exact rule on this tape emits the target's law, and TV(out, target) <= P(out != emitted by the rule), on
    drafts from the drafter's law. Two things the argument needs: a draw is used once; and the choice of a draw must not
    take away others. A cursor that moves forward past what does not fit fails there: whether it moved past an earlier
    draw can depend on the value of that very draw.
    """

    queues: Queues
    rows: Tensor
    total: int
    fresh: Tape
    mirrored: frozenset[str] = field(default_factory=frozenset)

    @staticmethod
    def of(record: Sequence[Draw], total: int, fresh: Tape, mirrored: frozenset[str] = frozenset()) -> FollowingTape:
        """The tape for all rows of a recorded call."""
        return FollowingTape(queues(record, total), torch.arange(total), total, fresh, mirrored)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        value = self._next("uniform", shape)
        if value is None:
            return self.fresh.uniform(site, shape)
        # Multiples of 2^-53 below 1 are mapped to each other: 0 is answered with the last number before 1.
        return TOP - value if site in self.mirrored else value

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        value = self._next("normal", shape)
        return self.fresh.normal(site, shape) if value is None else value

    def _next(self, kind: str, shape: Sequence[int]) -> Tensor | None:
        need, each = shape[0], math.prod(shape[1:])
        fitting = [
            queue
            for count in {need, self.total}
            if need == len(self.rows) and (queue := self.queues[kind, count, each])
        ]
        if not fitting:
            return None
        _, value = min(fitting, key=lambda queue: queue[0][0]).popleft()
        value = value.reshape(-1, each)
        return (value if len(value) == need else value[self.rows]).reshape(tuple(shape))

    def __getitem__(self, rows: Tensor) -> FollowingTape:
        return FollowingTape(self.queues, self.rows[rows], self.total, self.fresh, self.mirrored)


def queues(record: Sequence[Draw], total: int) -> Queues:
    """The draws by kind, rows and numbers a row, each with its place in time. A single number is one row's."""
    found: Queues = defaultdict(deque)
    for place, draw in enumerate(record):
        rows = draw.value.shape[0] if draw.value.dim() else 1
        if draw.value.numel():
            found[draw.kind, rows, draw.value.numel() // rows].append((place, draw.value))
    return found

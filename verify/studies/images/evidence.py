"""Whether a decoder has the target's law: of whole sequences of paths, whose law is known, and between two samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.path import PathLaw
from distributions.tape import GeneratorTape
from verify.checks.fourier_witness import FourierWitness
from verify.checks.mmd import MedianBandwidth
from verify.checks.products import Products
from verify.checks.quadratic_witness import QuadraticWitness
from verify.checks.sliced import Sliced
from verify.imaging.figures import counted
from verify.statistics.held_out import Differences, HeldOut
from verify.statistics.learned import Learner
from verify.statistics.transform import Uniform
from verify.studies.images.subjects import Batch, Job, Subject, batches
from verify.studies.ladder.bounds import STATISTICS, Departure, departure, innovations

CHUNK = 64
"""Images whose laws are evaluated at once: a masked one is as many passes as it has tokens."""


@torch.no_grad()
def levels(subject: Subject, part: Batch) -> Tensor:
    """Of every token five statistics of its path's innovations, (rows, N, 5): independent and uniform on [0, 1] if the
    sequences of paths have the target's law.

    Given the tokens before, a path has known conditionals, step by step, so a whole decoding becomes independent
    standard normals (Rosenblatt 1952) and needs no second sample. The statistics are those of
    ``ladder.bounds.innovations``: along the drafter's mean as the target sees it, where a rule that leans to the draft
    would move its points, and squared lengths.
    """
    found = []
    for start in range(0, len(part.paths), CHUNK):
        rows = slice(start, start + CHUNK)
        paths, condition = part.paths[rows], _rows(part.condition, rows)
        laws = []
        for model in (subject.target, subject.small):
            law = model.law(model.start(len(paths), condition), paths[:, :-1])
            assert isinstance(law, PathLaw)
            laws.append(law)
        columns = innovations(paths.flatten(0, 1), *(_flat(law) for law in laws))
        found.append(columns.reshape(*paths.shape[:2], -1))
    return torch.cat(found)


def _rows(condition: object, rows: slice) -> object:
    if isinstance(condition, Tensor):
        return condition[rows]
    return type(condition)(condition.order[rows], condition.condition[rows])  # type: ignore[attr-defined,call-arg]


def _flat(law: PathLaw) -> PathLaw:
    """The same laws with one batch axis."""
    rows, nodes = law.batch_shape
    return law[torch.arange(rows).repeat_interleave(nodes), torch.arange(nodes).repeat(rows)]


@dataclass(frozen=True, eq=False)
class Known:
    """What a decoder's sequences say of it. ``gap``: the largest Kolmogorov distance over all tokens of the statistics
    of their paths, with the room that chance has; ``dependence``: the p-value of the largest correlation between the
    tokens of an image; ``drafted`` and ``kept`` tokens; target evaluations an image.
    """

    subject: str
    job: Job
    images: int
    gap: Departure
    dependence: float
    drafted: float
    kept: float
    calls: float

    @property
    def flagged(self) -> bool:
        """At a false-alarm rate of two in a million."""
        return self.gap.least > 0 or self.dependence < 1e-6


def known(subject: Subject, job: Job, images: int, seed: int) -> Known:
    """Decode, and hold the paths against the law they should have."""
    columns, drafted, kept, calls = [], 0.0, 0.0, 0.0
    for part in batches(subject, job, images, seed):
        columns.append(levels(subject, part))
        some, others = counted(part.decoded)
        drafted, kept = drafted + some, kept + others
        calls += float(part.decoded.trace.rounds.sum())
    level = torch.cat(columns)
    width = level.shape[1]
    tests = [Products()(level[..., place], Uniform(width), 1e-6, GeneratorTape(seed)) for place in (2, 4)]
    dependence = min(1.0, len(tests) * min(item.p_value or 0.0 for item in tests))
    gap = departure(level.flatten(0, 1), STATISTICS)
    return Known(subject.name, job, images, gap, dependence, drafted, kept, calls / images)


LEARNERS: Mapping[str, Learner] = {
    "sliced": Sliced(),
    "quadratic": QuadraticWitness(),
    "fourier": FourierWitness(),
    "mmd": MedianBandwidth(),
}


@dataclass(frozen=True)
class Between:
    """Two samples: the ``p_value`` of all checks together (Bonferroni), which check it was, and a ``least`` total
    variation at confidence 1 - 1e-6 that an event learned on one half of the rows shows on the other.
    """

    p_value: float
    check: str
    least: float
    n: int


def between(sample: Tensor, truth: Tensor, seed: int = 0) -> Between:
    """Rows (n, m) of two samples, row i of both of one class; what to look for is learned on the first halves."""
    half, tape = len(sample) // 2, GeneratorTape(seed)
    least, found = 0.0, {}
    for name, learner in LEARNERS.items():
        if name == "mmd" and len(sample) - half < 128:
            continue  # its blocks would be too few
        check = learner.fit(sample[:half], truth[:half], tape)
        tally = check.statistic(sample[half:], truth[half:], tape)
        found[name] = check.judge(tally, 1e-3).p_value or 0.0
        if isinstance(check, HeldOut) and isinstance(tally, Differences):
            least = max(least, check.lower(tally))
    name = min(found, key=lambda item: found[item])
    return Between(min(1.0, len(found) * found[name]), name, least, len(sample) - half)

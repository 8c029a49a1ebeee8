"""Jacobi decoding by window: of codes, where drafts are tokens, and of continuous tokens, where they are paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import t as student

from distributions import codes
from distributions.processing import Processed, Processing
from verify.studies.images.subjects import Job, batches
from verify.studies.images.subjects import Subject as Pair
from verify.verifiers.coalescing_jacobi import CoalescingJacobi
from verify.work import Subject, measure, rules

DISCRETE = ("sjd", "scd", "scd_gumbel")
CONTINUOUS = {
    "coalescing_jacobi": CoalescingJacobi(),
    "coalescing_jacobi, redrawn": CoalescingJacobi(coupled=False),
}


@dataclass(frozen=True)
class Window:
    """Target evaluations an image of one rule at one ``window``, its drafts and the last token; with the half-width of
    their 95 % interval over images, and the ``length`` of an image, which is what the target alone needs.
    """

    model: str
    rule: str
    window: int
    images: int
    calls: float
    half_width: float
    length: int

    @property
    def saved(self) -> tuple[float, float, float]:
        """The speed-up in evaluations, and the ends of its interval."""
        ends = self.calls + self.half_width, self.calls - self.half_width
        return self.length / self.calls, *(self.length / end for end in ends)  # type: ignore[return-value]


def coded(images: int) -> Subject:
    """The transformer over codes that ships, in float32: its laws agree between windows to 1e-6, ample for a mean."""
    model = codes.trained(torch.float32).target
    label = torch.arange(images) % 10
    return Subject("mnist.codes", Processed(model, Processing()), model.vocab, model.size, label)


def discrete(subject: Subject, windows: Sequence[int], images: int, seed: Iterator[int]) -> Iterator[Window]:
    """Speculative Jacobi decoding, which redraws its drafts, and two rules that couple them."""
    for name in DISCRETE:
        for window in windows:
            found = measure(subject, name, rules()[name], window, images, next(seed))
            yield Window(subject.name, name, window, images, found.evaluations, found.half_width, subject.length)


def continuous(pair: Pair, windows: Sequence[int], images: int, seed: Iterator[int]) -> Iterator[Window]:
    """The same of paths; the first window knows no token of the image."""
    for name, rule in CONTINUOUS.items():
        for window in windows:
            job = Job(name, rule, window - 1, drafter="none", batch=images)
            rounds = torch.cat([part.decoded.trace.rounds for part in batches(pair, job, images, next(seed))]).double()
            half = float(student.ppf(0.975, images - 1) * rounds.std() / images**0.5)
            yield Window(pair.name, name, window, images, float(rounds.mean()), half, pair.images.length)

"""How good the images are, by a classifier's features: of every method, and of MAR with fewer iterations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.classifier import Classifier
from distributions.images import Images, assembled
from distributions.mar.sampling import sample
from distributions.mar.sequence import MaskedSequence
from distributions.tape import GeneratorTape
from verify.quality import frechet, inception_score
from verify.studies.images.evidence import Between, between
from verify.studies.images.subjects import Job, Subject, batches


@dataclass(frozen=True, eq=False)
class Method:
    """Images that a method made, their ``tokens`` (n, N, d) in raster order, and what it cost a token."""

    name: str
    exact: bool
    tokens: Tensor
    calls: float
    seconds: float


def method(subject: Subject, name: str, job: Job, images: int, seed: int) -> Method:
    """By a decoder."""
    found = [part.decoded for part in batches(subject, job, images, seed)]
    total = images * subject.images.length
    calls = sum(float(part.trace.rounds.sum()) for part in found) / total
    seconds = sum(part.seconds for part in found) / total
    return Method(name, job.exact, torch.cat([part.tokens for part in found]), calls, seconds)


def fewer(subject: Subject, iterations: int, images: int, seed: int, batch: int = 64) -> Method:
    """By the masked model in so many iterations, several tokens at once: the honest rival of any drafts."""
    assert isinstance(subject.target, MaskedSequence)
    model, size, found, begun = subject.target, subject.images.length, [], time.perf_counter()
    for number, first in enumerate(range(0, images, batch)):
        rows = min(batch, images - first)
        label = (torch.arange(rows) + first).remainder(10)
        tape = GeneratorTape((seed << 20) + number)
        found.append(sample(model.network, model.sampler, tape, rows, label, iterations))
    seconds = (time.perf_counter() - begun) / (images * size)
    name = f"{iterations} iterations"
    return Method(name, iterations == size, torch.cat(found), iterations / size, seconds)


@dataclass(frozen=True)
class Score:
    """Of one method: the squared Frechet distance from the target's own images, and from the ``data``; the
    ``inception``-style score; and two samples compared, its features and those of the target's own images.
    """

    method: str
    exact: bool
    calls: float
    seconds: float
    target: float
    data: float
    inception: float
    apart: Between


def scores(images: Images, own: Tensor, methods: Sequence[Method]) -> Iterator[Score]:
    """Each method against the target's ``own`` images (n, N, d), which no other row of the table is made of."""
    told = Classifier.trained()

    def seen(tokens: Tensor) -> tuple[Tensor, Tensor]:
        pixels = assembled(tokens, images.patch)
        return told.features(pixels).double(), told.logits(pixels).double()

    truth, _ = seen(own)
    rows = torch.arange(len(own)) % 10
    data = told.features(_of_classes(images, rows)).double()
    for item in methods:
        features, logits = seen(item.tokens)
        yield Score(
            item.name, item.exact, item.calls, item.seconds, frechet(features, truth), frechet(features, data),
            inception_score(logits), between(features, truth),
        )  # fmt: skip


def _of_classes(images: Images, label: Tensor) -> Tensor:
    """Pixels of images of these classes, different ones."""
    taken: Mapping[int, list[int]] = {
        number: torch.nonzero(images.label == number).squeeze(1).tolist() for number in range(10)
    }
    used = dict.fromkeys(taken, 0)
    chosen = []
    for number in label.tolist():
        chosen.append(taken[number][used[number] % len(taken[number])])
        used[number] += 1
    return images.pixels[chosen]

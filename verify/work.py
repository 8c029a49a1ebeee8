"""What a Jacobi rule costs on a model: evaluations an image, how its drafts agree, how probable its images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.model import Model
from distributions.tape import GeneratorTape, Tape
from verify.checks.surprisal import surprise
from verify.hamming import follow
from verify.jacobi import Jacobi
from verify.verifier import Verifier, catalog


@dataclass(frozen=True, eq=False)
class Subject:
    """A target of images of ``length`` tokens with ``vocab`` values, and what they are conditioned on, if anything."""

    name: str
    target: Model[Any]
    vocab: int
    length: int
    condition: Any = None


@dataclass(frozen=True)
class Work:
    """One rule on one model at one window, over ``chains`` images of ``length`` tokens.

    ``evaluations``: target evaluations an image, with the half-width of its 95 % interval (Student's t over chains).
    ``distance``: the share of waiting drafts that differ from those one round, and three rounds, before; NaN where none
    waits so long. ``nats``: the mean of -log p - H(p) a token, zero for a lossless rule, with the standard deviation
    ``sigma`` it then has; ``entropy``, in nats a token, along the images.
    """

    rule: str
    window: int
    length: int
    chains: int
    evaluations: float
    half_width: float
    distance: tuple[float, float]
    nats: float
    sigma: float
    entropy: float

    @property
    def speedup(self) -> tuple[float, float, float]:
        """Evaluations of ancestral sampling over these, and the ends of its 95 % interval."""
        low, high = self.evaluations - self.half_width, self.evaluations + self.half_width
        return self.length / self.evaluations, self.length / high, self.length / low

    @property
    def z(self) -> float:
        """``nats`` in standard deviations: standard normal for a lossless rule."""
        return self.nats / self.sigma


RELEASE = "junhyukso/SCD at"


def rules() -> Mapping[str, Verifier]:
    """Every Jacobi rule of the catalogue with its defaults, then those that re-enact SCD as released, by name."""
    found = {name: kind for name, kind in catalog().items() if issubclass(kind, Jacobi)}
    planted = {name: kind for name, kind in catalog("saboteurs").items() if issubclass(kind, Jacobi)}
    found |= {f"saboteurs/{name}": kind for name, kind in planted.items() if RELEASE in kind.claim.reference}
    return {name: kind() for name, kind in found.items()}


def measure(subject: Subject, rule: str, verifier: Verifier, window: int, chains: int, seed: int) -> Work:
    """Decode ``chains`` images with a window of ``window`` model inputs: that many less one drafts, and the last token.

    The first window is drafted uniformly. Raises ValueError for a window below 2, which drafts nothing.
    """
    if window < 2:
        raise ValueError(f"a window of {window} drafts nothing; 2 is the least")
    target, length, condition = subject.target, subject.length, subject.condition
    drafter = Markov(torch.ones(1, subject.vocab), 0)
    course = follow(target, drafter, verifier, window - 1, length, GeneratorTape(seed), chains, condition)
    rounds = course.rounds.double()
    half = float(student.ppf(0.975, chains - 1) * rounds.std() / chains**0.5)
    near, far = (float(course.distance[gap].nanmean()) for gap in (1, 3))
    scale = gate(subject, course.tokens)
    return Work(rule, window, length, chains, float(rounds.mean()), half, (near, far), *scale)


def gate(subject: Subject, tokens: Tensor) -> tuple[float, float, float]:
    """The scale gate on images (rows, T): mean surprise a token, its standard deviation under the target, mean entropy.

    The test of ``verify.checks.surprisal``: the first over the second is standard normal under a lossless rule.
    """
    law = subject.target.law(subject.target.start(len(tokens), subject.condition), tokens[:, :-1])
    assert isinstance(law, Categorical)
    excess, variance = surprise(tokens, law)
    entropy = torch.special.entr(law.probs).sum(-1)
    return float(excess.mean()), float(variance.sum().sqrt()) / excess.numel(), float(entropy.mean())


def ancestral(subject: Subject, chains: int, tape: Tape) -> Work:
    """Images drawn token by token, one evaluation each: what every lossless rule must equal in law."""
    state, tokens = subject.target.start(chains, subject.condition), []
    for _ in range(subject.length):
        tokens.append(subject.target.law(state).sample(tape, "token"))
        state = subject.target.extend(state, tokens[-1], torch.ones(chains, dtype=torch.long))
    scale, nothing = gate(subject, torch.cat(tokens, 1)), float("nan")
    return Work("ancestral", 1, subject.length, chains, subject.length, 0.0, (nothing, nothing), *scale)

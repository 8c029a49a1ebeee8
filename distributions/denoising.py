"""Noised data, what a denoiser loses on them, and the least that any denoiser loses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.datasets import CONDITION, Data, conditions
from distributions.heads import ExactHead, Head
from distributions.tape import GeneratorTape, Tape

REPEATS = 4
NAMELESS = 0.1


@dataclass(frozen=True, eq=False)
class Batch:
    """Noised data: ``clean`` x_0 and ``noise`` eps (n, d), ``angle`` (n,) and ``condition`` (n, c)."""

    clean: Tensor
    noise: Tensor
    angle: Tensor
    condition: Tensor

    @property
    def value(self) -> Tensor:
        """x = cos clean + sin noise."""
        angle = self.angle.unsqueeze(-1)
        return angle.cos() * self.clean + angle.sin() * self.noise

    def wanted(self, predicts: str) -> Tensor:
        """What a head that ``predicts`` noise or velocity should say, on average."""
        angle = self.angle.unsqueeze(-1)
        return self.noise if predicts == "noise" else angle.cos() * self.noise - angle.sin() * self.clean


def noised(data: Data, rows: int, tape: Tape, repeats: int = REPEATS) -> Batch:
    """``rows`` noisy values, ``repeats`` of each datum, at levels uniform in the angle; a tenth of the data nameless.

    Of one datum the levels are spread evenly over (0, pi / 2), from one uniform, which lowers the loss's variance.
    """
    each = rows // repeats
    condition = conditions(tape, each)
    clean = data(condition).sample(tape, "clean").repeat(repeats, 1)
    condition = condition * ~tape.coin("nameless", torch.full((each, 1), NAMELESS))
    spread = torch.arange(repeats).repeat_interleave(each) / repeats
    angle = 0.5 * math.pi * ((tape.uniform("angle", (each,)).repeat(repeats) + spread) % 1)
    return Batch(clean, tape.normal("noise", clean.shape), angle, condition.repeat(repeats, 1))


def losses(told: Tensor, batch: Batch, predicts: str, step: Tensor) -> tuple[Tensor, Tensor]:
    """(of the prediction, of the variance), means over rows and coordinates; ``told`` (n, 2 d) as ``forward`` has it.

    The first is the mean squared error. The second is the vb term of learned ranges (Nichol and Dhariwal 2102.09672,
    eqs. 15 and 16): KL(N(clean x_0 + current x, small) || N(clean x_0hat + current x, small^(1-u) large^u)) of the
    kernel of a variance-preserving chain from ``angle`` to ``angle - step`` (n,), or to half the angle where that is
    more, with the prediction detached. It is multiplied by cos^4 / range^2, range = log large - log small: for a fine
    chain the term is range^2 (u - error^2 / cos^2)^2 / 4 and a constant, with the error of the noise, so that every
    level then counts as much as the squared error itself does, however fine the chain.
    """
    main, fraction = told.double().chunk(2, -1)
    error = (main - batch.wanted(predicts)).square().mean()
    angle = batch.angle.unsqueeze(-1)
    earlier = torch.maximum(angle - step.unsqueeze(-1), angle / 2)
    # The clean value's error is -sin times that of the velocity, or -tan times that of the noise.
    missed = (main.detach() - batch.wanted(predicts)) * angle.sin()
    if predicts == "noise":
        missed = missed / angle.cos()
    added = (angle - earlier).sin() * (angle + earlier).sin() / earlier.cos().square()  # 1 - (cos / cos)^2
    large, small = added.log(), added.log() + 2 * (earlier.sin() / angle.sin()).log()
    clean = earlier.cos() * added / angle.sin().square()
    log_variance = small + fraction * (large - small)
    surplus = (small.exp() + (clean * missed).square()) * (-log_variance).exp()
    divergence = 0.5 * (log_variance - small + surplus - 1)
    return error, (divergence * (angle.cos().square() / (large - small)).square()).mean()


def exact(data: Data) -> ExactHead:
    """The head that no training can beat."""
    return ExactHead(data, torch.zeros(CONDITION, dtype=torch.float64))


def denoising_error(head: Head, data: Data, rows: int = 4096, seed: int = 1) -> float:
    """Mean squared error of the predicted noise over 40 levels evenly spaced in the angle, with a condition."""
    tape, total = GeneratorTape(seed), 0.0
    condition = conditions(tape, rows)
    clean = data(condition).sample(tape, "clean")
    for angle in (torch.arange(40, dtype=torch.float64) + 0.5) * (math.pi / 80):
        noise = tape.normal("noise", clean.shape)
        with torch.no_grad():
            told = head(angle.cos() * clean + angle.sin() * noise, angle.cos(), angle.sin(), condition)
        total += float((told.noise - noise).square().mean())
    return total / 40

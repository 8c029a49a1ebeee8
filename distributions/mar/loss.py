"""What MAR's head is trained on: the error of the noise, and a bound that teaches the variance."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from distributions.mar.diffusion import LENGTH
from distributions.mar.head import HeadNetwork
from distributions.schedule import cosine
from distributions.tape import Tape

BIN = 1 / 255
SMALLEST = 1e-12


@cache
def _tables(device: torch.device) -> tuple[Tensor, ...]:
    """Of every kernel of the training chain (1000,): signal and noise of its level, the posterior's two coefficients,
    and the logarithms of the small and the large variance.
    """
    chain = cosine(LENGTH)
    rows = [(*chain.posterior(time), *chain.log_variances(time)) for time in range(1, LENGTH + 1)]
    parts = [torch.stack(column) for column in zip(*rows, strict=True)]
    return tuple(part.to(device) for part in (chain.signal[1:], chain.noise[1:], *parts))


def likelihood(clean: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The log-mass that N(mean, scale^2) gives to a bin of 2 / 255 around ``clean``; half-lines beyond -1 and 1.

    As in guided-diffusion (Dhariwal and Nichol 2105.05233, ``losses.py``), with its approximation of the normal
    distribution function, (1 + tanh(sqrt(2 / pi) (x + .044715 x^3))) / 2, and masses of 1e-12 at least.
    """

    def below(place: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (place + 0.044715 * place**3)))

    upper, lower = below((clean - mean + BIN) / scale), below((clean - mean - BIN) / scale)
    mass = torch.where(clean < -0.999, upper, torch.where(clean > 0.999, 1 - lower, upper - lower))
    return mass.clamp(min=SMALLEST).log()


def losses(output: Tensor, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The loss (n,) of every token: mean |eps - eps_hat|^2 + vb (Nichol and Dhariwal 2102.09672, eqs. 14 to 16).

    ``output`` (n, 2 d) of the network for x_t = signal clean + noise noise at ``time`` (n,), 0..999; the rest (n, d).
    vb, in bits and a mean over coordinates, is KL(q(x_{t-1} | x_t, x_0) || kernel), or minus ``likelihood`` at time 0;
    the predicted noise is detached in it, so it teaches the variance only, and its weight is 1.
    """
    signal, spread, first, second, small, large = (part[time].unsqueeze(-1) for part in _tables(output.device))
    eps, variance = output.double().chunk(2, -1)
    clean, noise = clean.double(), noise.double()
    value = signal * clean + spread * noise
    error = (noise - eps).square().mean(-1)
    guess = (value - spread * eps.detach()) / signal
    log_variance = small + (variance + 1) / 2 * (large - small)
    apart = first * (guess - clean)
    divergence = 0.5 * (log_variance - small - 1 + (small.exp() + apart.square()) * (-log_variance).exp())
    surprise = -likelihood(clean, first * guess + second * value, (0.5 * log_variance).exp())
    bound = torch.where(time.unsqueeze(-1) == 0, surprise, divergence)
    return error + bound.mean(-1) / math.log(2)


def diffusion_loss(
    network: HeadNetwork, condition: Tensor, clean: Tensor, tape: Tape, repeats: int = 4, site: str = "diffusion"
) -> Tensor:
    """The mean () of ``losses`` over tokens ``clean`` (n, d) with ``condition`` (n, D), ``repeats`` times each.

    Every copy has its own time, uniform on 0..999, and its own noise.
    """
    clean, condition = clean.repeat(repeats, 1), condition.repeat(repeats, 1)
    time = (tape.uniform(f"{site}.time", (len(clean),)) * LENGTH).long()
    noise = tape.normal(f"{site}.noise", clean.shape)
    signal, spread = (part[time].unsqueeze(-1) for part in _tables(clean.device)[:2])
    output = network(signal * clean.double() + spread * noise, time, condition)
    return losses(output, clean, noise, time).mean()

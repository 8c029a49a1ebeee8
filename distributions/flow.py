"""Flow laws: a deterministic sampler as a change of variables, with the exact density of its token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.heads import Head, guided
from distributions.law import at, no_overlap
from distributions.preimage import COARSE, jacobian, preimage
from distributions.schedule import Schedule
from distributions.tape import Tape

SCHEMES = ("euler", "heun")
SLOPES = 8192
"""Rows times directions that are differentiated at once, which bounds the memory."""


@dataclass(frozen=True, eq=False)
class Ends:
    """Both ends of trajectories, ``noise`` x_T and ``value`` x_0 (*batch, d), and ``log_prob`` (*batch), the log of the
    density that this noise gives to this value. ``found`` (*batch): whether the noise leads to the value, by steps of
    which none reverses the orientation (det > 0); where it is False, ``log_prob`` is NaN.
    """

    noise: Tensor
    value: Tensor
    log_prob: Tensor
    found: Tensor


@dataclass(frozen=True, eq=False)
class FlowLaw:
    """The law of x_0 when a head's deterministic sampler is run from x_T ~ N(0, (signal_T^2 + noise_T^2) I).

    From level t to level t - 1, with (signal, noise) of t and (signal', noise') of t - 1, a step of ``euler`` is

        x' = x + (signal' - signal) clean(x) + (noise' - noise) eps(x),

    where clean and eps are the head's. Since x = signal clean + noise eps, it equals signal' clean + noise' eps: DDIM
    (Song et al. 2010.02502, eq. 12 with eta = 0) on a variance-preserving grid. Where signal = 1 it is x + (noise' -
    noise) (x - clean) / noise, Euler's step of Karras et al. (2206.00364, algorithm 1 without churn); on the straight
    line, x + (noise' - noise) (eps - clean), Euler's step along the velocity of flow matching (2210.02747). ``heun``
    takes clean and eps as the means of their values at x and at Euler's x', the trapezoidal rule; at level 0 eps has no
    value, so the last step is Euler's, as Karras et al. have it.

    By change of variables log density(x_0) = log N(x_T) - sum over steps of log |det J_t|, where x_T leads to x_0 by
    steps with Jacobians J_t. That is the law's density wherever x_T is the only noise that does; another one would add
    to it. ``condition`` (*batch, c), ``guidance`` as for ``Denoiser``. ``with_noise``: a value is (x_T, x_0), event (2,
    d), and its token x_0; else event (d,). Everything is float64 but the head, which may have a precision of its own:
    with a float32 head a round trip reaches 1e-6 or so, and with a float64 one 1e-12.
    """

    head: Head
    schedule: Schedule
    condition: Tensor
    guidance: float = 1.0
    scheme: str = "euler"
    with_noise: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme is {self.scheme!r}; choose one of {', '.join(SCHEMES)}")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.condition.shape[:-1])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (2, self.head.dim) if self.with_noise else (self.head.dim,)

    def start(self) -> Gaussian:
        """The law of x_T, batch (*batch,), event (d,)."""
        zeros = self.condition.new_zeros((*self.batch_shape, self.head.dim), dtype=torch.float64)
        level = torch.hypot(self.schedule.signal[-1], self.schedule.noise[-1])
        return Gaussian(zeros, level.expand(self.head.dim))

    def step(self, time: int, value: Tensor) -> Tensor:
        """x_{t-1} (*any, *batch, d) from x_t = ``value``, t = ``time`` in T..1; a function to be differentiated."""
        signal, noise = self.schedule.signal, self.schedule.noise
        condition = self.condition.expand(*value.shape[:-1], self.condition.shape[-1])
        more, less = signal[time - 1] - signal[time], noise[time - 1] - noise[time]

        def drift(level: int, place: Tensor) -> Tensor:
            told = guided(self.head, place, signal[level], noise[level], condition, self.guidance)
            return more * told.clean.double() + less * told.noise.double()

        first = drift(time, value)
        if self.scheme == "euler" or time == 1:
            return value + first
        return value + 0.5 * (first + drift(time - 1, value + first))

    def transport(self, noise: Tensor) -> Tensor:
        """x_0 (*any, *batch, d) of x_T = ``noise``."""
        for time in range(self.schedule.steps, 0, -1):
            noise = self.step(time, noise)
        return noise

    def forward(self, noise: Tensor) -> Ends:
        """``transport`` and the density in one pass: the Jacobian of every step, and no inversion."""
        return self._in_parts(noise, FlowLaw._forward)

    def invert(self, value: Tensor) -> Ends:
        """A noise that leads to each ``value`` (*any, *batch, d), step by step from clean to noisy.

        A step is undone by Broyden's iteration, started with the Jacobian of the step before and begun again with its
        own where the error no longer falls; its own at the solution is computed in any case, for the density. The noise
        is a function of the value alone, so that ``found`` is one too. It is False where no solution was found, where a
        Jacobian has det <= 0 there, and where the noise, sent forward again, misses the value by over 1e-5 (1 + |x|).
        """
        return self._in_parts(value, FlowLaw._invert)

    def sample(self, tape: Tape, site: str) -> Tensor:
        noise = self.start().sample(tape, site)
        value = self.transport(noise)
        return torch.stack((noise, value), -2) if self.with_noise else value

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of the token of ``value``, by ``invert``; raises ArithmeticError where that fails."""
        shape = tuple(value.shape[value.dim() - len(self.event_shape) :])
        if shape != self.event_shape:
            raise ValueError(f"value {tuple(value.shape)} must end in the event shape {self.event_shape} of the law")
        ends = self.invert(self.token(value))
        if not bool(ends.found.all()):
            raise ArithmeticError(
                f"no noise was found for {int((~ends.found).sum())} of {ends.found.numel()} values: the map is not one "
                "to one, or does not reach them; start one step in (one_step_in()), take more steps, or ask invert()"
            )
        return ends.log_prob

    def token(self, value: Tensor) -> Tensor:
        return value[..., 1, :] if self.with_noise else value

    def overlap(self, other: Any) -> Tensor:
        """Raises TypeError: the expectation has no closed form."""
        raise no_overlap(self, other)

    def __getitem__(self, index: Any) -> FlowLaw:
        return replace(self, condition=at(self.condition, index, 1))

    def _in_parts(self, value: Tensor, work: Callable[[FlowLaw, Tensor], Ends]) -> Ends:
        """``work`` on a batch of rows, as many at once as memory allows."""
        dim = self.head.dim
        shape = np.broadcast_shapes(tuple(value.shape[:-1]), self.batch_shape)
        flat = value.double().expand(*shape, dim).reshape(-1, dim)
        whole = replace(self, condition=self.condition.expand(*shape, -1).reshape(len(flat), self.condition.shape[-1]))
        size = max(1, SLOPES // dim)
        chunks = [slice(first, first + size) for first in range(0, len(flat), size)]
        none = flat.new_zeros(0)  # so that an empty batch, which no head need accept, is one
        parts = [Ends(flat[:0], flat[:0], none, none.bool()), *(work(whole[chunk], flat[chunk]) for chunk in chunks)]
        noise, clean, log_prob, found = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("noise", "value", "log_prob", "found")
        )
        noise, clean = noise.reshape(*shape, dim), clean.reshape(*shape, dim)
        return Ends(noise, clean, torch.where(found, log_prob, math.nan).reshape(shape), found.reshape(shape))

    def _forward(self, noise: Tensor) -> Ends:
        value, log_prob = noise, self.start().log_prob(noise)
        found = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
        for time in range(self.schedule.steps, 0, -1):
            value, slope = jacobian(partial(self.step, time), value)
            sign, volume = torch.linalg.slogdet(slope)
            log_prob, found = log_prob - volume, found & (sign > 0)
        return Ends(noise, value, log_prob, found & torch.isfinite(log_prob))

    def _invert(self, value: Tensor) -> Ends:
        noise, log_prob = value.clone(), torch.full_like(value[:, 0], math.nan)
        found = torch.zeros(len(value), dtype=torch.bool, device=value.device)
        left, place, slope = torch.arange(len(value), device=value.device), value, None
        volume = torch.zeros_like(log_prob)
        for time in range(1, self.schedule.steps + 1):
            place, slope, solved = preimage(partial(_step, self[left], time), place, slope)
            sign, grown = torch.linalg.slogdet(slope)
            volume = volume + grown
            solved &= (sign > 0) & torch.isfinite(volume)
            left, place, slope, volume = (part[solved] for part in (left, place, slope, volume))
            if not len(left):
                return Ends(noise, value, log_prob, found)
        again = self[left]
        missed = torch.linalg.vector_norm(again.transport(place) - value[left], dim=-1)
        noise[left], log_prob[left] = place, again.start().log_prob(place) - volume
        found[left] = missed <= COARSE * (1 + torch.linalg.vector_norm(value[left], dim=-1))
        return Ends(noise, value, log_prob, found)


def _step(law: FlowLaw, time: int, rows: Tensor, place: Tensor) -> Tensor:
    return law[rows].step(time, place)

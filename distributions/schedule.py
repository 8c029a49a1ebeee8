"""Noise schedules: how much signal and how much noise a value holds at every grid point of a denoising chain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from distributions.law import trusted


@dataclass(frozen=True, eq=False)
class Schedule:
    """A grid of noise levels k = 0..T: at level k a value is x_k = signal_k x_0 + noise_k eps, eps ~ N(0, I).

    ``signal`` and ``noise`` (T + 1,), float64. Level 0 is clean, (1, 0), and level T the noisiest; the kernel number
    t = T..1 goes from level t to level t - 1 (in the code of the diffusion libraries, index i = t - 1). Every schedule
    in use is such a grid: variance preserving (signal^2 + noise^2 = 1), exploding (signal = 1), straight (signal = 1 -
    noise). Raises ValueError unless level 0 is clean, noise grows and the ratio of signal to noise falls.
    """

    signal: Tensor
    noise: Tensor

    def __post_init__(self) -> None:
        signal, noise = self.signal.double(), self.noise.double()
        if signal.dim() != 1 or signal.shape != noise.shape or len(signal) < 2:
            raise ValueError(
                f"signal {tuple(signal.shape)} and noise {tuple(noise.shape)} must be one grid (T + 1,), T >= 1; "
                "give both at every level"
            )
        if float(signal[0]) != 1.0 or float(noise[0]) != 0.0:
            raise ValueError(f"level 0 has signal {signal[0]:g} and noise {noise[0]:g}; it must be clean, 1 and 0")
        if not bool(torch.isfinite(torch.stack((signal, noise))).all()):
            raise ValueError("signal and noise must be finite at every level; replace the infinite or missing entries")
        if not bool((noise.diff() > 0).all()) or not bool(((signal[1:] / noise[1:]).diff() < 0).all()):
            raise ValueError("noise must grow and signal / noise fall from level to level; sort the grid")
        if bool((signal < 0).any()):
            raise ValueError("signal must be non-negative at every level; replace the negative entries")
        object.__setattr__(self, "signal", signal)
        object.__setattr__(self, "noise", noise)

    @property
    def steps(self) -> int:
        """T, the number of kernels."""
        return len(self.signal) - 1

    @property
    def angle(self) -> Tensor:
        """atan2(noise, signal) (T + 1,), from 0 (clean) to pi / 2: what a level is on any schedule, scale aside."""
        return torch.atan2(self.noise, self.signal)

    def added(self, time: int, earlier: int = 0) -> Tensor:
        """The variance that the forward process adds from level ``earlier`` to level ``time``.

        Formula: noise_t^2 - (signal_t / signal_e)^2 noise_e^2; the beta_t of a variance-preserving chain for e = t - 1.
        """
        ratio = self.signal[time] / self.signal[earlier]
        return self.noise[time] ** 2 - (ratio * self.noise[earlier]) ** 2

    def posterior(self, time: int) -> tuple[Tensor, Tensor]:
        """(clean, current): the mean of x_{t-1} given x_t and x_0 is clean x_0 + current x_t.

        Formula (Ho et al. 2006.11239, eq. 7, with any signal and noise): with v = added(t, t - 1), clean =
        signal_{t-1} v / noise_t^2 and current = (signal_t / signal_{t-1}) noise_{t-1}^2 / noise_t^2.
        """
        square = self.noise[time] ** 2
        clean = self.signal[time - 1] * self.added(time, time - 1) / square
        return clean, self.signal[time] / self.signal[time - 1] * self.noise[time - 1] ** 2 / square

    def log_variances(self, time: int) -> tuple[Tensor, Tensor]:
        """(small, large): logarithms of the least and the most variance that the kernel from level t may have.

        small: of x_{t-1} given x_t and x_0, added(t, t - 1) noise_{t-1}^2 / noise_t^2, right for data at one point;
        large: added(t, t - 1), right for data N(0, I) on a variance-preserving chain (Ho et al. 2006.11239, section
        3.2; a learned range interpolates between them, Nichol and Dhariwal 2102.09672, eq. 15). The small variance of
        the last kernel, t = 1, is zero and is replaced by that of t = 2, or by the large one where there is no other.
        """
        large = self.added(time, time - 1).log()
        if time == 1:
            return (self.log_variances(2)[0] if self.steps > 1 else large), large
        return large + 2 * (self.noise[time - 1] / self.noise[time]).log(), large

    def one_step_in(self) -> Schedule:
        """The same schedule without its noisiest level: a chain that starts from N(0, I) one step later.

        Where the signal of the last level is tiny, an error of the predicted noise is multiplied by noise / signal in
        the first step; leaving that level out changes the target, and takes the factor away.
        """
        return Schedule(self.signal[:-1], self.noise[:-1])

    def to(self, device: str | torch.device) -> Schedule:
        """The schedule on another device."""
        return trusted(Schedule, signal=self.signal.to(device), noise=self.noise.to(device))


def respaced(alpha_bar: Tensor, steps: int) -> Schedule:
    """``steps`` levels of a variance-preserving chain with cumulative products ``alpha_bar`` (N,), clean level added.

    Level k is entry round((k - 1) (N - 1) / (steps - 1)), the respacing of improved diffusion (2102.09672, appendix)
    as MAR uses it: the multiple of the stride is a running sum, and rounding of that sum decides which way a half
    goes, so the sum is repeated here. One level is the last entry. Raises ValueError for more levels than entries.
    """
    if not 1 <= steps <= len(alpha_bar):
        raise ValueError(f"steps is {steps}; a chain of {len(alpha_bar)} has between 1 and {len(alpha_bar)}")
    last = len(alpha_bar) - 1
    strides = [last / (steps - 1)] * (steps - 1) if steps > 1 else []
    chosen = [round(place) for place in accumulate(strides, initial=0.0 if strides else float(last))]
    kept = torch.cat((alpha_bar.new_ones(1), alpha_bar[chosen])).double()
    return Schedule(kept.sqrt(), (1 - kept).sqrt())


def cosine(steps: int = 100, length: int = 1000) -> Schedule:
    """Nichol and Dhariwal's schedule (2102.09672, eq. 17) over ``length`` steps, respaced: the one of MAR's heads.

    alpha_bar is the product of 1 - min(1 - f(i + 1) / f(i), .999), f(i) = cos^2((i / length + .008) / 1.008 pi / 2).
    """
    place = torch.arange(length + 1, dtype=torch.float64) / length
    curve = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
    return respaced((1 - (1 - curve[1:] / curve[:-1]).clamp(max=0.999)).cumprod(0), steps)


def linear(steps: int = 100, length: int = 1000) -> Schedule:
    """Ho et al.'s schedule (2006.11239): beta from 1e-4 to .02 in 1000 steps, both scaled by 1000 / ``length``."""
    scale = 1000 / length
    beta = torch.linspace(1e-4 * scale, 0.02 * scale, length, dtype=torch.float64)
    return respaced((1 - beta).cumprod(0), steps)


def exploding(steps: int = 18, least: float = 0.002, most: float = 80.0, curve: float = 7.0) -> Schedule:
    """Karras et al.'s grid (2206.00364, eq. 5): signal 1, noise^(1 / curve) evenly spaced between its two ends."""
    ends = most ** (1 / curve), least ** (1 / curve)
    level = torch.linspace(*ends, steps, dtype=torch.float64) ** curve
    noise = torch.cat((level, level.new_zeros(1))).flip(0)
    return Schedule(torch.ones_like(noise), noise)


def straight(steps: int = 25, end: float = 1.0) -> Schedule:
    """Flow matching's line (2210.02747): signal = 1 - t, noise = t, t evenly spaced from 0 to ``end``."""
    noise = torch.linspace(0, end, steps + 1, dtype=torch.float64)
    return Schedule(1 - noise, noise)

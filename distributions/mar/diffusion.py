"""MAR's diffusion head as a head like any other, and the law of a token that it draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from distributions.heads import Prediction
from distributions.mar import masking
from distributions.mar.head import HeadNetwork
from distributions.path import Denoiser, PathLaw
from distributions.schedule import Schedule, cosine

LENGTH = 1000
NEAR = 1e-9


@cache
def _angles(device: torch.device) -> Tensor:
    """The angle (1000,) of every level that the network was trained at."""
    return cosine(LENGTH).angle[1:].to(device)


def level(signal: Tensor, noise: Tensor) -> Tensor:
    """The index 0..999 () of a level on the cosine chain of 1000, which is the time that the network reads.

    Raises ValueError for a level between those of the chain: the network has never seen one.
    """
    known = _angles(noise.device)
    gap, index = (known - torch.atan2(noise, signal)).abs().min(-1)
    if not bool(gap < NEAR):
        raise ValueError(
            f"signal {float(signal):g} and noise {float(noise):g} are no level of the cosine chain of {LENGTH}; "
            "use schedule.cosine(steps)"
        )
    return index


def conditions(told: Tensor, untold: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """What the head is told: z (*batch, D) alone, or the scale of guidance, z, and what stands for none, side by side.

    So every token has a scale of its own, and the unconditional branch its own context, as MAR's guidance needs:
    (*batch, 1 + 2 D), float64.
    """
    if untold is None or scale is None:
        return told
    first = scale.to(told.device).expand(told.shape[:-1]).unsqueeze(-1)
    return torch.cat((first.double(), told.double(), untold.double()), -1)


@dataclass(frozen=True, eq=False)
class DiffusionHead:
    """A ``Head`` whose conditions are those of ``conditions``; the network runs in its own dtype, the rest in float64.

    x_0 = (x - noise eps) / signal, not clipped, with eps = eps_none + scale (eps - eps_none) where there is guidance;
    ``fraction`` = (v + 1) / 2, not clipped, is the conditional branch's (Nichol and Dhariwal 2102.09672, eq. 15).
    Raises ValueError for conditions of another width, and as ``level`` does.
    """

    network: HeadNetwork

    @property
    def dim(self) -> int:
        return self.network.dim

    @property
    def null(self) -> Tensor:
        """Not a number: what stands for none depends on the tokens; guide by ``conditions`` instead."""
        return torch.full((self.network.condition,), float("nan"), dtype=torch.float64)

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        value, width = value.double(), self.network.condition
        signal, noise = (torch.as_tensor(part, dtype=torch.float64, device=value.device) for part in (signal, noise))
        time = level(signal, noise)
        if condition.shape[-1] == width:
            eps, variance = self.network(value, time, condition).double().chunk(2, -1)
        elif condition.shape[-1] == 1 + 2 * width:
            scale, told, untold = torch.split(condition, [1, width, width], -1)
            both = self.network(torch.stack((value, value)), time, torch.stack((told, untold))).double()
            (eps, variance), none = both[0].chunk(2, -1), both[1].chunk(2, -1)[0]
            eps = none + scale * (eps - none)
        else:
            raise ValueError(
                f"a condition of {condition.shape[-1]} numbers is neither {width}, without guidance, nor "
                f"{1 + 2 * width}, with it; make it with diffusion.conditions"
            )
        return Prediction((value - noise * eps) / signal, eps, (variance + 1) / 2)


@dataclass(frozen=True)
class Sampler:
    """How a token is drawn: 100 of the 1000 steps, and ``guidance`` that is ``constant`` or grows ``linear``-ly.

    ``temperature`` multiplies the noise of the steps, not of the start. Without ``last_noise``, as released, the token
    is the mean of the last kernel, and two models' laws are mutually singular: to verify drafts, leave it on, which
    adds noise of standard deviation .0063 to latents of standard deviation 1. ``late``: start from N(0, I) one step
    later, where noise / signal, by which errors of the predicted noise are multiplied, is 64 and not 20 000.
    """

    guidance: float = 1.0
    growth: str = "linear"
    temperature: float = 1.0
    steps: int = 100
    last_noise: bool = True
    late: bool = False

    @property
    def guided(self) -> bool:
        """Whether the unconditional model is needed."""
        return self.guidance != 1.0

    def scale(self, left: Tensor | int, tokens: int) -> Tensor:
        """As ``masking.scale``."""
        return masking.scale(self.guidance, self.growth, left, tokens)

    def law(
        self, network: HeadNetwork, told: Tensor, untold: Tensor | None = None, scale: Tensor | None = None
    ) -> PathLaw:
        """The law of tokens, batch (*batch,), whose conditions are ``told`` (*batch, D), and ``untold`` for no class.

        ``scale`` of guidance, () or what broadcasts to (*batch,). Raises ValueError where guidance lacks either.
        """
        if self.guided and (untold is None or scale is None):
            raise ValueError(f"guidance {self.guidance} needs untold, the conditions of no class, and a scale")
        condition = conditions(told, untold, scale) if self.guided else told
        schedule = _schedule(self.steps, self.late, told.device)
        return PathLaw(Denoiser(DiffusionHead(network), schedule, condition, self.temperature), self.last_noise)


@cache
def _schedule(steps: int, late: bool, device: torch.device) -> Schedule:
    whole = cosine(steps, LENGTH).to(device)
    return whole.one_step_in() if late else whole

"""The rules, and the pairs of a drafter and a target that they are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.datasets import CONDITION, Data, cross, heavy_tailed, ill_conditioned, moons, ring
from distributions.heads import ExactHead
from distributions.network import NetworkHead
from distributions.path import Denoiser
from distributions.schedule import Schedule, cosine, linear
from distributions.training import pretrained
from verify.verifier import Verifier
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.flow_exact import FlowExact
from verify.verifiers.last_gaussian import LastGaussian
from verify.verifiers.pooled_noise import PooledNoiseRule
from verify.verifiers.restarting import Restarting
from verify.verifiers.whole_path import WholePath

STEPS = 10
RULES: Mapping[str, Verifier] = {
    "cspd": CspdReleased.published(tries=1000),
    "cspd_released": CspdReleased(),
    "last_gaussian": LastGaussian(),
    "whole_path": WholePath(),
    "restarting": Restarting(),
    "coalescing": Coalescing(),
    "pooled_noise": PooledNoiseRule(),
    "flow_exact": FlowExact(),
}
SWEPT: Mapping[str, Data] = {"several modes": moons, "ill-conditioned": cross, "heavy tails, 16-D": heavy_tailed}
Build = Callable[[Tensor], Denoiser]


@dataclass(frozen=True)
class Case:
    """A drafter and a target, by the condition. ``flows``: whether their deterministic samplers are a
    case of their own, and not that of another line: variance and temperature are nothing to them.
    """

    name: str
    drafter: Build
    target: Build
    flows: bool = True


def exact(data: Data, error: float = 0.0, grid: Schedule | None = None, **more: float) -> Build:
    """The sampler of a head that is wrong by ``error`` of the clean value in every coordinate, and otherwise never."""
    head = ExactHead(data, torch.zeros(CONDITION, dtype=torch.float64), error)
    levels = cosine(STEPS).one_step_in() if grid is None else grid
    return lambda condition: Denoiser(head, levels, condition, **{"fraction": 0.5, **more})


def cases() -> list[Case]:
    """What may be wrong with a drafter, and what may be awkward about a target, one at a time."""
    grid = cosine(STEPS).one_step_in()
    small, wide = (pretrained(name, dtype=torch.float64) for name in ("ring", "low_rank"))

    def trained(head: NetworkHead, **more: float) -> Build:
        return lambda condition: Denoiser(head, grid, condition, **more)

    one = {"fraction": 1.0}
    return [
        Case("one variance, trained", trained(small.drafter, **one), trained(small.target, **one)),
        Case("learned variances, trained", trained(small.drafter), trained(small.target), False),
        Case("learned variances, 16-D, trained", trained(wide.drafter), trained(wide.target), False),
        Case("several modes", exact(moons, 0.003), exact(moons)),
        Case("ill-conditioned", exact(cross, 0.003), exact(cross)),
        Case("ill-conditioned, 16-D", exact(ill_conditioned, 0.001), exact(ill_conditioned)),
        Case("heavy tails, 16-D", exact(heavy_tailed, 0.003), exact(heavy_tailed)),
        Case("other data", exact(moons), exact(ring)),
        Case("other grid", exact(ring, grid=linear(STEPS).one_step_in()), exact(ring)),
        Case("other variance", exact(ring, fraction=0.4), exact(ring, fraction=0.6), False),
        Case("cooler drafter", exact(ring, temperature=0.9), exact(ring), False),
        Case("hotter drafter", exact(ring, temperature=1.1), exact(ring), False),
        Case("guided target", trained(small.target, **one), trained(small.target, guidance=1.5, **one)),
    ]

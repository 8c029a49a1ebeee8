"""Closed forms of N(0, 1), the draft's law, and N(distance, 1), the target's: masses, and the cap of several drafts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.special import log_ndtr

from distributions.normal import normal_cdf
from verify.couplings import gamma_crossing, gamma_log_tail


def excess_mass(distance: Tensor, log_weight: Tensor) -> Tensor:
    """The integral of (weight target - draft)+: weight Phi(delta - s*) - Phi(-s*), s* = delta / 2 - log weight / delta.

    The mass of the ``gamma_quantile`` law (lemma A14); 0 where the crossing s* is beyond every double of both tails.
    """
    crossing = gamma_crossing(distance, log_weight)
    beyond = crossing > distance + 39
    tail = gamma_log_tail(torch.where(beyond, 0.0, crossing).clamp(min=-40.0), distance, log_weight)
    return torch.where(beyond, 0.0, tail.exp())


def shared_mass(distance: Tensor, log_weight: Tensor) -> Tensor:
    """The integral of min(weight draft, target).

    Formula: weight Phi(-s*) + Phi(s* - delta) with s* = delta / 2 + log weight / delta. It is 1 less the mass of
    (target - weight draft)+, without the cancellation; for weights from 1 on.
    """
    crossing = gamma_crossing(distance, -log_weight)
    return log_weight.exp() * normal_cdf(-crossing) + normal_cdf(crossing - distance)


def gaussian_sibling_cap(distance: Tensor, count: int) -> Tensor:
    """The most that a lossless rule may accept of ``count`` independent draws of N(0, 1) as one of N(distance, 1).

    Formula: min over t of 1 + Phi(t - delta) - Phi(t)^K (lemma A17: A8, whose best sets are half-lines because the
    ratio of the laws is monotone), at the second of ``crossings_of_largest``; for one draw it is the overlap, 2
    Phi(-delta / 2).
    """
    place = crossings_of_largest(distance, count)[1]
    return normal_cdf(place - distance) - torch.expm1(count * log_ndtr(place))


def crossings_of_largest(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The two places where the density of the largest of ``count`` draws, K phi Phi^(K - 1), equals the target's.

    They are the roots of g(t) = delta t - delta^2 / 2 - log K - (K - 1) log Phi(t), by bisection. g falls for as long
    as (K - 1) phi(t) / Phi(t) > delta, and then rises; beyond delta / 2 + log K / delta it is positive. The target's
    density is the larger one outside of the two and the smaller one between them. For one draw the first is -infinity,
    and for equal laws the second is infinity: they are answered by -3 delta - 40 and delta / 2 + 40.
    """
    several, level = count - 1, math.log(count)
    end = distance / 2 + torch.where(distance > 0, level / distance.clamp(min=1e-300), math.inf).clamp(max=40)
    start = -3 * distance - 40

    def between(low: Tensor, high: Tensor, left: Callable[[Tensor], Tensor]) -> Tensor:
        for _ in range(80):
            middle = (low + high) / 2
            stays = left(middle)
            low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
        return high

    def below(place: Tensor) -> Tensor:
        low: Tensor = distance * (place - distance / 2) <= level + several * log_ndtr(place)
        return low

    def falling(place: Tensor) -> Tensor:
        density_ratio: Tensor = torch.exp(-place.square() / 2 - log_ndtr(place))
        return several * density_ratio > math.sqrt(2 * math.pi) * distance

    turn = between(start, end, falling)
    return between(start, turn, lambda place: ~below(place)), between(turn, end, below)

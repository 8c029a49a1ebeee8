"""The standard normal law, with its digits kept far out in both tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import erfc


def normal_cdf(place: Tensor) -> Tensor:
    """Phi with full relative precision: torch.special.ndtr is 1 + erf, which cancels below -1 and is 0 below -9."""
    half: Tensor = erfc(place * -math.sqrt(0.5)) / 2
    return half


def normal_between(low: Tensor, high: Tensor) -> Tensor:
    """The mass of N(0, 1) from ``low`` to ``high``, as a difference of the tails in which the two lie.

    Phi(high) - Phi(low) cancels where both are positive and large; Phi(-low) - Phi(-high) does not.
    """
    mirrored = low + high > 0
    return normal_cdf(torch.where(mirrored, -low, high)) - normal_cdf(torch.where(mirrored, -high, low))

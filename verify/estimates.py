"""Estimates: means with their standard errors, and how they are written."""

from __future__ import annotations

import math

from torch import Tensor

Estimate = tuple[float, float]
"""A mean and its standard error."""


def estimate(each: Tensor) -> Estimate:
    """The mean of values (n,) and its standard error, s / sqrt(n)."""
    return float(each.mean()), float(each.std()) / math.sqrt(len(each))


def plus_minus(value: Estimate) -> str:
    """A mean with its standard error, to three digits."""
    return f"{value[0]:.3f} ± {value[1]:.3f}"

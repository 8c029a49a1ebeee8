"""Three defects that everybody can picture, as a scale for what a set of checks would see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr

from distributions.tape import Tape
from verify.records import Finding

BUMP = 1 / 64
"""The mass of the cell, just above the median, that the bump's extra mass lies in."""


@dataclass(frozen=True)
class ReferenceDefect:
    """``plant(size, n, tape)`` gives columns (n, 2) of the transform under it; ``sizes[metric](value)`` the size at
    which a check's effect in that metric is ``value``, to first order; ``words`` a phrase with a place for the size.
    """

    words: str
    plant: Callable[[float, int, Tape], Tensor]
    sizes: Mapping[str, Callable[[float], float]]


def _shift(size: float, n: int, tape: Tape) -> Tensor:
    score = tape.normal("reference.shift", (n, 2))
    score[:, 0] += size
    columns: Tensor = ndtr(score)
    return columns


def _bump(size: float, n: int, tape: Tape) -> Tensor:
    columns = tape.uniform("reference.bump", (n, 2))
    # Moving a row there with probability s adds s (1 - m) of total variation.
    moved = tape.coin("reference.moved", torch.full((n,), size / (1 - BUMP)))
    columns[:, 0] = torch.where(moved, 0.5 + BUMP * columns[:, 0], columns[:, 0])
    return columns


def _correlation(size: float, n: int, tape: Tape) -> Tensor:
    """Two consecutive tokens of a chain that should be independent, of normal correlation ``size``."""
    score = tape.normal("reference.correlation", (n, 2))
    score[:, 1] = size * score[:, 0] + math.sqrt(1 - size**2) * score[:, 1]
    columns: Tensor = ndtr(score)
    return columns


DEFECTS: Mapping[str, ReferenceDefect] = {
    "shift": ReferenceDefect(
        "a mean shifted by {:.2g} standard deviations",
        _shift,
        {
            # sup |Phi(x) - Phi(x - s)| = 2 Phi(s / 2) - 1, about s / sqrt(2 pi).
            "ks": lambda value: math.sqrt(2 * math.pi) * value,
            # E P_1(u) = 2 Phi(s / sqrt 2) - 1, about s / sqrt pi.
            "feature mean": lambda value: math.sqrt(math.pi) * value,
            # The orthonormal polynomial is sqrt 3 P_1.
            "legendre norm": lambda value: math.sqrt(math.pi / 3) * value,
            # The divergence of the shifted law is s^2, and the metric half its root.
            "tv on cells": lambda value: 2 * value,
            # The gap is s phi(Phi^-1(u)): its mean square is the integral of phi^3, 1 / (2 pi sqrt 3).
            "rms gap": lambda value: math.sqrt(2 * math.pi * math.sqrt(3)) * value,
            # With the weight 1 / (u (1 - u)) the integral is 0.4805.
            "anderson-darling distance": lambda value: value / 0.6932,
        },
    ),
    "bump": ReferenceDefect(
        "an extra mass of {:.2g} on one 64th",
        _bump,
        {
            # Half of the mass that is moved comes from either side.
            "ks": lambda value: 2 * value,
            # The divergence is s^2 / (m (1 - m)).
            "tv on cells": lambda value: 2 * math.sqrt(BUMP * (1 - BUMP)) * value,
            # The gap is -s u below the cell, and s (1 - u) above it.
            "rms gap": lambda value: math.sqrt(12) * value,
            # With that weight the mean square is s^2 (2 ln 2 - 1).
            "anderson-darling distance": lambda value: value / math.sqrt(2 * math.log(2) - 1),
        },
    ),
    "correlation": ReferenceDefect(
        "a correlation of {:.2g} between consecutive tokens",
        _correlation,
        {
            # E (2u - 1)(2v - 1) is a third of Spearman's correlation, (6 / pi) asin(r / 2): about r / pi.
            "feature mean": lambda value: math.pi * value,
            "correlation": lambda value: math.pi / 3 * value,
        },
    ),
}


def smallest(findings: Iterable[Finding], columns: int = 2) -> dict[str, float]:
    """The size of each defect that some check sees nine times in ten; those that none is known to see are left out, and
    so is dependence where there is one column only.
    """
    found: dict[str, float] = {}
    for item in findings:
        for name, defect in DEFECTS.items():
            if item.smallest is not None and item.metric in defect.sizes and (name != "correlation" or columns > 1):
                size = defect.sizes[item.metric](item.smallest)
                found[name] = min(size, found.get(name, math.inf))
    return found


def equivalents(findings: Iterable[Finding], columns: int = 2) -> list[str]:
    """The same in words."""
    return [DEFECTS[name].words.format(size) for name, size in smallest(findings, columns).items()]

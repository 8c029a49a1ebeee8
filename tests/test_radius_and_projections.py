"""Radius and projections: what they see that coordinates do not, and the promised power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from distributions.tape import GeneratorTape
from tests.chance import at_least
from tests.law_checks_under_test import normal, promise, seen
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.projections import Projections
from verify.checks.radius import Radius


def test_radius_and_projections_see_what_coordinates_do_not() -> None:
    """A factor shared by 16 coordinates; scales that grow and shrink together. False alarm 1e-6 each."""
    tape, n = GeneratorTape(9), 20_000
    z = tape.normal("z", (n, 16))
    common = (z + 0.2 * tape.normal("factor", (n, 1))) / math.sqrt(1.04)
    assert (
        Projections()(common, normal(16), 1e-6, tape).rejects and not Projections()(z, normal(16), 1e-6, tape).rejects
    )
    scaled = z * (0.1 * tape.normal("scale", (n, 1))).exp()
    assert Radius()(scaled, normal(16), 1e-6, tape).rejects and not Radius()(z, normal(16), 1e-6, tape).rejects
    moved = Radius().statistic(1.01 * z, normal(16), tape)
    each = [check.judge(moved, 0.01).p_value for check in (KolmogorovSmirnov(), AndersonDarling())]
    assert Radius().judge(moved, 0.01).p_value == pytest.approx(2 * min(each), rel=1e-9, abs=0)
    exact = stats.kstest(z.square().sum(1), "chi2", (16,)).statistic
    gap = KolmogorovSmirnov().judge(Radius().statistic(z, normal(16), tape), 0.01).statistic
    assert gap <= exact <= gap + 2.0**-16


def test_radius_and_projections_see_their_smallest_defect() -> None:
    n, dim = 3000, 6
    size = promise(Radius(bits=12), dim, n)
    scales = 1 + np.linspace(0, 0.2, 2001)
    place = np.linspace(0, 40, 4001)
    gaps = [np.abs(stats.chi2.cdf(place / scale**2, dim) - stats.chi2.cdf(place, dim)).max() for scale in scales]
    scale = float(scales[np.searchsorted(gaps, size)])
    assert seen(Radius(bits=12), lambda tape: scale * tape.normal("z", (n, dim)), normal(dim)) >= at_least(0.9, 100)

    check = Projections(bits=10, directions=16)
    size = promise(check, dim, n)
    from verify.checks.projections import _directions

    shift = 2 * special.ndtri((1 + size) / 2) * _directions(dim, 16)[:, 3]
    assert seen(check, lambda tape: shift + tape.normal("z", (n, dim)), normal(dim)) >= at_least(0.9, 100)

"""Neyman's smooth test: its sums, the range of its polynomials and its promised power; the cells of chi-square."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from distributions.tape import GeneratorTape
from tests.chance import at_least
from tests.law_checks_under_test import normal, promise, seen
from verify.checks.chi_square import ChiSquare
from verify.checks.neyman import Neyman, polynomials
from verify.statistics.histogram import TransformHistogram
from verify.statistics.transform import Uniform


def test_neyman_is_the_legendre_sums() -> None:
    """Against the polynomials evaluated at the sample: the grid moves a mean by 1e-3 of its standard deviation."""
    u = GeneratorTape(5).uniform("u", (50_000, 1)) ** 1.02
    features = np.stack([special.eval_legendre(j, 2 * u[:, 0].numpy() - 1) * math.sqrt(2 * j + 1) for j in range(1, 5)])
    wanted = 50_000 * float((features.mean(1) ** 2).sum())
    found = Neyman()(u, Uniform(), 0.01, GeneratorTape())
    assert found.statistic == pytest.approx(wanted, rel=2e-3)
    assert found.p_value == pytest.approx(stats.chi2.sf(wanted, 4), rel=0.05)
    three = GeneratorTape(6).uniform("u", (5000, 3)) ** 1.02
    each = [Neyman()(three[:, [place]], Uniform(), 0.01, GeneratorTape()).statistic for place in range(3)]
    alone, together = 3 * stats.chi2.sf(max(each), 4), stats.chi2.sf(sum(each), 12)
    joint = Neyman()(three, Uniform(3), 0.01, GeneratorTape())
    assert joint.p_value == pytest.approx(min(1.0, 2 * min(alone, together)), rel=1e-9)
    gram = polynomials(64, 4).T @ polynomials(64, 4) / 64
    assert torch.allclose(gram, torch.eye(4).double(), atol=1e-12)


def test_the_range_of_neymans_polynomials() -> None:
    """No two points of the curve are further apart than from end to end, 2 sqrt 10, at degree 4."""
    basis = polynomials(512, 4)
    assert float(torch.cdist(basis, basis).max()) == pytest.approx(2 * math.sqrt(10), rel=0.02)


def test_neyman_sees_its_smallest_defect() -> None:
    """Density 1 + c phi_2, for one column and for one of three."""
    n = 4000
    for dim in (1, 3):
        check = Neyman(bits=12)
        size = promise(check, dim, n)

        def defect(tape: GeneratorTape, dim: int = dim, size: float = size) -> Tensor:
            u, other = tape.uniform("u", (n, dim)), tape.uniform("other", (n,))
            second = math.sqrt(5) * (6 * (u[:, 0] - 0.5) ** 2 - 0.5)
            # u stays with probability proportional to its density; else it is drawn again.
            worst = 1 + size * math.sqrt(5)
            for turn in range(60):
                again = other * worst > 1 + size * second
                if not bool(again.any()):
                    break
                u[:, 0] = torch.where(again, tape.uniform(f"u.{turn}", (n,)), u[:, 0])
                other = torch.where(again, tape.uniform(f"other.{turn}", (n,)), other)
                second = math.sqrt(5) * (6 * (u[:, 0] - 0.5) ** 2 - 0.5)
            return u

        assert size < 0.1
        assert seen(check, defect, Uniform(dim)) >= at_least(0.9, 100)


def test_chi_square_of_a_continuous_law_keeps_twenty_rows_in_a_cell() -> None:
    u = GeneratorTape(6).uniform("u", (1000, 1))
    assert ChiSquare(64)(u, Uniform(), 0.01, GeneratorTape()).note.startswith("32 cells")
    with pytest.raises(ValueError, match="fold into 20"):
        ChiSquare(20)(u, Uniform(), 0.01, GeneratorTape())
    few = TransformHistogram()(torch.zeros(3, 300), normal(300), GeneratorTape())
    assert few.counts.shape == (300, 1 << 13)  # at most 2^22 cells in all

"""The line through the means, and the closed forms of masses on it, by quadrature and at their edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from distributions.gaussian import FullGaussian, Gaussian
from distributions.normal import normal_cdf
from distributions.tape import GeneratorTape
from tests.gaussian_rules_under_test import (
    DISTANCES,
    double,
    normal,
    quadrature,
)
from verify.couplings import gamma_quantile
from verify.gaussian.frame import Along, Frame
from verify.gaussian.normals import excess_mass, shared_mass

torch.set_num_threads(1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dim", [1, 4, 16])
def test_the_frame_is_a_frame(dim: int, full: bool) -> None:
    tape = GeneratorTape(dim)
    mean, shift = tape.normal("a", (5, 2, dim)), tape.normal("b", (5, 2, dim))
    scale = 0.3 + tape.race("c", (5, 2, dim))
    below = tape.normal("d", (5, 2, dim, dim)).tril(-1) + torch.diag_embed(scale)
    laws: list[Any] = [FullGaussian(at, below) if full else Gaussian(at, scale) for at in (mean, mean + shift)]
    frame = Frame.of("test", laws[1], laws[0])
    value = laws[0].sample(tape, "e")
    place = frame.place(value)
    assert torch.allclose(frame.axis.norm(dim=-1), double(1.0))
    ratio = laws[1].log_prob(value) - laws[0].log_prob(value)
    assert torch.allclose(frame.log_ratio(place), ratio, atol=1e-9)
    assert torch.allclose(frame.place(mean + shift), frame.distance)
    moved = frame.move(value, place + 1.5)
    assert torch.allclose(frame.place(moved), place + 1.5)
    across = [
        torch.linalg.solve_triangular(laws[0].factor, (x - mean).unsqueeze(-1), upper=False).squeeze(-1)
        for x in (value, moved)
    ]
    assert torch.allclose(across[1] - across[0], 1.5 * frame.axis)
    some = frame[torch.tensor([3, 1]), torch.tensor([0, 1])]
    assert torch.equal(some.distance, frame.distance[[3, 1], [0, 1]])
    assert torch.allclose(some.place(value[[3, 1], [0, 1]]), place[[3, 1], [0, 1]])


def test_equal_laws_have_a_frame_too() -> None:
    law = Gaussian(torch.ones(2, 3), torch.ones(3))
    frame = Frame.of("test", law, law)
    assert frame.distance.tolist() == [0.0, 0.0] and torch.equal(frame.axis.norm(dim=-1), torch.ones(2).double())
    assert torch.equal(frame.log_ratio(double([5.0, -3.0])), torch.zeros(2).double())


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("weight", [1e-6, 0.3, 1.0, 1.7])
def test_excess_mass_by_quadrature(distance: float, weight: float) -> None:
    crossing = distance / 2 - math.log(weight) / distance
    direct = quadrature(
        lambda s: (weight * normal(s - distance) - normal(s)).clamp(min=0), -12.0, distance + 12, [crossing]
    )
    assert float(excess_mass(double(distance), double(math.log(weight)))) == pytest.approx(float(direct), abs=1e-14)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("weight", [1.0, 1.7, 5.0])
def test_shared_mass_is_what_the_excess_leaves(distance: float, weight: float) -> None:
    level = double(math.log(weight))
    found = float(shared_mass(double(distance), level))
    assert 1 - found == pytest.approx(weight * float(excess_mass(double(distance), -level)), abs=1e-14)
    crossing = distance / 2 + math.log(weight) / distance
    wanted = weight * special.ndtr(-crossing) + special.ndtr(crossing - distance)
    assert found == pytest.approx(float(wanted), rel=1e-13)  # relative: scipy's tails do not cancel


def test_normal_cdf_keeps_its_digits() -> None:
    place = torch.linspace(-37, 8, 91).double()
    assert np.allclose(normal_cdf(place).numpy(), special.ndtr(place.numpy()), rtol=1e-12, atol=0)


def test_excess_mass_at_its_edges() -> None:
    found = excess_mass(double([0.0, 0.0, 1e-300, 1e3, 1e3]), double([0.0, -1.0, -1e-3, 0.0, -1e5]))
    assert found.tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]


def test_a_law_along_a_line_is_drawn_from_and_not_weighed() -> None:
    law = Gaussian(torch.zeros(2, 3), torch.ones(3))
    along = Along(
        Frame.of("test", Gaussian(torch.ones(2, 3), torch.ones(3)), law), gamma_quantile, (torch.zeros(2).double(),)
    )
    assert along.batch_shape == (2,) and along.event_shape == (3,)
    with pytest.raises(TypeError, match="no log_prob"):
        along.log_prob(torch.zeros(2, 3))

"""Optimal transport of Gaussian siblings: its scores, its densities by quadrature, and mistakes planted in both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.special import ndtr

import verify.verifiers.gaussian_transport as transport
from distributions.tape import GeneratorTape
from tests.gaussian_rules_under_test import (
    DISTANCES,
    chances,
    double,
    normal,
    quadrature,
    rejected_places,
)
from verify.gaussian.normals import crossings_of_largest, gaussian_sibling_cap
from verify.verifiers.gaussian_transport import GaussianTransport, Scores

torch.set_num_threads(1)


def reserve_of(plan: Scores) -> list[float]:
    """The lowest score that is not refused, and its partner: there the chance to swap jumps."""
    reserve = float(stats.norm.ppf((1 - float(plan.cap)) ** (1 / plan.count)))
    return [reserve, float(plan.partner(double(reserve)))] if math.isfinite(reserve) else []


@pytest.mark.parametrize("distance", [0.1, 0.5, 1.0, 3.0])
def test_transport_keeps_the_target_density(distance: float) -> None:
    """Two siblings: K phi(s) times the integral over the other one of the chance to be kept is the target's density up
    to t and the largest sibling's beyond; the residual is the rest. All through the rule's own ``log_accept``.
    """
    rule, delta = GaussianTransport(), double(distance)
    plan = Scores.of(delta, 2)
    marks = [float(item) for item in (plan.peak, plan.end, *crossings_of_largest(delta, 2))]
    marks += reserve_of(plan)
    end = float(plan.end)
    for s in np.linspace(-3.5, min(end + 1.5, 5.0), 8):
        own = float(plan.partner(double(s))) if s < end else s

        def kept(other: Tensor, s: float = s) -> Tensor:
            both = torch.stack([torch.full_like(other, s), other], -1)
            one, two = chances(rule, both, distance), chances(rule, both.flip(1), distance)
            assert torch.allclose(one, two.flip(1), rtol=0, atol=1e-12)  # the order of siblings does not matter
            return normal(other) * one[:, 0]

        density = 2 * normal(double(s)) * quadrature(kept, -9.0, 9.0, [*marks, s, own])
        wanted = normal(double(s) - delta) if s < end else 2 * normal(double(s)) * ndtr(double(s))
        assert float(density) == pytest.approx(float(wanted), abs=1e-9)
    uniform = double([0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    if 1 - float(plan.cap) > 1e-10:
        place = rejected_places(rule, distance, 2, uniform)
        tail = ndtr(delta - place) - (1 - ndtr(place) ** 2)
        assert torch.allclose(tail, (1 - plan.cap) * (1 - uniform), rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("distance", [*DISTANCES, 0.0])
def test_scores_are_normal_and_worth_what_they_should(distance: float, count: int) -> None:
    """The two properties on which transport rests, of the code's own swaps, for any number of siblings."""
    plan = Scores.of(double(distance), count)
    place = torch.linspace(-7, min(float(plan.end), 7.0), 1201).double()[:-1]
    other, swap = plan.swap(place)
    mean = (1 - swap) * plan.worth(place) + swap * plan.worth(other)
    wanted = (distance * (place - distance / 2)).exp()
    assert torch.allclose(mean, wanted, rtol=1e-9, atol=1e-12)
    # Scores up to z: those who stay at or below, and those who come from the other side of the peak.
    peak, end = float(plan.peak), float(plan.end)
    for z in np.linspace(max(-4.0, peak - 3), min(end, peak + 3), 7)[:-1]:
        twin = float(plan.partner(double(z)))

        def below(s: Tensor, z: float = z) -> Tensor:
            other, swap = plan.swap(s)
            return normal(s) * ((1 - swap) * (s <= z) + swap * (other <= z))

        top = min(end, 9.0)
        found = float(quadrature(below, -10.0, top, [z, twin, peak, *reserve_of(plan)]))
        assert found == pytest.approx(float(stats.norm.cdf(z)), abs=1e-8)


@pytest.mark.parametrize("distance", DISTANCES)
def test_transport_of_one_draft_is_rejection(distance: float) -> None:
    place = torch.linspace(-6, distance + 6, 501).double().unsqueeze(-1)
    wanted = (distance * (place - distance / 2)).clamp(max=0).exp()
    assert torch.allclose(chances(GaussianTransport(), place, distance), wanted, rtol=1e-9, atol=1e-12)


def test_chances_are_those_of_drawn_scores() -> None:
    """Every combination of scores of four siblings, the highest one chosen unless it is below the reserve."""
    for distance in (0.3, 1.0, 2.5):
        plan = Scores.of(torch.full((40, 1), distance).double(), 4)
        place = GeneratorTape(4).normal("place", (40, 4))
        place[:10] -= 2.0
        other, swap = plan.swap(place)
        wanted = torch.zeros_like(place)
        for choice in itertools.product([False, True], repeat=4):
            moved = torch.tensor(choice)
            mass = torch.where(moved, swap, 1 - swap).prod(1)
            score = torch.where(moved, other, place)
            top = score.argmax(1, keepdim=True)
            alive = ndtr(score.gather(1, top)) ** 4 > 1 - plan.cap
            wanted.scatter_add_(1, top, mass.unsqueeze(1) * alive)
        assert torch.allclose(plan.chances(place), wanted, rtol=0, atol=1e-13)


def test_scores_that_never_swap_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without swaps the rule keeps the largest sibling above the reserve: wrong below the end."""
    monkeypatch.setattr(Scores, "swap", lambda self, place: (place, torch.zeros_like(place)))
    with pytest.raises(AssertionError):
        test_transport_keeps_the_target_density(1.0)
    with pytest.raises(AssertionError):
        test_scores_are_normal_and_worth_what_they_should(1.0, 3)


def test_a_reserve_of_another_cap_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transport, "gaussian_sibling_cap", lambda distance, count: 0.9 * gaussian_sibling_cap(distance, count)
    )
    with pytest.raises(AssertionError):
        test_transport_keeps_the_target_density(1.0)

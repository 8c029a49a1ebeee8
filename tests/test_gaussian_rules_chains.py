"""Rules for chains of Gaussian drafts: their output law along the line, by quadrature through the rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.special import ndtr

from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.tape import Tape
from tests.gaussian_rules_under_test import (
    DISTANCES,
    NEARLY_ONE,
    Given,
    double,
    draw,
    laws,
    normal,
    on_the_line,
    quadrature,
    rejected_places,
)
from verify.gaussian.frame import Frame, first_rejected
from verify.gaussian.normals import excess_mass
from verify.races import race_match
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude
from verify.verifier import Verifier
from verify.verifiers.gaussian_block import GaussianBlock
from verify.verifiers.poisson_race import PoissonRace, log_meeting, race_place
from verify.verifiers.poisson_race import beyond as beyond_place
from verify.verifiers.reflection import Reflection
from verify.verifiers.residual_coupling import ResidualCoupling

torch.set_num_threads(1)


@pytest.mark.parametrize("distance", [*DISTANCES, 0.0])
def test_how_often_two_races_meet(distance: float) -> None:
    """Lemma A12 by adaptive quadrature, and between the bounds (1 - TV) / (1 + TV) and 1 - TV."""
    found = float(PoissonRace().acceptance(double(distance)))

    def density(s: float) -> float:
        far = stats.norm.logsf(s - distance) - stats.norm.logpdf(s - distance)
        return float(np.exp(-np.logaddexp(far, stats.norm.logcdf(s) - stats.norm.logpdf(s))))

    total, _ = integrate.quad(
        density, distance / 2 - 12, distance / 2 + 12, points=[distance / 2], epsabs=0, epsrel=1e-12, limit=400
    )
    assert found == pytest.approx(total, rel=1e-10)
    overlap = math.erfc(distance / math.sqrt(8))
    assert overlap / (2 - overlap) <= found * (1 + 1e-12) and found <= overlap * (1 + 1e-12)


def test_races_on_a_fine_grid_tend_to_it() -> None:
    """The discrete race (lemma A10) on 2 000 cells of the line."""
    edges = torch.linspace(-7, 8, 2_001).double()
    laws = [(ndtr(edges[1:] - at) - ndtr(edges[:-1] - at)) for at in (1.0, 0.0)]
    assert float(race_match(*laws)) == pytest.approx(float(PoissonRace().acceptance(double(1.0))), abs=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_reflection_has_the_target_density(distance: float) -> None:
    place = torch.linspace(-9, distance + 9, 4001).double()
    density = kept_and_mirrored(Reflection(), distance, place)
    assert torch.allclose(density, normal(place - distance), rtol=0, atol=1e-14)


def kept_and_mirrored(rule: Verifier, distance: float, place: Tensor) -> Tensor:
    """The density at ``place`` of a rule that carries a rejected s to delta - s."""
    kept = on_the_line(rule, place.unsqueeze(-1), distance).log_accept[:, 0].exp()
    source = distance - place
    outcome = on_the_line(rule, source.unsqueeze(-1), distance)
    lost = 1 - outcome.log_accept[:, 0].exp()
    arrived = torch.isclose(outcome.value[:, 0, 0], place, rtol=0, atol=1e-12)
    return normal(place) * kept + torch.where(arrived, normal(source) * lost, 0.0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_residual_coupling_has_the_target_cdf(distance: float) -> None:
    uniform = double([0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    rule = ResidualCoupling()
    for u, place in zip(uniform.tolist(), rejected_places(rule, distance, 1, uniform).tolist(), strict=True):

        def kept(s: Tensor) -> Tensor:
            return normal(s) * on_the_line(rule, s.unsqueeze(-1), distance).log_accept[:, 0].exp()

        below = float(quadrature(kept, -10.0, place, [distance / 2]))
        missing = 1 - float(rule.acceptance(double(distance)))
        assert below + missing * u == pytest.approx(float(stats.norm.cdf(place - distance)), abs=1e-12)


@pytest.mark.parametrize("distance", [0.1, 0.5, 1.0, 3.0, 6.0])
def test_the_poisson_race_has_the_target_cdf(distance: float) -> None:
    """Kept: phi H up to z. Not kept: over the place tau of V, of density H' Phi(tau), the target beyond tau."""
    delta = double(distance)
    rule = PoissonRace()

    def meeting(s: Tensor) -> Tensor:
        return on_the_line(rule, s.unsqueeze(-1), distance).log_accept[:, 0].exp()

    def slope(s: Tensor) -> Tensor:
        """H' = Phi(delta - s) r' / D^2 by its formula, with r = exp(delta (s - delta / 2)), r' = delta r, D = r / H."""
        return ndtr(delta - s) * distance * meeting(s).square() / (delta * (s - delta / 2)).exp()

    for z in np.linspace(-3, distance + 4, 8):
        kept = float(quadrature(lambda s: normal(s) * meeting(s), -10.0, z))

        def later(s: Tensor, z: float = z) -> Tensor:
            return slope(s) * ndtr(s) * (ndtr(z - delta) - ndtr(s - delta)) / ndtr(delta - s)

        lost = float(quadrature(later, -10.0, z))
        assert kept + lost == pytest.approx(float(stats.norm.cdf(z - distance)), abs=1e-12)
    # The code's V: H of the place is the uniform; and then the target beyond it.
    start = torch.full((4,), -8.0).double()
    first = log_meeting(start, delta.expand(4)).exp()
    uniform = first + (1 - first) * double([0.01, 0.2, 0.5, 0.9])
    place = race_place(uniform, delta.expand(4), start)
    assert torch.allclose(log_meeting(place, delta.expand(4)).exp(), uniform, rtol=0, atol=1e-12)
    outcome = on_the_line(rule, start.unsqueeze(-1), distance, accept=uniform, residual=torch.full((4,), 0.25).double())
    tail = ndtr(delta - outcome.value[:, 0, 0]) / ndtr(delta - place)
    assert torch.allclose(tail, double(0.75), rtol=1e-12, atol=0)


def test_a_normal_beyond_a_place() -> None:
    start = double([-500.0, -40.0, -3.0, 0.0, 2.0, 8.0, 40.0, 500.0]).unsqueeze(-1)
    uniform = double([0.0, 1e-9, 0.3, 0.7, 1 - 1e-9, NEARLY_ONE])
    found = beyond_place(*torch.broadcast_tensors(uniform, start))
    assert bool(torch.isfinite(found).all()) and bool((found >= start).all()) and bool((found.diff(dim=1) > 0).all())
    for row, at in enumerate(start[:, 0].tolist()):
        wanted = stats.truncnorm.ppf([0.3, 0.7], at, np.inf)
        assert np.allclose(found[row, 2:4].numpy(), wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("distance", [(1.0, 1.0), (0.3, 2.0), (4.0, 0.5)])
def test_block_keeps_what_its_weights_say(distance: tuple[float, float]) -> None:
    """Given x_1, at least one node is kept with probability w_1 and two with w_2; the second token's CDF is then exact.

    w_1 takes an integral over x_2 of the rule's ``log_accept``; the excess mass S is what makes it come out.
    """
    rule, first = GaussianBlock(), double([-2.5, -1.0, 0.2, 0.8, 1.9, 4.0])
    for s in first.tolist():
        ratio = distance[0] * (s - distance[0] / 2)
        weight = min(0.0, ratio)

        def reach(second: Tensor, s: float = s) -> Tensor:
            place = torch.stack([torch.full_like(second, s), second], -1)
            return block_of_two(rule, place, distance).log_accept.cumsum(1).exp()

        crossing = distance[1] / 2 - weight / distance[1]
        kept = float(quadrature(lambda x: normal(x) * reach(x)[:, 0], -10.0, 10.0, [crossing]))
        assert kept == pytest.approx(math.exp(weight), abs=1e-12)
        uniform = double([0.0, 0.2, 0.9])
        # x_1 kept and x_2 not: the coin of x_1 succeeds and that of x_2 fails.
        place = double([s, -8.0]).expand(3, 2)
        coins = double([0.0, NEARLY_ONE]).expand(3, 2)
        outcome = block_of_two(rule, place, distance, residual=uniform, accept=coins)
        assert outcome.length.tolist() == [2, 2, 2]
        for u, z in zip(uniform.tolist(), outcome.value[:, 1, 0].tolist(), strict=True):
            below = float(quadrature(lambda x: normal(x) * reach(x)[:, 1], -10.0, z, [crossing]))
            mass = float(excess_mass(double(distance[1]), double(weight)))
            wanted = math.exp(weight) * float(stats.norm.cdf(z - distance[1]))
            assert below + mass * u == pytest.approx(wanted, abs=1e-12)


def block_of_two(rule: Verifier, place: Tensor, distance: tuple[float, float], **values: Tensor) -> Outcome:
    """``on_the_line`` with a distance for each node."""
    rows = len(place)
    target = Gaussian(double([*distance, 0.0]).reshape(1, 3, 1).expand(rows, 3, 1), torch.ones(1))
    prior = Gaussian(torch.zeros(rows, 2, 1), torch.ones(1))
    return rule.verify(Draft.chain(place.unsqueeze(-1), prior), target, Given(torch.arange(rows), values))


@dataclass(frozen=True)
class MirrorsAtTheMean:
    """Reflects in the target's mean, not in the plane half-way."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a planted bug", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        frame = Frame.of("bug", target[:, :-1], draft.law)
        place = frame.place(draft.value)
        log_accept = frame.log_ratio(place).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)
        moved = frame[where].move(draft.value[where], 2 * frame.distance[where] - place[where])
        return conclude(draft, target, accept, log_accept, tape, lambda *_: moved)


def test_a_wrong_mirror_is_seen() -> None:
    place = torch.linspace(-5, 6, 101).double()
    gap = (kept_and_mirrored(MirrorsAtTheMean(), 1.0, place) - normal(place - 1.0)).abs().max()
    assert float(gap) > 1e-2


def test_a_block_of_another_excess_mass_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "verify.verifiers.gaussian_block.excess_mass", lambda distance, weight: 0.9 * excess_mass(distance, weight)
    )
    with pytest.raises(AssertionError):
        test_block_keeps_what_its_weights_say((1.0, 1.0))


def test_blocks_are_longer_than_token_by_token() -> None:
    """Mean kept nodes of three: block against the sum of powers of the overlap; its weights by quadrature for two."""
    distance, rows = 1.0, 60_000
    _, _, outcome = draw(GaussianBlock(), laws(2, distance, False), rows, 3)
    kept = outcome.kept.double().sum(1)
    overlap = math.erfc(distance / math.sqrt(8))
    by_token = overlap + overlap**2 + overlap**3
    assert float(kept.mean()) - by_token > 6 * float(kept.std()) / math.sqrt(rows)  # false alarm 1e-9
    delta = double(distance)
    second = float(
        quadrature(
            lambda s: (
                normal(s)
                * (
                    (delta * (s - delta / 2)).clamp(max=0).exp()
                    - excess_mass(delta, (delta * (s - delta / 2)).clamp(max=0))
                )
            ),
            -10.0,
            10.0,
            [distance / 2],
        )
    )
    found = float(outcome.kept[:, 1].double().mean())
    assert second > overlap**2 + 1e-3 and abs(found - second) < 3 * math.sqrt(second * (1 - second) / rows)  # 0.0027

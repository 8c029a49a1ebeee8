"""Thorisson's coupling with a limit on acceptance: its work, its law on mixtures, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats

from distributions.gaussian import Gaussian
from distributions.mixture import Mixture
from distributions.tape import GeneratorTape, RecordingTape
from tests.gaussian_rules_under_test import (
    double,
    laws,
)
from verify.records import Draft
from verify.verifiers.thorisson import Thorisson

torch.set_num_threads(1)


@pytest.mark.parametrize("distance", [1e-6, 0.5, 2.0])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_thorisson_works_within_bounds(distance: float, share: float) -> None:
    """m = c Phi(-s*) + Phi(s* - delta), s* = delta / 2 + log c / delta; a try of the residual ends it with 1 - m."""
    rows = 60_000
    pair = laws(2, distance, False)
    index = torch.zeros(rows, 2, dtype=torch.long)
    prior, target = pair.draft[None][index[:, :1]], pair.target[None][index]
    tape = RecordingTape(GeneratorTape(3))
    outcome = Thorisson(share).verify(Draft.chain(prior.sample(GeneratorTape(4), "draft"), prior), target, tape)
    crossing = distance / 2 + math.log(share) / distance
    most = share * stats.norm.sf(crossing) + stats.norm.cdf(crossing - distance)
    kept = float(outcome.kept.double().mean())
    assert abs(kept - most) < 3 * math.sqrt(most * (1 - most) / rows)  # false alarm 0.0027
    tries = [len(item.value) for item in tape.draws if item.site == "residual.proposal"]
    successes, total = int((~outcome.kept).sum()), sum(tries)
    assert abs(successes - total * (1 - most)) < 6 * math.sqrt(total * most * (1 - most))  # 2e-9
    # So N is geometric after a rejection: E[N] = 1 and E[N^2] = (1 + m) / (1 - m), over all coins.
    second = sum((2 * turn - 1) * alive for turn, alive in enumerate(tries, 1)) / rows
    fourth = (1 - most) * sum(turn**4 * most ** (turn - 1) * (1 - most) for turn in range(1, 4000))
    wanted = (1 + most) / (1 - most)
    assert abs(second - wanted) < 6 * math.sqrt((fourth - wanted**2) / rows)  # some 2e-9, by the normal tail
    assert wanted <= (1 + share) / (1 - share)


def test_thorisson_on_mixtures() -> None:
    """Any density will do: two bumps drafted by three, on the line (KS: false alarm 1e-8)."""
    rows = 20_000
    weights, means = [double([0.5, 0.5]), double([0.2, 0.3, 0.5])], [double([-2.0, 1.0]), double([-2.0, 0.5, 4.0])]
    target, prior = (
        Mixture(part.expand(rows, count, -1), Gaussian(at.reshape(-1, 1).expand(rows, count, -1, 1), torch.ones(1)))
        for part, at, count in zip(weights, means, (2, 1), strict=True)
    )
    tape = GeneratorTape(5)
    outcome = Thorisson().verify(Draft.chain(prior.sample(tape, "draft"), prior), target, tape)

    def cdf(x: Any) -> Any:
        return 0.5 * stats.norm.cdf(x + 2) + 0.5 * stats.norm.cdf(x - 1)

    assert float(stats.kstest(outcome.value[:, 0, 0].numpy(), cdf).pvalue) > 1e-8
    assert 0.3 < float(outcome.kept.double().mean()) < 0.9


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_a_share_is_a_fraction(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        Thorisson(share)

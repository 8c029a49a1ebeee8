"""Rules for Gaussian siblings: their caps, and their output law along the line by quadrature through the rules."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from torch import Tensor
from torch.special import ndtr

import verify.verifiers.gaussian_k_seq as k_seq
from tests.gaussian_rules_under_test import (
    DISTANCES,
    SIBLINGS,
    double,
    named,
    normal,
    on_the_line,
    quadrature,
    rejected_places,
)
from verify.couplings import gamma_quantile, sibling_cap
from verify.gaussian.normals import gaussian_sibling_cap
from verify.verifier import Verifier
from verify.verifiers.gaussian_k_seq import GaussianKSeq
from verify.verifiers.gaussian_recursive_rejection import levels

torch.set_num_threads(1)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_cap_of_siblings_is_the_minimum(distance: float, count: int) -> None:
    """Against a search over t, and against ``sibling_cap`` on a vocabulary of 20 000 cells, which it bounds from below:
    a rule that sees less accepts no more of the cells, and cells accept a little more than their points.
    """
    grid = np.linspace(-12, distance + 40, 4001)

    def cut(t: Any) -> Any:
        return special.ndtr(t - distance) - np.expm1(count * special.log_ndtr(t))

    start = grid[np.argmin(cut(grid))]
    best = optimize.minimize_scalar(cut, bounds=(start - 0.1, start + 0.1), method="bounded", options={"xatol": 1e-9})
    cap = float(gaussian_sibling_cap(double(distance), count))
    assert cap == pytest.approx(min(best.fun, 1.0), rel=1e-12)
    edges = torch.cat([double([-math.inf]), torch.linspace(-8, distance + 8, 19_999).double(), double([math.inf])])
    target, draft = (
        torch.where(
            edges[:-1] > at, ndtr(at - edges[:-1]) - ndtr(at - edges[1:]), ndtr(edges[1:] - at) - ndtr(edges[:-1] - at)
        )
        for at in (distance, 0.0)
    )
    cells = float(sibling_cap(target, draft, count))
    assert cap - 1e-12 <= cells <= cap + 1e-6


def test_acceptances_of_four_siblings_one_apart() -> None:
    """Recursive rejection, K-SEQ and the cap, to three digits (lemmas A15 and A17)."""
    one = double(1.0)
    found = [rule.acceptance(one, 4) for rule in SIBLINGS]
    assert [round(float(item), 3) for item in found] == [0.798, 0.839, 0.924]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_order_of_the_rules(distance: float, count: int) -> None:
    """Recursive rejection and K-SEQ lie between one sibling and the cap; for one sibling all are the overlap."""
    delta = double(distance)
    recursive, sequential, cap = (float(rule.acceptance(delta, count)) for rule in SIBLINGS)
    overlap = math.erfc(distance / math.sqrt(8))
    assert overlap * (1 - 1e-9) <= recursive <= cap * (1 + 1e-9) and overlap * (1 - 1e-9) <= sequential <= cap * (
        1 + 1e-9
    )
    if count == 1:
        for found in (recursive, sequential, cap):
            assert found == pytest.approx(overlap, rel=1e-12)


def cdf_gap(rule: Verifier, distance: float, count: int) -> float:
    """Largest |CDF of the output - CDF of the target| of a rule whose coins look at one place each.

    What is kept has the density phi(s) sum_k a_k(s) prod_{j < k} (1 - A_j), integrated from ``log_accept``; what is
    rejected has its uniform as CDF. All on places of the residual, and below its support.
    """
    if isinstance(rule, GaussianKSeq):
        crossings = [distance / 2 + math.log(float(k_seq.division(double(distance), count))) / distance]
    else:
        taken = levels(double(distance), count)[0].tolist()
        crossings = [distance / 2 + math.log(item) / distance for item in taken[1:]]
        crossings += [distance / 2 + math.log(sum(pair)) / distance for pair in itertools.pairwise(taken)]

    def coins(place: Tensor) -> Tensor:
        return on_the_line(rule, place.unsqueeze(-1).expand(-1, count), distance).log_accept.exp()

    whole = [float(quadrature(lambda s, k=k: normal(s) * coins(s)[:, k], -10.0, 10.0, crossings)) for k in range(count)]
    reached = double(np.concatenate([[1.0], np.cumprod(1 - np.array(whole))]))

    def kept(low: float, high: float) -> float:
        return float(quadrature(lambda s: normal(s) * (coins(s) @ reached[:-1]), low, high, crossings))

    uniform = double([0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    gaps = [abs(float(reached[-1]) - (1 - float(rule.acceptance(double(distance), count))))]  # type: ignore[attr-defined]
    for u, place in zip(uniform.tolist(), rejected_places(rule, distance, count, uniform).tolist(), strict=True):
        gaps.append(abs(kept(-10.0, place) + float(reached[-1]) * u - float(stats.norm.cdf(place - distance))))
    for place in np.linspace(-4, min(crossings[0], 8.0), 3):
        gaps.append(abs(kept(-10.0, place) - float(stats.norm.cdf(place - distance))))
    return max(gaps)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("distance", [0.1, 0.5, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("rule", SIBLINGS[:2], ids=named)
def test_siblings_have_the_target_cdf(rule: Verifier, distance: float, count: int) -> None:
    assert cdf_gap(rule, distance, count) < 1e-12


@pytest.mark.parametrize("rule", SIBLINGS[:2], ids=named)
def test_a_residual_of_one_draft_for_many_siblings_is_seen(rule: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gaussian_k_seq", "gaussian_recursive_rejection"):
        path = f"verify.verifiers.{module}.gamma_quantile"
        monkeypatch.setattr(path, lambda uniform, distance, weight: gamma_quantile(uniform, distance, 0 * weight))
    assert cdf_gap(rule, 1.0, 3) > 1e-3

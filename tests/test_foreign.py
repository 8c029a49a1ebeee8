"""Unmodified code in many styles is enumerated to the law that it has; symbols against closed forms."""

from __future__ import annotations

import math
from bisect import bisect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.verifiers_under_test import EXACT
from verify.foreign.interpose import Room
from verify.foreign.leaf import Leaf, NotUnderstood, Pruned
from verify.foreign.runs import Escaped, exact_runs
from verify.foreign.symbols import Symbol
from verify.foreign.torch_draws import coarse_uniform
from verify.problems import pool
from verify.spaces.discrete import law_of


def law(call, **options):
    """The exact law of ``call()``, all of its draws answered."""
    with Room(call) as room:
        runs = exact_runs(call, room, **options)
    assert not room.escapes, room.escapes
    assert sum(runs.law.values()) + runs.dropped == pytest.approx(1.0, abs=1e-12)
    return runs.law


@pytest.mark.parametrize("fn", EXACT, ids=lambda fn: getattr(fn, "__name__", type(fn).__name__))
def test_correct_verifiers_in_every_style_are_exact(fn):
    with Room(fn, shim_float=getattr(fn, "__name__", "") == "torch_float") as room:
        laws = [law_of(fn, problem, room) for problem in pool(3, 2)]
    assert not room.escapes
    assert max(item.bias for item in laws) < 1e-12
    assert max(item.slack for item in laws) < 1e-12


# Closed forms: P(f(U) < c) for every map that a symbol understands, c drawn across and beyond its range.
MAPS = {
    "u": (lambda u: u, lambda c: c),
    "1 - u": (lambda u: 1 - u, lambda c: c),
    "log": (lambda u: u.log(), math.exp),
    "-log(1 - u)": (lambda u: -(1 - u).log(), lambda c: -math.expm1(-c) if c > 0 else 0.0),
    "-log(-log u)": (lambda u: -(-u.log()).log(), lambda c: math.exp(-math.exp(-c))),
    "1 / u": (lambda u: 1 / u, lambda c: 1 - 1 / c if c > 1 else 0.0),
    "1 / (u - 2)": (lambda u: 1 / (u - 2), lambda c: -1 - 1 / c if c < 0 else 1.0),
    "u ** 3": (lambda u: u**3, lambda c: c ** (1 / 3) if c > 0 else 0.0),
    "u ** -0.5": (lambda u: u**-0.5, lambda c: 1 - c**-2 if c > 1 else 0.0),
    "exp(2u - 1)": (lambda u: (2 * u - 1).exp(), lambda c: (math.log(c) + 1) / 2 if c > 0 else 0.0),
    "clamp": (lambda u: u.clip(0.25, 0.5), lambda c: 0.0 if c <= 0.25 else c if c <= 0.5 else 1.0),
    "normal": (lambda u: u.probit(), lambda c: 0.5 * math.erfc(-c / math.sqrt(2))),
    "sigmoid(3u)": (lambda u: (3 * u).sigmoid(), lambda c: math.log(c / (1 - c)) / 3 if 0 < c < 1 else float(c >= 1)),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(MAPS)), st.floats(-4, 4))
def test_comparisons_have_the_closed_form_probability(name, bar):
    make, cdf = MAPS[name]
    wanted = min(max(cdf(bar), 0.0), 1.0)
    for compare in (lambda f: f < bar, lambda f: f <= bar, lambda f: not f >= bar, lambda f: bar > f):
        total, pending = 0.0, [()]
        while pending:
            leaf = Leaf(pending.pop(), 0.0)
            below = compare(make(Symbol.uniform(leaf, "u")))
            if not leaf.prescribed and leaf.decisions:
                pending.append((1 - leaf.decisions[0].taken,))
            total += leaf.mass * bool(below)
        assert total == pytest.approx(wanted, abs=1e-12)


WEIGHTS = (0.2, 0.5, 0.3)
RACES = {
    "w / exponential": lambda: int((torch.tensor(WEIGHTS) / torch.empty(3).exponential_()).argmax()),
    "in place": lambda: int(torch.tensor(WEIGHTS).div_(torch.empty(3).exponential_()).argmax(dim=-1)),
    "log w + gumbel": lambda: int((torch.tensor(WEIGHTS).log() - torch.log(-torch.log(torch.rand(3)))).argmax()),
    "numpy gumbel": lambda: int(np.argmax(np.log(WEIGHTS) + np.random.gumbel(size=3))),
    "exponential / w": lambda: int((torch.empty(3).exponential_() / torch.tensor(WEIGHTS)).argmin()),
    "u ** (1 / w)": lambda: int((torch.rand(3, dtype=torch.float64) ** (1 / torch.tensor(WEIGHTS).double())).argmax()),
    "max returns both": lambda: int((torch.tensor(WEIGHTS) / torch.empty(3).exponential_()).max(dim=0).indices),
    "masked": lambda: int(torch.cat([torch.tensor(WEIGHTS) / torch.empty(3).exponential_(), torch.zeros(2)]).argmax()),
    "inverse CDF, sorted": lambda: int(torch.searchsorted(torch.tensor(WEIGHTS).double().cumsum(0), torch.rand(1))[0]),
    "inverse CDF, counted": lambda: int((torch.rand(1) > torch.tensor(WEIGHTS).double().cumsum(0)[:-1]).sum()),
    "inverse CDF, bisect": lambda: bisect(np.cumsum(WEIGHTS)[:-1].tolist(), np.random.rand()),
    "noise with eps": lambda: int(
        (torch.tensor(WEIGHTS).log() - torch.log(-torch.log(torch.rand(3) + 1e-12) + 1e-12)).argmax()
    ),
}


@pytest.mark.parametrize("name", RACES)
def test_races_choose_in_proportion_to_their_weights(name):
    found = law(RACES[name])
    close = 1e-7 if "eps" in name else 3e-8  # weights are float32 in most of these
    assert [found[i] for i in range(3)] == pytest.approx(WEIGHTS, abs=close)


def test_a_race_of_uniforms_times_weights_is_enumerated_and_is_not_that_law():
    # P(3 wins) for max(a U, b V, c W), a < c < b, by integrating the density of c W: a known wrong sampler.
    found = law(lambda: int((torch.tensor(WEIGHTS) * torch.rand(3)).argmax()))
    a, b, c = WEIGHTS
    third = (a**2 / 3 + (c**2 - a**2) / 2) / (b * c)
    assert found[2] == pytest.approx(third, abs=1e-7)
    assert abs(found[2] - c) > 0.04


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_uniforms_have_the_law_of_the_installed_torch(dtype):
    values, weights = coarse_uniform(dtype)
    assert weights.sum() == pytest.approx(1.0, abs=1e-15) and values[0] == 0.0 and values[-1] < 1.0
    n = 2**20
    drawn = torch.rand(n, dtype=dtype, generator=torch.Generator().manual_seed(1)).double().numpy()
    assert np.isin(drawn, values).all()
    # Two-sided DKW at 1e-6: sup |F_n - F| < 2.7e-3; and zero alone by an exact binomial at 1e-6.
    points = np.sort(np.unique(drawn))
    model = np.cumsum(weights)[np.searchsorted(values, points)]
    assert np.abs(np.searchsorted(np.sort(drawn), points, side="right") / n - model).max() < 2.7e-3
    assert binomtest(int((drawn == 0).sum()), n, float(weights[0])).pvalue > 1e-6
    assert binomtest(int((drawn == 0).sum()), n, float(weights[0]) * 1.5).pvalue < 1e-6


def test_coarse_uniforms_are_enumerated_on_their_grid():
    zero = float(coarse_uniform(torch.bfloat16)[1][0])
    assert zero > 2**-10
    assert law(lambda: bool(torch.rand(1, dtype=torch.bfloat16) <= 0.0))[True] == pytest.approx(zero, abs=1e-15)
    assert law(lambda: bool(torch.rand(1, dtype=torch.bfloat16) < 0.0)) == {False: 1.0}
    # Rounding a fine uniform: half a step below 1 rounds up to it.
    assert law(lambda: bool(torch.rand(1).to(torch.bfloat16) >= 1.0))[True] == 2**-9


def test_one_uniform_used_twice_is_one_uniform():
    def call():
        u = torch.rand(1).item()
        return (u < 0.5, u < 0.25, 1 - u > 0.9, bisect([0.3, 0.6], u))

    found = law(call)
    assert found[(True, True, True, 0)] == pytest.approx(0.1)
    assert found[(False, False, False, 2)] == pytest.approx(0.4)
    assert found[(True, False, False, 1)] == pytest.approx(0.2)
    assert len(found) == 6


def test_draws_move_through_tensor_operations():
    def call():
        u = torch.rand(2, 2)
        v = torch.where(torch.tensor([True, False]), u.t(), torch.full((2, 2), 2.0))
        w = torch.cat([v.reshape(-1), torch.zeros(1)])[[0, 2, 4]]
        buffer = torch.zeros(3)
        buffer[1:] = w[:2]
        return tuple((buffer < 0.5).tolist()), bool(u[0, 0] < 0.5), bool(u[0, 1] < 0.5)

    for (seen, first, second), mass in law(call).items():
        assert seen == (True, first, second) and mass == pytest.approx(0.25)


def test_what_is_not_understood_says_what_it_was():
    cases = {
        "multiplied": lambda: bool(torch.rand(1) * torch.rand(1) < 0.5),
        "cumsum": lambda: bool(torch.rand(3).cumsum(0)[2] < 1),
        "poisson": lambda: torch.poisson(torch.ones(1)).item(),
        "compared with another draw": lambda: torch.rand(1).item() < torch.rand(1).item(),
        "used before": lambda: (lambda e: (int(e.argmax()), int(e.argmax())))(1 / torch.empty(2).exponential_()),
    }
    for words, call in cases.items():
        with pytest.raises(NotUnderstood, match=words), Room(call) as room:
            exact_runs(call, room)


def test_a_state_between_calls_is_found():
    calls = iter(range(10**6))
    call = lambda: bool(torch.rand(1) < 0.5) and next(calls) % 2  # noqa: E731
    with pytest.raises(Escaped), Room(call) as room:
        exact_runs(call, room)


def test_an_unbounded_loop_has_a_certified_error_bar():
    def call():
        tries = 0
        while torch.rand(1).item() > 0.3:
            tries += 1
        return tries

    with Room(call) as room:
        runs = exact_runs(call, room, max_leaves=20)
    assert runs.cut_short
    assert 0.7**20 <= runs.dropped <= 0.7**15  # the most probable branches first, one run ahead of the rest
    assert runs.law[4] == pytest.approx(0.3 * 0.7**4)
    with Room(call) as room:
        assert exact_runs(call, room).dropped < 1e-12


def test_pruning_drops_no_more_than_it_says():
    def call():
        while bool(torch.rand(1) < 1.0 - 1e-3):
            pass
        return 0

    with Room(call) as room:
        runs = exact_runs(call, room, min_mass=1e-1)
    assert sum(runs.law.values()) + runs.dropped == pytest.approx(1.0)
    assert runs.dropped > 0.05 and issubclass(Pruned, BaseException)

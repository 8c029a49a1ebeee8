"""An exact verdict against 20,000 rounds and a chi-square test.

The bug: a token verifier that accepts if u < target / (0.99 draft), at a vocabulary of 3 and a draft of 2. The
chi-square test is the one people write by hand: it runs the function 20,000 times on one pair of random tables, counts
the first emitted token against the target's law, and calls it wrong below a p-value of 1e-3. Its drafts are drawn
beforehand in one call, and its time is that of the runs. The rounds it needs are those with which it sees the bug nine
times in ten, from the exact law and the noncentral chi-square distribution. The verdict covers many pairs of tables, of
which it states the largest bias, a larger size by samples, and the search for the smallest counterexample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from distributions.categorical import Categorical
from tests.benchmarks.report import Section, Versus
from tests.benchmarks.subjects import correct, lenient
from verify import check_verifier
from verify.foreign.plain import seeded
from verify.problems import Problem, pool
from verify.spaces.discrete import ProblemLaw, law_of
from verify.verifiers.lenient import Lenient

ROUNDS = 20_000
ALPHA = 1e-3  # false alarm of one chi-square test
POWER = 0.9
PROBLEM = pool(3, 2)[0]
Rule = Callable[..., Any]


def chi_square(fn: Rule, problem: Problem, rounds: int, seed: int = 0) -> float:
    """The p-value of the first emitted token of ``rounds`` rounds."""
    blocks, chances = zip(*problem.drafts(), strict=True)
    calls = [problem.call(fn, block) for block in blocks]
    with seeded(seed):
        drafted = torch.multinomial(torch.tensor(chances, dtype=torch.float64), rounds, replacement=True).tolist()
        counts = Counter(calls[block]()[0] for block in drafted)
    observed = [counts[token] for token in range(problem.vocab)]
    return float(stats.chisquare(observed, rounds * problem.target[0][0].numpy()).pvalue)


def first_token(law: ProblemLaw) -> tuple[np.ndarray, np.ndarray]:
    """The exact law of the first emitted token, and the target's."""
    shape = (law.problem.vocab, -1)
    return law.law.reshape(shape).sum(1).numpy(), law.problem.truth.reshape(shape).sum(1).numpy()


def departure(found: np.ndarray, truth: np.ndarray) -> float:
    """The noncentrality that one round adds to the chi-square statistic: sum (found - truth)^2 / truth."""
    return float(((found - truth) ** 2 / truth).sum())


def power(found: np.ndarray, truth: np.ndarray, rounds: int) -> float:
    """How often a chi-square test on ``rounds`` rounds sees it."""
    df = len(truth) - 1
    return float(stats.ncx2.sf(stats.chi2.isf(ALPHA, df), df, rounds * departure(found, truth)))


def rounds_needed(found: np.ndarray, truth: np.ndarray) -> int:
    """The rounds at which it is seen with probability POWER: that noncentrality over ``departure``."""
    df = len(truth) - 1
    critical = stats.chi2.isf(ALPHA, df)
    noncentral = float(brentq(lambda size: stats.ncx2.sf(critical, df, size) - POWER, 1e-3, 1e3))
    return math.ceil(noncentral / departure(found, truth))


@cache
def law(fn: Rule, problem: Problem) -> ProblemLaw:
    return law_of(fn, problem)


@pytest.mark.parametrize("fn", [lenient, correct], ids=["the bug", "correct code"])
def test_verdict(fn: Rule, versus: Versus, section: Section, request: pytest.FixtureRequest) -> None:
    run = versus(lambda: check_verifier(fn), lambda: chi_square(fn, PROBLEM, ROUNDS), turns=3)
    verdict, p_value = run.result, run.reference_result
    assert verdict.status == ("lossy" if fn is lenient else "lossless") and verdict.evidence == "exact"
    assert verdict.bias_lower == verdict.bias_upper
    assert verdict.bias_upper >= law(fn, PROBLEM).bias - 1e-15  # the worst of the tables, these among them
    assert law(fn, PROBLEM).bias > 1e-3 if fn is lenient else verdict.bias_upper < 1e-12
    needed = rounds_needed(*first_token(law(fn, PROBLEM))) if fn is lenient else 0
    section.row(
        judged=request.node.callspec.id,
        verdict=f"{verdict.status} [{verdict.evidence}], bias {verdict.bias_upper:.3g}",
        chi_square_says="lossy" if p_value < ALPHA else "nothing",
        p_value=p_value,
        verdict_time_over_chi_square=run.ratio,
        rounds_chi_square_needs=needed if fn is lenient else None,
        their_time_over_the_verdict=needed / ROUNDS / run.ratio if fn is lenient else None,
        verdict_seconds=run.seconds,
        chi_square_seconds=run.reference_seconds,
    )
    if fn is correct:
        section.say(f"Scope of the verdict: {verdict.scope}.")


def test_rounds_that_chi_square_needs(versus: Versus, section: Section) -> None:
    """And, for its time, the exact law on the very tables that the test was run on."""
    run = versus(lambda: law_of(lenient, PROBLEM), lambda: chi_square(lenient, PROBLEM, ROUNDS // 10), turns=5)
    exact = run.result
    found, truth = first_token(exact)
    target, draft = Categorical(PROBLEM.target[0]), Categorical(PROBLEM.draft[0])
    bias = float(np.abs(found - truth).sum() / 2)
    assert bias == pytest.approx(float(Lenient(0.99).bias(target, draft)), abs=1e-12)  # the closed form
    needed = rounds_needed(found, truth)
    seen = [stats.chisquare(row, needed * truth).pvalue < ALPHA for row in _counts(found, needed, 4_000)]
    assert abs(np.mean(seen) - POWER) < 0.03  # false alarm 1e-9: six standard deviations of 4,000 tests
    block = exact.law.numpy(), PROBLEM.truth.numpy()
    for name, laws in {"the first token, 3 cells": (found, truth), "the block of 3 tokens, 27 cells": block}.items():
        enough = rounds_needed(*laws)
        section.row(
            chi_square_on=name,
            exact_bias=float(np.abs(laws[0] - laws[1]).sum() / 2),
            probability_seen_in_20_000_rounds=power(*laws, ROUNDS),
            rounds_to_be_seen_nine_times_in_ten=enough,
            time_of_these_over_the_exact_law=enough / (ROUNDS // 10) / run.ratio,
            exact_law_seconds=run.seconds,
        )
    problems = [pool(3, 2, seed)[0] for seed in range(1, 41)]
    laws_of_all = [first_token(law(lenient, problem)) for problem in problems]
    wanted = [rounds_needed(*laws) for laws in laws_of_all]
    chance = float(np.mean([power(*laws, ROUNDS) for laws in laws_of_all]))
    assert all(law(lenient, problem).bias > 1e-5 for problem in problems)  # the exact law sees it on every one
    section.say(
        f"On {len(problems)} other pairs of random tables the exact law shows the bug every time; the chi-square test "
        f"on {ROUNDS:,} first tokens sees it with probability {chance:.1%}, and to see it nine times in ten needs "
        f"{median(wanted):,.0f} rounds on the median pair, {min(wanted):,} on the easiest."
    )


def _counts(found: np.ndarray, rounds: int, repeats: int) -> np.ndarray:
    return np.random.default_rng(0).multinomial(rounds, found / found.sum(), size=repeats)

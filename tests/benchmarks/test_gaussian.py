"""A verdict on a continuous sampler against a Kolmogorov-Smirnov test.

The reference is `scipy.stats.kstest` on as many rows: the function is called once on each of the pairs of Gaussian
laws that the verdict uses, in one dimension, and the smallest of the p-values is held against 1e-3 over their number.
The verdict adds chi-square tests, small calls, dependence between rows, excess acceptance and a certified bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats

from tests.benchmarks.report import Section, Versus
from tests.benchmarks.subjects import one_try, thinning
from verify import check_verifier
from verify.foreign.plain import seeded
from verify.spaces.gaussian import BUDGETS
from verify.spaces.gaussian_pairs import pairs

ALPHA = 1e-3  # false alarm of the whole reference


def kolmogorov_smirnov(fn: Callable[..., Any], seed: int = 0) -> float:
    """The smallest p-value over the pairs, times their number."""
    found = []
    with seeded(seed):
        for pair in pairs(1, "equal"):
            draft, target = pair.distributions(torch.float64)
            emitted = fn(draft.sample((BUDGETS["quick"].rows,)), draft, target)[:, 0].numpy()
            law = stats.norm(target.mean.item(), target.stddev.item())
            found.append(stats.kstest(emitted, law.cdf).pvalue)
    return min(1.0, float(min(found)) * len(found))


@pytest.mark.parametrize("fn", [thinning, one_try], ids=["exact thinning", "thinning, one try"])
def test_verdict(fn: Callable[..., Any], versus: Versus, section: Section, request: pytest.FixtureRequest) -> None:
    run = versus(lambda: check_verifier(fn, space="gaussian"), lambda: kolmogorov_smirnov(fn), turns=3)
    verdict, p_value = run.result, run.reference_result
    # A false alarm has probability 1e-6 by the verdict's own account, 1e-3 in the reference (its seed is fixed).
    assert verdict.status == ("lossless" if fn is thinning else "lossy")
    assert (p_value < ALPHA) == (fn is one_try)
    bound = f"KS <= {verdict.bias_upper:.3g}" if verdict.lossless else f"TV >= {verdict.bias_lower:.3g}"
    section.row(
        judged=request.node.callspec.id,
        rows=BUDGETS["quick"].rows * len(pairs(1, "equal")),
        verdict=f"{verdict.status}, {bound}",
        kstest_says="lossy" if p_value < ALPHA else "nothing",
        verdict_time_over_kstest=run.ratio,
        verdict_seconds=run.seconds,
        kstest_seconds=run.reference_seconds,
    )

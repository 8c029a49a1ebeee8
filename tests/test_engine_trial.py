"""The engine's own trial: a liberal check is exposed by its calibration, and a calm one is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import binom

from verify.checks.ks import KolmogorovSmirnov
from verify.records import Finding
from verify.studies.engine_trial.batteries import Emitted, gaussians
from verify.studies.engine_trial.calibration import CHANCE, GRID, Null, exposed, limit, measure, nulls, table
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class Liberal(KolmogorovSmirnov):
    """Kolmogorov-Smirnov with p-values twenty times too small."""

    def judge(self, tally: object, alpha: float) -> Finding:
        found = super().judge(tally, alpha)  # type: ignore[arg-type]
        return replace(found, p_value=(found.p_value or 0.0) / 20)


def test_a_liberal_check_is_exposed_and_its_honest_twin_is_not() -> None:
    """150 suites of 256 exact rows; the honest one leaves the band by chance once in a thousand, seed fixed."""
    draw = Emitted(Rejection(), gaussians(1, 0.5))
    honest, liberal = (measure(Null("exact", draw, [check], 256), 150) for check in (KolmogorovSmirnov(), Liberal()))
    ((_, calm),), ((_, loud),) = honest.p_values.items(), liberal.p_values.items()
    assert len(calm) == len(loud) == 150
    assert exposed(calm, 1) == "" and exposed(loud, 1) != ""
    rows = table([honest, liberal])
    assert [row["beyond the band"] == "-" for row in rows] == [True, False]


def test_the_band_is_binomial() -> None:
    """Uniform p-values at the quantiles of n suites lie within it; the bound at a level is that binomial quantile."""
    suites = 2000
    even = (np.arange(suites) + 0.5) / suites
    assert exposed(even, 1) == "" and exposed(even / 3, 1) != ""
    assert limit(suites, 0.01, 1) == binom.isf(CHANCE / len(GRID), suites, 0.01)


@pytest.mark.slow
def test_every_check_of_the_gate_is_calm() -> None:
    """Some hundred suites of every null; false alarm of the whole table CHANCE = 1e-3, seed fixed."""
    rows = table([measure(null, 120) for null in nulls(False)])
    assert len(rows) > 40 and all(row["beyond the band"] == "-" for row in rows), rows

"""The engine's own trial: what is liberal, what always rejects and what never does are each exposed; others are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from verify.checks import Check
from verify.checks.ks import KolmogorovSmirnov
from verify.parts import Parts, parts
from verify.records import Finding
from verify.saboteurs.gaussian_residual_target import GaussianResidualTarget
from verify.studies.engine_trial import BUDGETS, kills, powers, told
from verify.studies.engine_trial.batteries import Emitted, gaussians
from verify.studies.engine_trial.calibration import CHANCE, GRID, Null, exposed, limit, measure, nulls, table
from verify.studies.engine_trial.kills import Killed
from verify.studies.engine_trial.ladder import ALL
from verify.studies.engine_trial.powers import Line, Mutated
from verify.verifiers.rejection import Rejection

EXACT = Emitted(Rejection(), gaussians(1, 0.5))
WRONG = Emitted(GaussianResidualTarget(), gaussians(1, 0.5))


@dataclass(frozen=True)
class Liberal(KolmogorovSmirnov):
    """Kolmogorov-Smirnov with p-values twenty times too small."""

    def judge(self, tally: object, alpha: float) -> Finding:
        found = super().judge(tally, alpha)  # type: ignore[arg-type]
        return replace(found, p_value=(found.p_value or 0.0) / 20)


@dataclass(frozen=True)
class Planted(KolmogorovSmirnov):
    """The same p-value whatever was drawn."""

    always: float = 1.0

    def judge(self, tally: object, alpha: float) -> Finding:
        found = super().judge(tally, alpha)  # type: ignore[arg-type]
        return replace(found, check="blind" if self.always else "loud", p_value=self.always)


HONEST, BLIND, LOUD = KolmogorovSmirnov(), Planted(), Planted(always=0.0)


def test_a_liberal_check_is_exposed_and_its_honest_twin_is_not() -> None:
    """150 suites of 256 exact rows; the honest one leaves the band by chance once in a thousand, seed fixed."""
    honest, liberal = (measure(Null("exact", EXACT, [check], 256), 150) for check in (HONEST, Liberal()))
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


def test_a_check_that_always_rejects_leaves_the_band_and_one_that_never_does_stays_in_it() -> None:
    """Twenty suites are enough: escalation confirms the first in every one of them, and the second in none."""
    loud, blind = (measure(Null("exact", EXACT, [check], 64), 20) for check in (LOUD, BLIND))
    assert [row["beyond the band"] for row in table([loud, blind])] == ["1 at 0.56", "-"]
    assert (loud.confirmed, loud.loud) == (20, (2, 2)) and (blind.confirmed, blind.loud) == (0, (0, 2))


def test_a_blind_check_sees_nothing_whatever_is_wrong() -> None:
    """Replacements drawn from the target, total variation 0.096: 4096 rows show it, false alarm 1e-3 a run; the planted
    checks have no power and full power, on what is wrong and on what is exact.
    """
    sizes, checks = (1024, 4096), (HONEST, BLIND, LOUD)
    wrong, exact = (powers.curves(draw, checks, sizes, 3) for draw in (WRONG, EXACT))
    assert wrong["ks"][-1] == 1.0 and exact["ks"] == [0.0, 0.0]
    assert wrong["blind"] == exact["blind"] == [0.0, 0.0] and wrong["loud"] == exact["loud"] == [1.0, 1.0]
    assert powers.blind({"wrong": {"known law": wrong}}) == {"known law": ["blind"]}
    assert [row["n90"] for row in powers.power_table({"known law": wrong}, sizes)][1] == "-"


@pytest.mark.parametrize("check, seen", [(HONEST, True), (BLIND, False), (LOUD, True)], ids=["honest", "blind", "loud"])
def test_a_blind_check_kills_nothing(check: Check, seen: bool) -> None:
    """At level 1e-6 on the same defect; what is killed by nothing is named among the unseen."""
    rows = kills.least(WRONG, [check], 4096, 2)
    assert (rows is not None) is seen
    item = Killed("Gaussian", "A", 0.096, {"known law": rows})
    assert item.first == ("known law" if seen else "none")
    (row,) = kills.table({"planted": item}, dict.fromkeys(kills.LEVELS, 4096))
    assert row["known law"] == (rows if seen else "> 4096")
    # What always rejects is told from what sees by the exact rule, with which it begins at the first size.
    assert kills.least(EXACT, [check], 4096, 2) == (256 if check is LOUD else None)


def test_the_page_says_so() -> None:
    """Text of a trial of a blind and a loud check, on one null, one alternative, two rules and one defect."""
    size = replace(BUDGETS["quick"], sizes={"mean shift": (1024, 4096)}, runs=2)
    blind = powers.curves(WRONG, [BLIND], (1024, 4096), 2)
    power = {"mean shift": {"known law": powers.curves(WRONG, [HONEST, BLIND], (1024, 4096), 2), "two samples": blind}}
    rules = {
        "wrong": Mutated(Line(0.1, 0.2), None, {"coupling": 16, "known law": 512}),
        "exact": Mutated(Line(0.0, 0.0), None, {"coupling": None, "known law": 256}),
    }
    dead = {"unseen_defect": Killed("Gaussian", "A", 0.1, {"known law": None})}
    dead["rounded"] = Killed("tokens", "B", 2e-4, {"coupling": 4096, "known law": None})
    study = told(size, [measure(Null("known law", EXACT, [LOUD], 64), 20)], power, rules, dead)
    assert "**Too many false alarms: loud (known law: 1 at 0.56).**" in study.text
    assert "Nothing here is seen by blind (known law), blind (two samples), all together (two samples)." in study.text
    assert "**The exact rule is rejected by: known law.**" in study.text
    assert "Unseen at these sizes: unseen_defect." in study.text
    assert "Seen by coupling alone, with the bias: rounded (0.0002)." in study.text
    assert ALL in power["mean shift"]["known law"]


def test_what_is_finished_is_kept(tmp_path: Path) -> None:
    kept, calls = Parts(tmp_path / "parts"), []

    def compute() -> int:
        calls.append(1)
        return 7

    assert [kept.of("one", compute), kept.of("one", compute), kept.of("two", compute)] == [7, 7, 7] and len(calls) == 2
    assert Parts(tmp_path / "parts").of("two", compute) == 7 and len(calls) == 2
    assert Parts(None).of("one", compute) == 7 and len(calls) == 3


def test_parts_are_of_one_budget() -> None:
    assert parts("trial", 1) == parts("trial", 1) != parts("trial", 2)


@pytest.mark.slow
def test_every_check_of_the_gate_is_calm() -> None:
    """Some hundred suites of every null; false alarm of the whole table CHANCE = 1e-3, seed fixed."""
    rows = table([measure(null, 120) for null in nulls(False)])
    assert len(rows) > 40 and all(row["beyond the band"] == "-" for row in rows), rows

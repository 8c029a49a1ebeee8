"""Which check of continuous samplers sees which planted defect, and whether any of them accuses a control."""

from __future__ import annotations

from collections.abc import Mapping

from verify.continuous_references import continuous_panel, seen_by
from verify.records import Defect
from verify.spaces.gaussian_rules import continuous
from verify.studies.kill_matrix import MISSES, SEES, UNUSED, figure_of
from verify.study import Row, Study
from verify.verifier import Verifier, catalog

ROWS = {"quick": 65_536, "thorough": 1_000_000}
ALPHA = 1e-6
TEXT = """Every planted defect of continuous tokens against every check that check_verifier(space="gaussian") makes of
the rows of one pair of laws: {rows} rows on each of A, means 1 standard deviation apart in 2 dimensions, and B, 0.1
apart in 4, and half as many on C, 6 apart on the line. A defect that shows only where covariances differ has for A a
target narrower by 0.95 in 16 dimensions, and for B a draft narrower by 0.8 in 2. A check sees a defect if it rejects on
one of the pairs, at level 1e-6 over all three.

{verdict}

The check of branches, which holds kept and replaced rows each against what a lossless rule may and must put there, has
the means to see a wrong residual between laws that are near: where few rows are replaced, their noise is small too."""


def run(budget: str = "quick") -> Study:
    """Both matrices and the biases."""
    folders = {
        folder: {name: kind() for name, kind in catalog(folder).items() if continuous(kind.claim)}
        for folder in ("saboteurs", "controls")
    }
    panels = {
        folder: {name: continuous_panel(rule, ROWS[budget]) for name, rule in rules.items()}
        for folder, rules in folders.items()
    }
    checks = list(dict.fromkeys(check for rules in panels.values() for panel in rules.values() for check in panel))
    cells = {
        folder: {
            name: {
                check: SEES if check in seen_by(panel, ALPHA) else MISSES if check in panel else UNUSED
                for check in checks
            }
            for name, panel in rules.items()
        }
        for folder, rules in panels.items()
    }
    saboteurs, controls = cells["saboteurs"], cells["controls"]
    return Study(
        "The kill matrix of continuous tokens",
        TEXT.format(rows=f"{ROWS[budget]:,}", verdict=_verdict(saboteurs, controls)),
        {
            "Saboteur by check": [{"saboteur": name, **row} for name, row in saboteurs.items()],
            "Control by check": [{"control": name, **row} for name, row in controls.items()],
            "Exact biases": [_biases(name, rule) for name, rule in folders["saboteurs"].items()],
        },
        {"Which check sees which planted defect": figure_of(saboteurs, 0)},
    )


def _verdict(saboteurs: Mapping[str, Mapping[str, str]], controls: Mapping[str, Mapping[str, str]]) -> str:
    """The outcome in two sentences."""
    unseen = [name for name, row in saboteurs.items() if SEES not in row.values()]
    accused = [name for name, row in controls.items() if SEES in row.values()]
    first = f"No check sees {', '.join(unseen)}." if unseen else "Each defect is seen by at least one check."
    return f"{first} " + (f"Accused wrongly: {', '.join(accused)}." if accused else "No check accuses a control.")


def _biases(name: str, rule: Verifier) -> Row:
    defect: Defect = rule.defect  # type: ignore[attr-defined]
    return {
        "saboteur": name,
        "covariances": defect.covariance,
        "bias on A": defect.bias_a,
        "bias on B": defect.bias_b,
        "must be seen by": ", ".join(defect.caught_by),
        "reference": rule.claim.reference,
    }

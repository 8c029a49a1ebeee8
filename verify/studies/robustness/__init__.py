"""Which rules stay exact when drafter and target differ in kind, and what is left of their acceptance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from matplotlib.figure import Figure

from distributions.schedule import cosine
from verify.estimates import Estimate
from verify.report.curves import curve, legend, panels, strokes
from verify.studies.robustness.cases import RULES, STEPS, SWEPT, Case, cases, exact
from verify.studies.robustness.evidence import ALPHA, FAR, Cell, acceptances, measure
from verify.study import Row, Study

ROWS = {"quick": 2000, "thorough": 20_000}
SLOW = {"flow_exact": 40, "pooled_noise": 50}
"""Rules that have this many times fewer rows, for they differentiate their chains."""
POOLED = ("learned variances, trained",)
"""The cases of ``pooled_noise`` in the quick study; in the thorough one it has all."""
ERRORS = {"quick": (0.0003, 0.001, 0.003, 0.01, 0.03), "thorough": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
"""Of the clean value, in the figure."""
ERRORS = {"quick": (0.001, 0.003, 0.01, 0.03), "thorough": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
"""Of the clean value, in the figure."""
Falls = Mapping[str, Mapping[str, Sequence[Estimate]]]


def run(budget: str = "quick") -> Study:
    """Every rule on every case, and the acceptance as a drafter's error grows."""
    rows, every, seed = ROWS[budget], cases(), count()
    jobs = [(case, name) for case in every for name in RULES if case.flows or name != "flow_exact"]
    if budget == "quick":
        jobs = [(case, name) for case, name in jobs if name != "pooled_noise" or case.name in POOLED]
    found = [measure(case, name, RULES[name], rows // SLOW.get(name, 1), next(seed)) for case, name in jobs]
    falls = {
        name: together(
            [
                acceptances(Case(name, exact(data, error), exact(data)), rows // 4, next(seed))
                for error in ERRORS[budget]
            ]
        )
        for name, data in SWEPT.items()
    }
    return present(found, falls, ERRORS[budget])


def together(found: Sequence[Mapping[str, Estimate]]) -> dict[str, list[Estimate]]:
    """By rule what is listed by error."""
    return {rule: [each[rule] for each in found] for rule in found[0]}


def present(cells: Sequence[Cell], falls: Falls, errors: Sequence[float]) -> Study:
    """The study of what was measured."""
    return Study(
        title="Robustness: what stays exact, and what is still accepted",
        text="\n\n".join(text(cells, falls, errors)),
        tables={
            "Acceptance by case and rule; lossy where a bias was seen": list(grid_of(cells)),
            "Every cell": [
                {
                    "case": cell.case,
                    "rule": cell.rule,
                    "acceptance": cell.acceptance[0],
                    "±": cell.acceptance[1],
                    "verdict": cell.verdict,
                    "p-value": cell.p_value,
                    "departs most": cell.test,
                    "would be seen": "" if math.isnan(cell.smallest) else cell.smallest,
                    "not inverted": cell.lost or "",
                }
                for cell in cells
            ],
        },
        figures={
            "Acceptance as the drafter's clean value is off by more, in every coordinate; three targets.": (
                drawing(falls, errors)
            )
        },
    )


def grid_of(cells: Sequence[Cell]) -> Iterator[Row]:
    """A row for each case, a column for each rule."""
    for case in dict.fromkeys(cell.case for cell in cells):
        found = {cell.rule: cell for cell in cells if cell.case == case}
        yield {"case": case} | {
            rule: f"{found[rule].acceptance[0]:.3f}" + (", lossy" if found[rule].verdict == "lossy" else "")
            if rule in found
            else ""
            for rule in RULES
        }


def drawing(falls: Falls, errors: Sequence[float]) -> Figure:
    """A panel for each target, a line for each rule."""
    figure, plots = panels(list(falls), width=3.0, height=3.2)
    rules = list(next(iter(falls.values())))
    lines = strokes(*([x for x in rules if RULES[x].claim.exact is claim] for claim in (True, False)))
    for plot, found in zip(plots, falls.values(), strict=True):
        for rule, accepted in found.items():
            curve(plot, errors, [(x, x - 1.96 * error, x + 1.96 * error) for x, error in accepted], lines[rule])
        plot.set_xscale("log")
        plot.set_xlabel("error of the clean value")
    plots[0].set_ylabel("acceptance")
    legend(figure, lines)
    return figure


def text(cells: Sequence[Cell], falls: Falls, errors: Sequence[float]) -> Iterator[str]:
    """The paragraphs above the table; every number is computed."""
    claimed = [cell for cell in cells if RULES[cell.rule].claim.exact]
    flagged = [f"{cell.rule} on {cell.case} (p {cell.p_value:.1g})" for cell in claimed if cell.verdict == "lossy"]
    rules = ", ".join(dict.fromkeys(cell.rule for cell in claimed))
    least = min(cell.p_value for cell in claimed)
    sizes = [cell.smallest for cell in claimed if not math.isnan(cell.smallest)]
    yield (
        f"**What stays exact.** {rules}: on {len({cell.case for cell in claimed})} cases, {len(claimed)} cells, a bias "
        + (f"was seen in {'; '.join(flagged)}" if flagged else f"was seen in none; the least p-value is {least:.2g}")
        + f". A cell accuses an exact rule with probability {ALPHA:g} at most, all of them with "
        f"{ALPHA * len(claimed):.1g}. No test proves exactness, the proofs are the rules' own: a departure of the last "
        f"step of {min(sizes):.3f} to {max(sizes):.3f}, by cell, would be seen nine times in ten, in "
        "Kolmogorov's distance."
    )
    for rule in dict.fromkeys(cell.rule for cell in cells if not RULES[cell.rule].claim.exact):
        mine = [cell for cell in cells if cell.rule == rule]
        seen = [cell.case for cell in mine if cell.verdict == "lossy"]
        rest = [cell.case for cell in mine if cell.verdict != "lossy"]
        yield (
            f"**{rule}** is lossy on {len(seen)} of {len(mine)} cases: {'; '.join(seen) or 'none'}. "
            + (f"Nothing was seen on {'; '.join(rest)}. " if rest else "")
            + ("Where both have one variance its volumes cancel: it is last_gaussian there." if rule == "cspd" else "")
        )
    yield (
        "**The evidence.** A target's path of Gaussian steps was made of innovations (x - mean) / deviation, each step "
        "given the point before. They are independent N(0, 1) if and only if the path has the target's law, whatever "
        "that law is like: heavy tails, modes and ill conditions of the data do not enter. What is emitted is tested "
        "for its innovations: all of them, the last point's, sums and lengths by point (Kolmogorov-Smirnov), products "
        f"of two points, and last points beyond the circle of probability {FAR:g} (binomial). For `pooled_noise`, "
        "which keeps a token and not a path, the target's path to that token; for `flow_exact` the noise that the "
        "target's flow sends to it, and where some tokens have none "
        f"({', '.join(f'{x.case} {x.lost:.1%}' for x in cells if x.lost) or 'nowhere here'}), a second sample of the "
        "target's own."
    )
    parts = []
    for name, found in falls.items():
        ends = "; ".join(f"{rule} {x[0][0]:.3f} to {x[-1][0]:.3f}" for rule, x in found.items())
        parts.append(f"{name}: {ends}.")
    yield (
        f"**How acceptance falls.** Drafters whose clean value is off by {errors[0]:g} to {errors[-1]:g}: "
        + " ".join(parts)
        + " An error that does not shrink with the noise is paid for in the last steps, whose deviation is "
        f"{float(cosine(STEPS).noise[1]):.4f}. Rules on paths feel it at that scale; flow_exact, which weighs the "
        "token's own density, at the scale of the data."
    )
    refused = [cell for cell in claimed if cell.acceptance[0] < 0.01]
    yield (
        f"Exact is not useful: in {len(refused)} of {len(claimed)} cells an exact rule accepts less than 1 %. Paths of "
        "different numbers of steps are not compared at all: every rule refuses them with an error."
    )

"""Which check sees which planted defect of a finite vocabulary, and whether any of them accuses a control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from statsmodels.stats.power import GofChisquarePower
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.audit import finite
from verify.exact_checks import Evidence, applies, catches, exact_checks, findings, panel
from verify.peer_checks import peer_checks, sampled
from verify.records import Defect
from verify.references import bias, references
from verify.study import Row, Study
from verify.verifier import Verifier, catalog

ROWS = {"quick": 5_000, "thorough": 100_000}
ALPHA = 1e-6
SEES, MISSES, UNUSED = "sees it", "", "not asked"
TEXT = """Every planted defect against every check. An exact check enumerates one round on the reference pairs A (8
tokens, total variation 1/2) and B (16 tokens, 0.16 in the mean) and on a pair C of four tokens with zeros in the
target, and a decoded sequence on C; it sees a defect if what should be zero exceeds 1e-12. A sampled check sees a
defect if it rejects on A or on B, on {rows} decoded sequences of three tokens each, at level 1e-6: these are the tests
that projects write. Not asked: the check says nothing about such a rule (one round of a rule that is exact over rounds
only, sequences of a rule that works on a batch, one draft's cap where there are siblings).

{verdict} The sampled ones miss {missed} of {defects} defects at this size{names}.

The last columns of the table of biases say how many draws a chi-square test at level 1e-6 needs to see the defect nine
times in ten, in the context and on the pair where this is easiest: looking at the first token alone, or at whole
blocks. A dash: no number is enough, since one round looks right; there a sequence, or a batch, must be looked at."""


def run(budget: str = "quick") -> Study:
    """Both matrices and the biases."""
    saboteurs, controls = (
        {name: kind for name, kind in catalog(folder).items() if finite(kind.claim)}
        for folder in ("saboteurs", "controls")
    )
    exact = {name: panel(kind(), _length(kind)) for name, kind in (saboteurs | controls).items()}
    cells = {name: _cells(kind(), exact[name], ROWS[budget]) for name, kind in (saboteurs | controls).items()}
    blind = [name for name in saboteurs if all(cells[name][check] != SEES for check in peer_checks())]
    unseen = [name for name in saboteurs if all(cells[name][check] != SEES for check in exact_checks())]
    accused = [name for name in controls if SEES in cells[name].values()]
    text = TEXT.format(
        rows=f"{ROWS[budget]:,}",
        verdict=_verdict(unseen, accused),
        missed=len(blind),
        defects=len(saboteurs),
        names=": " + ", ".join(blind) if blind else "",
    )
    matrices = {
        "Saboteur by check": [{"saboteur": name, **cells[name]} for name in saboteurs],
        "Control by check": [{"control": name, **cells[name]} for name in controls],
    }
    biases = [_biases(name, kind, exact[name]) for name, kind in saboteurs.items() if hasattr(kind, "defect")]
    exact_ones = len(exact_checks())
    figures = {
        "Which check sees which planted defect": figure_of({name: cells[name] for name in saboteurs}, exact_ones),
        "Which check accuses which control": figure_of({name: cells[name] for name in controls}, exact_ones),
    }
    return Study("The kill matrix", text, {**matrices, "Exact biases, and what a chi-square needs": biases}, figures)


def _verdict(unseen: list[str], accused: list[str]) -> str:
    """The outcome in a sentence or two."""
    first = (
        f"No exact check sees {', '.join(unseen)}." if unseen else "Each defect is seen by at least one exact check."
    )
    return f"{first} " + (f"Accused wrongly: {', '.join(accused)}." if accused else "No check accuses a control.")


def _length(kind: type[Verifier]) -> int:
    defect: Defect | None = getattr(kind, "defect", None)
    return defect.draft_length if defect else 2


def _cells(verifier: Verifier, evidence: dict[str, Evidence], rows: int) -> dict[str, str]:
    """What every check, exact ones first, says of a rule."""
    caught = catches(findings(evidence))
    asked = [name for name in exact_checks() if applies(name, verifier.claim)]
    if all(item.chain is None for item in evidence.values()):
        asked.remove("sequence")
    found = {name: UNUSED if name not in asked else SEES if name in caught else MISSES for name in exact_checks()}
    p_values: dict[str, list[float | None]] = {name: [] for name in peer_checks()}
    for pair in references().values():
        tape = GeneratorTape(1)
        sample = sampled(verifier, replace(pair, draft_length=_length(type(verifier))), rows, tape)
        for name, check in peer_checks().items():
            p_values[name].append(check(sample, ALPHA, tape).p_value)
    for name, values in p_values.items():
        known = [value for value in values if value is not None]
        found[name] = UNUSED if not known else SEES if min(known) <= ALPHA / len(known) else MISSES
    return found


def _biases(name: str, kind: type[Verifier], evidence: dict[str, Evidence]) -> Row:
    pairs, length = references(), _length(kind)
    rounds = [item.rows for letter, item in evidence.items() if letter in pairs]
    alone = [law for item in rounds for law in zip(item.joint[0][:, 0], item.wanted[0][:, 0], strict=True)]
    blocks = [law for item in rounds for law in zip(item.law, item.truth, strict=True)]
    return {
        "saboteur": name,
        **{f"bias on {letter}": bias(kind(), pair, length) for letter, pair in pairs.items()},
        "rounds, first token": _needed(alone),
        "rounds, blocks": _needed(blocks),
        "reference": kind.claim.reference,
    }


def _needed(laws: list[tuple[Tensor, Tensor]]) -> str:
    """The fewest draws of any of these laws that tell it from the law wanted, by chi-square."""
    needed = [rounds_needed(found, wanted) for found, wanted in laws]
    least = min(needed, default=math.inf)
    return f"{least:,.0f}" if math.isfinite(least) else "-"


def rounds_needed(found: Tensor, wanted: Tensor) -> float:
    """How many draws of ``found`` (V,) a chi-square test of ``wanted`` (V,) needs to reject nine times in ten.

    Level 1e-6; Cohen's effect size w^2 = sum (found - wanted)^2 / wanted, from statsmodels. Infinite for equal laws.
    """
    effect = float(((found - wanted).square() / wanted.clamp(min=1e-300)).sum().sqrt())
    if effect < 1e-9:
        return math.inf
    # The power depends on draws * effect^2 alone, so it is solved for at effect 0.1, where the solver is at ease.
    draws = GofChisquarePower().solve_power(0.1, alpha=ALPHA, power=0.9, n_bins=len(found))
    return math.ceil(float(np.asarray(draws).item()) * (0.1 / effect) ** 2)


def figure_of(cells: Mapping[str, Mapping[str, str]], exact: int) -> Figure:
    """The matrix as an image: rules down, checks across, the first of which are ``exact`` ones."""
    names, checks = list(cells), list(next(iter(cells.values())))
    level = {MISSES: 0, UNUSED: 1, SEES: 2}
    image = np.array([[level[cells[name][check]] for check in checks] for name in names])
    figure = Figure((7.2, 1.9 + 0.19 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(image, cmap=ListedColormap(["#e9e9e9", "#ffffff", "#b3403a"]), vmin=0, vmax=2, aspect="auto")
    axes.set_xticks(
        range(len(checks)), [check.replace("_", " ") for check in checks], rotation=40, ha="left", fontsize=8
    )
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_xticks(np.arange(len(checks) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    for row, column in np.argwhere(image == level[UNUSED]):
        axes.text(column, row, "–", ha="center", va="center", fontsize=8, color="#777777")
    left = ""
    if exact:
        axes.axvline(exact - 0.5, color="#333333", linewidth=1.5)
        left = " · left of the line: exact checks"
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"red: sees a defect · grey: sees none · –: not asked{left}", fontsize=8)
    return figure

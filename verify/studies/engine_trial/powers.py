"""How many rows each level of evidence needs: of three alternatives, and of acceptances that are slightly wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape
from verify.certificate.altered import (
    Acceptance,
    AlteredAcceptance,
    Raised,
    RoundedLogs,
    RoundedRatio,
    Scaled,
    Tempered,
)
from verify.checks import Check
from verify.engine.batteries import known_law
from verify.references import bias, references
from verify.saboteurs.gaussian_residual_padded import GaussianResidualPadded
from verify.saboteurs.gaussian_residual_target import GaussianResidualTarget
from verify.statistics.learned import Learner
from verify.studies.engine_trial.batteries import (
    Against,
    CertifiedBias,
    Coupled,
    Emitted,
    FirstMismatch,
    Opened,
    Rounds,
    all_samples,
    few_samples,
    gaussians,
    on_the_line,
    trace_checks,
)
from verify.studies.engine_trial.ladder import ALL, Draw, climb, fitted, needed, shares
from verify.studies.power_per_second.alternatives import ALTERNATIVES
from verify.study import Row
from verify.verifier import Verifier
from verify.verifiers.rejection import Rejection

ALPHA = 1e-3
APART = 0.5
"""Between the means of draft and target, in standard deviations, where acceptances are slightly wrong."""
PILOT = 1 << 14


def truth(case: str) -> Law:
    """The law that an alternative of ``power_per_second`` departs from."""
    if case != "dependence":
        dim = 1 if case == "mean shift" else 16
        return Gaussian(torch.zeros(dim).double(), torch.ones(dim).double())
    apart = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    factor = np.kron(np.eye(2), np.linalg.cholesky(0.5**apart))
    return FullGaussian(torch.zeros(16).double(), torch.as_tensor(factor))


@dataclass(frozen=True)
class Altered:
    """Rows of an alternative against the law of the truth, or against as many draws of it."""

    case: str
    known: bool

    def __call__(self, rows: int, seed: int) -> tuple[Tensor, Law | Tensor]:
        sample, drawn = ALTERNATIVES[self.case](rows, GeneratorTape(seed))
        return (sample, truth(self.case)) if self.known else (sample, drawn)


Curves = Mapping[str, Sequence[float]]


def curves(
    draw: Draw, checks: Sequence[Check | Learner], sizes: Sequence[int], runs: int, stop: bool = False
) -> dict[str, list[float]]:
    """The share of runs that each check rejects at each size, at level 1e-3, every run with a pilot of its own."""
    found = []
    for run in range(runs):
        found.append(climb(draw, fitted(checks, draw, run, min(PILOT, sizes[-1])), sizes, run, ALPHA, stop))
    return shares(found, ALPHA)


def alternative(case: str, sizes: Sequence[int], runs: int, slow: bool) -> dict[str, Curves]:
    """Power against one alternative by level of evidence and check."""
    levels: dict[str, Sequence[Check | Learner]] = {
        "known law": known_law(truth(case)),
        "two samples": all_samples(slow),
    }
    return {level: curves(Altered(case, level == "known law"), checks, sizes, runs) for level, checks in levels.items()}


@dataclass(frozen=True)
class Line:
    """By quadrature on the line: the total variation of what a rule emits, and how often a run beside the exact rule
    differs.
    """

    tv: float
    mismatch: float


def altered_on_the_line(accept: Acceptance, points: int = 1_200_001) -> Line:
    """Of an altered acceptance a' with an exact residual r*: emitted q a' + (1 - E a') r*, mismatch E |a' - a*|.

    The sum over a grid on [-12, 12], which is exact to rounding for smooth a', and to the step for jumps of it.
    """
    x = torch.linspace(-12, 12, points, dtype=torch.float64).unsqueeze(-1)
    step, problem = 24 / (points - 1), gaussians(1, APART)
    prior, after = problem.draft.log_prob(x), problem.target.log_prob(x)
    draft, target = prior.exp(), after.exp()
    chance, exact = accept(after, prior).double().clamp(0, 1), (after - prior).clamp(max=0).exp()
    excess = (target - draft).clamp(min=0)
    refused = float((draft * (1 - chance)).sum() / excess.sum())
    emitted = draft * chance + refused * excess
    return Line(float((emitted - target).abs().sum()) * step / 2, float((draft * (chance - exact).abs()).sum()) * step)


def redrawn_from_the_target() -> Line:
    """min(p, q) + TV p: half the integral of |TV p - (p - q)+|, and every replacement is another."""
    x = torch.linspace(-12, 12, 240_001, dtype=torch.float64).unsqueeze(-1)
    problem = gaussians(1, APART)
    draft, target = problem.draft.log_prob(x).exp(), problem.target.log_prob(x).exp()
    total = _apart()
    return Line(float((total * target - (target - draft).clamp(min=0)).abs().sum()) * 1e-4 / 2, total)


def _apart() -> float:
    """TV(p, q) = 2 Phi(APART / 2) - 1."""
    return math.erf(APART / 2 / math.sqrt(2))


def padded(tries: int) -> Line:
    """TV (1 - TV)^tries of all rows become an atom; no other row differs."""
    return Line(_apart() * (1 - _apart()) ** tries, _apart() * (1 - _apart()) ** tries)


def mutants() -> dict[str, tuple[Verifier, Line]]:
    """The rules of statistics on the line and the exact one, each with its exact bias."""
    accepts: dict[str, Acceptance] = {
        "temperature 0.98": Tempered(),
        "ratio x 1.02": Scaled(),
        "ratio + 0.01": Raised(),
        "ratio in bfloat16": RoundedRatio(),
        "logarithms in bfloat16": RoundedLogs(torch.bfloat16),
        "logarithms in float32": RoundedLogs(),
    }
    return {
        **{name: (AlteredAcceptance(accept), altered_on_the_line(accept)) for name, accept in accepts.items()},
        "residual is the target": (GaussianResidualTarget(), redrawn_from_the_target()),
        "residual capped at 4": (GaussianResidualPadded(4), padded(4)),
        "exact": (Rejection(), Line(0.0, 0.0)),
    }


def levels(rule: Verifier) -> dict[str, tuple[Draw, Sequence[Check | Learner]]]:
    """Every level of evidence below enumeration, strongest first: where its rows come from, and its checks."""
    problem = gaussians(1, APART)
    return {
        "coupling": (Coupled(rule, problem), [FirstMismatch()]),
        "white box": (Opened(rule, problem), [CertifiedBias()]),
        "trace": (Rounds(rule, problem), trace_checks()),
        "known law": (Emitted(rule, problem), on_the_line(problem.target)),
        "two samples": (Against(rule, problem, Rejection()), few_samples()),
    }


LEVELS = ("coupling", "white box", "trace", "known law", "two samples")


@dataclass(frozen=True, eq=False)
class Mutated:
    """A slightly wrong rule: its bias here, its bias on tokens, and the rows for power 0.9 at each level (or None)."""

    exact: Line
    tokens: float | None
    rows: Mapping[str, int | None]


def experiment(name: str, most: Mapping[str, int], runs: int, least: int = 16) -> Mutated:
    """One rule at every level, on sizes that double from ``least`` up to the ``most`` of the level."""
    rule, exact = mutants()[name]
    rows: dict[str, int | None] = {}
    for level, (draw, checks) in levels(rule).items():
        start = least if level in LEVELS[:2] else 16 * least
        sizes = [start << place for place in range((most[level] // start).bit_length())]
        rows[level] = needed(sizes, curves(draw, checks, sizes, runs, stop=True)[ALL])
    tokens = bias(rule, references()["A"], 2) if isinstance(rule, (AlteredAcceptance, Rejection)) else None
    return Mutated(exact, tokens, rows)


def mutant_table(found: Mapping[str, Mutated], most: Mapping[str, int]) -> list[Row]:
    """n90 by rule and level; beyond a level's largest size, that size."""
    return [
        {
            "rule": name,
            "TV": float(f"{item.exact.tv:.3g}"),
            "TV on tokens, enumerated": "-" if item.tokens is None else float(f"{item.tokens:.3g}"),
            "ln 10 / P(mismatch)": round(math.log(10) / item.exact.mismatch) if item.exact.mismatch else "-",
            **{
                level: ("not asked" if level not in item.rows else item.rows[level] or f"> {most[level]}")
                for level in LEVELS
            },
        }
        for name, item in found.items()
    ]


def power_table(found: Mapping[str, Curves], sizes: Sequence[int]) -> list[Row]:
    """The power of each check of each level, and its n90."""
    rows: list[Row] = [
        {
            "level": level,
            "check": name,
            **{f"n = {size}": float(f"{value:.3g}") for size, value in zip(sizes, power, strict=True)},
            "n90": needed(sizes, power) or "-",
        }
        for level, checks in found.items()
        for name, power in checks.items()
    ]
    return rows


def blind(found: Mapping[str, Mapping[str, Curves]]) -> dict[str, list[str]]:
    """The checks of each level that rejected no run of any alternative at any size."""
    seen: dict[str, dict[str, float]] = {}
    for checked in found.values():
        for level, checks in checked.items():
            for name, power in checks.items():
                best = seen.setdefault(level, {})
                best[name] = max(best.get(name, 0.0), *power)
    return {level: [name for name, most in best.items() if most == 0.0] for level, best in seen.items()}

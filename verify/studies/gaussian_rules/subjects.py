"""The rules that serve Gaussian laws, read from the catalogue, and what is found of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import gammainc

from distributions.normal import normal_between, normal_cdf
from verify.checks.ks import distances
from verify.decode import parents
from verify.gaussian.normals import gaussian_sibling_cap, shared_mass
from verify.studies.gaussian_rules.cells import REACH, integrals
from verify.studies.gaussian_rules.decisions import NotOnTheLine, decisions, phi
from verify.studies.gaussian_rules.lift import clopper_pearson, run
from verify.studies.gaussian_rules.line import LineLaw, line_law
from verify.verifier import Verifier, catalog
from verify.verifiers.lenient import Lenient
from verify.verifiers.tolerance import Tolerance

ALPHA = 1e-6
"""Every bound and every test on samples is at this level."""
CHUNK = 100_000
"""Rows drawn at a time."""
EXACT = 1e-8
"""What total variation on the line may be called none: quadrature is in error by less."""


@dataclass(frozen=True)
class Subject:
    """A rule and how many drafts it reads at once."""

    name: str
    rule: Verifier
    drafts: int

    @property
    def siblings(self) -> bool:
        """Whether its drafts are guesses at one token."""
        return bool((parents(self.rule, self.drafts) < 0).all()) and hasattr(self.rule, "parent")


def subjects(counts: Sequence[int] = (2, 4), folder: str = "verifiers") -> list[Subject]:
    """Every rule that says it serves Gaussian laws, or any: siblings by ``counts``, chains by 1 and by 2 drafts.

    A chain of two is left out where the first draft's fate is decided by its own coin.
    """
    found = []
    for name, kind in catalog(folder).items():
        if kind.claim.laws in ("gaussian", "any"):
            rule = kind()
            lengths = counts if hasattr(rule, "parent") else (1, 2) if _looks_ahead(rule) else (1,)
            found += [Subject(name, rule, drafts) for drafts in lengths]
    return found


def _looks_ahead(rule: Verifier) -> bool:
    """Whether the first of two drafts is kept after other coins than its own success."""
    try:
        first = decisions(rule, 2, 1.0).first
    except NotOnTheLine:
        return False
    return any((node == 0) != pattern[0] for pattern, node in first.items())


@dataclass(frozen=True, eq=False)
class Found:
    """What is known of one subject at one distance. ``line`` is None where there is no quadrature, for ``reason``.

    By dimension: ``rows`` drawn, ``mismatches`` with the lift, and ``gap``, the largest Kolmogorov-Smirnov distance of
    the first token over its ``columns``. ``kept`` counts all of them; ``work`` (rows,) and ``seconds``, for 1e5 rows,
    are of the last dimension.
    """

    subject: Subject
    distance: float
    line: LineLaw | None
    reason: str
    rows: dict[int, int]
    mismatches: dict[int, int]
    gap: dict[int, float]
    kept: int
    work: Tensor
    seconds: float

    def bound(self, dim: int) -> float:
        """The most that the total variation of the first token in ``dim`` dimensions can be: the line's, and the
        probability that a round is not a lifted one; 1 without quadrature.
        """
        if self.line is None:
            return 1.0
        return min(1.0, self.line.tv + clopper_pearson(self.mismatches[dim], self.rows[dim], ALPHA))

    def p_value(self) -> float:
        """That any distance be so large by chance: the least 2 exp(-2 n D^2) (Massart), times all columns at all d."""
        every = sum(width(dim) for dim in self.gap)
        return min(1.0, every * min(2 * math.exp(-2 * self.rows[dim] * gap**2) for dim, gap in self.gap.items()))

    def sampled_bound(self, dim: int) -> float:
        """What no distribution function of these columns departs by: D_n + sqrt(ln(1/alpha) / 2n)."""
        return self.gap[dim] + math.sqrt(math.log(1 / ALPHA) / (2 * self.rows[dim]))

    @property
    def evidence(self) -> str:
        """The strongest there is, in words."""
        kind = "DKW bound" if self.line is None else f"quadrature ({self.line.how})"
        return kind + ("; on the line only" if any(self.mismatches.values()) else "; lifted by coupling")

    @property
    def finding(self) -> str:
        """``biased``; ``none`` where quadrature and coupling leave no room for more; ``none seen`` by samples alone."""
        sure = self.line is not None and not any(self.mismatches.values())
        return "biased" if self.biased else "none" if sure else "none seen"

    @property
    def biased(self) -> bool:
        """Whether anything here says that the rule is not exact."""
        off = self.line is not None and self.line.tv > EXACT
        return off or self.p_value() < ALPHA or self.excess > 6

    @property
    def expected(self) -> float | None:
        """The probability to keep a draft: the rule's closed form where it has one, or else by quadrature."""
        closed = getattr(self.subject.rule, "acceptance", None)
        if closed is not None:
            many = (self.subject.drafts,) if self.subject.siblings else ()
            return float(closed(torch.tensor(self.distance, dtype=torch.float64), *many))
        return None if self.line is None else self.line.kept

    @property
    def measured(self) -> float:
        """How often a draft was kept."""
        return self.kept / self.total

    @property
    def total(self) -> int:
        """Rounds in all dimensions together."""
        return sum(self.rows.values())

    @property
    def z(self) -> float | None:
        """Measured less expected, in standard errors."""
        return None if self.expected is None else self._errors(self.expected)

    @property
    def cap(self) -> float:
        """The most that a lossless rule can keep."""
        delta = torch.tensor(self.distance, dtype=torch.float64)
        return float(gaussian_sibling_cap(delta, self.subject.drafts if self.subject.siblings else 1))

    @property
    def excess(self) -> float:
        """How many standard errors the measured acceptance lies above the cap."""
        return self._errors(self.cap)

    def _errors(self, chance: float) -> float:
        variance = max(chance * (1 - chance), 1e-12) / self.total
        return (self.measured - chance) / math.sqrt(variance)

    @property
    def formula(self) -> float | None:
        """The bias on the line of a lossy rule that has a formula.

        Of lenience l: int min(q, p / l) - int min(p, q) (lemma A5). Of tolerance t: half the integral of
        |q(z) P(|y - z| <= t) - p(z) P(|x - z| <= t)|, x of the draft's law q and y of the target's p.
        """
        rule, delta = self.subject.rule, torch.tensor(self.distance, dtype=torch.float64)
        if isinstance(rule, Lenient):
            level = delta.new_tensor(rule.lenience)
            return float(shared_mass(delta, level.log()) / level - shared_mass(delta, torch.zeros_like(delta)))
        if isinstance(rule, Tolerance):
            reach = rule.tolerance

            def moved(place: Tensor, _: Tensor) -> Tensor:
                near = [normal_between(place - mean - reach, place - mean + reach) for mean in (delta, 0 * delta)]
                return (phi(place) * near[0] - phi(place - delta) * near[1]).abs() / 2

            ends = torch.linspace(-REACH, self.distance + REACH, 65, dtype=torch.float64)
            return float(integrals(moved, ends[:-1], ends[1:]).sum())
        return None

    def draws(self) -> tuple[float, float] | None:
        """Mean and mean square of the number of draws of a thinned residual, 0 where none is needed (lemma L8).

        With r the chance to be refused and k that of a draw to be taken: r / k and r (2 - k) / k^2.
        """
        if self.line is None or self.line.how != "thinned":
            return None
        refused, taken = 1 - self.line.kept, self.line.taken
        return refused / taken, refused * (2 - taken) / taken**2


def width(dim: int) -> int:
    """How many columns a first token in ``dim`` dimensions is looked at in."""
    return dim + 2 if dim > 1 else 1


def columns(white: Tensor) -> Tensor:
    """Uniform where ``white`` (rows, d) is N(0, I): every coordinate, the squared radius, and that across the first."""
    shells = [white.square(), white[:, 1:].square()] if white.shape[1] > 1 else []
    radii = [
        gammainc(torch.tensor(part.shape[1] / 2, dtype=torch.float64), part.sum(1, keepdim=True) / 2) for part in shells
    ]
    return torch.cat((normal_cdf(white), *radii), 1)


def find(subject: Subject, distance: float, rows: Mapping[int, int], sampled: int = 0, seed: int = 0) -> Found:
    """Quadrature on the line where there is one, and ``rows`` rounds by dimension, coupled with the line.

    Where there is no quadrature, the last dimension has ``sampled`` rows, if they are more.
    """
    line: LineLaw | None = None
    reason = ""
    try:
        line = line_law(subject.rule, subject.drafts, distance)
    except NotOnTheLine as refusal:
        reason = str(refusal)
    last = max(rows)
    wanted = {dim: max(count, sampled) if line is None and dim == last else count for dim, count in rows.items()}
    mismatches, gap, kept = {}, {}, 0
    for dim, count in wanted.items():
        parts = [
            run(subject.rule, subject.drafts, distance, dim, min(CHUNK, count - done), 10_000 * seed + 100 * dim + turn)
            for turn, done in enumerate(range(0, count, CHUNK))
        ]
        mismatches[dim] = sum(int((~part.same).sum()) for part in parts)
        gap[dim] = float(distances(columns(torch.cat([part.white for part in parts]))).max())
        kept += sum(int(part.kept.sum()) for part in parts)
    work, seconds = torch.cat([part.work for part in parts]), sum(part.seconds for part in parts) * 1e5 / wanted[last]
    return Found(subject, distance, line, reason, wanted, mismatches, gap, kept, work, seconds)

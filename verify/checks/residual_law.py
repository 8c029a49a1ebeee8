"""Replacements against the exact residual law, given what was refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.polynomial import legendre
from scipy.special import chndtrinc
from scipy.stats import chi2
from torch import Tensor
from torch.special import gammainc

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.normal import normal_between
from distributions.tape import Tape
from verify.checks import Check
from verify.gaussian.frame import Frame
from verify.records import CheckClaim, Finding
from verify.residual import residual_law
from verify.statistics.histogram import Histogram
from verify.statistics.trace import Trace, by_row, nothing
from verify.statistics.transform import uniforms

BITS, CELLS, DEGREES = 8, 16, 4
NEAR = 1e-12
"""Laws nearer than this in total variation have no residual but rounding."""


def residual_uniforms(value: Tensor, target: Law, draft: Law, tape: Tape) -> Tensor | None:
    """Columns (n, m) that are independent uniforms if row i of ``value`` is drawn from (target - draft)+ of row i.

    Tokens: the randomised distribution function, in the order of the vocabulary and, as a second column, in order of
    target / draft; each is uniform by itself. Gaussians of one covariance: with s the place on the line through the
    means (``verify.gaussian.frame``), phi(s - delta) - phi(s) beyond delta / 2 has the distribution function (P(delta /
    2 < Z + delta <= s) - P(delta / 2 < Z <= s)) / TV; then the squared radius across the line, chi-square with d - 1
    degrees. None for other laws, whose residual has no distribution function here.
    """
    if isinstance(target, Categorical) and isinstance(draft, Categorical):
        rest = residual_law(target, draft).probs.expand(len(value), -1)
        order = (target.probs / draft.probs.clamp(min=1e-300)).expand_as(rest).argsort(-1)
        turned = Categorical(rest.gather(-1, order))
        place = order.argsort(-1).gather(-1, value.unsqueeze(-1)).squeeze(-1)
        return torch.cat((uniforms(value, Categorical(rest), tape), uniforms(place, turned, tape)), -1)
    return _along_and_across(value, target, draft) if one_covariance(target, draft) else None


def one_covariance(target: Law, draft: Law) -> bool:
    """Whether both are Gaussians, row by row of the same covariance."""
    kinds = (Gaussian, FullGaussian)
    if not isinstance(target, kinds) or not isinstance(draft, kinds):
        return False
    if isinstance(target, Gaussian) and isinstance(draft, Gaussian):
        return torch.equal(target.scale, draft.scale)
    return torch.equal(target.factor, draft.factor)


def _along_and_across(value: Tensor, target: Law, draft: Law) -> Tensor:
    frame = Frame.of("residual_law", target, draft)
    place, half = frame.place(value), frame.distance / 2
    total = normal_between(-half, half)
    mass = normal_between(-half, place - frame.distance) - normal_between(half, place)
    along = torch.where(place > half, mass / total, 0.0).clamp(0, 1)
    if value.shape[-1] == 1:
        return along.unsqueeze(-1)
    return torch.stack((along, radius_across(frame, value)), -1)


def radius_across(frame: Frame, value: Tensor) -> Tensor:
    """The squared radius (n,) across the line as a uniform, under either law. Two dimensions or more."""
    square = frame.across(value)
    level: Tensor = gammainc(torch.full_like(square, 0.5 * (value.shape[-1] - 1)), 0.5 * square)
    return level


@dataclass(frozen=True)
class ResidualHistogram:
    """The replacements of chains on 256 equal cells of each column of ``residual_uniforms``."""

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Histogram:
        columns = replacements(sample, tape)[1]
        cells = 1 << BITS
        codes = (columns * cells).long().clamp(0, cells - 1)
        counts = [torch.bincount(code, minlength=cells) for code in codes.T]
        return Histogram(len(columns), torch.stack(counts) if counts else torch.zeros(0, cells, dtype=torch.long))


def replacements(sample: Trace, tape: Tape) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The refused (rows, nodes) of a chain, and the columns (n, m) of what replaced them; m = 0 where they are unknown.

    Rows whose two laws are the same to rounding are left out, and so are values that no residual can hold.
    """
    none = torch.zeros(0, dtype=torch.long)
    if not sample.chain:
        return (none, none), torch.zeros(0, 0, dtype=torch.float64)
    rows, node = sample.refused
    target, draft = (by_row(law, rows, node) for law in (sample.target, sample.draft))
    if not isinstance(target, Categorical) and not one_covariance(target, draft):
        return (none, none), torch.zeros(0, 0, dtype=torch.float64)
    value = sample.emitted[rows, node]
    known = draft.overlap(target) < 1 - NEAR
    if isinstance(target, Categorical):
        known &= (value >= 0) & (value < target.probs.shape[-1])
    else:
        known &= torch.isfinite(value).all(-1)
    rows, node, value = rows[known], node[known], value[known]
    columns = residual_uniforms(value, target[known], draft[known], tape)
    assert columns is not None  # both laws were looked at above
    return (rows, node), columns


@dataclass(frozen=True)
class ResidualLaw(Check):
    """Neyman's smooth test of degree 4 and a chi-square of 16 cells, on each column of the transformed replacements.

    Every rule that keeps as often as possible draws its replacement from (target - draft)+ given that it refuses: what
    it keeps is min(target, draft), and the rest of the target is the residual. Under that law the columns are uniform
    whatever was refused. Bonferroni over the tests; chi-square laws. A block rule has other residuals: not for it.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="a wrong residual: the target itself, another row, padded, tempered, truncated",
        blind_to="acceptances, and replacements that depend on the refused draft but have the right law",
    )

    @property
    def statistic(self) -> ResidualHistogram:
        return ResidualHistogram()

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        n, width = tally.n, tally.counts.shape[0]
        if not n:
            return nothing("residual_law", "no replacement whose residual law is known", alpha)
        scores = tally.counts.double().numpy() @ _smooth() / math.sqrt(n)
        coarse = tally.folded(CELLS).double().numpy()
        tests = {f"smooth, column {k}": chi2.sf((row**2).sum(), DEGREES) for k, row in enumerate(scores)}
        square = ((coarse - n / CELLS) ** 2).sum(1) * CELLS / n
        if n >= 10 * CELLS:
            tests |= {f"{CELLS} cells, column {k}": chi2.sf(value, CELLS - 1) for k, value in enumerate(square)}
        worst = min(tests, key=lambda name: tests[name])
        return Finding(
            verifier="",
            scenario="",
            check="residual_law",
            statistic=-math.log10(max(float(tests[worst]), 1e-300)),
            p_value=min(1.0, len(tests) * float(tests[worst])),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"worst: {worst}",
            metric="mean of a Legendre polynomial of the replacements",
            smallest=math.sqrt(_noncentrality(alpha / (2 * width)) / n),
        )


def _smooth() -> np.ndarray:
    """Legendre polynomials 1 .. 4 at the middles of the cells, centred and of variance 1 there: (256, 4)."""
    middle = 2 * (np.arange(1 << BITS) + 0.5) / (1 << BITS) - 1
    columns = legendre.legvander(middle, DEGREES)
    ortho: np.ndarray = np.linalg.qr(columns)[0][:, 1:] * math.sqrt(1 << BITS)
    return ortho


def _noncentrality(alpha: float) -> float:
    """What a chi-square of ``DEGREES`` degrees needs to reject at ``alpha`` nine times in ten."""
    return float(chndtrinc(chi2.isf(alpha, DEGREES), DEGREES, 0.1))

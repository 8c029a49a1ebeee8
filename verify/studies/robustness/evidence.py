"""What is measured of a rule on a case: its acceptance, and whether what it emits has the target's law."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.stats import binom, chi2, fisher_exact, ks_2samp
from torch import Tensor

from distributions.datasets import conditions
from distributions.flow import Ends, FlowLaw
from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.path import Denoiser, PathLaw
from distributions.pooled import PooledNoise, influence, noises
from distributions.tape import GeneratorTape
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.products import Products
from verify.decode import policy
from verify.estimates import Estimate, estimate
from verify.gaussian.maximal import maximal
from verify.paths import follow
from verify.records import Draft
from verify.residual import log_ratio
from verify.studies.robustness.cases import Case
from verify.verifier import Verifier
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.flow_exact import compare
from verify.verifiers.pooled_noise import PooledNoiseRule

ALPHA = 1e-6
"""False alarms of one cell, over all of its tests."""
FAR = 1e-3
"""Probability of a last innovation beyond the circle that is counted."""


@dataclass(frozen=True)
class Cell:
    """One rule on one case: its ``acceptance`` with its standard error, the p-value of all tests together, the name of
    the test that departs most, and the smallest defect of the last step, in Kolmogorov's distance, that would be seen.
    ``lost``: the share of tokens whose noise was not found, which only flows have.
    """

    case: str
    rule: str
    acceptance: Estimate
    p_value: float
    test: str
    smallest: float
    lost: float = 0.0

    @property
    def verdict(self) -> str:
        """``lossy`` where a test rejects; else nothing was seen."""
        return "lossy" if self.p_value <= ALPHA else "no bias seen"


def p_values(white: Tensor) -> tuple[dict[str, float], float]:
    """p-values of innovations (rows, points, d) against independent N(0, 1), valid at every size, and the smallest
    defect of the last point that is seen.

    Kolmogorov-Smirnov with the constant of Massart: all innovations; the last point's; the sum of every point's
    coordinates; and their squared length, as normal scores. Products of polynomials of two points, for sums and
    lengths. The number of last points beyond the circle of probability ``FAR``: binomial.
    """
    tape, (rows, points, dim) = GeneratorTape(0), white.shape
    square = white.square().sum(-1)
    length = torch.special.ndtri(
        torch.special.gammainc(torch.tensor(dim / 2).double(), square / 2).clamp(1e-15, 1 - 1e-15)
    )
    total = white.sum(-1) / math.sqrt(dim)
    far = int((square[:, -1] > chi2.isf(FAR, dim)).sum())
    found = {"far points": min(1.0, 2 * min(float(binom.sf(far - 1, rows, FAR)), float(binom.cdf(far, rows, FAR))))}
    smallest = 1.0
    for name, sample in {
        "all": white.reshape(-1, 1), "sums": total, "lengths": length, "last": white[:, -1].reshape(-1, 1),
    }.items():  # fmt: skip
        normal = Gaussian(torch.zeros(sample.shape[1]).double(), torch.ones(sample.shape[1]).double())
        finding = KolmogorovSmirnov()(sample, normal, ALPHA / 7, tape)
        found[name], smallest = float(finding.p_value or 0.0), float(finding.smallest or 1.0)
        if points > 1 and sample.shape[1] == points:
            found[f"products of {name}"] = float(Products()(sample, normal, ALPHA / 7, tape).p_value or 0.0)
    return found, smallest


def told_apart(found: Ends, other: Ends) -> dict[str, float]:
    """p-values of two samples of a flow's tokens, by the noise that each is sent back to, or by having none.

    Where a flow is not one to one, the noise of its own tokens is not normal; but two samples of one law have one law
    of noise. Fisher's exact test for the failures, Kolmogorov-Smirnov of two samples (asymptotic) by coordinate.
    """
    lost = [[int(ends.found.sum()), int((~ends.found).sum())] for ends in (found, other)]
    chances = {"lost": float(fisher_exact(lost).pvalue)}
    both = [ends.noise[ends.found].T for ends in (found, other)]
    for place, (mine, others) in enumerate(zip(*both, strict=True)):
        chances[f"noise {place}"] = float(ks_2samp(mine.numpy(), others.numpy(), method="asymp").pvalue)
    return chances


def own_path(rule: PooledNoiseRule, emitted: Tensor, kept: Tensor, draft: PathLaw, target: PathLaw) -> Tensor:
    """The target's paths (rows, T + 1, d) to the tokens that ``pooled_noise`` emitted: it keeps a token, and not the
    path of the drafter that is emitted with it. The target's has the same other noise, and its own weighted sum.
    """
    assert isinstance(draft.kernel, Denoiser) and isinstance(target.kernel, Denoiser)
    ours, weights = emitted.clone(), influence(target.kernel, rule.spread)
    rows = torch.nonzero(kept).squeeze(1)
    near, eta = PooledNoise.split(draft.kernel[rows], emitted[rows], weights)
    far = PooledNoise(target.kernel[rows], near.others, weights)
    guess = torch.einsum("k,rkd->rd", weights, noises(far.kernel, near.path(eta)))
    ours[rows] = far.path(far.invert(emitted[rows, -1], guess)[0])
    return ours


def measure(case: Case, name: str, rule: Verifier, rows: int, seed: int) -> Cell:
    """One round with one draft in every row, and what was emitted under the target's own kernels."""
    tape = GeneratorTape(seed)
    condition = conditions(tape, rows).unsqueeze(1)
    both = [build(condition.expand(-1, nodes, -1)) for build, nodes in ((case.drafter, 1), (case.target, 2))]
    laws: list[Law] = [PathLaw(kernel) for kernel in both]
    if rule.claim.laws == "flow":
        laws = [FlowLaw(x.head, x.schedule, x.condition, x.guidance, with_noise=True) for x in both]
    drawn = policy(rule)(laws[0], torch.zeros(0)).sample(tape, "draft")
    outcome = rule.verify(Draft.chain(drawn, laws[0]), laws[1], tape)
    emitted, law, lost = outcome.value[:, 0], laws[1][:, 0], 0.0
    if isinstance(law, FlowLaw):
        ends = law.invert(law.token(emitted))
        lost = float((~ends.found).double().mean())
        found, smallest = p_values(ends.noise.unsqueeze(1)) if not lost else ({}, math.nan)
        if lost:
            found = told_apart(ends, law.invert(law.token(law.sample(tape, "own"))))
    else:
        assert isinstance(law, PathLaw) and isinstance(laws[0], PathLaw) and isinstance(law.kernel, Denoiser)
        if isinstance(rule, PooledNoiseRule):
            emitted = own_path(rule, emitted, outcome.kept[:, 0], laws[0][:, 0], law)
        found, smallest = p_values(noises(law.kernel, emitted))
    worst = min(found, key=lambda test: found[test])
    accepted = estimate(outcome.log_accept[:, 0].exp())
    return Cell(case.name, name, accepted, min(1.0, len(found) * found[worst]), worst, smallest, lost)


def acceptances(case: Case, rows: int, seed: int, flows: int = 10) -> dict[str, Estimate]:
    """What rules accept, without replacements, of which some take many draws; flows on one in ``flows`` rows."""
    tape = GeneratorTape(seed)
    condition = conditions(tape, rows)
    kernels = case.drafter(condition), case.target(condition)
    prior, after = (PathLaw(kernel) for kernel in kernels)
    path = prior.sample(tape, "draft")
    beside = follow(path, prior, after, maximal, tape)
    quiet = Draft.chain(replace(prior, last_noise=False).sample(tape, "quiet").unsqueeze(1), prior[:, None])
    released = CspdReleased(tries=1).verify(quiet, after[:, None][:, [0, 0]], tape)
    few = slice(0, rows // flows)
    drafted, wanted = (FlowLaw(x.head, x.schedule, x.condition[few], x.guidance, with_noise=True) for x in kernels)
    ends = drafted.sample(tape, "flow")
    flow = compare(ends[:, 1], wanted, drafted, drafted=ends[:, 0]).nan_to_num(-math.inf)
    found = {
        "cspd_released": released.log_accept[:, 0],
        "whole_path": log_ratio(path, after, prior),
        "coalescing": log_ratio(path[..., -1, :], beside.target, beside.draft),
        "flow_exact": flow,
    }
    return {rule: estimate(log_accept.clamp(max=0).exp()) for rule, log_accept in found.items()}

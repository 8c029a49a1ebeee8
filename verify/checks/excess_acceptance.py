"""Accepting more often than the overlap certifies bias, without looking at one rejected row; less often, waste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scipy.stats import beta, binom
from statsmodels.stats.proportion import proportion_confint

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.trace import Trace, nothing
from verify.statistics.trace import same as same


def exceeds(hits: int, n: int, cap: float, delta: float) -> float:
    """By how much a probability exceeds ``cap`` at least, at confidence 1 - ``delta``: Clopper and Pearson (1934)."""
    low, _ = proportion_confint(hits, n, alpha=2 * delta, method="beta")
    return max(0.0, float(low) - cap)


@dataclass(frozen=True, eq=False)
class Kept(Tally):
    """``hits``: rows whose output is the draft; ``overlap``: the sum over rows of the most that is lossless."""

    hits: int
    overlap: float


@dataclass(frozen=True)
class KeptFirst:
    """The first token of a chain's rows: whether it is the draft, and the overlap of its two laws."""

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Kept:
        if not sample.chain:
            return Kept(0, 0, 0.0)
        overlap = sample.draft[:, 0].overlap(sample.target[:, 0]).clamp(max=1).expand(len(sample))
        return Kept(len(sample), int(same(sample.emitted[:, 0], sample.drafted[:, 0]).sum()), float(overlap.sum()))


@dataclass(frozen=True)
class ExcessAcceptance(Check):
    """One-sided exact binomial test of P(output = draft) <= overlap, on the first token of a chain.

    For rows drafted from q and emitted with law o, the coupling inequality gives P(output = draft) <= 1 - TV(o, q), so
    TV(o, p) >= TV(p, q) - TV(o, q) >= P(output = draft) - overlap(p, q). ``statistic`` is the lower end of the
    Clopper-Pearson interval minus the overlap, floored at 0: a certified lower bound on TV(o, p) at confidence
    1 - ``alpha`` (lemma L2). With laws that differ by row the cap is the mean overlap, which the binomial law still
    dominates (Hoeffding 1956, Theorem 4). Too few acceptances are no bias: the note says how much work is lost, at
    least, at the same confidence. Raises TypeError for laws whose overlap is not known.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="lenient acceptance, tempered or misnormalised ratios, drafts not drawn from the law they claim",
        blind_to="wrong residuals, and every bias of a rule that accepts no more than the overlap",
    )

    @property
    def statistic(self) -> KeptFirst:
        return KeptFirst()

    def judge(self, tally: Kept, alpha: float) -> Finding:
        if not tally.n:
            return nothing("excess_acceptance", "no chain: siblings have another cap", alpha)
        hits, n = tally.hits, tally.n
        cap = min(1.0, tally.overlap / n)
        critical = int(binom.isf(alpha, n, cap)) + 1
        lost = exceeds(n - hits, n, 1 - cap, alpha)
        note = f"accepts {hits / n:.4f}, overlap {cap:.4f}"
        return Finding(
            verifier="",
            scenario="",
            check="excess_acceptance",
            statistic=exceeds(hits, n, cap, alpha),
            p_value=float(binom.sf(hits - 1, n, cap)),
            alpha=alpha,
            n=n,
            seed=0,
            note=note + (f"; work is lost: at least {lost:.4f} too few" if lost > 0 else ""),
            metric="tv",
            # P(Binomial(n, a) >= critical) = 0.9 solved for a.
            smallest=float(beta.ppf(0.9, critical, n - critical + 1)) - cap if critical <= n else None,
        )

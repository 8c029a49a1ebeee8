"""Accepting more often than the overlap certifies bias, without looking at one rejected row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import beta, binom
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.records import CheckClaim, Finding


def same(emitted: Tensor, drafted: Tensor) -> Tensor:
    """Rows (n,) whose output is the drafted value, up to the rounding of going through other coordinates and back.

    An independent draw lands within that tolerance with probability below 1e-6 a row in single precision, 1e-14 in
    double, which a count of acceptances does not notice.
    """
    if not emitted.is_floating_point():
        return (emitted == drafted).reshape(len(emitted), -1).all(-1)
    drafted = drafted.to(emitted.dtype)
    room = 8 * torch.finfo(emitted.dtype).eps * (1 + drafted.abs())
    return ((emitted - drafted).abs() <= room).reshape(len(emitted), -1).all(-1)


def exceeds(hits: int, n: int, cap: float, delta: float) -> float:
    """By how much a probability exceeds ``cap`` at least, at confidence 1 - ``delta``: Clopper and Pearson (1934)."""
    low, _ = proportion_confint(hits, n, alpha=2 * delta, method="beta")
    return max(0.0, float(low) - cap)


@dataclass(frozen=True, eq=False)
class ExcessAcceptance:
    """One-sided exact binomial test of P(output = draft) <= overlap.

    For rows drafted from q and emitted with law o, the coupling inequality gives P(output = draft) <= 1 - TV(o, q), so
    TV(o, p) >= TV(p, q) - TV(o, q) >= P(output = draft) - overlap(p, q). ``statistic`` is the lower end of the
    Clopper-Pearson interval minus the overlap, floored at 0: a certified lower bound on TV(o, p) at confidence
    1 - ``alpha``. ``drafted`` (n, *event) are the drafts, drawn from ``draft``, of batch shape () or (n,); with laws
    that differ by row the cap is the mean overlap, which the binomial law still dominates (Hoeffding 1956, Theorem 4).
    """

    drafted: Tensor
    draft: Law
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="lenient acceptance, tempered or misnormalised ratios, drafts not drawn from the law they claim",
        blind_to="wrong residuals, and every bias of a rule that accepts no more than the overlap",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        cap = min(1.0, float(self.draft.overlap(truth).mean()))
        hits, n = int(same(sample, self.drafted).sum()), len(sample)
        critical = int(binom.isf(alpha, n, cap)) + 1
        return Finding(
            verifier="",
            scenario="",
            check="excess_acceptance",
            statistic=exceeds(hits, n, cap, alpha),
            p_value=float(binom.sf(hits - 1, n, cap)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"accepts {hits / n:.4f}, overlap {cap:.4f}",
            metric="tv",
            # P(Binomial(n, a) >= critical) = 0.9 solved for a.
            smallest=float(beta.ppf(0.9, critical, n - critical + 1)) - cap if critical <= n else None,
        )

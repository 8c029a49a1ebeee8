"""Coins against the probabilities that they should have, given the drafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from distributions.tape import Tape
from verify.checks import Check
from verify.records import CheckClaim, Finding
from verify.statistics.scores import Scores, bernoulli, judged
from verify.statistics.trace import Trace, nothing

BINS = 16
SMALLEST = 8.0
"""Logarithms of acceptances are cut at minus this."""
NAMES = ("every coin", "coins by acceptance", "coins by log acceptance", "coins by position")


@dataclass(frozen=True)
class CoinScores:
    """Sums of w (A - a) over the coins A that were tossed, a their probability: w in {1, a, log a, position}, then one
    for each of 16 bins of a. In a chain the position is how many were kept before, and so the history of the row.
    """

    token_rule: bool = True

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Scores:
        chance = sample.acceptance(self.token_rule)
        if chance is None:
            empty = torch.zeros(len(NAMES) + BINS, dtype=torch.float64)
            return Scores(0, empty, empty, empty)
        place = ((torch.arange(sample.nodes) + 1.0) / sample.nodes).expand(len(sample), -1)[sample.tossed].double()
        chance, event = chance[sample.tossed], sample.kept[sample.tossed]
        weights = [torch.ones_like(chance), chance, chance.log().clamp(min=-SMALLEST) / SMALLEST, place]
        bins = torch.nn.functional.one_hot((chance * BINS).long().clamp(0, BINS - 1), BINS).double()
        return bernoulli(len(chance), torch.cat((torch.stack(weights, 1), bins), 1), event, chance)


@dataclass(frozen=True)
class Coin(Check):
    """Calibration of the coins given the drafts: sum w (A - a) / sqrt(sum w^2 a (1 - a)) for four weights, and 16 bins
    of a together, Bonferroni.

    ``token_rule``: a is min(1, target / draft), which every rule that keeps as often as possible has, node by node (the
    kept part of a maximal coupling is the smaller of the two laws); otherwise a is the verifier's own record.
    """

    token_rule: bool = True
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="acceptances that are scaled, shifted, tempered, rounded or of another position",
        blind_to="wrong residuals, and errors of the acceptance that keep its mean in every bin",
    )

    @property
    def statistic(self) -> CoinScores:
        return CoinScores(self.token_rule)

    def judge(self, tally: Scores, alpha: float) -> Finding:
        name = "coin" if self.token_rule else "recorded_coin"
        if not tally.n:
            return nothing(name, "no coin whose probability is known", alpha)
        return judged(name, NAMES, tally, alpha, binned=BINS, metric="acceptance")

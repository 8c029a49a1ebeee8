"""How many drafted tokens are kept, against the exact law of that number given the draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from distributions.tape import Tape
from verify.checks import Check
from verify.records import CheckClaim, Finding
from verify.statistics.scores import Scores, judged
from verify.statistics.trace import Trace, nothing


@dataclass(frozen=True)
class LengthScores:
    """Sums of K - E K and of 1{K = k} - P(K = k), k = 0 .. N, where K tokens of a chain are kept: given the draft,
    P(K >= k) is the product of the first k acceptances.
    """

    token_rule: bool = True

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Scores:
        chance = sample.acceptance(self.token_rule) if sample.chain else None
        if chance is None:
            empty = torch.zeros(sample.nodes + 2, dtype=torch.float64)
            return Scores(0, empty, empty, empty)
        # What would have been recorded of nodes below a certain refusal is of no account, and may be NaN.
        reach = torch.nn.functional.pad(chance.nan_to_num(0.0).cumprod(1), (1, 0), value=1.0)
        law = reach - torch.nn.functional.pad(reach[:, 1:], (0, 1))
        count = sample.kept.long().cumprod(1).sum(1)
        number = torch.arange(sample.nodes + 1, dtype=torch.float64)
        centred = number - (law @ number).unsqueeze(1)
        spread = law * (1 - law)
        parts = [
            (centred.gather(1, count[:, None]), torch.nn.functional.one_hot(count, sample.nodes + 1) - law),
            ((law * centred**2).sum(1, keepdim=True), spread),
            ((law * centred**3).sum(1, keepdim=True), spread * (1 - 2 * law)),
        ]
        return Scores(len(sample), *(torch.cat(part, 1).sum(0) for part in parts))


@dataclass(frozen=True)
class AcceptedLength(Check):
    """Mean and law of the number of tokens kept, Bonferroni over N + 2 sums whose variance the draft fixes.

    ``token_rule``: the acceptances are min(1, target / draft). A block rule keeps more: it is held to its own record.
    """

    token_rule: bool = True
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="coins shared by the nodes of a block, acceptances of another position, stopping early or late",
        blind_to="wrong residuals, and which drafts are kept",
    )

    @property
    def statistic(self) -> LengthScores:
        return LengthScores(self.token_rule)

    def judge(self, tally: Scores, alpha: float) -> Finding:
        name = "accepted_length" if self.token_rule else "recorded_length"
        if not tally.n:
            return nothing(name, "no chain whose acceptances are known", alpha)
        names = ("mean", *(f"{k} kept" for k in range(len(tally.total) - 1)))
        return judged(name, names, tally, alpha, metric="tokens kept")

"""Grouped acceptance: a drafted token is judged by the mass that the target gives to all tokens near it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law, trusted
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio
from verify.verifiers.block import both_categorical


@dataclass(frozen=True)
class Grouped:
    """Keep x with probability min(1, sum of target(y) over |y - x| <= width / draft(x)); otherwise draw (target -
    draft)+ all the same.

    Lossy on purpose, in the manner of LANTERN (Jang et al. 2410.03355). There the neighbours are the nearest image
    codes, not adjacent numbers, and the released code (jadohu/LANTERN at 3a56e45) does not draw the neighbours of a
    refused token next. Even a token to which the target gives no mass is kept where it has likely neighbours. Width 0
    is rejection. Raises TypeError on laws that are not Categorical and ValueError for a negative width.
    """

    width: int = 1
    claim: ClassVar[Claim] = Claim(
        exact=False,
        reference="in the manner of LANTERN, Jang et al. 2410.03355",
        laws="categorical",
        note="bias of a token: sum min(draft, neighbours) - sum min(target, draft), in total variation",
    )

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"width must be 0 or more, and is {self.width}")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        after, prior = both_categorical("grouped", target, draft)
        near = trusted(Categorical, probs=self.neighbours(after[:, :-1]))
        log_accept = log_ratio(draft.value, near, prior).clamp(max=0)
        return conclude(draft, after, tape.coin("accept", log_accept.exp()), log_accept, tape)

    def neighbours(self, target: Categorical) -> Tensor:
        """The mass (*batch, V) of each token's neighbourhood."""
        return torch.nn.functional.pad(target.probs, (self.width, self.width)).unfold(-1, 2 * self.width + 1, 1).sum(-1)

    def bias(self, target: Categorical, draft: Categorical) -> Tensor:
        """Total variation between the law of one emitted token and the target's, batch-wise.

        Formula: sum min(q, neighbours of p) - sum min(q, p). The kept mass is never below min(q, p), and exceeds p only
        where q > p; a refusal falls short of p only where p > q: the two never cancel, as in lenient acceptance.
        """
        return torch.minimum(draft.probs, self.neighbours(target)).sum(-1) - target.overlap(draft)

"""Lenient acceptance: more kept, at an exactly known bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class Lenient:
    """Keep with probability min(1, target / (lenience draft)); otherwise draw (target - draft)+ all the same.

    Lossy on purpose (lemma A5: the lenience of Leviathan et al. 2211.17192, appendix A.5). The law of a token leaves
    the target's by exactly ``bias``. Raises ValueError for a lenience outside (0, 1].
    """

    lenience: float = 0.9
    claim: ClassVar[Claim] = Claim(
        exact=False,
        reference="Leviathan et al. 2211.17192, appendix A.5",
        note="bias of a token: sum min(draft, target / lenience) - sum min(target, draft), in total variation",
    )

    def __post_init__(self) -> None:
        if not 0 < self.lenience <= 1:
            raise ValueError(f"lenience must lie in (0, 1], and is {self.lenience}")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = (log_ratio(draft.value, target[:, :nodes], draft.law) - math.log(self.lenience)).clamp(max=0)
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape)

    def bias(self, target: Categorical, draft: Categorical) -> Tensor:
        """Total variation between the law of one emitted token and the target's, batch-wise (lemma A5).

        Formula: sum min(q, p / lenience) - sum min(p, q). The excess mass lies where q > p, the missing mass where
        p > q, so the two never cancel.
        """
        lenient = torch.minimum(draft.probs, target.probs / self.lenience).sum(-1)
        return lenient - torch.minimum(draft.probs, target.probs).sum(-1)

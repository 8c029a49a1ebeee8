"""One uniform decides all columns of a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import tested
from verify.records import Claim, Defect, Draft
from verify.residual import log_ratio
from verify.verifiers.scd import Scd


@dataclass(frozen=True)
class ScdSharedCoin(Scd):
    """Every coin of a round is the same uniform, fresh in each: once a low ratio was passed, higher ones are sure."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="SCD 2510.24211 with one uniform a round",
        note="columns share what decides them",
    )
    defect: ClassVar[Defect] = Defect(
        bug="one uniform decides all columns of a round",
        bias_a=0.06288405910675629,
        bias_b=0.03538523471439485,
        caught_by=("law", "conditional", "record", "sequence"),
    )

    def accept(self, draft: Draft, target: Categorical, tape: Tape) -> tuple[Tensor, Tensor]:
        """The coins as races of two tokens on one noise."""
        log_accept = log_ratio(draft.value, target, draft.law).clamp(max=0)
        log_accept = log_accept.masked_fill(~tested(draft, target.batch_shape[1]), -torch.inf)
        noise, coins = tape.noise("coin", (len(log_accept), 2)), []
        for chance in log_accept.unbind(1):
            side, noise = noise.winner(torch.stack([chance.exp(), -torch.expm1(chance)], -1), tape, "accept")
            coins.append(side == 0)
        return torch.stack(coins, 1), log_accept

"""Acceptance uniforms are bfloat16."""

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
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdHalfPrecisionCoin(Sjd):
    """With probability ``zero`` the uniform is 0, and every draft that the target may emit at all is kept.

    A float32 uniform is rounded to bfloat16 and 1 is sent to 0: 2**-9 of the mass. So a draft is kept with probability
    min(1, p / q + 2**-9) and not min(1, p / q), but for the rounding of the others, which is no bias in the mean.
    """

    zero: float = 2.0**-9
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="junhyukso/SCD at 7322379, cosmos, model.py:400-401",
        note="the default dtype is bfloat16 while coins are tossed",
    )
    defect: ClassVar[Defect] = Defect(
        bug="acceptance uniforms are bfloat16",
        bias_a=0.0016289881739639024,
        bias_b=0.001769511331288805,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def accept(self, draft: Draft, target: Categorical, tape: Tape) -> tuple[Tensor, Tensor]:
        """Coins with the mass of zero added."""
        ratio = log_ratio(draft.value, target, draft.law).exp()
        chance = torch.where((ratio > 0) & tested(draft, ratio.shape[1]), (ratio + self.zero).clamp(max=1), 0.0)
        return tape.coin("accept", chance), chance.log()

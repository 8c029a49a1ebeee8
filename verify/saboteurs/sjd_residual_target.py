"""A rejected draft is redrawn from the target itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Index
from verify.records import Claim, Defect, Draft
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdResidualTarget(Sjd):
    """The residual is computed, and then overwritten by the fresh draw from p that was meant for later columns."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="junhyukso/SCD at 7322379, cosmos, sjd/speculative_sampler.py:162-176 with maximal_coupling=False",
        note="a mask that ends one column early; the default of the demo script",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a rejected draft is redrawn from the target itself",
        bias_a=0.16322213008517295,
        bias_b=0.12419342828483002,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """A token of the target."""
        return target[at].sample(tape, "residual")

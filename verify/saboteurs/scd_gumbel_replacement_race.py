"""A rejected draft is replaced by the target's race on the same noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Index
from verify.records import Claim, Defect, Draft
from verify.verifiers.scd_gumbel import ScdGumbel


@dataclass(frozen=True)
class ScdGumbelReplacementRace(ScdGumbel):
    """Accept by a coin that is independent of the noise, and replace by argmax(log p + g): halves of two right rules.

    The race alone is GS-match; the coin needs the residual.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="SCD 2510.24211 and predictive sampling mixed up",
        note="the replacement of one exact rule under the acceptance of another",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a rejected draft is replaced by the target's race on the same noise",
        bias_a=0.16779454333242058,
        bias_b=0.14977754355450595,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """The winner of the old race under the target."""
        assert draft.noise is not None
        return draft.noise[at].winner(target[at].probs, tape, "residual")[0]

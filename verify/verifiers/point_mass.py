"""The rule for a draft from any source: the drafted token is all the draft there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class PointMass:
    """Keep the drafted token x with probability target(x); otherwise draw the target without x.

    Exact for a greedy, looked-up or adversarial draft, because it is rejection against the point mass at x (lemma L3);
    the price is the acceptance, sum of draft times target. Raises TypeError on laws that are not Categorical, where a
    point has no mass.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True,
        reference="rejection (Leviathan et al. 2211.17192) with the draft's law a point mass",
        needs="any",
        laws="categorical",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        if not isinstance(target, Categorical):
            raise TypeError(f"point_mass needs a Categorical target and got {type(target).__name__}; use rejection")
        point = torch.nn.functional.one_hot(draft.value, target.probs.shape[-1])
        return Rejection().verify(Draft(draft.value, Categorical(point), draft.parent), target, tape)

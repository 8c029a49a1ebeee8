"""A greedy draft, verified by the target's probability of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import greedy
from verify.records import Claim
from verify.verifiers.point_mass import PointMass


@dataclass(frozen=True)
class PointMassGreedy(PointMass):
    """The point-mass rule on the drafter's most probable token (lemma L3): with a point mass for the draft's law this
    is rejection.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True,
        needs="any",
        laws="categorical",
        reference="SafeAILab/EAGLE #110 and #171",
        note="'q(x) = 1 is not lossless' (#110, #171, #183): false for a draft that is a point mass",
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return greedy(law)

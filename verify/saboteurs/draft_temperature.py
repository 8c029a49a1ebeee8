"""The draft is drawn at another temperature than its label says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import tempered
from verify.records import Claim, Defect
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class DraftTemperature(Rejection):
    """The draft is drawn from q ** (1 / temperature), normalised, and labelled q."""

    temperature: float = 0.7
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="temperature applied to the draft and not to its label",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the drafter samples at its own temperature and reports probabilities at temperature 1",
        bias_a=0.03770959120188369,
        bias_b=0.1529552310719163,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return tempered(law, self.temperature)

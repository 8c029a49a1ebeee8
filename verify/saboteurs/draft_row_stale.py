"""The drafter's rows are those of the round before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.planted import PlantedRejection
from verify.policies import finite
from verify.records import Claim, Defect, Draft, Outcome


@dataclass(frozen=True)
class DraftRowStale(PlantedRejection):
    """Holds each draft against the label of the last round's draft, kept in ``memory``; the first round is exact, and
    so is every test of one round.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        level="sequence",
        reference="1CatAI/1Cat-vLLM #656",
        note="a label that is one round old",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "drafts with probabilities corrupt the text while the acceptance looks normal (#656, open); in this "
            "reading the buffer's rows are older than the tokens"
        ),
        bias_a=0.14722069133637378,
        bias_b=0.03073678739005334,
        caught_by=("sequence",),
        draft_length=1,
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        law = finite(draft.law)
        stale = law if draft.memory is None else Categorical(draft.memory)
        made = super().verify(Draft(draft.value, stale, draft.parent), target, tape)
        return replace(made, memory=law.probs)

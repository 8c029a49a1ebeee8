"""A refused token is penalised as if it had been emitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.policies import finite
from verify.records import Claim, Defect, Draft, Outcome
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class PenaltyNotRolledBack(Rejection):
    """A token that was refused counts as present in all later rounds, where the target's probability of it is
    multiplied by ``penalty`` and the law normalised again. The first round is exact, and so is every test of one round.
    """

    penalty: float = 0.5
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        level="sequence",
        reference="osaurus-ai/vmlx-swift #357",
        note="state of the target that a rejection should undo",
    )
    defect: ClassVar[Defect] = Defect(
        bug="presence and frequency counts are shared by reference, so that rejected drafts stay recorded (#357)",
        bias_a=0.013873621369051873,
        bias_b=0.003157845057555531,
        caught_by=("sequence",),
        draft_length=1,
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        after = finite(target)
        rows, vocab = len(draft.value), after.probs.shape[-1]
        seen = torch.zeros(rows, vocab, dtype=torch.float64) if draft.memory is None else draft.memory
        made = super().verify(draft, Categorical(after.probs * self.penalty ** seen.unsqueeze(1)), tape)
        count = made.kept.sum(1)
        refused = count < made.kept.shape[1]
        token = draft.value.gather(1, (count * refused).unsqueeze(1))
        return replace(made, memory=seen.scatter(1, token, 1.0).where(refused.unsqueeze(1), seen))

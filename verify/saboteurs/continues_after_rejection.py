"""The round goes on after a rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.planted import PlantedRejection, point
from verify.policies import finite
from verify.records import Claim, Defect, Draft, Outcome


@dataclass(frozen=True)
class ContinuesAfterRejection(PlantedRejection):
    """A refused token is replaced, and the nodes after it are judged and kept all the same, though they were drafted,
    and the target evaluated, after the refused one. The first token is right.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="openvinotoolkit/openvino.genai #4190",
        note="keeps what was drafted after a refused token",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a rejection was handled one iteration late, so that the continuation of a refused word was kept (#4190)",
        bias_a=0.2592859974930422,
        bias_b=0.1429875322812531,
        caught_by=("law", "conditional", "support", "record", "sequence"),
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """All nodes, kept or replaced, and a bonus. ``target`` has batch (rows, N + 1)."""
        after = finite(target)
        log_accept, law = self.parts(draft, after)
        coins = tape.coin("accept", log_accept.exp())
        kept = point(draft.value, after.probs.shape[-1])  # a draw with one possible answer
        value = tape.categorical("residual", torch.where(coins.unsqueeze(-1), kept, law.probs))
        value = torch.cat([value, after[:, -1:].sample(tape, "bonus")], 1)
        return Outcome(value, torch.full((len(value),), value.shape[1]), coins, log_accept)

"""Everything is argmax at a positive temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.policies import greedy
from verify.records import Claim, Defect, Draft, Outcome
from verify.verifiers.sampler_match import SamplerMatch


@dataclass(frozen=True)
class GreedyFallback(SamplerMatch):
    """Emits the target's most probable token at every position, kept drafts, replacements and bonus alike."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="sgl-project/sglang #11721",
        note="the temperature is lost in verification",
    )
    defect: ClassVar[Defect] = Defect(
        bug="sampling with speculation quietly returns the greedy sequence at a positive temperature (#11721, #39253)",
        bias_a=0.7298151463580419,
        bias_b=0.8573053704137419,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The greedy tokens, as far as the draft agrees. ``target`` has batch (rows, N + 1)."""
        return super().verify(draft, greedy(target), tape)

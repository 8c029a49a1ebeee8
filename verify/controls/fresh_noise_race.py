"""A race of the target on noise of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from verify.records import Claim
from verify.verifiers.sampler_match import SamplerMatch


@dataclass(frozen=True)
class FreshNoiseRace(SamplerMatch):
    """The winner of the target's race is compared with that of the draft's, on independent exponentials: each is a draw
    of its law, so this is sampler match. Shared noise would match more often; fresh noise costs acceptance and nothing
    else (lemma L7).
    """

    claim: ClassVar[Claim] = Claim(
        exact=True,
        needs="any",
        laws="categorical",
        reference="sampler match, in the form of Gumbel races",
        note=(
            "draft and target noise that are no longer the same look like a broken coupling: acceptance "
            "collapses, the law does not"
        ),
    )

"""A sampled draft, verified as if it were the only one possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from verify.records import Claim
from verify.verifiers.point_mass import PointMass


@dataclass(frozen=True)
class PointMassDense(PointMass):
    """The point-mass rule on drafts drawn from the drafter's law, which it never reads: exact (lemma L3), and slower
    than rejection.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True,
        needs="any",
        laws="categorical",
        reference="vllm-project/vllm #40149",
        note=(
            "a sampled draft verified with draft_probs = None was reported as a defect; only the acceptance is "
            "lower (#40149)"
        ),
    )

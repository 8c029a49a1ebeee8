"""Recursive rejection, which keeps more than the overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from verify.records import Claim
from verify.verifiers.recursive_rejection import RecursiveRejection


@dataclass(frozen=True)
class RecursiveRejectionSiblings(RecursiveRejection):
    """As K-SEQ: several siblings, and a cap of their own."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        laws="categorical",
        reference="SpecInfer 2305.09781, algorithm 2",
        note="a test that takes 1 - TV for the cap calls the acceptance excessive",
    )

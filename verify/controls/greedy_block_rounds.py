"""Greedy block verification, judged over rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from verify.records import Claim
from verify.verifiers.greedy_block import GreedyBlock


@dataclass(frozen=True)
class GreedyBlockRounds(GreedyBlock):
    """One round alone has the wrong law; the next ones pay its debt, and a decoded sequence is exact."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        level="sequence",
        laws="categorical",
        reference="Sun et al. 2403.10444, greedy variant",
        note="fails every test of a single round, which is not what it claims",
    )

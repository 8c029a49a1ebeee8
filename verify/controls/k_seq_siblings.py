"""K-SEQ, which keeps more than the overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from verify.records import Claim
from verify.verifiers.k_seq import KSeq


@dataclass(frozen=True)
class KSeqSiblings(KSeq):
    """One of several siblings is kept more often than one draft can be: the cap for siblings holds, 1 - TV does not."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        laws="categorical",
        reference="SpecTr, Sun et al. 2310.15141",
        note="a test that takes 1 - TV for the cap calls the acceptance excessive",
    )

"""How much is committed depends on columns to the right of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.tape import Tape
from verify.records import Claim, Defect
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdSuffixWindow(Sjd):
    """A round whose last draft was refused commits one token, and draws the others afresh.

    Whether column j is committed then depends on a later coin, and that on the draft at j: the drafts committed are
    those whose successors did well. Under SCD the same is harmless, if slow: an accepted draft that is put off stays,
    is labelled p, and passes the same test again for certain.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="SJD 2410.01699 with a window that adapts to its own last columns",
        note="an adaptive window may look at committed columns only",
    )
    defect: ClassVar[Defect] = Defect(
        bug="how much is committed depends on columns to the right of it",
        bias_a=0.07789887022603023,
        bias_b=0.08020199258779348,
        caught_by=("law", "conditional", "sequence"),
    )

    def most(self, accept: Tensor, tape: Tape) -> Tensor:
        """One token where the last draft was refused, else every column."""
        return torch.where(accept[:, -1], accept.shape[1] + 1, 1)

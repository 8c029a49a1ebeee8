"""A kept draft keeps the label of the round that drew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import trusted
from distributions.tape import Tape
from verify.jacobi import categorical
from verify.records import Claim, Defect, Draft
from verify.verifiers.scd import Scd


@dataclass(frozen=True)
class ScdStaleLabel(Scd):
    """A later draft that the coupling keeps is labelled with its old law q; given the columns before, it has the law p.

    Its next test reads a ratio with the wrong denominator, and a window of stale labels is slower as well. At a window
    of 2 no draft lives through a redraft, and nothing is wrong.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="junhyukso/SCD at 7322379, jacobi_iteration_lumina_mgpt_SCDMC.py:293 and its Janus-Pro sibling:391",
        note="a line that labelled committed tokens in SJD labels kept drafts once the break is gone",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a kept draft keeps the label of the round that drew it",
        bias_a=0.03779527282863507,
        bias_b=0.006925755633141625,
        caught_by=("sequence",),
    )

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        new, nodes = super().redraft(draft, target, accept, wanted, tape), accept.shape[1]
        law = target.probs.clone()
        law[:, :nodes] = torch.where(accept.unsqueeze(-1), categorical(draft.law).probs, law[:, :nodes])
        return Draft(new.value, trusted(Categorical, probs=law), new.parent)

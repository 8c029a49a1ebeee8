"""Speculative Jacobi decoding: every later column is drawn afresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Jacobi, drawn
from verify.records import Claim, Draft


@dataclass(frozen=True)
class Sjd(Jacobi):
    """Redraft each later column by a fresh draw from its new law; nothing of the old draft survives.

    Teng et al. 2410.01699. Exact for one row or many, at any window. Two drafts of one column in consecutive rounds
    agree with probability sum of p_old p_new only, so the window fills with tokens that will change.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True, laws="categorical", reference="Teng et al. 2410.01699, speculative Jacobi"
    )

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        return Draft(drawn(target, wanted, tape, "redraft"), target, draft.parent)

"""Speculative coupled decoding with the maximal coupling: later drafts are kept as often as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from distributions.categorical import Categorical
from distributions.law import trusted
from distributions.tape import Tape
from verify.jacobi import Jacobi, categorical, drawn
from verify.records import Claim, Draft
from verify.residual import residual_law


@dataclass(frozen=True)
class Scd(Jacobi):
    """Redraft each later column by the maximal coupling of its old law with its new one.

    Verification and coupling are one pass: every draft is kept with probability min(1, p / q), q its label and p its
    new law, and drawn from (p - q)+ otherwise. Kept or not, it now has the law p, which is its next label: a draft kept
    under the old label is the defect of the release that ``saboteurs/scd_stale_label`` re-enacts. Kept with probability
    1 - TV. SCD 2510.24211 (maximal coupling). ``strength``: the probability with which a column is coupled, and not
    drawn afresh; 0 is speculative Jacobi decoding. Raises ValueError for a strength outside 0..1.
    """

    strength: float = 1.0
    claim: ClassVar[Claim] = Claim(exact=True, laws="categorical", reference="SCD 2510.24211, maximal coupling")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be a probability, in 0..1, and is {self.strength}")

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        nodes, keep = accept.shape[1], pad(accept, (0, 1))
        coupled = torch.ones_like(keep)
        if self.strength < 1:
            chance = torch.full(keep.shape, self.strength, dtype=torch.float64)
            coupled = tape.coin("couple", torch.where(wanted, chance, 0.0))
        redraw = wanted & ~(keep & coupled)
        residual = redraw[:, :nodes] & coupled[:, :nodes]
        law = target.probs.clone()
        law[:, :nodes][residual] = residual_law(target[:, :nodes][residual], categorical(draft.law)[residual]).probs
        value = drawn(trusted(Categorical, probs=law), redraw, tape, "redraft")
        old = pad(draft.value, (0, 1))
        return Draft(torch.where(redraw, value, old), target, draft.parent)

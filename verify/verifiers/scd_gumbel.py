"""Speculative coupled decoding with Gumbel noise kept for each column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.noise import Noise
from distributions.tape import Tape
from verify.jacobi import Jacobi, kept_noise
from verify.records import Claim, Draft


@dataclass(frozen=True)
class ScdGumbel(Jacobi):
    """Redraft each later column as the winner of its own exponential race under its new law.

    The noise of a column is drawn once and kept until the column is committed; acceptance coins and replacements are
    independent of it. Two drafts of one column agree with probability at least (1 - TV) / (1 + TV), whichever two
    rounds they are from. SCD 2510.24211 (Gumbel sharing). A column's noise meets one test only, since the first test
    commits it, kept or not; that is why its coupling with the draft does no harm.
    """

    claim: ClassVar[Claim] = Claim(exact=True, laws="categorical", reference="SCD 2510.24211, Gumbel noise per column")

    def noise(self, draft: Draft, target: Categorical, tape: Tape) -> Noise | None:
        return kept_noise(draft, target.probs.shape[-1], tape)

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        assert draft.noise is not None
        value, noise = draft.noise.winner(target.probs, tape, "redraft", wanted)
        return Draft(value, target, draft.parent, noise)

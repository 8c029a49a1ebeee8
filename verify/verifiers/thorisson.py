"""Thorisson's coupling with a limit on acceptance, which bounds the variance of the work of a rejection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio, residual_law, thin


@dataclass(frozen=True)
class Thorisson:
    """Keep each drafted node with probability min(share, target / draft); at the first rejection, draw (target - share
    draft)+ (the modified Thorisson algorithm: Gerber and Lee 2020, in the discussion of Jacob, O'Leary and Atchade; Dau
    and Chopin 2207.00976).

    With p = target, q = draft, c = ``share``: min(c q, p) is kept and (p - c q)+ is added, together p. The acceptance m
    is the integral of min(c q, p), at least c (1 - TV). On a density the residual is thinned: Z ~ p is kept with
    probability (1 - c q / p)+, 1 - m on average, so that a rejection takes 1 / (1 - m) draws in the mean, and all coins
    together one each. The second moment of the number of draws to a coin, kept ones counting 0, is (1 + m) / (1 - m):
    as m <= c, at most (1 + c) / (1 - c), whatever the laws. Under ``rejection``, c = 1, it grows without bound as the
    laws approach one another (lemma L8).

    On a vocabulary the residual is drawn in closed form. Raises ValueError for a share outside (0, 1) and where the
    draft is not a chain.
    """

    share: float = 0.9
    claim: ClassVar[Claim] = Claim(exact=True, reference="Gerber and Lee 2020; Dau and Chopin 2207.00976")

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; give a fraction between 0 and 1, and use rejection for 1")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        ratio = log_ratio(draft.value, target[:, : draft.value.shape[1]], draft.law)
        log_accept = ratio.clamp(max=math.log(self.share))
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, self._rest)

    def _rest(self, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
        if isinstance(target, Categorical) and isinstance(draft, Categorical):
            log_weight = target.probs.new_full(target.batch_shape, -math.log(self.share))
            return residual_law(target, draft, log_weight).sample(tape, site)
        return thin(target, draft, tape, site, share=self.share)

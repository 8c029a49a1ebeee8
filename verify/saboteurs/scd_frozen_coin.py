"""The uniform of a column is drawn once and used in every round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.noise import Noise
from distributions.tape import Tape
from verify.jacobi import tested
from verify.records import Claim, Defect, Draft
from verify.residual import log_ratio
from verify.verifiers.scd import Scd


@dataclass(frozen=True)
class ScdFrozenCoin(Scd):
    """Every column has one uniform, as Gumbel noise is kept, and its coins of all rounds are read from it.

    That a draft was kept says that the uniform is low, and makes it be kept again. A uniform is the race of two tokens:
    the first wins under (a, 1 - a) iff E_0 / (E_0 + E_1) < a.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="SCD 2510.24211 with the accept noise in the table of the Gumbel noise",
        note="a draft's own coin may not be known from earlier rounds",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the uniform of a column is drawn once and used in every round",
        bias_a=0.030990564253441003,
        bias_b=0.004027590963346167,
        caught_by=("sequence",),
    )

    def noise(self, draft: Draft, target: Categorical, tape: Tape) -> Noise:
        rows, nodes = draft.value.shape
        noise = tape.noise("coin", (rows, nodes, 2)) if draft.noise is None else draft.noise
        return self.toss(draft, target[:, :nodes], noise, tape)[1].join([tape.noise("coin", (rows, 1, 2))], 1)

    def toss(self, draft: Draft, target: Categorical, noise: Noise, tape: Tape) -> tuple[Tensor, Noise, Tensor]:
        """The coins, what is known of the uniforms once they were read, and the log-probability of a fresh coin."""
        log_accept = log_ratio(draft.value, target, draft.law).clamp(max=0)
        log_accept = log_accept.masked_fill(~tested(draft, target.batch_shape[1]), -torch.inf)
        sides = torch.stack([log_accept.exp(), -torch.expm1(log_accept)], -1)
        side, noise = noise.winner(sides, tape, "accept")
        return side == 0, noise, log_accept

    def accept(self, draft: Draft, target: Categorical, tape: Tape) -> tuple[Tensor, Tensor]:
        """The coins once more: what ``noise`` has read of them is all that they can show."""
        assert draft.noise is not None
        coins, _, log_accept = self.toss(draft, target, draft.noise[:, : target.batch_shape[1]], tape)
        return coins, log_accept

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        new = super().redraft(draft, target, accept, wanted, tape)
        return Draft(new.value, new.law, new.parent, draft.noise)

    def enter(self, left: Tensor, noise: Noise | None, vocab: int, tape: Tape) -> tuple[Tensor, Tensor, Noise | None]:
        token, label, _ = super().enter(left, None, vocab, tape)
        return token, label, tape.noise("coin", (len(left), 2))

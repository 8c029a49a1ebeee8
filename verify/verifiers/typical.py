"""Typical acceptance: a drafted token is kept for being likely enough, whatever it was drafted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude
from verify.verifiers.block import both_categorical


@dataclass(frozen=True)
class Typical:
    """Keep a drafted token iff target(token) > min(epsilon, delta exp(-H)), H the target's entropy; otherwise draw the
    target's law as it is.

    Lossy on purpose (Medusa, Cai et al. 2401.10774, section 2.3.1; epsilon 0.09 and delta 0.3 are the defaults of its
    code, which adds 1e-5 inside the logarithm of H). No coin is tossed: on the likely tokens the output copies the
    draft, and the flatter the target is the more of them. Raises TypeError on laws that are not Categorical and
    ValueError for a negative epsilon or delta.
    """

    epsilon: float = 0.09
    delta: float = 0.3
    claim: ClassVar[Claim] = Claim(
        exact=False,
        reference="Medusa, Cai et al. 2401.10774, section 2.3.1",
        laws="categorical",
        note="bias of a token: sum |draft 1[kept] - draft(kept) target| / 2, in total variation",
    )

    def __post_init__(self) -> None:
        if min(self.epsilon, self.delta) < 0:
            raise ValueError(f"epsilon and delta must not be negative, and are {self.epsilon} and {self.delta}")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest typical prefix and one token more. ``target`` has batch (rows, N + 1)."""
        after, _ = both_categorical("typical", target, draft)
        accept = self.kept(after[:, :-1]).gather(-1, draft.value.unsqueeze(-1)).squeeze(-1)
        return conclude(
            draft, after, accept, accept.double().log(), tape, lambda law, _, some, site: law.sample(some, site)
        )

    def kept(self, target: Categorical) -> Tensor:
        """Which tokens (*batch, V) are typical of the target."""
        entropy = torch.special.entr(target.probs).sum(-1, keepdim=True)
        return target.probs > (self.delta * torch.exp(-entropy)).clamp(max=self.epsilon)

    def bias(self, target: Categorical, draft: Categorical) -> Tensor:
        """Total variation between the law of one emitted token and the target's, batch-wise.

        A token is emitted with probability q 1[kept] + (1 - q(kept)) p, which is p + q 1[kept] - q(kept) p.
        """
        copied = draft.probs * self.kept(target)
        return (copied - copied.sum(-1, keepdim=True) * target.probs).abs().sum(-1) / 2

"""Tolerance acceptance: a draft is emitted where the target's own draw lies near it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class Tolerance:
    """Draw y from the target at every node and keep the draft x iff |x - y| <= tolerance, in standard deviations of
    the target; emit y where it is not kept. For Gaussian laws.

    Lossy on purpose (relaxed acceptance by distance, as Spec-VLA 2507.22424 has it for actions): sampler match with a
    tolerance. With independent x ~ q and y ~ p the density of what is emitted is q(z) P(|y - z| <= t) + p(z) P(|x - z|
    > t), towards q by as much as is kept. Exact for a tolerance of 0. ``log_accept`` is what is known once y is drawn,
    0 or -inf. Raises TypeError for other laws, ValueError for a negative tolerance and a draft that is not a chain.
    """

    tolerance: float = 1.0
    claim: ClassVar[Claim] = Claim(
        exact=False,
        needs="any",
        laws="gaussian",
        reference="Spec-VLA, Wang et al. 2507.22424",
        note="a near miss counts as a match",
    )

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance is {self.tolerance}; give a distance, 0 or more")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest prefix of near misses and one token more. ``target`` has batch (rows, N + 1)."""
        law = target[:, : draft.value.shape[1]]
        own = law.sample(tape, "match")
        accept = whitened(law, draft.value - own).norm(dim=-1) <= self.tolerance
        node = accept.long().cumprod(1).sum(1)
        short = torch.nonzero(node < accept.shape[1]).squeeze(1)
        return conclude(draft, target, accept, accept.double().log(), tape, lambda *_: own[short, node[short]])


def whitened(law: Law, difference: Tensor) -> Tensor:
    """L^-1 ``difference``, L the Cholesky factor of the covariance. Raises TypeError for a law of another kind."""
    if isinstance(law, Gaussian):
        return difference / law.scale
    if isinstance(law, FullGaussian):
        white: Tensor = torch.linalg.solve_triangular(law.scale_tril, difference.unsqueeze(-1), upper=False)
        return white.squeeze(-1)
    raise TypeError(f"tolerance needs Gaussian laws and got a {type(law).__name__}; a vocabulary has no distances")

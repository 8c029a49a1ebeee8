"""Continuous speculative decoding as published: shared noise, and a ratio of two different points' paths."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from distributions.path import PathLaw
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
from verify.gaussian.maximal import synchronous
from verify.gaussian.pair import log_volume
from verify.paths import Beside, Cost, follow, last_residual, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class Cspd:
    """Keep x_0 with probability min(1, Sigma p(x_0 | x_1^p) / q(x_0 | x_1^q)), where the target's chain had the draft's
    noise down to x_1 and Sigma is the product over t = T..2 of |S_q,t|^(1/2) / |S_p,t|^(1/2); otherwise draw p(. |
    x_1^p) and keep with (Sigma p - q)+ / (Sigma p), until kept (Wang et al. 2411.11925, section 3, corollary 1).

    Sigma times the last ratio is the ratio of two joint densities on two different paths, so it is a constant where it
    should be a comparison of one path under both laws. Given both x_1, the law of x_0 is min(q, Sigma p) + (1 - its
    mass) (Sigma p - q)+ / mass: p at Sigma = 1, and not otherwise. So the rule is exact where the variances are fixed
    and equal, being then ``last_gaussian``, and lossy where the volumes differ: towards the draft where the target is
    the less noisy, Sigma > 1. Its acceptance is E[integral of min(q, Sigma p)].

    Raises TypeError for other laws and for steps that are not Gaussian, ValueError for laws of paths that have no
    density and drafts that are no chain, ThinningCapped where (Sigma p - q)+ has next to no mass, unless ``tries`` says
    after how many draws a residual is left at zero.
    """

    tries: int | None = None
    claim: ClassVar[Claim] = Claim(
        exact=False, reference="Wang et al. 2411.11925", laws="path", note="Sigma compares two different paths"
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        beside, log_sigma = aligned(draft, *path_laws("cspd", draft, target), tape)
        ratio = log_ratio(beside.path[..., -1, :], beside.target, beside.draft)
        log_accept = (log_sigma + ratio).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)

        def replace(law: Law, prior: Law, some: Tape, site: str) -> Tensor:
            ours = beside.path[where]
            ours[:, -1] = last_residual(
                beside.target[where], beside.draft[where], log_sigma[where], some, site, self.tries
            )
            return ours

        return conclude(dataclasses.replace(draft, value=beside.path), target, accept, log_accept, tape, replace)

    def cost(self, steps: int, nodes: int) -> Cost:
        """A chain of the target beside each drafted one; only the last Gaussian is drawn again."""
        return Cost(steps * nodes, steps, steps * nodes)


def aligned(draft: Draft, prior: PathLaw, after: PathLaw, tape: Tape) -> tuple[Beside, Tensor]:
    """The target's chain on the draft's noise down to x_1, and log Sigma (rows, N), all points but the last one's."""
    volumes: list[Tensor] = []

    def step(value: Tensor, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
        moved = synchronous(value, target, draft, tape, site)
        volumes.append(log_volume(draft) - log_volume(target))
        return moved

    beside = follow(draft.value, prior, after, step, tape)
    return beside, sum(volumes[1:], volumes[0])

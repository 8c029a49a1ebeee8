"""The last Gaussian alone: shared noise down to x_1, then the token rule on what is left."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
from verify.gaussian.maximal import synchronous
from verify.paths import Cost, follow, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio, residual


@dataclass(frozen=True)
class LastGaussian:
    """Give the target's chain the draft's noise down to x_1; then keep x_0 with probability min(1, p(x_0 | x_1^p) /
    q(x_0 | x_1^q)), each law given its own chain's x_1, and otherwise draw (p - q)+.

    Exact (lemma L7): x_1^p has the target's law, and given both x_1 the draft's x_0 has the law q that it is judged
    under. This is ``cspd`` without the volumes Sigma, which make the difference between exact and not. Acceptance E[1 -
    TV] of the two last Gaussians, next to nothing: shared noise leaves the means apart by far more than the last
    step's deviation. The path emitted is the target's own, with its last point.

    Raises TypeError for other laws and for steps that are not Gaussian, ValueError for laws of paths that have no
    density and drafts that are no chain.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="2411.11925, section 3, without Sigma", laws="path")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        beside = follow(draft.value, *path_laws("last_gaussian", draft, target), synchronous, tape)
        log_accept = log_ratio(beside.path[..., -1, :], beside.target, beside.draft).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)

        def replace(law: Law, prior: Law, some: Tape, site: str) -> Tensor:
            ours = beside.path[where]
            ours[:, -1] = residual(beside.target[where], beside.draft[where], some, site)
            return ours

        return conclude(dataclasses.replace(draft, value=beside.path), target, accept, log_accept, tape, replace)

    def cost(self, steps: int, nodes: int) -> Cost:
        """A chain of the target beside each drafted one; only the last Gaussian is drawn again."""
        return Cost(steps * nodes, steps, steps * nodes)

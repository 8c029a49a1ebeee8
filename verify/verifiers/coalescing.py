"""The coalescing path coupling: the target's path runs beside the drafted one, leaves it and meets it again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
from verify.gaussian.maximal import Coupling, maximal
from verify.paths import Cost, follow, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class Coalescing:
    """Couple every step of the target's chain with the draft's own draw, and keep the token iff the paths end at one
    point, bit for bit.

    The target's path is emitted, in every case, and has exactly the target's law by construction (``follow``); that the
    draft is kept is a statement about the draft. Each step keeps the drafted point as often as any coupling can, and
    otherwise moves it to its mirror image, where the covariances are equal, or near it where they are learned
    (``maximal``): paths that part run beside one another and may meet again. Acceptance lies between that of
    ``restarting`` and 1 - TV of the tokens' marginals, and needs no path ratio.

    ``log_accept`` is that of the last step: log min(1, p(x_0 | x_1) / q(x_0 | x_1)), each law given its own x_1. That
    coin alone decides whether the paths agree in the end, so the mean of its probability is the acceptance, but it is
    conditional on the coupled path, and not on the draft only. It speaks of maximal couplings.

    ``coupling``: of one step. Any is exact. Raises TypeError for other laws, ValueError for laws of paths that have no
    density and drafts that are no chain.
    """

    coupling: Coupling = maximal
    claim: ClassVar[Claim] = Claim(
        exact=True, reference="step by step, the coupling of De Bortoli et al. 2501.05370", laws="path"
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        prior, after = path_laws("coalescing", draft, target)
        beside, end = follow(draft.value, prior, after, self.coupling, tape), draft.value[..., -1, :]
        ours = beside.path
        ours[..., -1, :] = self.coupling(end, beside.target, beside.draft, tape, "follow.0")
        accept = (ours[..., -1, :] == end).all(-1)
        log_accept = log_ratio(end, beside.target, beside.draft).clamp(max=0)
        own = dataclasses.replace(draft, value=ours)
        return conclude(own, target, accept, log_accept, tape, lambda *_: ours[first_rejected(accept)])

    def cost(self, steps: int, nodes: int) -> Cost:
        """A chain of the target beside each drafted one; a replacement is its own end, and costs nothing."""
        return Cost(steps * nodes, steps, steps * nodes)

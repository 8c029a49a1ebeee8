"""Restarting: the drafted path is kept link by link; at the first one that is not, the target goes on alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
from verify.gaussian.maximal import moved
from verify.paths import Cost, finish, log_ratios, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class Restarting:
    """Keep each link of a drafted path with probability min(1, p / q); at the first that fails draw its point from the
    residual (p - q)+, and the rest of the path from the target, with fresh noise. A token is kept iff every link is.

    It is ``rejection`` within the path, the points as its tokens, and exact by the same proof: up to and with the first
    failure every point of the path that is emitted has the law of the target's kernel given the points before, and the
    others are drawn from it. Acceptance E[product over t of min(1, p_t / q_t)], the expectation over drafted paths: at
    most that of ``whole_path``, where a link that gains makes up for another that loses. But all links are judged at
    once, and a replacement costs the target at most one path.

    Raises TypeError for other laws, ValueError for laws of paths that have no density and drafts that are no chain.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Leviathan et al. 2211.17192, on the points", laws="path")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        prior, after = path_laws("restarting", draft, target)
        ratios = log_ratios(draft.value, prior, after).clamp(max=0)
        links = tape.coin("accept", ratios.exp())
        accept = links.all(-1)
        where = first_rejected(accept)
        parted = (~links[where]).to(torch.int8).argmax(-1)
        return conclude(
            draft, target, accept, ratios.sum(-1), tape,
            lambda *_: finish(draft.value[where], parted, prior[where], after[where], moved, tape[where[0]]),
        )  # fmt: skip

    def cost(self, steps: int, nodes: int) -> Cost:
        """Every link is judged at once; a replacement takes the links from the first failure on, the failed one too."""
        return Cost(steps * nodes, 1, steps * nodes, (0, steps))

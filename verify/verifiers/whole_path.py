"""Whole-path verification: a path is a token on a larger event space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.paths import Cost, path_laws
from verify.records import Claim, Draft, Outcome
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class WholePath(Rejection):
    """``rejection``, unedited, on paths: keep Y with probability min(1, P(Y) / Q(Y)), the products of all kernels on
    the drafted path's own points, and otherwise thin whole paths of the target.

    Exact by the proof for tokens, and so is every function of Y, the token x_0 included. Acceptance 1 - TV(P, Q), at
    most that of the tokens' marginals, and equal to it for two exact time reversals of one forward process, whose
    forward kernels cancel in the ratio. A replacement takes 1 / TV(P, Q) paths of the target in the mean.

    Raises TypeError for other laws, ValueError for laws of paths that have no density and drafts that are no chain.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Leviathan et al. 2211.17192, on paths", laws="path")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        path_laws("whole_path", draft, target)
        return super().verify(draft, target, tape)

    def cost(self, steps: int, nodes: int) -> Cost:
        """Every link is judged at once; a replacement is one path of the target or more, and each is judged too."""
        return Cost(steps * nodes, 1, steps * nodes, (2 * steps, float("inf")))

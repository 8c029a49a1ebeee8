"""The rules that are compared: exact decoders, and those that are known not to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.paths import follow, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio
from verify.studies.ablations.rules import LIMIT, OwnNoise, own_noise
from verify.verifier import Verifier
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.coalescing_jacobi import CoalescingJacobi
from verify.verifiers.cspd import Cspd
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.restarting import Restarting
from verify.verifiers.whole_path import WholePath

EXACT: Mapping[str, Verifier] = {
    "coalescing": Coalescing(),
    "restarting": Restarting(),
    "whole_path": WholePath(),
    "coalescing_jacobi": CoalescingJacobi(),
    "coalescing_jacobi, redrawn": CoalescingJacobi(coupled=False),
}


@dataclass(frozen=True)
class Careless(Coalescing):
    """``coalescing`` with one of two departures of the released procedure, and nothing else of it.

    Without ``rollback`` a token whose path did not end at the draft is emitted as always, and the ones after it too,
    whose laws are those after the refused draft: N tokens a round. Without ``own_context`` every draft is judged, and
    replaced, under the law of the first one of its round.
    """

    rollback: bool = True
    own_context: bool = True
    claim: ClassVar[Claim] = Claim(exact=False, reference="MarkXCloud/CSpD at d91f721, lines 68 and 157", laws="path")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """As ``coalescing``."""
        nodes = draft.value.shape[1]
        if not self.own_context:
            target = target[:, [0] * (nodes + 1)]
        if self.rollback:
            return super().verify(draft, target, tape)
        prior, after = path_laws("careless", draft, target)
        beside, end = follow(draft.value, prior, after, self.coupling, tape), draft.value[..., -1, :]
        ours = beside.path
        ours[..., -1, :] = self.coupling(end, beside.target, beside.draft, tape, "follow.0")
        kept = (ours[..., -1, :] == end).all(-1)
        log_accept = log_ratio(end, beside.target, beside.draft).clamp(max=0)
        return Outcome(torch.cat((ours, ours[:, -1:]), 1), torch.full((len(ours),), nodes), kept, log_accept)


LOSSY: Mapping[str, Verifier] = {
    "released": CspdReleased(),
    "no rollback": Careless(rollback=False),
    "no context": Careless(own_context=False),
}
"""The released procedure, and two of its departures alone."""
COMPARED: Mapping[str, Verifier] = {
    "coalescing": Coalescing(),
    "coalescing, fresh noise": Coalescing(own_noise),
    "published": Cspd(tries=LIMIT),
    "released": CspdReleased(),
    "released, own noise": OwnNoise(),
}
"""Whose speed is measured: an exact rule, and the published one, as it is and as released, with and without alignment.
The published procedure accepts so little, for its ratio is of paths, that its residual has a limit."""

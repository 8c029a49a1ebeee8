"""The rules that are compared: the published ratio and the exact couplings, each with shared noise and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.frame import first_rejected
from verify.maximal import independent, maximal
from verify.pair import log_volume
from verify.paths import follow, last_residual, path_laws
from verify.records import Draft, Outcome
from verify.residual import conclude, log_ratio
from verify.verifier import Verifier
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.last_gaussian import LastGaussian
from verify.verifiers.whole_path import WholePath

LIMIT = 1000
"""Tries of the published residual, which has no limit of its own and need not end."""


@dataclass(frozen=True)
class OwnNoise(CspdReleased):
    """``cspd_released`` without the alignment: the target's chain has noise of its own, x_T included.

    The published ratio is then p(Y_p) / q(Y_q) of two unrelated paths: the quadratic forms of their steps no longer
    cancel, and stay. The released test (``inverted``) multiplies by the deviations alone, whatever the noise was.
    """

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """As ``cspd_released``."""
        nodes = draft.value.shape[1]
        prior, after = path_laws("own_noise", draft, target)
        links: list[Tensor] = []

        def step(value: Tensor, law: Law, other: Law, some: Tape, site: str) -> Tensor:
            drawn = law.sample(some, site)
            volume = log_volume(law) - log_volume(other)
            links.append(volume if self.inverted else law.log_prob(drawn) - other.log_prob(value))
            return drawn

        beside = follow(draft.value, prior, after if self.own_context else after[:, [0] * nodes], step, tape)
        weight = torch.stack(links).sum(0)
        last = log_volume(beside.draft) - log_volume(beside.target)
        quadratic = log_ratio(beside.path[..., -1, :], beside.target, beside.draft) - last
        log_accept = (weight + last + quadratic / self.inner_temperature**2).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept) if self.rollback else torch.nonzero(~accept, as_tuple=True)

        def redraw(law: Law, other: Law, some: Tape, site: str) -> Tensor:
            ours = beside.path[where]
            ours[:, -1] = last_residual(
                beside.target[where], beside.draft[where], weight[where], some, site, self.tries
            )
            return ours

        own = replace(draft, value=beside.path)
        if self.rollback:
            return conclude(own, target, accept, log_accept, tape, redraw)
        value = torch.cat([own.value, own.value[:, -1:]], 1)
        if len(where[0]):
            value[where] = redraw(target, prior, tape[where[0]], "residual")
        return Outcome(value, where[0].new_full((len(value),), nodes), accept, log_accept)


def own_noise(value: Tensor, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
    """The coupling of chains that know nothing of one another, down to x_1; the last step is coupled maximally."""
    return maximal(value, target, draft, tape, site) if site.endswith(".0") else target.sample(tape, site)


RELEASED, PUBLISHED, COALESCING, WHOLE = "released", "published", "coalescing", "whole_path"
SWEPT: Mapping[str, Verifier] = {
    RELEASED: CspdReleased(),
    PUBLISHED: CspdReleased.published(tries=LIMIT),
    COALESCING: Coalescing(),
    WHOLE: WholePath(),
}
"""The rules of every sweep."""
PAPER: dict[str, Any] = dict(
    inner_temperature=1.0, inverted=False, last_noise=True, tries=LIMIT, rollback=True, own_context=True
)
NOISES: Mapping[str, Mapping[str, Verifier]] = {
    RELEASED: {"own noise": OwnNoise(), "shared noise": SWEPT[RELEASED]},
    PUBLISHED: {"own noise": OwnNoise(**PAPER), "shared noise": SWEPT[PUBLISHED]},
    "exact coupling": {
        "own noise": Coalescing(own_noise),
        "shared noise": LastGaussian(),
        "step by step, forgetful": Coalescing(independent),
        "step by step, mirrored": SWEPT[COALESCING],
    },
    WHOLE: {"no second path": SWEPT[WHOLE]},
}
"""What the chains of drafter and target have in common, by rule."""

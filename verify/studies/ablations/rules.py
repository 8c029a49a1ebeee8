"""The rules that are compared: the published ratio and the exact couplings, each with shared noise and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
from verify.gaussian.maximal import independent, maximal
from verify.gaussian.pair import log_volume
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


PAPER: dict[str, Any] = dict(
    inner_temperature=1.0, inverted=False, last_noise=True, tries=LIMIT, rollback=True, own_context=True
)
SWEPT: Mapping[str, Verifier] = {
    "released": CspdReleased(),
    "published": CspdReleased.published(tries=LIMIT),
    "coalescing": Coalescing(),
    "whole_path": WholePath(),
}
"""The rules of every sweep: two that are not exact, and two that are."""
BESIDE: Mapping[str, Verifier] = {
    "released, own noise": OwnNoise(),
    "released, own context": CspdReleased(own_context=True),
}
"""What the released rule is beside in the sweep of draft lengths."""


@dataclass(frozen=True)
class Alignment:
    """A rule, and what its second chain has in common with the first."""

    test: str
    chains: str
    name: str
    rule: Verifier
    exact: bool


ALIGNMENTS = (
    Alignment("released", "own noise", "released, own noise", BESIDE["released, own noise"], False),
    Alignment("released", "shared noise", "released", SWEPT["released"], False),
    Alignment("published", "own noise", "published, own noise", OwnNoise(**PAPER), False),
    Alignment("published", "shared noise", "published", SWEPT["published"], False),
    Alignment("last Gaussian", "own noise", "last Gaussian, own noise", Coalescing(own_noise), True),
    Alignment("last Gaussian", "shared noise", "last_gaussian", LastGaussian(), True),
    Alignment("coalescing", "kept or fresh", "coalescing, fresh", Coalescing(independent), True),
    Alignment("coalescing", "kept or mirrored", "coalescing", SWEPT["coalescing"], True),
    Alignment("whole_path", "no second chain", "whole_path", SWEPT["whole_path"], True),
)

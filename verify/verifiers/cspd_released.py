"""Continuous speculative decoding as released: MarkXCloud/CSpD at d91f721, each deviation a switch of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.path import PathLaw
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
from verify.gaussian.pair import log_volume
from verify.paths import Cost, last_residual, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio
from verify.verifiers.cspd import aligned


@dataclass(frozen=True)
class CspdReleased:
    """``cspd`` with the six departures of the released sampler, which the paper does not have; a field each, at the
    released value. ``published`` undoes them: with no argument it is ``cspd``, with one it is ``cspd`` and that one.

    ``inner_temperature``: the test divides both quadratic forms by its square, not the volumes (runner, lines 9 to 38;
    the residual does not). ``inverted``: Sigma is the product of |S_p|^(1/2) / |S_q|^(1/2), upside down, in test and
    residual (line 19). ``last_noise``: where False, the drafted x_0 is the mean of its last kernel, though the ratio
    takes it for a draw (diffusion, lines 423 and 576). ``tries``: of the residual, then zeros (lines 47 to 57); None
    for no limit. ``rollback``: where False, only refused tokens are replaced and later ones stay if they pass: N tokens
    a round whatever is refused, and no bonus (lines 68 and 200). ``own_context``: where False, all nodes are judged,
    and replaced, under the root's law (lines 157 to 168). Volumes are in logarithms here, products of floats there.

    The test is then a tolerance on the distance of two coupled points: with last deviation sigma it keeps with
    probability exp(-distance^2 / 2 (42 sigma)^2). ``kept`` is not closed under prefixes without ``rollback``. The
    replacement has the last step's noise, with either ``last_noise``.

    Raises as ``cspd`` does; ValueError for a temperature that is not positive.
    """

    inner_temperature: float = 42.0
    inverted: bool = True
    last_noise: bool = False
    tries: int | None = 100
    rollback: bool = False
    own_context: bool = False
    claim: ClassVar[Claim] = Claim(
        exact=False, reference="MarkXCloud/CSpD at d91f721", laws="path", note="six departures from the paper"
    )

    def __post_init__(self) -> None:
        if not self.inner_temperature > 0:
            raise ValueError(f"inner_temperature is {self.inner_temperature}; give a positive number, 1 for none")

    @classmethod
    def published(cls, **switches: Any) -> CspdReleased:
        """The published rule, but for ``switches``."""
        paper = dict(inner_temperature=1.0, inverted=False, last_noise=True, tries=None)
        return cls(**{**paper, "rollback": True, "own_context": True, **switches})

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are drawn from: the drafter's chain, with or without the noise of its last step."""
        if not isinstance(law, PathLaw):
            raise TypeError(f"cspd_released drafts paths and got a {type(law).__name__}; use rejection")
        return dataclasses.replace(law, last_noise=self.last_noise)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """With ``rollback`` the longest kept prefix and one token more, else N tokens. ``target``: (rows, N + 1)."""
        nodes = draft.value.shape[1]
        prior, after = path_laws("cspd_released", draft, target)
        beside, volumes = aligned(draft, prior, after if self.own_context else after[:, [0] * nodes], tape)
        log_sigma = -volumes if self.inverted else volumes
        last = log_volume(beside.draft) - log_volume(beside.target)
        quadratic = log_ratio(beside.path[..., -1, :], beside.target, beside.draft) - last
        log_accept = (log_sigma + last + quadratic / self.inner_temperature**2).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept) if self.rollback else torch.nonzero(~accept, as_tuple=True)
        own = dataclasses.replace(draft, value=beside.path)

        def replace(law: Law, prior: Law, some: Tape, site: str) -> Tensor:
            laws, ours = (beside.target[where], beside.draft[where]), beside.path[where]
            ours[:, -1] = last_residual(*laws, log_sigma[where], some, site, self.tries)
            return ours

        if self.rollback:
            return conclude(own, target, accept, log_accept, tape, replace)
        value = torch.cat([own.value, own.value[:, -1:]], 1)
        if len(where[0]):
            value[where] = replace(target, prior, tape[where[0]], "residual")
        return Outcome(value, where[0].new_full((len(value),), nodes), accept, log_accept)

    def cost(self, steps: int, nodes: int) -> Cost:
        """A chain of the target beside each drafted one; only the last Gaussian is drawn again."""
        return Cost(steps * nodes, steps, steps * nodes)

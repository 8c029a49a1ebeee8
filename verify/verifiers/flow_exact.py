"""Speculation on deterministic samplers: the token rule on the densities of flows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from distributions.flow import FlowLaw
from distributions.law import Law
from distributions.preimage import SAME
from distributions.tape import Tape
from verify.estimates import estimate
from verify.records import Claim, Draft, Outcome
from verify.residual import ThinningCapped, conclude


@dataclass(frozen=True)
class FlowExact:
    """Keep each drafted token with probability min(1, target / draft), both densities by inverting the flows; at the
    first rejection thin draws of the target. Acceptance 1 - TV of the tokens' marginals: no lossless rule has more.

    It is exact for any flows, one to one or not, if the laws keep their noise (``with_noise``). The inversion sends a
    token x to one noise g(x), or to none. Call a noise regular if its own token is sent back to it: on regular noises a
    flow is one to one, so their tokens have the density that ``invert`` returns. Write p' <= p for the target's and q'
    <= q for the draft's, 0 where there is none. A draft is kept with probability min(1, p' / q') if its noise is
    regular and p' > 0, else rejected: what is kept has the density min(p', q'). In the residual, a draw of the target
    is kept with probability (1 - q' / p')+ if its noise is regular, else always: its density is proportional to (p' -
    q')+ + p - p', with the mass of the rejections. The sum is p, and the acceptance the integral of min(p', q'), which
    is 1 - TV where nothing fails.

    Without the noise, a draft counts as regular wherever the inversion succeeds. That is exact if those tokens have no
    second noise: then q' = q, and a failure is an event of x alone, the same on both sides. ``balance`` checks it.

    Raises TypeError for other laws, ThinningCapped where a residual does not end, ValueError for a draft that is not a
    chain.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True,
        reference="lemma A1 with a change of variables",
        laws="flow",
        note="of laws without their noise, where the drafter's map is one to one",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        law, wanted = flow(draft.law), flow(target)
        if law.with_noise != wanted.with_noise:
            raise TypeError("one flow keeps its noise and the other does not; set with_noise alike for both")
        noise = draft.value[..., 0, :] if law.with_noise else None
        log_ratio = compare(law.token(draft.value), wanted[:, : draft.value.shape[1]], law, drafted=noise)
        log_accept = log_ratio.nan_to_num(-math.inf).clamp(max=0)
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, thin_flow)


def flow(law: Law) -> FlowLaw:
    """The law, which must be a FlowLaw; raises TypeError."""
    if not isinstance(law, FlowLaw):
        raise TypeError(f"flow_exact needs two FlowLaws and got {type(law).__name__}; use rejection, or whole_path")
    return law


def compare(
    token: Tensor, target: FlowLaw, draft: FlowLaw, drafted: Tensor | None = None, wanted: Tensor | None = None
) -> Tensor:
    """log p' - log q' at ``token`` (*batch, d), and NaN where p' or q' is 0 or the token's noise is not regular.

    ``drafted`` or ``wanted`` (*batch, d): the noise of which the draft's or the target's flow made the token.
    """
    log_ratio = torch.full(token.shape[:-1], math.nan, dtype=torch.float64, device=token.device)
    left = torch.ones_like(log_ratio, dtype=torch.bool)
    for law, noise, sign in ((draft, drafted, -1), (target, wanted, 1)):
        ends = law[left].invert(token[left])
        regular = ends.found if noise is None else ends.found & ((ends.noise - noise[left]).abs() < SAME).all(-1)
        log_ratio[left] = log_ratio[left].nan_to_num(0.0) + torch.where(regular, sign * ends.log_prob, math.nan)
        left[left.clone()] = regular
    return log_ratio


def thin_flow(target: Law, draft: Law, tape: Tape, site: str = "residual", cap: int = 100_000) -> Tensor:
    """One value for each row of the law proportional to (p' - q')+ + p - p', by thinning draws of the target.

    Only unfinished rows draw again. Raises ThinningCapped after ``cap`` draws in one row.
    """
    wanted, law = replace(flow(target), with_noise=True), flow(draft)
    value = wanted.start().mean.new_zeros((*wanted.batch_shape, *wanted.event_shape))
    left = torch.arange(len(value), device=value.device)
    for _ in range(cap):
        proposal = wanted[left].sample(tape[left], f"{site}.proposal")
        log_ratio = compare(proposal[:, 1], wanted[left], law[left], wanted=proposal[:, 0])
        keep = -torch.expm1(-log_ratio.nan_to_num(math.inf).clamp(min=0))
        kept = tape[left].coin(f"{site}.keep", keep)
        value[left[kept]] = proposal[kept]
        left = left[~kept]
        if not len(left):
            return value if flow(target).with_noise else value[:, 1]
    raise ThinningCapped(
        f"{len(left)} of {len(value)} rows of {site!r} kept none of {cap} draws: the laws overlap almost wholly; "
        "raise cap"
    )


@dataclass(frozen=True)
class Balance:
    """What the densities of two flows must satisfy on draws of both, each mean with its standard error.

    ``rejected`` and ``replaced``: the shares of drafts, and of target draws, that are not compared because an inversion
    fails. ``ratio``: E_draft[p' / q'] + replaced, which is 1. ``ahead``: E_draft[min(1, p' / q')], the acceptance, and
    ``back``: E_target[min(1, q' / p')], which are equal, and whose summands are bounded where those of ``ratio`` may
    have no variance. Both hold whatever fails, unless a token without noise has more than one.
    """

    rejected: float
    replaced: float
    ratio: tuple[float, float]
    ahead: tuple[float, float]
    back: tuple[float, float]

    @property
    def scores(self) -> tuple[float, float]:
        """How many standard errors ``ratio`` is off 1, and ``ahead`` off ``back``; about N(0, 1)."""
        apart = math.hypot(self.ahead[1], self.back[1])
        off = self.ratio[0] - 1, self.ahead[0] - self.back[0]
        return off[0] / max(self.ratio[1], 1e-300), off[1] / max(apart, 1e-300)


def balance(draft: FlowLaw, target: FlowLaw, tape: Tape) -> Balance:
    """The balance of two laws of one batch (rows,), by one draw of each in every row. Without the noise of the draft
    (``with_noise``) it is that of a rule which does not know it.
    """
    drafts, draws = (
        replace(law, with_noise=True).sample(tape, site) for law, site in ((draft, "draft"), (target, "target"))
    )
    ahead = compare(drafts[:, 1], target, draft, drafted=drafts[:, 0] if draft.with_noise else None)
    back = compare(draws[:, 1], target, draft, wanted=draws[:, 0])
    weight = ahead.exp().nan_to_num(0.0)
    ratio, lost = estimate(weight), estimate(back.isnan().double())
    return Balance(
        rejected=float(ahead.isnan().double().mean()),
        replaced=lost[0],
        ratio=(ratio[0] + lost[0], math.hypot(ratio[1], lost[1])),
        ahead=estimate(weight.clamp(max=1)),
        back=estimate((-back).exp().nan_to_num(0.0).clamp(max=1)),
    )

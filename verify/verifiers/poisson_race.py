"""The Poisson functional representation: target and draft each take the first point of one Poisson process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from distributions.law import Law
from distributions.normal import normal_cdf
from distributions.tape import Tape
from verify.gaussian.frame import Frame, first_rejected
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class PoissonRace:
    """Emit the target's winner of the Poisson race that the draft won, and go on iff it is the draft (the Poisson
    functional representation, Li and El Gamal 1701.02827; lemma A12: ``gumbel_race`` without a vocabulary). For
    Gaussian drafts and targets of one covariance.

    Points (x, t) of a Poisson process of rate 1 have the winner argmin t / q(x), of law q, and argmin t / p(x), of law
    p, for any p and q on the same points. The draft x is there first, so the target's winner is drawn given x, with
    nothing truncated. Let D(v) be the integral of max(p, v q), H(v) = v / D(v), r = p / q. Then D' is the q-mass of {r
    < v}, D - v D' the p-mass of {r > v}, and H' = (D - v D') / D^2 >= 0: H is a CDF. Given x, the winner is x with
    probability H(r(x)); otherwise it is drawn from p restricted to r > V, V of law H given V > r(x) (the continuous
    case of ``race_given``). So one uniform U decides: keep iff U < H(r(x)), else V = H^-1(U).

    Why it is exact. The density at z is q H(r) + p times the integral over v < r(z) of D'(v) / D(v)^2, as a draft with
    r < v has mass D'. The integral is 1 / D(0) - 1 / D(r), and H(r) q = p / D(r): together p, as D(0) = 1.

    Along the line (``verify.gaussian.frame``), v = r(s) stands for a place s, {r > v} for what is beyond it, and H = 1
    / (Phi(s) + Phi(delta - s) / r(s)); what lies across is kept. Acceptance: ``acceptance``, between (1 - TV) / (1 +
    TV) and 1 - TV. Raises TypeError for other laws (gumbel_race serves a vocabulary, rejection all) and unequal
    covariances.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Li and El Gamal 1701.02827", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The winners up to the first that was not drafted. ``target`` has batch (rows, N + 1)."""
        frame = Frame.of("poisson_race", target[:, :-1], draft.law)
        log_accept = log_meeting(frame.place(draft.value), frame.distance)
        uniform = tape.uniform("accept", log_accept.shape)
        accept = uniform < log_accept.exp()
        where = first_rejected(accept)

        def replace(law: Law, prior: Law, some: Tape, site: str) -> Tensor:
            near = frame[where]
            start = race_place(uniform[where], near.distance, near.place(draft.value[where]))
            place = beyond(some.uniform(site, start.shape), start - near.distance) + near.distance
            return near.move(draft.value[where], place)

        return conclude(draft, target, accept, log_accept, tape, replace)

    def acceptance(self, distance: Tensor) -> Tensor:
        """The probability that a node is kept whose target is ``distance`` away.

        Formula: the integral of ds / [Phi(delta - s) / phi(s - delta) + Phi(s) / phi(s)], by the trapezium rule, which
        converges geometrically on an analytic integrand that vanishes at both ends.
        """
        step = 1 / 64
        place = distance.unsqueeze(-1) / 2 + step * torch.arange(
            -2560, 2561, dtype=torch.float64, device=distance.device
        )
        density = -place.square() / 2 - math.log(2 * math.pi) / 2
        return step * torch.exp(density + log_meeting(place, distance.unsqueeze(-1))).sum(-1)


def log_meeting(place: Tensor, distance: Tensor) -> Tensor:
    """log H = - log(Phi(s) + Phi(delta - s) / r(s)): that the winner is the draft, given that it lies at s."""
    ratio = distance * (place - distance / 2)
    return -torch.logaddexp(log_ndtr(place), log_ndtr(distance - place) - ratio).clamp(min=0)


def race_place(uniform: Tensor, distance: Tensor, start: Tensor) -> Tensor:
    """The place beyond ``start`` where H is ``uniform``, by bisection; H(start) <= uniform < 1."""
    # Forty beyond both means H rounds to 1.
    low, high = start, torch.maximum(start, distance) + 40
    level = uniform.log()
    for _ in range(60):
        middle = (low + high) / 2
        more = log_meeting(middle, distance) <= level
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return high


def beyond(uniform: Tensor, start: Tensor) -> Tensor:
    """A standard normal given that it lies beyond ``start``, the inverse of its CDF at ``uniform`` in [0, 1)."""
    below = normal_cdf(start) + uniform * normal_cdf(-start)
    log_tail = log_ndtr(-start) + torch.log1p(-uniform)
    direct = torch.where(below < 0.5, ndtri(below), -ndtri(log_tail.exp()))
    low, high = start, start.clamp(min=0) + 10  # far out the tail falls like exp(-start x), and ndtri would underflow
    for _ in range(60):
        middle = (low + high) / 2
        inside = log_ndtr(-middle) > log_tail
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.where(start < 0, torch.maximum(direct, start.clamp(min=-40.0)), high)

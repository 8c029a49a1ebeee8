"""Optimal transport from Gaussian siblings to a token: no lossless rule keeps one of them more often."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.special import log_ndtr

from distributions.law import Law
from distributions.normal import normal_cdf
from distributions.tape import Tape
from verify.gaussian.frame import Along, sibling_frame
from verify.gaussian.normals import crossings_of_largest, gaussian_sibling_cap
from verify.records import Claim, Draft, Outcome
from verify.siblings import keep_first, siblings


@dataclass(frozen=True)
class GaussianTransport:
    """Rank the siblings by scores, keep the first in rank unless its score is below a reserve, and otherwise draw from
    what the target lacks; acceptance min over t of 1 + Phi(t - delta) - Phi(t)^K, the cap (lemmas A8 and A17). For K
    independent drafts of one Gaussian and a target of the same covariance.

    Along the line (``verify.gaussian.frame``) siblings are N(0, 1), with density phi, and the target is N(delta, 1);
    r(s) = phi(s - delta) / phi(s). Let t attain the cap a and C = 1 - a = Phi(t)^K - Phi(t - delta).

    The score of a sibling is a place, s or another one, drawn for each sibling independently and so that it is N(0, 1)
    again. The highest of K scores is the one z with probability Phi(z)^(K - 1); it is refused where Phi(z)^K < C. So a
    sibling with score z is kept with probability B(z) = Phi(z)^(K - 1), or 0 below the reserve, and what is kept has
    the density K phi(s) E[B(score) | s]. Beyond t a place is its own score: what is kept there, K phi Phi^(K - 1), is
    at most the target's density, by the choice of t. Up to t it shall be the target's: E[K B(score) | s] = r(s).

    That is a martingale coupling, which exists by Border's condition (Border 1991, for auctions: K buyers, an interim
    probability r / K each), here the choice of t. This one is the inverse transform coupling (Jourdain and Margheriti
    1808.01390). Let E(s), the integral of p - K phi B up to s, be Phi(s - delta) - (Phi(s)^K - C)+. It rises from 0 to
    a peak and falls back to 0 at t: first r > K B, so that a place deserves a better score, then a worse one. Pair u
    below the peak and v above it by E(u) = E(v), and let each take the other's place as its score with probability
    (r(u) - K B(u)) / (K B(v) - K B(u)) and (K B(v) - r(v)) / (K B(v) - K B(u)). Then the mean is r on both sides; and
    scores stay N(0, 1), since phi(u) (r(u) - K B(u)) du = E'(u) du = - E'(v) dv: as much leaves u for v as comes.

    What the target lacks is p - K phi Phi^(K - 1) beyond t, with mass C, which is inverted. Each score has two possible
    places only, so the probability of every sibling to be kept is a finite sum, and no score need be drawn. For K = 1
    this is rejection. Raises TypeError for other laws (recursive_rejection serves a vocabulary) and for unequal
    covariances, ValueError for a draft that is not all siblings of one law.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True, reference="Border 1991 and Jourdain and Margheriti 1808.01390, put together", laws="gaussian"
    )

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        frame = sibling_frame("gaussian_transport", draft, target)
        count = draft.value.shape[1]
        plan = Scores.of(frame.distance, count)
        chance = plan.chances(frame.place(draft.value))
        left = 1 - torch.nn.functional.pad(chance.cumsum(1)[:, :-1], (1, 0))
        accept = torch.where(left > 0, chance / left.clamp(min=1e-300), 0.0).clamp(max=1)
        rest = Along(frame[:, 0], partial(lacking, count), (plan.end[:, 0],))
        return keep_first(draft, target, tape.coin("accept", accept), accept.log(), rest, tape)

    def acceptance(self, distance: Tensor, count: int) -> Tensor:
        """The probability that one of ``count`` siblings is kept whose target is ``distance`` away: the cap."""
        return gaussian_sibling_cap(distance, count)


@dataclass(frozen=True, eq=False)
class Scores:
    """The law of a sibling's score, given its place: itself, or its partner. All fields broadcast against places."""

    count: int
    distance: Tensor
    end: Tensor
    cap: Tensor
    peak: Tensor

    @staticmethod
    def of(distance: Tensor, count: int) -> Scores:
        """For ``count`` siblings whose target is ``distance`` away; computed once for rows of one distance."""
        every, row = torch.unique(distance, return_inverse=True)
        better, end = crossings_of_largest(every, count)
        cap = gaussian_sibling_cap(every, count)
        low, high = -40.0 - every, end
        for _ in range(80):  # the reserve: 1 - Phi^K falls to the cap
            middle = (low + high) / 2
            refused = -torch.expm1(count * log_ndtr(middle)) > cap
            low, high = torch.where(refused, middle, low), torch.where(refused, high, middle)
        return Scores(count, distance, end[row], cap[row], torch.maximum(better, high)[row])

    def worth(self, place: Tensor) -> Tensor:
        """K B: the density of what is kept with this score, over the draft's."""
        return torch.where(self.above(place) < self.cap, self.count * normal_cdf(place) ** (self.count - 1), 0.0)

    def above(self, place: Tensor) -> Tensor:
        """1 - Phi^K, the probability that the highest of K scores is above ``place``; log_ndtr would be slower."""
        return -torch.expm1(self.count * torch.log1p(-normal_cdf(-place)))

    def balance(self, place: Tensor) -> Tensor:
        """E: the integral of the target's density less K phi B up to ``place``."""
        return normal_cdf(place - self.distance) + (self.above(place) - self.cap).clamp(max=0)

    def partner(self, place: Tensor) -> Tensor:
        """The place of the same balance on the other side of the peak, by bisection; for places up to the end."""
        rising, level = place < self.peak, self.balance(place)
        low, high = torch.where(rising, self.peak, -40.0), torch.where(rising, self.end, self.peak)
        for _ in range(60):
            middle = (low + high) / 2
            short = (self.balance(middle) > level) == rising  # still on the peak's side, or still below the level
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (low + high) / 2

    def swap(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """The partner of each place, and the probability to take it as a score: 0 beyond the end."""
        other = torch.where(place < self.end, self.partner(place), place)
        worth = self.worth(place)
        gain = self.worth(other) - worth
        deserved = (self.distance * (place - self.distance / 2)).exp() - worth
        chance = torch.where(gain != 0, deserved / torch.where(gain != 0, gain, 1.0), 0.0)
        return other, torch.where(place < self.end, chance, 0.0).clamp(0, 1)

    def chances(self, place: Tensor) -> Tensor:
        """The probability (rows, K) of every sibling at ``place`` (rows, K) to be kept: to have a score above the
        reserve and above those of all others.
        """
        other, swap = self.swap(place)
        itself = torch.eye(self.count, dtype=torch.bool, device=place.device)
        chance = torch.zeros_like(place)
        for score, weight in ((place, 1 - swap), (other, swap)):
            mine = score.unsqueeze(-1)
            stays, moves = (1 - swap).unsqueeze(-2), swap.unsqueeze(-2)
            below = stays * (place.unsqueeze(-2) < mine) + moves * (other.unsqueeze(-2) < mine)
            chance += weight * (self.worth(score) > 0) * torch.where(itself, 1.0, below).prod(-1)
        return chance


def lacking(count: int, uniform: Tensor, distance: Tensor, end: Tensor) -> Tensor:
    """The inverse CDF, at ``uniform`` in [0, 1), of the law proportional to (phi(s - delta) - K phi Phi^(K - 1))+
    beyond t, the ``end``; its tail is Phi(delta - s) - (1 - Phi(s)^K).
    """

    def log_tail(place: Tensor) -> Tensor:
        heavy: Tensor = log_ndtr(distance - place)
        light = torch.log(-torch.expm1(count * log_ndtr(place)))
        return heavy + torch.log(-torch.expm1((light - heavy).clamp(max=0)))

    low, high = end, torch.maximum(end, distance) + 10.0
    level = log_tail(low) + torch.log1p(-uniform)
    for _ in range(60):
        middle = (low + high) / 2
        inside = log_tail(middle) > level
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (low + high) / 2

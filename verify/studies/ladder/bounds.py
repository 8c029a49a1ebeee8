"""Certified bounds: how far an output's law is from the target's at least, and at most, and on what evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from scipy.optimize import brentq
from scipy.special import rel_entr
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from distributions.path import Denoiser, PathLaw
from distributions.pooled import noises
from distributions.tape import Tape
from verify.checks.ks import distances
from verify.paths import link
from verify.residual import log_ratio
from verify.studies.ladder.chains import Definition, Heads

DELTA = 1e-6
"""Every bound holds with confidence 1 - DELTA: so small since a study has a hundred cells, and each may be flagged."""
LAST = 10
"""Steps at the clean end whose innovations have a sum of their own."""
NOISED = Definition(10, "middle")
"""On whose grid tokens are noised again for their score, and by whose kernels they are judged."""


# --- innovations -----------------------------------------------------------------------------------------------------
STATISTICS = ("last step", f"last {LAST} steps", "all steps", "length of the last", "length of all")


def innovations(path: Tensor, target: PathLaw, draft: PathLaw) -> Tensor:
    """Five statistics (rows, 5) of the target's own innovations along paths (rows, T + 1, d), each U(0, 1) if the paths
    have the target's law.

    Innovation e_t = (x_{t-1} - mean) / sd is then N(0, I) given the past, and so N(0, 1) along any direction that the
    past decides: here that of the draft's mean as seen from the target's, scaled, which is where a rule that leans to
    the draft moves its points. Sums of these over the last step, ten steps and all, and squared lengths (chi-square).
    """
    assert isinstance(target.kernel, Denoiser)
    white = noises(target.kernel, path)
    along = []
    for place in range(1, path.shape[-2]):
        ours, theirs = link(target, place, path), link(draft, place, path)
        apart = (theirs.mean - ours.mean) / ours.scale  # type: ignore[attr-defined]
        apart[..., 0] += (apart == 0).all(-1)
        along.append((white[..., place, :] * torch.nn.functional.normalize(apart, dim=-1)).sum(-1))
    steps = torch.stack(along, -1)
    sums = [
        steps[..., -count:].sum(-1) / math.sqrt(count) for count in (1, min(LAST, steps.shape[-1]), steps.shape[-1])
    ]
    square, dim = white.square().sum(-1), path.shape[-1]
    degrees = torch.tensor([dim, dim * path.shape[-2]]).to(square)
    lengths = torch.special.gammainc(degrees / 2, torch.stack((square[..., -1], square.sum(-1)), -1) / 2)
    return torch.cat([torch.special.ndtr(torch.stack(sums, -1)), lengths], -1)


@dataclass(frozen=True)
class Departure:
    """The largest Kolmogorov distance of m statistics from their law: ``found``, of ``n`` rows, and what it is at most
    at confidence 1 - DELTA, found + sqrt(ln(2 m / DELTA) / 2 n) (Massart 1990, a share for each). ``least`` is with a
    minus: above 0 the law is certainly another. ``name``: of the statistic that departs most.
    """

    found: float
    n: int
    room: float
    name: str

    @property
    def least(self) -> float:
        return max(0.0, self.found - self.room)

    @property
    def most(self) -> float:
        return min(1.0, self.found + self.room)


def departure(columns: Tensor, names: Sequence[str] = STATISTICS) -> Departure:
    """Of columns (n, m) that should be uniform."""
    gap, (rows, width) = distances(columns), columns.shape
    room = math.sqrt(math.log(2 * width / DELTA) / (2 * rows))
    return Departure(float(gap.max()), rows, room, names[int(gap.argmax())])


# --- the score -------------------------------------------------------------------------------------------------------
def score(token: Tensor, condition: Tensor, heads: Heads, draws: int, tape: Tape, rule: Definition = NOISED) -> Tensor:
    """How much likelier the target makes a token (rows, d) than the drafter, as far as a path can tell: (rows,).

    The token is noised again by the forward process on the grid of ``rule``, ``draws`` times; the score is the mean of
    log P / Q of these paths, the difference of the two models' evidence bounds. For exact reversals it is log p / q of
    the token (their forward kernels cancel). It is a function of the token and of independent noise: any event of it
    bounds TV.
    """
    grid, total = rule.schedule(str(token.device)), torch.zeros_like(token[:, 0])
    target, draft = (rule.paths(head, condition) for head in (heads.target, heads.drafter))
    for draw in range(draws):
        path = [token]
        for level in range(1, grid.steps + 1):
            eps = tape.normal(f"score.{draw}.{level}", token.shape)
            path.append(
                grid.signal[level] / grid.signal[level - 1] * path[-1] + grid.added(level, level - 1).sqrt() * eps
            )
        total = total + log_ratio(torch.stack(path[::-1], -2), target, draft)
    return total / draws


# --- total variation -------------------------------------------------------------------------------------------------
def interval(hits: int, n: int, delta: float) -> tuple[float, float]:
    """Clopper and Pearson's, each end at confidence 1 - ``delta``."""
    low, high = proportion_confint(hits, n, alpha=2 * delta, method="beta")
    return float(low), float(high)


def counted(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    """(hits, n) of an event in the second halves of two samples (n,): {t > c} or {t <= c}, whichever had the largest
    difference of frequencies, first sample over second, in the first halves.
    """
    early, late = zip(*(sample.tensor_split(2) for sample in (first, second)), strict=True)
    cuts = torch.cat(early).sort().values
    below = [torch.searchsorted(part.sort().values, cuts, right=True) / len(part) for part in early]
    gap = below[1] - below[0]
    cut, above = cuts[gap.abs().argmax()], bool(gap[gap.abs().argmax()] > 0)
    return [(int(((part > cut) == above).sum()), len(part)) for part in late]


def apart(first: Tensor, second: Tensor, delta: float) -> float:
    """A lower bound on the total variation of the laws of two samples, at confidence 1 - ``delta``: by the event that
    is ``counted``, with a Clopper-Pearson bound of half of ``delta`` for each sample.
    """
    ends = [interval(*hits, delta / 2) for hits in counted(first, second)]
    return max(0.0, ends[0][0] - ends[1][1])


def gap(first: Tensor, second: Tensor) -> float:
    """The same without a confidence: an estimate, without bias, of something that is at most TV."""
    (some, n), (others, m) = counted(first, second)
    return some / n - others / m


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores (n,) of the target's ``own`` tokens, of the ``drafted`` and of the ``emitted`` ones."""

    own: Tensor
    drafted: Tensor
    emitted: Tensor

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Of all parts."""
        return Scores(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(Scores)))


def least_bias(kept: int, rows: int, scores: Scores, zeros: int) -> tuple[float, str]:
    """The largest of three lower bounds on TV(output, target), a third of DELTA each.

    Excess (lemma L2): acceptance - (1 - TV), from below and from above, of the law that drafts are really drawn from.
    Event: of the scores of the emitted tokens and of the target's own. Atom: ``zeros`` of ``rows`` tokens are zero to
    the last bit, which no token of a continuous law is.
    """
    found = {
        "excess": interval(kept, rows, DELTA / 6)[0] - 1 + apart(scores.own, scores.drafted, DELTA / 6),
        "event": apart(scores.own, scores.emitted, DELTA / 3),
        "atom": interval(zeros, rows, DELTA / 3)[0] if zeros else 0.0,
    }
    how = max(found, key=lambda name: found[name])
    return (found[how], how) if found[how] > 0 else (0.0, "")


def mean_at_most(mean: float, rows: int, wide: float) -> float:
    """The upper end of the mean of ``rows`` values in [0, wide], at confidence 1 - DELTA: the largest u with
    rows KL(mean / wide, u / wide) <= ln(1 / DELTA), KL that of two coins (Hoeffding 1963, Theorem 1).
    """
    share = mean / wide

    def spare(end: float) -> float:
        coins = rel_entr(share, end) + rel_entr(1 - share, 1 - end)
        return float(rows * coins - math.log(1 / DELTA))

    return wide * brentq(spare, share, 1 - 1e-15) if share < 1 else wide

"""Whole vectors against the line: a rule in d dimensions must do what it does on the line, and nothing across it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.stats import beta
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.noise import Noise
from distributions.tape import Draw, GeneratorTape, ReplayError, ReplayTape
from verify.decode import parents
from verify.records import Draft, Outcome
from verify.verifier import Verifier

CLOSE = 1e-9
"""Standard deviations by which two outputs may differ through rounding and be called the same."""


@dataclass(frozen=True, eq=False)
class Noted:
    """A tape that keeps every draw beside the rows it was for."""

    source: GeneratorTape
    rows: Tensor
    draws: list[tuple[Draw, Tensor]] = field(default_factory=list)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return self._keep(site, "uniform", self.source.uniform(site, shape))

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        return self._keep(site, "normal", self.source.normal(site, shape))

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self.uniform(site, prob.shape) < prob

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        return -torch.log1p(-self.uniform(site, shape))

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        raise NotImplementedError(f"site {site!r} draws a categorical; a Gaussian rule has none")

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        raise NotImplementedError(f"site {site!r} draws noise; a Gaussian rule has none")

    def _keep(self, site: str, kind: str, value: Tensor) -> Tensor:
        self.draws.append((Draw(site, kind, value), self.rows))
        return value

    def __getitem__(self, rows: Tensor) -> Noted:
        return Noted(self.source, self.rows[rows], self.draws)


@dataclass(frozen=True, eq=False)
class Run:
    """One round of a rule on ``rows`` drafts, and the same round on the line.

    ``white`` (rows, d): the first token, whitened so that under the target it is N(0, I), the line first. ``kept``
    (rows,): whether it was drafted. ``same`` (rows,): whether the whole round is the lifted one. ``work`` (rows,): how
    often a residual was drawn. ``seconds``: of processor time, for the rule alone.
    """

    white: Tensor
    kept: Tensor
    same: Tensor
    work: Tensor
    seconds: float


def run(rule: Verifier, nodes: int, distance: float, dim: int, rows: int, seed: int) -> Run:
    """Draw ``rows`` rounds in ``dim`` dimensions, and repeat them on the line with the same draws.

    Scales and direction are generic. On the line every uniform is the same and every normal is projected, so that the
    repeated round has its law by ``line_law``. Its lift adds what lies across: the draft's where the draft was kept, or
    where the rule drew nothing more; else that of the last normal drawn. Neither is looked at by the line's round, so
    that it is N(0, I), and the lift has the law of the line times the target's across it. As often as the rule's round
    is its lift, it is a draw of the lift's law: TV to that law is at most the probability that they differ (the
    coupling inequality).
    """
    tape = GeneratorTape(seed)
    axis = torch.nn.functional.normalize(tape.normal("axis", (dim,)), dim=0)
    scale, start = 0.5 + tape.race("scale", (dim,)), tape.normal("start", (dim,))
    noise = tape.normal("draft", (rows, nodes, dim))
    shape = parents(rule, nodes)

    def laws(mean: Tensor, deviation: Tensor, shift: Tensor) -> tuple[Gaussian, Gaussian]:
        wide = (mean.expand(rows, nodes + 1, -1), deviation)
        return Gaussian(wide[0][:, :nodes], wide[1]), Gaussian(wide[0] + shift, wide[1])

    prior, target = laws(start, scale, distance * scale * axis)
    noted = Noted(tape, torch.arange(rows))
    begin = time.process_time()
    outcome = rule.verify(Draft(start + scale * noise, prior, shape), target, noted)
    seconds = time.process_time() - begin
    white = (outcome.value - start) / scale

    flat = [Draw(one.site, one.kind, one.value @ axis.unsqueeze(-1) if one.kind == "normal" else one.value)
            for one, _ in noted.draws]  # fmt: skip
    zero, unit = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    prior, target = laws(zero, unit, distance * unit)
    place = noise @ axis.unsqueeze(-1)
    siblings = bool((shape < 0).all())
    try:
        lifted = rule.verify(Draft(place, prior, shape), target, ReplayTape(flat))
        same = _same(outcome, lifted, white, lifted_across(lifted, noise, noted, axis, siblings), axis)
    except ReplayError:
        same = torch.zeros(rows, dtype=torch.bool)
    first = white[:, 0] - distance * axis
    kept = outcome.kept.any(1) if siblings else outcome.kept[:, 0]
    return Run(_along_first(first, axis), kept, same, work(noted, rows), seconds)


def lifted_across(lifted: Outcome, noise: Tensor, noted: Noted, axis: Tensor, siblings: bool) -> Tensor:
    """What the lift has across the line (rows, N + 1, d), token by token."""
    rows, nodes, dim = noise.shape
    across = torch.cat((noise, noise[:, -1:]), 1)
    every = torch.arange(rows)
    if siblings:
        across[:, 0] = noise[every, lifted.kept.long().argmax(1)]
    last = lifted.length - 1
    for draw, where in noted.draws:  # later draws of a row take the place of earlier ones
        if draw.kind == "normal" and draw.site.split(".")[0] in ("residual", "bonus"):
            across[where, last[where]] = draw.value.reshape(len(where), dim)
    return across - (across @ axis).unsqueeze(-1) * axis


def _same(outcome: Outcome, lifted: Outcome, white: Tensor, across: Tensor, axis: Tensor) -> Tensor:
    """Whether the rounds have one length, keep the same nodes and emit the same tokens."""
    alike = (outcome.length == lifted.length) & (outcome.kept == lifted.kept).all(1)
    gap = (white - (across + lifted.value * axis)).norm(dim=-1)
    counts = torch.arange(white.shape[1]) < outcome.length.unsqueeze(-1)
    near: Tensor = torch.where(counts, gap, 0.0).amax(1) < CLOSE * (1 + white.abs().amax((1, 2)))
    return alike & near


def _along_first(white: Tensor, axis: Tensor) -> Tensor:
    """Coordinates (rows, d) of which the first runs along the ``axis``: mirrored in the plane between it and e_1."""
    one = torch.zeros_like(axis)
    one[0] = 1.0
    normal = axis - one
    length = normal.norm()
    if float(length) < 1e-12:
        return white
    normal = normal / length
    turned: Tensor = white - 2 * (white @ normal).unsqueeze(-1) * normal
    return turned


def work(noted: Noted, rows: int) -> Tensor:
    """How often each row drew at the residual's site that it drew at most often."""
    counts: dict[str, Tensor] = {}
    for draw, where in noted.draws:
        if draw.site.startswith("residual"):
            counts.setdefault(draw.site, torch.zeros(rows, dtype=torch.float64))[where] += 1
    return torch.stack([*counts.values(), torch.zeros(rows, dtype=torch.float64)]).amax(0)


def clopper_pearson(count: int, rows: int, alpha: float) -> float:
    """The upper end, at confidence 1 - alpha, for a probability that was met ``count`` times in ``rows``.

    1 - alpha^(1/n), at most ln(1/alpha) / n, where it was never met.
    """
    return 1.0 if count >= rows else float(beta.ppf(1 - alpha, count + 1, rows - count))

"""A tape whose answers are given, so that a rule can be asked what it makes of every draft, coin and residual draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.noise import Noise
from verify.decode import parents
from verify.records import Draft, Outcome
from verify.verifier import Verifier

NEARLY_ONE = 1 - 2**-53


@dataclass(frozen=True, eq=False)
class Asked:
    """One draw that a rule asked for: its site, whether it is a ``uniform``, ``normal`` or ``coin``, a coin's chance
    (n,) and the rows (n,) it was asked for.
    """

    site: str
    kind: str
    rows: Tensor
    chance: Tensor


@dataclass(frozen=True, eq=False)
class Given:
    """Answers for ``rows``: ``accept`` (all, N) at the sites of that name, and elsewhere ``uniform`` (all,), ``normal``
    (all, turns) by how often its site was asked before, and coins that fail ``tails`` times before they succeed.
    """

    rows: Tensor
    accept: Tensor
    uniforms: Tensor
    normals: Tensor
    tails: int = 0
    asked: list[Asked] = field(default_factory=list)

    def _note(self, site: str, kind: str, chance: Tensor | None = None) -> int:
        before = sum(item.site == site and item.kind == kind for item in self.asked)
        empty = torch.zeros(0, dtype=torch.float64)
        self.asked.append(Asked(site, kind, self.rows, empty if chance is None else chance.flatten()))
        return before

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        self._note(site, "uniform")
        value = self.accept if site.startswith("accept") else self.uniforms
        return value[self.rows].reshape(tuple(shape))

    def coin(self, site: str, prob: Tensor) -> Tensor:
        turn = self._note(site, "coin", prob)
        if site.startswith("accept"):
            return self.accept[self.rows].reshape(prob.shape) < prob
        return torch.full(prob.shape, turn >= self.tails)

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        turn = self._note(site, "normal")
        column = self.normals[:, min(turn, self.normals.shape[1] - 1)][self.rows]
        return column.reshape(-1, *(1,) * (len(shape) - 1)).expand(tuple(shape))

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        raise NotImplementedError(f"site {site!r} draws a categorical; a Gaussian rule on the line has none")

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotImplementedError(f"site {site!r} draws a race; a Gaussian rule on the line has none")

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        raise NotImplementedError(f"site {site!r} draws noise; a Gaussian rule on the line has none")

    def __getitem__(self, rows: Tensor) -> Given:
        return Given(self.rows[rows], self.accept, self.uniforms, self.normals, self.tails, self.asked)


def ask(
    rule: Verifier,
    place: Tensor,
    distance: float,
    accept: Tensor | None = None,
    uniform: Tensor | None = None,
    normal: Tensor | None = None,
    tails: int = 0,
) -> tuple[Outcome, list[Asked]]:
    """``rule`` on drafts at ``place`` (rows, N) of N(0, 1), the target N(distance, 1), and what it asked for.

    What is left out: coins of acceptance that fail unless they are certain, uniforms 1/2, normals 0.
    """
    rows, nodes = place.shape
    draft = Draft(place.unsqueeze(-1), Gaussian(torch.zeros(rows, nodes, 1), torch.ones(1)), parents(rule, nodes))
    target = Gaussian(torch.full((rows, nodes + 1, 1), distance, dtype=torch.float64), torch.ones(1))
    real = torch.float64
    tape = Given(
        torch.arange(rows),
        torch.full((rows, nodes), NEARLY_ONE, dtype=real) if accept is None else accept,
        torch.full((rows,), 0.5, dtype=real) if uniform is None else uniform,
        torch.zeros(rows, 1, dtype=real) if normal is None else normal,
        tails,
    )
    return rule.verify(draft, target, tape), tape.asked

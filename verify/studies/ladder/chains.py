"""Drafts and targets of the ladder: a head's sampler as paths or as a flow, with evaluations remembered or counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from distributions.flow import FlowLaw
from distributions.heads import Head, Prediction
from distributions.law import Law
from distributions.path import VARIANCES, Denoiser, PathLaw
from distributions.schedule import Schedule, cosine
from distributions.tape import Tape
from verify.decode import policy
from verify.records import Draft
from verify.verifier import Verifier, catalog
from verify.verifiers.cspd_released import CspdReleased

LIMIT = 1000
"""Tries of a residual that has no limit of its own, and need not end; what is left at zero is counted."""


@dataclass(frozen=True)
class Definition:
    """A sampler: MAR's cosine chain of ``steps``, entered one step in; the ``variance`` of its kernels; their
    ``temperature``; and how many levels next to the clean one are left out (``cut``), so that the last step is longer.
    """

    steps: int
    variance: str
    temperature: float = 1.0
    cut: int = 0

    def schedule(self, device: str = "cpu") -> Schedule:
        grid = cosine(self.steps).one_step_in()
        kept = [0, *range(1 + self.cut, grid.steps + 1)]
        return Schedule(grid.signal[kept], grid.noise[kept]).to(device)

    def paths(self, head: Head, condition: Tensor) -> PathLaw:
        """The law of its paths, batch (*batch,), for ``condition`` (*batch, c), on the condition's device."""
        grid = self.schedule(str(condition.device))
        return PathLaw(Denoiser(head, grid, condition, self.temperature, fraction=VARIANCES[self.variance]))

    def law(self, head: Head, condition: Tensor, kind: str) -> Law:
        """Of paths, or for the ``kind`` flow of the deterministic sampler on the same grid, with its noise."""
        if kind == "path":
            return self.paths(head, condition)
        return FlowLaw(head, self.schedule(str(condition.device)), condition, with_noise=True)

    def __str__(self) -> str:
        more = [f"temperature {self.temperature:g}"] if self.temperature != 1 else []
        more += [f"last {self.cut} levels left out"] if self.cut else []
        return ", ".join([f"{self.steps} steps", self.variance, *more])


@dataclass(frozen=True, eq=False)
class Remembered:
    """A head that answers a question on all of its ``rows`` again without an evaluation, up to ``most`` a level.

    Rules that walk one draft ask the same questions: of the drafter at its own points, of the target at the draft's
    points and along one aligned chain. An answer is given where value and condition are equal bit for bit.
    """

    head: Head
    rows: int
    most: int = 3
    known: dict[Any, list[tuple[Tensor, Tensor, Prediction]]] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return self.head.dim

    @property
    def null(self) -> Tensor:
        return self.head.null

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        if len(value) != self.rows:
            return self.head(value, signal, noise, condition)
        past = self.known.setdefault((float(signal), float(noise), value.shape), [])
        for place, given, told in past:
            if torch.equal(place, value) and torch.equal(given, condition):
                return told
        told = self.head(value, signal, noise, condition)
        if len(past) < self.most:
            past.append((value.clone(), condition, told))
        return told


@dataclass(eq=False)
class Counted:
    """A head that counts the values it was asked about."""

    head: Head
    count: int = 0

    @property
    def dim(self) -> int:
        return self.head.dim

    @property
    def null(self) -> Tensor:
        return self.head.null

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        self.count += value.shape[:-1].numel()
        return self.head(value, signal, noise, condition)


@dataclass(frozen=True, eq=False)
class Heads:
    """The pair whose tokens are drafted and verified."""

    target: Head
    drafter: Head


def rungs() -> dict[str, Verifier]:
    """Every rule of the catalogue on paths or flows that judges a drafter's draft, and not the last round's carry;
    those with endless residuals limited to ``LIMIT`` tries.
    """
    kinds = {name: kind for name, kind in catalog().items() if not getattr(kind, "carries", False)}
    found = {name: kind() for name, kind in kinds.items() if kind.claim.laws in ("path", "flow")}
    return {name: limited(rule) for name, rule in found.items()}


def limited(rule: Verifier) -> Verifier:
    """The rule with at most ``LIMIT`` tries of a residual, where it says that it has no limit."""
    endless = any(item.name == "tries" for item in fields(rule)) and vars(rule)["tries"] is None  # type: ignore[arg-type]
    return replace(rule, tries=LIMIT) if endless else rule  # type: ignore[type-var]


def switches() -> Iterator[tuple[str, CspdReleased]]:
    """The published rule with one deviation of the released one, for each of its fields; and with all of them."""
    for item in fields(CspdReleased):
        yield item.name, CspdReleased.published(**{"tries": LIMIT, item.name: item.default})
    yield "all of them", CspdReleased()


def costly(rule: Verifier) -> bool:
    """Whether a rule differentiates its head, so that its work is no fixed number of evaluations."""
    return not hasattr(rule, "cost")


def drafted(rule: Verifier, definition: Definition, heads: Heads, condition: Tensor, tape: Tape) -> tuple[Draft, Law]:
    """One drafted token for each ``condition`` (rows, c), and the target's law before and after it: (rows, 2)."""
    kind, one = rule.claim.laws, condition.unsqueeze(1)
    law = definition.law(heads.drafter, one, kind)
    value = policy(rule)(law, condition.new_zeros(0)).sample(tape, "draft")
    return Draft.chain(value, law), definition.law(heads.target, one.expand(-1, 2, -1), kind)

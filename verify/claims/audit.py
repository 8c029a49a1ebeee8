"""The audit of a table: each speed-up against the bounds, two models of time against all of them, and what it means."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from verify.claims.bounds import Fit, Series, fit, least_alpha, speedup, tokens_at_most, tokens_per_call
from verify.claims.table import Figure
from verify.errors import SubjectError

MODELS = {
    "with_rollback": "with rollback, a the chance to pass one test",
    "kept_of_drafted": "with rollback, a kept among drafted",
    "without_rollback": "without rollback",
}
ROUNDING = 0.005
"""Half of the last digit that such tables print."""

IMPLIES = """
A lossless sampler that drops what follows a rejection cannot be faster than the tokens that one call of the target
emits, however cheap the drafter. (1 - a^(g+1)) / (1 - a) is that number where a is the probability of passing one test,
and tests are independent. A speed-up beyond it says that at least one of these is not so: the drafts after a rejection
are not dropped, a call of the target is cheaper than a step of the baseline, a and the speed-up were measured in
different settings, or a means something else. If a is kept among drafted, dropped drafts included, then 1 + g a is the
number of tokens itself, and only what exceeds that is impossible; if a varies from token to token, the mean of its
powers exceeds the power of its mean, and so does the true bound. A model without rollback that fits, and has no
acceptance in it, says that the times look like those of a program that keeps all it drafted; other programs may take
the same time, each series has a cost of its own to fit it with, and times say nothing of the law that is sampled.
Speed-ups below the bounds are no evidence of losslessness.
"""


@dataclass(frozen=True)
class Row:
    """One figure and its bounds: ``tokens`` per call with rollback, ``most`` of any single-draft scheme, ``paid`` the
    speed-up with rollback and the drafter's cost; None where the table lacks what it takes.
    """

    figure: Figure
    tokens: float
    most: float
    paid: float | None

    def exceeds(self, bound: float | None) -> bool:
        """Whether the speed-up is more than the bound."""
        return bound is not None and self.figure.speedup is not None and self.figure.speedup > bound

    def needed(self) -> float | None:
        """The least acceptance with which the speed-up is possible under rollback, if the drafter were free."""
        figure = self.figure
        return None if figure.speedup is None else least_alpha(figure.speedup, figure.gamma or math.inf)


@dataclass(frozen=True)
class Audit:
    """The rows of one table. ``prefilled``: the share of tokens before the first draft, if it is known."""

    name: str
    rows: tuple[Row, ...]
    prefilled: float | None = None

    @property
    def checked(self) -> tuple[Row, ...]:
        """The rows with a speed-up."""
        return tuple(row for row in self.rows if row.figure.speedup is not None)

    @property
    def beyond_rollback(self) -> int:
        """Speed-ups beyond the tokens of a call with rollback: impossible there even with a free drafter."""
        return sum(row.exceeds(row.tokens) for row in self.checked)

    @property
    def beyond_rounding(self) -> int:
        """The same if acceptance was rounded down and speed-up rounded up, by half a unit of the second decimal."""
        return sum(
            (row.figure.speedup or 0.0) - ROUNDING
            > tokens_per_call(min(1.0, _alpha(row.figure) + ROUNDING), row.figure.gamma or math.inf)
            for row in self.checked
        )

    @property
    def beyond_any(self) -> int:
        """Speed-ups beyond 1 + g a."""
        return sum(row.exceeds(row.most) for row in self.checked)

    @property
    def priced(self) -> tuple[Row, ...]:
        """The rows with a speed-up and a cost ratio."""
        return tuple(row for row in self.checked if row.paid is not None)

    @cached_property
    def without_rollback(self) -> Fit | None:
        """The model that keeps every draft; None unless some series has two draft lengths to be told apart by."""
        return self._fit(lambda alpha, gamma: gamma)

    @cached_property
    def with_rollback(self) -> Fit | None:
        """The model that drops what follows a rejection, its costs fitted as well; None without acceptances."""
        return self._fit(tokens_per_call) if all(row.figure.alpha is not None for row in self.checked) else None

    @cached_property
    def kept_of_drafted(self) -> Fit | None:
        """The same where a is read as kept among drafted, so that a call emits 1 + g a."""
        return self._fit(tokens_at_most) if all(row.figure.alpha is not None for row in self.checked) else None

    def _fit(self, emitted: Callable[[float, float], float]) -> Fit | None:
        groups: dict[tuple[str, ...], list[Figure]] = {}
        for row in self.checked:
            if row.figure.gamma is not None:
                groups.setdefault(row.figure.series, []).append(row.figure)
        if not any(len({item.gamma for item in group}) > 1 for group in groups.values()):
            return None
        series = []
        for group in groups.values():
            gammas, speeds = (np.array([getattr(item, key) for item in group]) for key in ("gamma", "speedup"))
            tokens = np.array([emitted(_alpha(item), item.gamma or math.inf) for item in group])
            series.append(Series(tokens, gammas, speeds))
        return fit(series, self.prefilled)

    def summary(self) -> tuple[str, ...]:
        """The last lines."""
        total = len(self.checked)
        if not total:
            return (f"{len(self.rows)} settings and no speed-up: the bounds are what any lossless scheme may reach",)
        share = "given" if self.prefilled is not None else "fitted"
        fits = [(name, getattr(self, key)) for key, name in MODELS.items()]
        lines = [
            f"the model {name}, {len(model.costs)} costs fitted, pre-filled share {model.prefilled:.2f} {share}: "
            f"within {100 * model.worst:.1f} % of all {len(model.errors)}"
            for name, model in fits
            if model is not None
        ]
        if self.priced:
            over = sum(row.exceeds(row.paid) for row in self.priced)
            lines.append(f"{over} of {len(self.priced)} speed-ups exceed the bound with the drafter's cost")
        lines += [
            f"{self.beyond_any} of {total} exceed 1 + g a, the bound of lossless schemes with one draft a position",
            f"{self.beyond_rounding} of {total} exceed the bound with a free drafter even if rounding favours them",
            f"{self.beyond_rollback} of {total} speed-ups exceed the bound with a free drafter",
        ]
        return tuple(lines)

    def data(self) -> dict[str, Any]:
        """Everything, as plain numbers; what is infinite or unknown is None."""
        rows = [
            {
                **dataclasses.asdict(row.figure),
                **{key: _finite(getattr(row, key)) for key in ("tokens", "most", "paid")},
                "exceeds": [key for key in ("tokens", "most", "paid") if row.exceeds(getattr(row, key))],
                "needed_alpha": row.needed(),
            }
            for row in self.rows
        ]
        counts = {key: getattr(self, key) for key in ("beyond_rollback", "beyond_rounding", "beyond_any")}
        fits = {
            key: None if (found := getattr(self, key)) is None else {**dataclasses.asdict(found), "worst": found.worst}
            for key in MODELS
        }
        return {"table": self.name, "speedups": len(self.checked), **counts, **fits, "rows": rows}

    def __str__(self) -> str:
        heads = ("row", "setting", "a", "g", "speed-up", "per call", "1 + g a", "with cost", "exceeds", "needs a")
        cells = [heads, *(_cells(row) for row in self.rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([self.name, "", *lines, "", textwrap.fill(IMPLIES.strip(), 120), "", *self.summary()])


def audit(name: str, found: Sequence[Figure], cost: float | None = None, prefilled: float | None = None) -> Audit:
    """Hold the figures against the bounds; ``cost`` and ``prefilled`` where the table does not say.

    Raises SubjectError where no figure has an acceptance or a draft length.
    """
    if cost is not None and not cost >= 0.0:
        raise SubjectError(f"a cost of {cost} is no ratio; give the drafter's step in steps of the target, as 0.1")
    if prefilled is not None and not 0.0 <= prefilled < 1.0:
        raise SubjectError(f"a pre-filled share of {prefilled} is no share; give a number from 0 to below 1, as 0.15")
    usable = [item for item in found if item.alpha is not None or item.gamma is not None]
    if not usable:
        raise SubjectError(f"no row of {name} has an acceptance or a draft length; fill in alpha or gamma")
    return Audit(name, tuple(_bounded(item, cost) for item in usable), prefilled)


def _alpha(figure: Figure) -> float:
    """The acceptance; where none is given, any is possible."""
    return 1.0 if figure.alpha is None else figure.alpha


def _bounded(figure: Figure, cost: float | None) -> Row:
    alpha, gamma = _alpha(figure), figure.gamma or math.inf
    price = cost if figure.cost is None else figure.cost
    tokens = tokens_per_call(alpha, gamma)
    paid = None if price is None or figure.gamma is None else speedup(tokens, gamma, price)
    return Row(figure, tokens, tokens_at_most(alpha, gamma), paid)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cells(row: Row) -> tuple[str, ...]:
    figure = row.figure
    names = {"per call": row.tokens, "1 + g a": row.most, "with cost": row.paid}
    over = ", ".join(name for name, bound in names.items() if row.exceeds(bound))
    needed = row.needed() if over else None

    def text(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return (
        str(figure.row),
        " ".join(filter(None, (figure.label, figure.setting))),
        text(figure.alpha),
        "" if figure.gamma is None else f"{figure.gamma:.0f}",
        text(figure.speedup),
        text(row.tokens, 3),
        text(row.most),
        text(row.paid, 3),
        over,
        text(needed),
    )

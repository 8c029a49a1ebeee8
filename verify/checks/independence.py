"""Proposal, coin and replacement must be independent of each other, within a row and from row to row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check
from verify.checks.products import legendre
from verify.checks.proposal import draft_uniforms
from verify.checks.residual_law import replacements
from verify.records import CheckClaim, Finding
from verify.statistics.scores import Scores, bernoulli, judged
from verify.statistics.trace import Trace, nothing

SPREAD = 12**0.5


@dataclass(frozen=True)
class ProductScores:
    """Sums of products that have mean 0 given one of their factors, over the nodes of chains whose coins were tossed,
    or over neighbouring rows of a call:

    coin (A - a) x the draft's first two Legendre polynomials, and x the acceptance of the node before; replacement,
    centred, x the refused draft's two, and x its acceptance; from row to row at the first node: coin x coin, draft x
    draft, coin x the next draft, draft x the next coin, replacement x the next row's (where both have one).
    """

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Scores:
        columns = draft_uniforms(sample, tape)
        chance = sample.acceptance(True)
        if columns is None or chance is None:
            empty = torch.zeros(len(NAMES), dtype=torch.float64)
            return Scores(0, empty, empty, empty)
        features = legendre(columns[..., :1].flatten(0, 1)).reshape(len(sample), sample.nodes, 2)
        before = torch.nn.functional.pad(chance[:, :-1], (1, 0), value=0.5) - 0.5
        weight = torch.cat((features, before.unsqueeze(-1)), -1)[sample.tossed]
        coins = bernoulli(len(sample), weight, sample.kept[sample.tossed], chance[sample.tossed])
        rest = _replaced(sample, features, chance, tape)
        return _joined(len(sample), coins, *rest, _neighbours(sample, features, chance))


NAMES = (
    "coin x draft",
    "coin x draft, degree 2",
    "coin x earlier acceptance",
    "replacement x draft",
    "replacement x draft, degree 2",
    "replacement x acceptance",
    "replacement x next replacement",
    "coin x next coin",
    "draft x next draft",
    "coin x next draft",
    "draft x next coin",
)


def _replaced(sample: Trace, features: Tensor, chance: Tensor, tape: Tape) -> tuple[Scores, Scores]:
    (rows, node), columns = replacements(sample, tape)
    if not columns.shape[1]:
        return _products(torch.zeros(0), torch.zeros(0, 3)), _products(torch.zeros(0), torch.zeros(0, 1))
    value = SPREAD * (columns[:, 0] - 0.5)
    weight = torch.cat((features[rows, node], chance[rows, node, None] - 0.5), 1)
    joined = (rows[1:] == rows[:-1] + 1) & (node[1:] == 0) & (node[:-1] == 0)
    joined &= sample.call[rows[1:]] == sample.call[rows[:-1]]
    return _products(value, weight), _products(value[1:][joined], value[:-1][joined].unsqueeze(1))


def _products(value: Tensor, weight: Tensor) -> Scores:
    """Of values with mean 0, variance 1 and no skewness, given their weights (k, m)."""
    square = (weight.double() ** 2).sum(0)
    return Scores(0, value.double() @ weight.double(), square, torch.zeros_like(square))


def _neighbours(sample: Trace, features: Tensor, chance: Tensor) -> Scores:
    joined = sample.call[1:] == sample.call[:-1]
    coin, spread = sample.kept[:, 0].double() - chance[:, 0], chance[:, 0] * (1 - chance[:, 0])
    draft = features[:, 0, 0]
    skew = spread * (1 - 2 * chance[:, 0])
    one, none = torch.ones_like(draft), torch.zeros_like(draft)
    pairs = (
        ((coin, spread, skew), (coin, spread, skew)),
        ((draft, one, none), (draft, one, none)),
        ((coin, spread, skew), (draft, one, none)),
        ((draft, one, none), (coin, spread, skew)),
    )
    sums = [[(first[:-1] * second[1:])[joined].sum() for first, second in zip(*pair, strict=True)] for pair in pairs]
    return Scores(0, *torch.tensor(sums, dtype=torch.float64).T)


def _joined(n: int, *parts: Scores) -> Scores:
    return Scores(n, *(torch.cat([getattr(part, name) for part in parts]) for name in ("total", "variance", "third")))


@dataclass(frozen=True)
class Independence(Check):
    """Eleven sums of products, Bonferroni. They are for rules that keep as often as possible: given the draft, such a
    rule's coin is a coin, and what replaces a refused draft forgets which draft it was.

    A coupling need not forget: reflection moves the draft itself, and is exact. ``fresh`` says that replacements are
    drawn afresh; without it the products of replacement and draft are left out.
    """

    fresh: bool = True
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="noise that is used twice: by draft and coin, by coin and replacement, by two nodes, by two rows",
        blind_to="every wrong law of one of them alone, and dependence between rows that are not neighbours",
    )

    @property
    def statistic(self) -> ProductScores:
        return ProductScores()

    def judge(self, tally: Scores, alpha: float) -> Finding:
        if not tally.n:
            return nothing("independence", "no chain whose draft has a distribution function", alpha)
        used = [k for k, name in enumerate(NAMES) if self.fresh or not name.startswith("replacement x")]
        scores = Scores(tally.n, *(part[used] for part in (tally.total, tally.variance, tally.third)))
        return judged("independence", [NAMES[k] for k in used], scores, alpha, metric="mean product of coin and draft")

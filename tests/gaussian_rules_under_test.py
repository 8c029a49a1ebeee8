"""What the tests of the Gaussian rules share: the rules, quadrature on the line, a tape of given answers, and pairs of
laws with tests of whole vectors whose false-alarm rates are stated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.noise import Noise
from distributions.tape import GeneratorTape
from verify.checks.chi_square import ChiSquare
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.products import Products
from verify.records import Draft, Outcome
from verify.spaces.gaussian_pairs import Pair
from verify.statistics.transform import Uniform
from verify.verifier import Verifier
from verify.verifiers.gaussian_block import GaussianBlock
from verify.verifiers.gaussian_k_seq import GaussianKSeq
from verify.verifiers.gaussian_recursive_rejection import GaussianRecursiveRejection
from verify.verifiers.gaussian_transport import GaussianTransport
from verify.verifiers.poisson_race import PoissonRace
from verify.verifiers.reflection import Reflection
from verify.verifiers.residual_coupling import ResidualCoupling

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

CHAINS = [Reflection(), ResidualCoupling(), PoissonRace(), GaussianBlock()]
SIBLINGS = [GaussianRecursiveRejection(), GaussianKSeq(), GaussianTransport()]
DISTANCES = [1e-3, 0.1, 0.5, 1.0, 3.0, 12.0]
NEARLY_ONE = 1 - 2**-53


def double(value: object) -> Tensor:
    """A float64 tensor."""
    return torch.as_tensor(value, dtype=torch.float64)


def normal(place: Tensor) -> Tensor:
    """phi."""
    return torch.exp(-place.square() / 2) / math.sqrt(2 * math.pi)


def named(rule: object) -> str:
    """The rule's name, for the parameters of a test."""
    return type(rule).__name__


def quadrature(function: Callable[[Tensor], Tensor], low: float, high: float, breaks: Sequence[float] = ()) -> Tensor:
    """The integral of a function that is analytic between ``breaks``: 24 Gauss-Legendre nodes to a panel of <= 1/2."""
    inner = sorted(item for item in breaks if low < item < high)
    ends = [low, *inner, high]
    edges = [np.linspace(a, b, math.ceil(2 * (b - a)) + 1) for a, b in itertools.pairwise(ends) if b > a]
    nodes, weights = np.polynomial.legendre.leggauss(24)
    left, right = (double(np.concatenate([edge[part] for edge in edges])) for part in (slice(None, -1), slice(1, None)))
    half = (right - left).unsqueeze(-1) / 2
    place = (right + left).unsqueeze(-1) / 2 + half * double(nodes)
    return (function(place.flatten()) * (half * double(weights)).flatten()).sum()


@dataclass(frozen=True, eq=False)
class Given:
    """A tape that answers uniforms with what it was given for the rows: by the start of the site, or nearly one."""

    rows: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        known = [value for name, value in self.values.items() if site.startswith(name)]
        value = known[0][self.rows] if known else torch.full((len(self.rows),), NEARLY_ONE, dtype=torch.float64)
        return value.reshape(*value.shape, *(1,) * (len(shape) - value.dim())).expand(tuple(shape))

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self.uniform(site, prob.shape) < prob

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        return torch.zeros(tuple(shape), dtype=torch.float64)

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        raise NotImplementedError

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        raise NotImplementedError

    def __getitem__(self, rows: Tensor) -> Given:
        return Given(self.rows[rows], self.values)


def on_the_line(rule: Verifier, place: Tensor, distance: float, **values: Tensor) -> Outcome:
    """``rule`` on drafts at ``place`` (rows, N) of N(0, 1), the target N(distance, 1): coins fail unless certain."""
    rows, nodes = place.shape
    prior = Gaussian(torch.zeros(rows, nodes, 1), torch.ones(1))
    target = Gaussian(torch.full((rows, nodes + 1, 1), distance, dtype=torch.float64), torch.ones(1))
    parent = rule.parent(nodes) if hasattr(rule, "parent") else torch.arange(nodes) - 1
    return rule.verify(Draft(place.unsqueeze(-1), prior, parent), target, Given(torch.arange(rows), values))


def chances(rule: Verifier, place: Tensor, distance: float) -> Tensor:
    """The probability (rows, N) that each node is kept, given its siblings' places, from ``log_accept``."""
    examined = on_the_line(rule, place, distance).log_accept.exp()
    return examined * torch.nn.functional.pad((1 - examined).cumprod(1)[:, :-1], (1, 0), value=1.0)


def rejected_places(rule: Verifier, distance: float, count: int, uniform: Tensor) -> Tensor:
    """Where the rule goes when every draft is refused, at these uniforms of its residual."""
    low = torch.full((len(uniform), count), -9.0, dtype=torch.float64) - 0.01 * torch.arange(count)
    outcome = on_the_line(rule, low, distance, residual=uniform)
    assert not bool(outcome.kept.any())
    return outcome.value[:, 0, 0]


def laws(dim: int, distance: float, full: bool) -> Pair:
    """A draft and a target ``distance`` apart in a generic direction, their covariance diagonal or full."""
    tape = GeneratorTape(100 * dim + full)
    start, direction = tape.normal("start", (dim,)), tape.normal("direction", (dim,))
    scale = 0.5 + tape.race("scale", (dim,))
    factor = torch.diag(scale) + (0.4 * tape.normal("below", (dim, dim))).tril(-1)
    factor = factor if full else torch.diag(scale)
    shift = distance * (factor @ (direction / direction.norm()))
    one, two = ((FullGaussian(at, factor) if full else Gaussian(at, scale)) for at in (start, start + shift))
    return Pair.of(f"{distance} apart", one, two)


def draw(rule: Verifier, pair: Pair, rows: int, nodes: int, seed: int = 0) -> tuple[Draft, Law, Outcome]:
    """One round of ``rule`` on iid nodes of a pair."""
    index = torch.zeros(rows, nodes + 1, dtype=torch.long)
    prior, target = pair.draft[None][index[:, :nodes]], pair.target[None][index]
    tape = GeneratorTape(seed)
    parent = rule.parent(nodes) if hasattr(rule, "parent") else torch.arange(nodes) - 1
    draft = Draft(prior.sample(tape, "draft"), prior, parent)
    return draft, target, rule.verify(draft, target, tape)


def p_values(pair: Pair, value: Tensor) -> list[float]:
    """Kolmogorov-Smirnov and chi-square along every axis of the frame and of both radii, and products of axes."""
    columns, tape = pair.columns(value), GeneratorTape()
    along = columns[:, : pair.dim]
    found = [check(columns, Uniform(columns.shape[-1]), 1e-9, tape) for check in (KolmogorovSmirnov(), ChiSquare(32))]
    found += [Products()(along, Uniform(pair.dim), 1e-9, tape)] if pair.dim > 1 else []
    return [float(item.p_value) for item in found if item.p_value is not None]


def across(pair: Pair, value: Tensor) -> Tensor:
    """The coordinates (n, dim - 1) across the mean difference, whitened: N(0, I) under draft and target."""
    white = torch.linalg.solve_triangular(pair.target.factor, (value - pair.target.mean).T, upper=False).T
    return (white @ pair.axes)[:, 1:]


def check_record(outcome: Outcome, siblings: bool) -> None:
    """Kept agrees with ``log_accept`` node by node, given that it was examined: false alarm 2e-9 a node."""
    before = outcome.kept.long().cumsum(1) - outcome.kept.long()
    for node in range(outcome.kept.shape[1]):
        examined = before[:, node] == (0 if siblings else node)
        chance = outcome.log_accept[examined, node].exp()
        gap = float((outcome.kept[examined, node].double() - chance).sum())
        assert abs(gap) <= 6 * math.sqrt(float((chance * (1 - chance)).sum())) + 1e-9
    assert bool((outcome.log_accept <= 0).all())
    if not siblings:
        assert not bool((outcome.kept[:, 1:] & ~outcome.kept[:, :-1]).any())

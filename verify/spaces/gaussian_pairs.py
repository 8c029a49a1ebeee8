"""Pairs of Gaussian laws to try a sampler on, and the columns in which its output must be uniform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from scipy.stats import chi2
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.special import gammainc, ndtr, ndtri

from distributions.gaussian import FullGaussian, Gaussian
from distributions.tape import GeneratorTape
from verify.statistics.witness import Interval

Side = Gaussian | FullGaussian


@dataclass(frozen=True, eq=False)
class Pair:
    """A draft's and a target's law, batch shape (), in ``dim`` dimensions. ``overlap`` is 1 - TV of the two.

    ``axes`` (dim, dim): orthonormal columns in the target's whitened space; the first is the direction of the mean
    difference, the next are those in which the covariances differ most.
    """

    name: str
    draft: Side
    target: Side
    overlap: float
    axes: Tensor

    @staticmethod
    def of(name: str, draft: Side, target: Side) -> Pair:
        whiten = torch.linalg.inv(target.factor)
        shift = whiten @ (draft.mean - target.mean)
        turn, spread, _ = torch.linalg.svd(whiten @ draft.factor)
        turn = turn[:, spread.log().abs().argsort(descending=True)]
        axes, _ = torch.linalg.qr(torch.cat((shift.unsqueeze(-1), turn), -1) if bool(shift.any()) else turn)
        axes = torch.ones(1, 1).double() if target.event_shape == (1,) else axes
        return Pair(name, draft, target, float(draft.overlap(target)), axes)

    @property
    def dim(self) -> int:
        return self.target.event_shape[0]

    @property
    def start(self) -> float:
        """The draft's mean along the first axis, in standard deviations from the target's; 0 where the means are equal,
        and where the covariances differ, so that the densities cross elsewhere than half-way.
        """
        if not torch.equal(self.draft.factor, self.target.factor):
            return 0.0
        shift = torch.linalg.solve_triangular(
            self.target.factor, (self.draft.mean - self.target.mean).unsqueeze(-1), upper=False
        )
        return float((shift.squeeze(-1) * self.axes[:, 0]).sum())

    def distributions(self, dtype: torch.dtype) -> tuple[Distribution, Distribution]:
        """New torch objects for the two laws, so that no call can alter those of another."""
        return _to_torch(self.draft, dtype), _to_torch(self.target, dtype)

    def columns(self, output: Tensor) -> Tensor:
        """(n, m), uniform under the target: the coordinates along ``axes``, the squared radius, and that of the
        coordinates orthogonal to the first (m = dim + 2; 1 on the line).
        """
        white = torch.linalg.solve_triangular(self.target.factor, (output.double() - self.target.mean).T, upper=False)
        along = white.T @ self.axes
        square = along.square()
        shells = (square, square[:, 1:]) if self.dim > 1 else ()
        radii = [gammainc(_real(0.5 * part.shape[-1]), 0.5 * part.sum(-1, keepdim=True)) for part in shells]
        return torch.cat((ndtr(along), *radii), -1)

    def coordinates(self, output: Tensor) -> Tensor:
        """(n, 3): the coordinates along the first two ``axes``, and the squared radius across the first; those that do
        not exist are 0. Rounded, since the last digits of one value depend on how it is computed.
        """
        white = torch.linalg.solve_triangular(self.target.factor, (output.double() - self.target.mean).T, upper=False).T
        along = white @ self.axes[:, :2]
        across = (white - along[:, :1] * self.axes[:, 0]).square().sum(-1, keepdim=True)
        side = torch.zeros(len(output), 2 - along.shape[1], dtype=torch.float64)
        return torch.cat((along, side, across), -1).round(decimals=9)

    def describe(self, column: int, where: Interval) -> tuple[str, str]:
        """An interval of a column in words, and as code that computes its event from ``y`` and ``target``."""
        lines: list[str] = []
        ends = torch.tensor((where.low, where.high), dtype=torch.float64)
        if self.dim == 1:
            label, value = "y", "y[:, 0]"
            bounds = (self.target.mean + self.target.factor[0] * ndtri(ends)).tolist()
        elif column < self.dim:
            label = "y along the mean difference, whitened," if column == 0 else f"y along whitened direction {column}"
            axes, frame = self.projections((column,))
            lines, value, bounds = [frame], f"(z @ {axes})[:, 0]", ndtri(ends).tolist()
        else:
            inner = column - self.dim
            label = "the squared whitened radius" + (" orthogonal to the mean difference" if inner else "")
            axes, frame = self.projections(range(inner, self.dim))
            lines, value = [frame], f"(z @ {axes}).square().sum(-1)"
            bounds = [float(chi2.ppf(end, self.dim - inner)) for end in ends.tolist()]
        low, high = bounds
        words = f"{label} lies {'in' if where.inside else 'outside'} ({low:.4g}, {high:.4g}]"
        if where.low == 0:
            words = f"{label} is {'at most' if where.inside else 'above'} {high:.4g}"
        elif where.high == 1:
            words = f"{label} is {'above' if where.inside else 'at most'} {low:.4g}"
        lines += [f"value = {value}", f"event = (value > {_code(low)}) & (value <= {_code(high)})"]
        return words, "\n".join([*lines, *([] if where.inside else ["event = ~event"])])

    def projections(self, columns: Sequence[int]) -> tuple[str, str]:
        """Code: the chosen axes as a tensor (dim, k), and a line that whitens ``y`` to ``z``."""
        axes = f"torch.tensor({_digits(self.axes[:, list(columns)])}, dtype=torch.float64)"
        if isinstance(self.target, FullGaussian):
            centred = "(y.double() - target.mean).T"
            return axes, f"z = torch.linalg.solve_triangular(target.scale_tril.double(), {centred}, upper=False).T"
        return axes, "z = (y.double() - target.mean) / target.stddev"

    def source(self, dtype: torch.dtype) -> str:
        """Code that constructs ``draft`` and ``target``."""
        return f"draft = {_source(self.draft, dtype)}\ntarget = {_source(self.target, dtype)}"


@cache
def pairs(dim: int, covariance: str) -> tuple[Pair, ...]:
    """The problems for ``dim`` dimensions, those that tell most first. ``covariance``: ``equal`` or ``any``."""
    tape = GeneratorTape(dim)

    def apart(name: str, delta: float, sigma: float, centre: float = 0.0) -> Pair:
        """Both sigma^2 I, the means ``delta`` sigmas apart in a random direction, the draft's ``centre`` from 0."""
        direction, offset = (_unit(tape.normal(f"{name}.{what}", (dim,))) for what in ("direction", "offset"))
        start, scale = centre * offset, torch.full((dim,), sigma).double()
        return Pair.of(name, Gaussian(start, scale), Gaussian(start + delta * sigma * direction, scale))

    found = [
        apart("means 1 sigma apart, sigma 0.7, off the origin", 1.0, 0.7, 1.5),
        apart("means 2 sigma apart", 2.0, 1.0),
        apart("means 0.5 sigma apart, sigma 3", 0.5, 3.0, 5.0),
        apart("means 6 sigma apart", 6.0, 1.0, 1.0),
        apart("means 0.1 sigma apart", 0.1, 1.0),
        apart("equal laws, sigma 1.5, off the origin", 0.0, 1.5, 2.0),
    ]
    if covariance == "equal":
        return tuple(found)
    zero, one = torch.zeros(dim).double(), torch.ones(dim).double()
    shift = _unit(tape.normal("shift", (dim,)))
    found[1:1] = [
        Pair.of("draft narrower, 0.8", Gaussian(zero, 0.8 * one), Gaussian(zero, one)),
        Pair.of("draft wider, 1.25, means apart", Gaussian(shift, 1.25 * one), Gaussian(2 * shift, one)),
    ]
    if dim > 1:
        scales = torch.linspace(0.6, 1.5, dim).double()
        first, second = _correlated(dim, 0.6), _correlated(dim, -0.3 / (dim - 1))
        found[3:3] = [
            Pair.of("one correlated covariance", FullGaussian(zero, first), FullGaussian(first @ shift, first)),
            Pair.of("two covariances, means apart", FullGaussian(shift, first), FullGaussian(zero, second)),
            Pair.of("scales by coordinate", Gaussian(shift, one), Gaussian(0.5 * shift, scales)),
        ]
    return tuple(found)


def _correlated(dim: int, rho: float) -> Tensor:
    factor: Tensor = torch.linalg.cholesky(torch.full((dim, dim), rho).double() + (1 - rho) * torch.eye(dim).double())
    return factor


def _unit(vector: Tensor) -> Tensor:
    length: Tensor = vector.norm()
    return vector / length


class _NoRows(Distribution):
    """torch fails to reshape the densities of no rows, and a sampler may well ask for them when it rejected none."""

    def log_prob(self, value: Tensor) -> Tensor:
        if value.shape[0:1] == (0,):
            return value.new_zeros(value.shape[:-1])
        density: Tensor = super().log_prob(value)
        return density


class _Independent(_NoRows, Independent):  # type: ignore[type-arg]
    pass


class _MultivariateNormal(_NoRows, MultivariateNormal):
    pass


def _to_torch(law: Side, dtype: torch.dtype) -> Distribution:
    if isinstance(law, FullGaussian):
        return _MultivariateNormal(law.mean.to(dtype, copy=True), scale_tril=law.scale_tril.to(dtype, copy=True))
    return _Independent(Normal(law.mean.to(dtype, copy=True), law.scale.to(dtype, copy=True)), 1)


def _source(law: Side, dtype: torch.dtype) -> str:
    mean = f"torch.tensor({_digits(law.mean)}, dtype={dtype})"
    if isinstance(law, FullGaussian):
        return f"MultivariateNormal({mean}, scale_tril=torch.tensor({_digits(law.scale_tril)}, dtype={dtype}))"
    return f"Independent(Normal({mean}, torch.tensor({_digits(law.scale)}, dtype={dtype})), 1)"


def _digits(values: Tensor) -> str:
    """Every digit: with rounded laws the snippet would show another problem."""
    return repr(values.tolist())


def _real(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _code(value: float) -> str:
    return repr(value) if math.isfinite(value) else f"float('{value}')"

"""Gaussian laws, diagonal and full, and the overlap of any two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions import imhof
from distributions.law import at, event_of, no_overlap, trusted
from distributions.normal import normal_between, normal_cdf
from distributions.tape import Tape


class _Normal:
    """What the two Gaussian laws share: event (d,), tokens that are their values, and the overlap."""

    mean: Tensor

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape[:-1])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.mean.shape[-1],)

    @property
    def factor(self) -> Tensor:
        """The lower Cholesky factor (*batch, d, d) of the covariance."""
        raise NotImplementedError

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        """1 - TV: 2 Phi(-Delta / 2) at equal covariances (Delta the Mahalanobis distance of the means), from the two
        crossing points of the densities in one dimension, and otherwise by quadrature to an absolute 1e-10.

        Raises TypeError for a law of another kind or dimension, ArithmeticError where the quadrature does not settle.
        """
        from distributions.mixture import Mixture  # a mixture is made of Gaussians: imported late

        if isinstance(other, Mixture):
            return other.overlap(self)
        if not isinstance(other, _Normal) or other.event_shape != self.event_shape:
            raise no_overlap(self, other)
        return _overlap(*_common_axes(self, other))


@dataclass(frozen=True, eq=False)
class Gaussian(_Normal):
    """N(mean, diag(scale^2)), with ``mean`` (*batch, d) and standard deviations ``scale``, broadcast against it.

    Raises ValueError for a scale that is not positive, parameters that are not finite, and shapes that do not match.
    """

    mean: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        mean, scale = self.mean.double(), self.scale.double()
        _check_mean(mean)
        if not bool(torch.isfinite(scale).all()) or not bool((scale > 0).all()):
            raise ValueError("scale must be positive and finite; give standard deviations")
        shape = _broadcast(mean.shape, scale.shape, mean.shape[-1])
        object.__setattr__(self, "mean", mean.expand(shape))
        object.__setattr__(self, "scale", scale.expand(shape))

    @property
    def factor(self) -> Tensor:
        return torch.diag_embed(self.scale)

    def sample(self, tape: Tape, site: str) -> Tensor:
        return self.mean + self.scale * tape.normal(site, self.mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        noise = (event_of(self, value) - self.mean) / self.scale
        return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(-1) - self.scale.log().sum(-1)

    def __getitem__(self, index: Any) -> Gaussian:
        return trusted(Gaussian, mean=at(self.mean, index, 1), scale=at(self.scale, index, 1))


@dataclass(frozen=True, eq=False)
class FullGaussian(_Normal):
    """N(mean, L L^T), with ``mean`` (*batch, d) and ``scale_tril`` L (*batch, d, d), broadcast against each other.

    Raises ValueError for a factor that is not lower triangular with a positive diagonal, parameters that are not
    finite, and shapes that do not match.
    """

    mean: Tensor
    scale_tril: Tensor

    def __post_init__(self) -> None:
        mean, factor = self.mean.double(), self.scale_tril.double()
        _check_mean(mean)
        dim = mean.shape[-1]
        if tuple(factor.shape[-2:]) != (dim, dim):
            raise ValueError(f"scale_tril {tuple(factor.shape)} must be ({dim}, {dim}) where the mean has size {dim}")
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        if not bool(torch.isfinite(factor).all()) or not bool((diagonal > 0).all()) or bool(factor.triu(1).any()):
            raise ValueError("scale_tril must be finite and lower triangular with a positive diagonal; use cholesky()")
        shape = _broadcast(mean.shape, factor.shape[:-1], dim)
        object.__setattr__(self, "mean", mean.expand(shape))
        object.__setattr__(self, "scale_tril", factor.expand(*shape, dim))

    @property
    def factor(self) -> Tensor:
        return self.scale_tril

    def sample(self, tape: Tape, site: str) -> Tensor:
        noise = tape.normal(site, self.mean.shape)
        return self.mean + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        centred = (event_of(self, value) - self.mean).unsqueeze(-1)
        noise: Tensor = torch.linalg.solve_triangular(self.scale_tril, centred, upper=False).squeeze(-1)
        volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(-1) - volume

    def __getitem__(self, index: Any) -> FullGaussian:
        return trusted(FullGaussian, mean=at(self.mean, index, 1), scale_tril=at(self.scale_tril, index, 2))


def _check_mean(mean: Tensor) -> None:
    if mean.dim() == 0:
        raise ValueError("mean must end in an event axis (d,); give a tensor of shape (1,) for a law on the line")
    if not bool(torch.isfinite(mean).all()):
        raise ValueError("mean must be finite; replace the infinite or missing entries")


def _broadcast(mean: torch.Size, scale: torch.Size, dim: int) -> tuple[int, ...]:
    try:
        shape = np.broadcast_shapes(mean, scale)
    except ValueError:
        shape = ()
    if not shape or shape[-1] != dim:
        raise ValueError(f"mean {tuple(mean)} and scale {tuple(scale)} do not match; give one scale to each coordinate")
    return shape


def _common_axes(first: _Normal, second: _Normal) -> tuple[Tensor, Tensor]:
    """Coordinates where the second law is N(0, I) and the first N(shift, diag(exp(stretch))); (*batch, d) both."""
    if isinstance(first, Gaussian) and isinstance(second, Gaussian):
        return (first.mean - second.mean) / second.scale, 2 * (first.scale / second.scale).log()
    apart = (first.mean - second.mean).unsqueeze(-1)
    shift = torch.linalg.solve_triangular(second.factor, apart, upper=False)
    factor = torch.linalg.solve_triangular(second.factor, first.factor, upper=False)
    turn, spread, _ = torch.linalg.svd(factor)  # keeps the digits that squaring into a covariance would lose
    return (turn.mT @ shift).squeeze(-1), 2 * spread.log()


def _overlap(shift: Tensor, stretch: Tensor) -> Tensor:
    batch = np.broadcast_shapes(shift.shape, stretch.shape)
    shift, stretch = shift.expand(batch), stretch.expand(batch)
    if shift.shape[-1] == 1:
        return _overlap_line(shift.squeeze(-1), stretch.squeeze(-1))
    result: Tensor = 2 * normal_cdf(-0.5 * torch.linalg.vector_norm(shift, dim=-1))
    unequal = (stretch.abs() > 1e-12).any(-1)  # below it the closed form is in error by less than d * 1e-12
    if bool(unequal.any()):
        result[unequal] = imhof.overlap(shift[unequal], stretch[unequal])
    return result


def _overlap_line(shift: Tensor, stretch: Tensor) -> Tensor:
    """N(shift, exp(stretch)) against N(0, 1), from the roots of the log-ratio, a quadratic in the value."""
    square, slope = -0.5 * torch.expm1(-stretch), shift * (-stretch).exp()
    level = -0.5 * (stretch + shift * slope)
    # The discriminant slope^2 - 4 square level, written as a sum of two terms that are never negative.
    root = (shift * slope + 2 * square * stretch).sqrt()
    pivot = -0.5 * (slope + torch.where(slope < 0, -root, root))
    ends = torch.stack((pivot / square, level / pivot))
    low, high = ends.amin(0), ends.amax(0)
    spread = (0.5 * stretch).exp()
    above, below = (high - shift) / spread, (low - shift) / spread
    wider = normal_between(below, above) + normal_cdf(low) + normal_cdf(-high)
    narrower = normal_between(low, high) + normal_cdf(below) + normal_cdf(-above)
    return torch.where(stretch == 0, 2 * normal_cdf(-0.5 * shift.abs()), torch.where(stretch > 0, wider, narrower))

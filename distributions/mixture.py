"""Mixtures of Gaussians, and their overlap on the line and in the plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.crossings import REACH, Line, shared
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import at, event_of, no_overlap, trusted
from distributions.tape import Tape

CELL_ERROR = 1e-10
"""Error allowed to one strip of the plane in an overlap."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Sum over k of weight_k times component k: ``weights`` (*batch, K), normalised on construction, ``components`` a
    Gaussian or FullGaussian of batch (*batch, K).

    Raises ValueError for weights that are no probabilities, and for components of another batch shape.
    """

    weights: Tensor
    components: Gaussian | FullGaussian

    def __post_init__(self) -> None:
        weights = self.weights.double()
        total = weights.sum(-1, keepdim=True)
        if not bool(torch.isfinite(total).all()) or bool((weights < 0).any()) or not bool((total > 0).all()):
            raise ValueError("weights must be finite and non-negative with a positive sum in every row")
        if self.components.batch_shape != tuple(weights.shape):
            raise ValueError(
                f"components of batch {self.components.batch_shape} do not match weights {tuple(weights.shape)}; "
                "give one component to each weight"
            )
        object.__setattr__(self, "weights", weights / total)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.weights.shape[:-1])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.components.event_shape

    def sample(self, tape: Tape, site: str) -> Tensor:
        chosen = tape.categorical(f"{site}.component", self.weights)
        places = [torch.arange(size, device=chosen.device) for size in self.batch_shape]
        grid = torch.meshgrid(*places, indexing="ij") if places else ()
        return self.components[(*grid, chosen)].sample(tape, f"{site}.value")

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.components.log_prob(event_of(self, value).unsqueeze(-2))
        return torch.logsumexp(self.weights.log() + each, -1)

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        """1 - TV with another mixture or Gaussian: on the line from the crossing points of the densities, to 1e-10; in
        the plane by quadrature over such lines, to 1e-8. Raises TypeError for other laws and beyond the plane,
        ArithmeticError where the quadrature does not settle.
        """
        if isinstance(other, (Gaussian, FullGaussian)):
            other = Mixture(torch.ones(*other.batch_shape, 1).to(other.mean), other[..., None])
        if not isinstance(other, Mixture) or other.event_shape != self.event_shape or self.event_shape[0] > 2:
            raise no_overlap(self, other)
        shape = np.broadcast_shapes(self.batch_shape, other.batch_shape)
        pair = _flat(self, shape), _flat(other, shape)
        flat = _plane(*pair) if self.event_shape[0] == 2 else shared(_line(pair[0]), _line(pair[1]), 400)
        return flat.clamp(0.0, 1.0).reshape(shape)

    def __getitem__(self, index: Any) -> Mixture:
        grown = index if isinstance(index, tuple) else (index,)
        grown = grown if any(item is Ellipsis for item in grown) else (*grown, ...)
        return trusted(Mixture, weights=at(self.weights, index, 1), components=self.components[(*grown, slice(None))])


def _flat(law: Mixture, shape: tuple[int, ...]) -> Mixture:
    """The law with its batch broadcast to ``shape`` and laid out in rows."""
    count = law.weights.shape[-1]
    dim = law.event_shape[0]
    factor = law.components.factor.expand(*shape, count, dim, dim).reshape(-1, count, dim, dim)
    mean = law.components.mean.expand(*shape, count, dim).reshape(-1, count, dim)
    return Mixture(law.weights.expand(*shape, count).reshape(-1, count), FullGaussian(mean, factor))


def _line(law: Mixture, across: Tensor | None = None) -> Line:
    """The density along the last coordinate: of a law on the line, or of one in the plane at first coordinates
    ``across`` (rows, G), one row for each, by the conditional laws that a Cholesky factor spells out.
    """
    mean, factor = law.components.mean, law.components.factor
    if across is None:
        return Line(law.weights.log(), mean[..., 0], factor[..., 0, 0])
    weights, mean, factor = law.weights.unsqueeze(1), mean.unsqueeze(1), factor.unsqueeze(1)
    noise = (across.unsqueeze(-1) - mean[..., 0]) / factor[..., 0, 0]
    first = weights.log() - 0.5 * noise.square() - factor[..., 0, 0].log() - 0.5 * math.log(2 * math.pi)
    second = mean[..., 1] + factor[..., 1, 0] * noise
    return Line(*(part.flatten(0, 1) for part in (first, second, factor[..., 1, 1].expand_as(first))))


def _plane(first: Mixture, second: Mixture) -> Tensor:
    """int min(first, second) in the plane: the lines' integrals, exact, over the first coordinate by quadrature.

    Cells are halved until the halves agree with the whole to ``CELL_ERROR``, which settles the places where crossing
    points are born. Raises ArithmeticError where they do not settle.
    """
    reach = torch.linspace(-REACH, REACH, 17, dtype=torch.float64).to(first.weights)
    mean = torch.cat([law.components.mean[..., 0] for law in (first, second)], -1)
    scale = torch.cat([law.components.factor[..., 0, 0] for law in (first, second)], -1)
    edges = (mean.unsqueeze(-1) + scale.unsqueeze(-1) * reach).flatten(1).sort(-1).values
    row = torch.arange(len(mean), device=mean.device).repeat_interleave(edges.shape[1] - 1)
    low, high = edges[:, :-1].flatten(), edges[:, 1:].flatten()
    whole, total = _cells(first, second, row, low, high), mean.new_zeros(len(mean))
    for _ in range(40):
        middle = 0.5 * (low + high)
        left, right = _cells(first, second, row, low, middle), _cells(first, second, row, middle, high)
        open_ = (left + right - whole).abs() > CELL_ERROR
        total.index_add_(0, row[~open_], (left + right)[~open_])
        if not bool(open_.any()):
            return total
        row, whole = row[open_].repeat(2), torch.cat((left[open_], right[open_]))
        low, high = torch.cat((low[open_], middle[open_])), torch.cat((middle[open_], high[open_]))
    raise ArithmeticError("the overlap's quadrature did not settle; estimate it by sampling instead")


def _cells(first: Mixture, second: Mixture, row: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """int min(first, second) over the strips low < x_1 < high of the given rows, by the rule of Clenshaw and Curtis.

    The rule looks at both ends of a strip; an open one never sees a crossing born between an end and its first node.
    """
    place = np.cos(np.pi * np.arange(11) / 10)
    node = torch.as_tensor(place).to(low)
    weight = torch.as_tensor(np.linalg.solve(np.polynomial.legendre.legvander(place, 10).T, 2 * np.eye(11)[0])).to(low)
    half, found = 0.5 * (high - low).unsqueeze(-1), []
    size = 1 + 10_000 // (first.weights.shape[-1] + second.weights.shape[-1]) ** 2  # strips that fit in memory at once
    for start in range(0, len(row), size):
        part = slice(start, start + size)
        across = low[part].unsqueeze(-1) + half[part] * (1 + node)
        lines = [_line(law[row[part]], across) for law in (first, second)]
        found.append(half[part].squeeze(-1) * (shared(lines[0], lines[1], 24).reshape(across.shape) @ weight))
    return torch.cat(found)

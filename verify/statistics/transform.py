"""The probability integral transform: samples of any law with known conditionals become independent uniforms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.special import erfc, ndtri

from distributions.categorical import Categorical
from distributions.flow import FlowLaw
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.model import Model
from distributions.normal import normal_cdf
from distributions.path import PathLaw
from distributions.reversal import Posterior
from distributions.tape import Tape

Truth = Law | Model[Any]
"""A law, of batch shape () or one for each row, or a model, whose sequences are transformed token by token."""
TINY = torch.finfo(torch.float64).tiny
"""The smallest mass of a tail: 0 has no side."""
BLOCK = 1 << 16
"""Numbers transformed at once, so that they stay in the cache."""
SAME = 1e-5
"""Relative error within which a deterministic step of a sampler, done again, gives the same (heads may be float32)."""


@dataclass(frozen=True, eq=False)
class Uniform:
    """Independent uniforms on [0, 1): event (size,), one law for all rows. What a transformed sample is tested with."""

    size: int = 1

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.size,)

    def sample(self, tape: Tape, site: str) -> Tensor:
        return tape.uniform(site, (self.size,))

    def log_prob(self, value: Tensor) -> Tensor:
        inside = ((value >= 0) & (value < 1)).all(-1)
        return torch.where(inside, 0.0, -torch.inf).double()

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        if not isinstance(other, Uniform) or other.size != self.size:
            raise TypeError(f"no overlap of Uniform({self.size}) and {type(other).__name__}; compare equal sizes")
        return torch.ones((), dtype=torch.float64)

    def __getitem__(self, index: Any) -> Uniform:
        return self


def uniforms(sample: Tensor, truth: Truth, tape: Tape) -> Tensor:
    """Columns (n, m), each uniform on [0, 1] and independent of the others when row i of ``sample`` follows ``truth``.

    Rosenblatt (Annals of Mathematical Statistics 23, 1952): u_j = F(x_j | x_1 .. x_{j-1}).

    - Gaussian, FullGaussian: the coordinates, whitened by the Cholesky factor. Mixture: F(x_j | x_<j) is the mean of
      its components' under their posterior weights given x_<j.
    - Categorical: randomised within each atom, u = F(x-) + V P(x), V from the tape.
    - PathLaw: the start, then every step given the point before (the innovations). A last step without noise is an
      atom: V where x_0 is the mean of the last kernel, else 0 or 1.
    - FlowLaw: the noise that the token comes from, where the map can be inverted; with_noise, the noise, and x_0 as an
      atom that holds all the mass.
    - A Model: ``sample`` (n, T, *event) are its sequences, each token is transformed by its law given those before.
    - Uniform: the sample is transformed already.

    Raises TypeError for a law whose conditional distribution functions are not known, and ArithmeticError where no
    noise of a flow leads to a value.
    """
    found = tails(sample, truth, tape)
    return found + (found < 0).double()


def tails(sample: Tensor, truth: Truth, tape: Tape) -> Tensor:
    """The same columns with the digits of both tails: u where u is below one half, u - 1, never 0, where it is not."""
    return _columns(sample, truth, tape, TAILS).flatten(1)


def scores(sample: Tensor, truth: Truth, tape: Tape) -> Tensor:
    """The same columns as normal scores Phi^-1(u), independent N(0, 1) under the truth; finite in either tail."""
    return _columns(sample, truth, tape, SCORES).flatten(1)


def blocks(
    form: Callable[[Tensor, Truth, Tape], Tensor], sample: Tensor, truth: Truth, tape: Tape
) -> Iterator[tuple[slice, Tensor]]:
    """``form``, one of the three above, of some rows after others: as many at once as the cache holds."""
    width = max(1, math.prod(sample.shape[1:]))
    size = max(1, BLOCK // width)
    shared = getattr(truth, "batch_shape", ()) == ()
    for start in range(0, max(1, len(sample)), size):
        rows = slice(start, min(start + size, len(sample)))
        yield rows, form(sample[rows], truth if shared else truth[rows], tape)  # type: ignore[index]


def laws(sample: Tensor, truth: Truth) -> Law:
    """The truth as a law: a model's, of each token of ``sample`` (n, T, *event) given those before it, batch (n, T)."""
    if isinstance(truth, Model):
        return truth.law(truth.start(len(sample)), sample[:, :-1])
    return truth


@dataclass(frozen=True)
class _Form:
    """What becomes of a column that is N(0, 1) under the truth, and of one known by the masses of both its tails."""

    normal: Callable[[Tensor], Tensor]
    masses: Callable[[Tensor, Tensor], Tensor]


def normal_tails(score: Tensor) -> Tensor:
    """The signed tails of columns that are N(0, 1) under the truth."""
    mass = erfc(score.abs().mul_(math.sqrt(0.5))).mul_(0.5).clamp_(min=TINY)
    signed: Tensor = mass.copysign_(score).neg_()
    return signed


def signed_tails(lower: Tensor, upper: Tensor) -> Tensor:
    """The signed tails of columns whose masses below and above are given."""
    return torch.where(lower < upper, lower.clamp(min=TINY), -upper.clamp(min=TINY))


def _scores(lower: Tensor, upper: Tensor) -> Tensor:
    score = ndtri(torch.minimum(lower, upper).clamp(min=TINY))
    return torch.where(lower < upper, score, -score)


TAILS = _Form(normal_tails, signed_tails)
SCORES = _Form(lambda score: score, _scores)


def _columns(sample: Tensor, truth: Truth, tape: Tape, form: _Form) -> Tensor:
    """Columns (*batch, m) of values (*batch, *event)."""
    if isinstance(truth, Uniform):
        level = sample.double().reshape(len(sample), truth.size)
        return form.masses(level, 1.0 - level)
    if isinstance(truth, Gaussian):
        return form.normal((sample.double() - truth.mean) / truth.scale)
    if isinstance(truth, FullGaussian):
        return form.normal(_whitened(sample.double() - truth.mean, truth.scale_tril))
    if isinstance(truth, Mixture):
        return form.masses(*_mixed(sample.double(), truth))
    if isinstance(truth, Categorical):
        return form.masses(*_atom(sample, truth, tape))
    if isinstance(truth, PathLaw):
        return _path(sample.double(), truth, tape, form)
    if isinstance(truth, FlowLaw):
        return _flow(sample.double(), truth, tape, form)
    if isinstance(truth, Model):
        return _columns(sample, laws(sample, truth), tape, form)
    raise TypeError(f"no distribution function is known for {type(truth).__name__}; use a two-sample check such as mmd")


def _whitened(centred: Tensor, factor: Tensor) -> Tensor:
    if factor.dim() == centred.dim():  # the rows share their factors: one system, the rows its right-hand sides
        together: Tensor = torch.linalg.solve_triangular(factor, centred.movedim(0, -1), upper=False)
        return together.movedim(-1, 0)
    white: Tensor = torch.linalg.solve_triangular(factor, centred.unsqueeze(-1), upper=False).squeeze(-1)
    return white


def _mixed(value: Tensor, law: Mixture) -> tuple[Tensor, Tensor]:
    """Both tails of x_j given x_<j: a component's share is its weight times its density of x_<j."""
    parts, factor = law.components, law.components.factor
    white = _whitened(value.unsqueeze(-2) - parts.mean, factor)
    log_weights = law.log_weights if isinstance(law, Posterior) else law.weights.log()
    each = -0.5 * white.square() - factor.diagonal(dim1=-2, dim2=-1).log()
    share = (log_weights.unsqueeze(-1) + each.cumsum(-1) - each).softmax(-2)
    return (share * normal_cdf(white)).sum(-2), (share * normal_cdf(-white)).sum(-2)


def _atom(sample: Tensor, law: Categorical, tape: Tape) -> tuple[Tensor, Tensor]:
    probs = law.probs.expand(*sample.shape, -1)
    token = sample.clamp(0, probs.shape[-1] - 1).unsqueeze(-1)
    mass = probs.gather(-1, token)
    above = law.probs.cumsum(-1).expand(probs.shape).gather(-1, token)
    level = above - mass * (1.0 - tape.uniform("transform.atom", mass.shape))
    level = torch.where(token == sample.unsqueeze(-1), level, (sample >= 0).double().unsqueeze(-1)).clamp(0.0, 1.0)
    return level, 1.0 - level


def _path(value: Tensor, law: PathLaw, tape: Tape, form: _Form) -> Tensor:
    kernel, found = law.kernel, [_columns(value[..., 0, :], law.kernel.start(), tape, form)]
    for time in range(kernel.steps, 0, -1):
        place = kernel.steps - time
        step, after = kernel.step(time, value[..., place, :]), value[..., place + 1, :]
        certain = time == 1 and not law.last_noise
        found.append(_certain(after, step.mean, tape, form) if certain else _columns(after, step, tape, form))  # type: ignore[attr-defined]
    return torch.cat(found, -1)


def _flow(value: Tensor, law: FlowLaw, tape: Tape, form: _Form) -> Tensor:
    if law.with_noise:
        noise, end = value[..., 0, :], value[..., 1, :]
        certain = _certain(end, law.transport(noise), tape, form)
        return torch.cat((_columns(noise, law.start(), tape, form), certain), -1)
    ends = law.invert(value)
    if not bool(ends.found.all()):
        raise ArithmeticError(
            f"no noise leads to {int((~ends.found).sum())} of {ends.found.numel()} values; judge samples that keep "
            "their noise (with_noise), or use a two-sample check"
        )
    return _columns(ends.noise, law.start(), tape, form)


def _certain(value: Tensor, wanted: Tensor, tape: Tape, form: _Form) -> Tensor:
    """A law of one atom, by the randomised transform."""
    there = (value - wanted).abs() <= SAME * (1.0 + wanted.abs())
    level = torch.where(there, tape.uniform("transform.atom", value.shape), (value > wanted).double())
    return form.masses(level, 1.0 - level)

"""What is measured: data whose law is known, chains on them, and the distances of paths and of their ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import ExactHead, Head
from distributions.mixture import Mixture
from distributions.path import VARIANCES, Denoiser, Kernel, PathLaw
from distributions.reversal import Reversal
from distributions.schedule import Schedule, cosine, exploding, straight
from distributions.tape import GeneratorTape
from verify.residual import log_ratio
from verify.studies.path_ratio.chains import Interval, Mistaken, Wavy, accepted, distances, grid
from verify.studies.path_ratio.line import marginal, shared
from verify.study import Row

Data = FullGaussian | Mixture
STEPS = {"quick": (2, 5, 10, 25, 50, 100, 200), "thorough": (2, 3, 5, 7, 10, 15, 25, 35, 50, 70, 100, 140, 200)}
PATHS = {"quick": 4_000, "thorough": 40_000}
ERRORS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Of the predicted noise, whose standard deviation is 1."""
FIXED = 50
"""The steps at which errors are varied."""
ERROR = 0.05
"""The error at which steps are varied."""
SAID = {name: part for name, part in VARIANCES.items() if part is not None}
"""The variances that need no head to learn them."""
EXACT = "exact posterior"
SLACK = 1e-10
"""What the identity is held to, beside the rounding of the densities that are subtracted."""


@dataclass(frozen=True)
class Gap:
    """The distance of two chains as paths, with its interval, and of their ends."""

    paths: Interval
    end: float

    @property
    def size(self) -> Interval:
        return self.paths[0] - self.end, self.paths[1] - self.end, self.paths[2] - self.end

    @staticmethod
    def known(paths: float, end: float) -> Gap:
        return Gap((paths, paths, paths), end)


Swept = Mapping[str, Mapping[float, Gap]]
"""By the name of a line: what was found at each number of steps, or each error."""


def plane(which: int) -> FullGaussian:
    """Two Gaussians in the plane, of unequal means and covariances, at total variation .41."""
    mean = ((0.3, -0.2), (-0.2, 0.3))[which]
    covariance = (((1.0, 0.3), (0.3, 0.5)), ((0.8, 0.2), (0.2, 0.6)))[which]
    return FullGaussian(torch.tensor(mean), torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64)))


def wide(which: int) -> FullGaussian:
    """Two Gaussians in 16 dimensions."""
    tape = GeneratorTape(50 + which)
    mixed = tape.normal("factor", (16, 32)) / 32**0.5 + 0.5 * torch.eye(16, 32)
    return FullGaussian(0.2 * tape.normal("mean", (16,)), torch.linalg.cholesky(mixed @ mixed.T))


def line(which: int) -> Mixture:
    """Two mixtures of three Gaussians on the line."""
    mean, weights = ((-1.1, 0.2, 1.3), (-1.0, 0.2, 1.3))[which], ((0.5, 0.3, 0.2), (0.35, 0.3, 0.35))[which]
    scale = torch.tensor([[0.35], [0.25], [0.4]])
    return Mixture(torch.tensor(weights), Gaussian(torch.tensor(mean).unsqueeze(-1), scale))


def ring(which: int) -> Mixture:
    """Two rings of five Gaussians, of sd .2 and .23, one of them turned by .05 and weighted otherwise."""
    place = torch.arange(5, dtype=torch.float64) * (torch.pi / 2.5) + 0.05 * which
    mean = 1.3 * torch.stack((place.cos(), place.sin()), -1)
    weights = 1 + 0.3 * which * place.cos()
    return Mixture(weights, Gaussian(mean, torch.full((5, 2), (0.2, 0.23)[which])))


DATA: Mapping[str, Callable[[int], Data]] = {
    "Gaussian, d = 2": plane,
    "Gaussian, d = 16": wide,
    "three Gaussians on the line": line,
    "ring of five in the plane": ring,
}
SCHEDULES: Mapping[str, Schedule] = {
    "cosine, 10 steps": cosine(10),
    "cosine, 100 steps": cosine(100),
    "exploding, 18 steps": exploding(),
    "straight, 25 steps": straight(),
}


@cache
def head(data: Callable[[int], Data], which: int) -> ExactHead:
    """The exact head of unconditional data."""
    law = data(which)
    whole = law if isinstance(law, Mixture) else Mixture(torch.ones(1), law[None])
    return ExactHead(lambda condition: whole, torch.zeros(1, dtype=torch.float64))


def denoiser(head: Head, schedule: Schedule, fraction: float, rows: int | None = None) -> Denoiser:
    """The ancestral sampler of an unconditional head; a batch of ``rows`` copies, or a single one."""
    shape = (1,) if rows is None else (rows, 1)
    return Denoiser(head, schedule, torch.zeros(shape, dtype=torch.float64), fraction=fraction)


def copies(law: Data, rows: int) -> Data:
    """A batch of one law."""
    if isinstance(law, FullGaussian):
        return FullGaussian(law.mean.expand(rows, -1), law.scale_tril)
    parts = law.components
    assert isinstance(parts, Gaussian)
    spread = Gaussian(parts.mean.expand(rows, *parts.mean.shape), parts.scale)
    return Mixture(law.weights.expand(rows, -1), spread)


# --- the identity ----------------------------------------------------------------------------------------------------
def identity(rows: int, seed: Iterator[int]) -> Iterator[Row]:
    """For exact reversals of one schedule: the path ratio beside the ratio of the data, on drafted paths.

    Raises ArithmeticError where the two differ by more than rounding: the theorem, or the code, would be wrong.
    """
    most = {name: float(data(0).overlap(data(1))) for name, data in DATA.items()}
    for (name, data), (grid_name, schedule) in ((d, s) for d in DATA.items() for s in SCHEDULES.items()):
        laws = data(0), data(1)
        target, draft = PathLaw(Reversal(laws[0], schedule)), PathLaw(Reversal(copies(laws[1], rows), schedule))
        path = draft.sample(GeneratorTape(next(seed)), "path")
        token = target.token(path)
        ratio = log_ratio(path, target, draft)
        off = (ratio - laws[0].log_prob(token) + laws[1].log_prob(token)).abs()
        rounding = 1e-14 * float(target.log_prob(path).abs().max())
        if float(off.max()) > SLACK + rounding:
            raise ArithmeticError(f"{name}, {grid_name}: path and data ratio differ by {float(off.max()):.2g}")
        kept = ratio.clamp(max=0).exp()
        half = 1.96 * float(kept.std()) / len(kept) ** 0.5
        row: Row = {"data": name, "schedule": grid_name, "largest difference of log-ratios": float(off.max())}
        closed = (
            {}
            if isinstance(laws[0], Mixture)
            else {"TV of paths": distances(*(Reversal(x, schedule) for x in laws))[0]}
        )
        yield {**row, "paths accepted": float(kept.mean()), "±": half, **closed, "TV of the data": 1 - most[name]}


# --- what opens a gap ------------------------------------------------------------------------------------------------
def gaussian_by_steps(steps: tuple[int, ...]) -> Swept:
    """Two data laws, by the variance of the kernels; closed form."""
    found: dict[str, dict[float, Gap]] = {}
    for count in steps:
        schedule = grid(count)
        pairs: dict[str, tuple[Kernel, Kernel]] = {EXACT: (Reversal(plane(0), schedule), Reversal(plane(1), schedule))}
        for name, fraction in SAID.items():
            pairs[name] = (denoiser(head(plane, 0), schedule, fraction), denoiser(head(plane, 1), schedule, fraction))
        for name, pair in pairs.items():
            found.setdefault(name, {})[count] = Gap.known(*distances(*pair))
    return found


def gaussian_errors(steps: tuple[int, ...]) -> tuple[Swept, Swept]:
    """One data law, a drafter wrong in its mean or in its variance, by error and by steps; closed form."""

    def wrong(name: str, count: int, error: float) -> Gap:
        schedule = grid(count)
        right = Reversal(plane(0), schedule)
        if name == "noise":
            return Gap.known(*distances(right, Mistaken(right, schedule, error)))
        if name == "clean value":
            moved = ExactHead(head(plane, 0).data, head(plane, 0).null, error / 10)
            return Gap.known(*distances(denoiser(head(plane, 0), schedule, 0.5), denoiser(moved, schedule, 0.5)))
        return Gap.known(*distances(*(denoiser(head(plane, 0), schedule, part) for part in (0.5, 0.5 + error))))

    kinds = ("noise", "clean value", "variance")
    return (
        {name: {error: wrong(name, FIXED, error) for error in ERRORS} for name in kinds},
        {name: {count: wrong(name, count, ERROR) for count in steps} for name in kinds},
    )


def line_gap(first: tuple[Head, float], second: tuple[Head, float], steps: int, rows: int, seed: int) -> Gap:
    """Two Denoisers on the line: paths by sampling, ends by quadrature."""
    schedule = grid(steps)
    target, draft = (denoiser(head, schedule, fraction) for head, fraction in (first, second))
    middle, low, high = accepted(PathLaw(target), PathLaw(denoiser(*second[:1], schedule, second[1], rows)), seed)
    return Gap((1 - middle, 1 - high, 1 - low), 1 - shared(marginal(target), marginal(draft)))


def line_by_steps(steps: tuple[int, ...], rows: int, seed: Iterator[int]) -> Swept:
    """Two mixtures, by the variance of the kernels."""
    return {
        name: {
            count: line_gap((head(line, 0), part), (head(line, 1), part), count, rows, next(seed)) for count in steps
        }
        for name, part in SAID.items()
    }


def line_errors(steps: tuple[int, ...], rows: int, seed: Iterator[int]) -> tuple[Swept, Swept]:
    """One mixture, a drafter whose predicted noise is wrong by a smooth random function, by error and by steps."""

    def wrong(count: int, error: float) -> Gap:
        return line_gap((head(line, 0), 1.0), (Wavy(head(line, 0), error), 1.0), count, rows, next(seed))

    name = "noise, smooth random"
    by_steps: dict[float, Gap] = {count: wrong(count, ERROR) for count in steps if count > 2}
    return {name: {error: wrong(FIXED, error) for error in ERRORS}}, {name: by_steps}


def slope(found: Mapping[float, Gap]) -> float:
    """The power of the number of steps with which the gap falls between the middle and the last of them."""
    count = sorted(found)
    near, far = count[len(count) // 2], count[-1]
    sizes: Tensor = torch.tensor([found[near].size[0], found[far].size[0]], dtype=torch.float64)
    return float((sizes[0] / sizes[1]).log() / torch.tensor(far / near).log())

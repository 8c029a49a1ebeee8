"""What is measured: sampler definitions, how far their tokens are from the data, and what verifiers accept of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.special import ndtr

from distributions.datasets import CONDITION, Data, conditions, datasets
from distributions.flow import FlowLaw
from distributions.gaussian import Gaussian
from distributions.heads import ExactHead, Head
from distributions.path import VARIANCES, Denoiser, PathLaw
from distributions.schedule import Schedule, cosine
from distributions.tape import GeneratorTape, Tape
from distributions.training import Trained, pretrained
from verify.estimates import Estimate, estimate
from verify.gaussian.maximal import maximal
from verify.paths import follow
from verify.residual import log_ratio
from verify.verifiers.flow_exact import balance

FLOW = "none"
"""The variance of a deterministic sampler."""
RULES = ("whole_path", "coalescing")
"""Of paths; of flows there is one."""
STEPS = (10, 25, 50, 100)
STARTS = ("full noise", "one step in")
CONDITIONS = 4
GROUPS = 10
"""Of the samples of a condition, for the jackknife."""
PLACES = 600
"""Of the grid on which two distribution functions are compared."""


@dataclass(frozen=True)
class Size:
    """Samples of each condition, drafts that are verified, and the steps at which flows are."""

    samples: int
    drafts: int
    flows: int
    flow_steps: tuple[int, ...]


SIZES: Mapping[str, Mapping[str, Size]] = {
    "quick": {"ring": Size(1000, 500, 200, (10, 25)), "low_rank": Size(300, 250, 0, ())},
    "thorough": {"ring": Size(10_000, 6000, 1000, (10, 25, 50)), "low_rank": Size(5000, 4000, 400, (10, 25))},
}


@dataclass(frozen=True)
class Definition:
    """What a sampler is, beside its head: number of steps, where it starts, the variance of its kernels, and whether
    the last one adds noise.
    """

    steps: int
    start: str
    variance: str
    last_noise: bool = True

    @property
    def schedule(self) -> Schedule:
        full = cosine(self.steps)
        return full if self.start == STARTS[0] else full.one_step_in()

    def law(self, head: Head, condition: Tensor) -> PathLaw:
        """The law of its paths, batch (*batch,), for ``condition`` (*batch, c)."""
        kernel = Denoiser(head, self.schedule, condition, fraction=VARIANCES[self.variance])
        return PathLaw(kernel, self.last_noise)

    def __str__(self) -> str:
        last = "" if self.last_noise else ", no noise last"
        return f"{self.steps} steps, {self.start}, {self.variance}{last}"


@dataclass(frozen=True)
class Cell:
    """A definition on a data set: its distance to the data, and the acceptance of each verifier that can read it."""

    data: str
    definition: Definition
    distance: Estimate
    accepted: Mapping[str, Estimate]


def definitions() -> list[Definition]:
    """Every one with a density, steps outermost."""
    return [Definition(steps, start, name) for steps in STEPS for start in STARTS for name in VARIANCES]


# --- quality ---------------------------------------------------------------------------------------------------------
@cache
def directions(dim: int) -> Tensor:
    """Unit vectors (16, d): evenly spread over the half circle in the plane, else drawn once."""
    if dim == 2:
        angle = torch.arange(16, dtype=torch.float64) * (math.pi / 16)
        return torch.stack((angle.cos(), angle.sin()), -1)
    return torch.nn.functional.normalize(GeneratorTape(dim).normal("direction", (16, dim)), dim=-1)


@dataclass(frozen=True, eq=False)
class Ruler:
    """Sliced Wasserstein distances to the data under some conditions: for each direction and condition the integral of
    |F_n - F|, F_n the distribution function of n projected samples and F that of the projected mixture, known; the mean
    over directions and conditions.

    It is positive for samples of the data too: ``floor`` is what an exact sample of the same size has. Standard errors
    by the jackknife over ``GROUPS`` groups of each condition's samples.
    """

    data: Data
    condition: Tensor

    def __call__(self, value: Tensor) -> Estimate:
        """Of samples (conditions, n, d), n a multiple of ``GROUPS``."""
        found = torch.zeros(1 + GROUPS, dtype=torch.float64)
        for law, sample in zip((self.data(part) for part in self.condition), value, strict=True):
            axes = directions(sample.shape[-1])
            mean = law.components.mean @ axes.T
            spread = (law.components.factor.mT @ axes.T).square().sum(-2).sqrt()
            low, high = (mean - 8 * spread).amin(0), (mean + 8 * spread).amax(0)
            place = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * torch.linspace(0, 1, PLACES).double()
            truth = (law.weights * ndtr((place.unsqueeze(-1) - mean.T.unsqueeze(1)) / spread.T.unsqueeze(1))).sum(-1)
            along = (sample @ axes.T).reshape(GROUPS, -1, len(axes)).transpose(1, 2).contiguous().sort(-1).values
            below = torch.searchsorted(along, place.expand(GROUPS, -1, -1).contiguous(), right=True).double()
            whole = below.sum(0)
            every = torch.cat((whole.unsqueeze(0) / len(sample), (whole - below) / (len(sample) * (1 - 1 / GROUPS))))
            inside = torch.trapezoid((every - truth).abs(), place, dim=-1)
            # Beyond the grid the data have nothing, and a sample's own distance to it is all that counts.
            beyond = ((along - high.unsqueeze(-1)).clamp(min=0) + (low.unsqueeze(-1) - along).clamp(min=0)).mean(-1)
            outside = torch.cat((beyond.mean(0, keepdim=True), (beyond.sum(0) - beyond) / (GROUPS - 1)))
            found += (inside + outside).mean(-1) / len(value)
        left = found[1:]
        error = math.sqrt((GROUPS - 1) / GROUPS * float((left - left.mean()).square().sum()))
        return float(found[0]), error

    def floor(self, size: int, tape: Tape) -> Estimate:
        """The same of exact samples, ``size`` for each condition."""
        rows = self.condition.repeat_interleave(size, 0)
        return self(self.data(rows).sample(tape, "exact").reshape(len(self.condition), size, -1))


# --- acceptance ------------------------------------------------------------------------------------------------------
def accepted(pair: Trained, definition: Definition, rows: int, tape: Tape) -> dict[str, Estimate]:
    """Acceptance of whole paths, E[min(1, P / Q)], and of the coalescing coupling, E[min(1, p(x_0 | x_1) / q(x_0 |
    x_1))] at its end, on the same drafts: both means of probabilities, so that no coin adds to the error.
    """
    condition = conditions(tape, rows)
    target, draft = (definition.law(head, condition) for head in (pair.target, pair.drafter))
    path = draft.sample(tape, "draft")
    beside = follow(path, draft, target, maximal, tape)
    last = log_ratio(path[..., -1, :], beside.target, beside.draft)
    whole = log_ratio(path, target, draft)
    return {name: estimate(ratio.clamp(max=0).exp()) for name, ratio in zip(RULES, (whole, last), strict=True)}


def measured(name: str, size: Size, seed: Iterator[int]) -> Iterator[Cell]:
    """Every definition on one data set; those without noise last on the same paths, where nothing is accepted."""
    pair = pretrained(name)
    nothing = dict.fromkeys(RULES, (0.0, 0.0))
    for definition in definitions():
        tape = GeneratorTape(next(seed))
        noisy, quiet = qualities(pair.target, pair.data, definition, size, tape)
        yield Cell(name, definition, noisy, accepted(pair, definition, size.drafts, tape))
        yield Cell(name, replace(definition, last_noise=False), quiet, nothing)


def exact(name: str, size: Size, seed: Iterator[int]) -> Iterator[Cell]:
    """The same definitions of a head that is never wrong: what is left is the definition's own error."""
    data = datasets()[name]
    head = ExactHead(data, torch.zeros(CONDITION, dtype=torch.float64))
    for definition in definitions():
        if VARIANCES[definition.variance] is not None:
            noisy, quiet = qualities(head, data, definition, size, GeneratorTape(next(seed)))
            yield Cell(f"{name}, exact head", definition, noisy, {})
            yield Cell(f"{name}, exact head", replace(definition, last_noise=False), quiet, {})


def qualities(head: Head, data: Data, definition: Definition, size: Size, tape: Tape) -> tuple[Estimate, Estimate]:
    """The distance to the data of tokens with noise last, and of the means of the same last steps."""
    ruler = Ruler(data, conditions(GeneratorTape(0), CONDITIONS))
    law = definition.law(head, ruler.condition.repeat_interleave(size.samples, 0))
    path = law.sample(tape, "sample")
    last = law.kernel.step(1, path[..., -2, :])
    assert isinstance(last, Gaussian)
    noisy, quiet = (ruler(part.reshape(CONDITIONS, size.samples, -1)) for part in (law.token(path), last.mean))
    return noisy, quiet


def flows(name: str, size: Size, seed: Iterator[int]) -> Iterator[Cell]:
    """Deterministic samplers of the same heads, and the rule on their exact densities."""
    pair = pretrained(name, dtype=torch.float64)
    ruler = Ruler(pair.data, conditions(GeneratorTape(0), CONDITIONS))
    rows = ruler.condition.repeat_interleave(size.samples, 0)
    for steps in size.flow_steps:
        for start in STARTS:
            definition, tape = Definition(steps, start, FLOW, last_noise=False), GeneratorTape(next(seed))
            value = FlowLaw(pair.target, definition.schedule, rows).sample(tape, "sample")
            condition = conditions(tape, size.flows)
            draft, target = (
                FlowLaw(head, definition.schedule, condition, with_noise=True) for head in (pair.drafter, pair.target)
            )
            found = balance(draft, target, tape)
            yield Cell(
                name, definition, ruler(value.reshape(CONDITIONS, size.samples, -1)), {"flow_exact": found.ahead}
            )


def floors(names: Mapping[str, Size], seed: Iterator[int]) -> dict[str, Estimate]:
    """The distance of exact samples, by data set."""
    found = {}
    for name, size in names.items():
        ruler = Ruler(datasets()[name], conditions(GeneratorTape(0), CONDITIONS))
        found[name] = ruler.floor(size.samples, GeneratorTape(next(seed)))
    return found

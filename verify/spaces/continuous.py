"""The rules of the catalogue on continuous laws, judged as functions of a draft, or by the first token of a round."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distributions.flow import FlowLaw
from distributions.gaussian import Gaussian
from distributions.heads import ExactHead
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.path import Denoiser, PathLaw
from distributions.schedule import Schedule
from distributions.tape import GeneratorTape
from verify.continuous_references import continuous_references
from verify.decode import parents, policy
from verify.records import Defect, Draft, Verdict
from verify.sampler import judge_sampler
from verify.spaces.gaussian import Budget, judge_gaussian
from verify.spaces.gaussian_rules import Function, single
from verify.verifier import Verifier

DIM, NODES = 2, 2
SIGNAL = torch.tensor([1.0, 0.8, 0.3], dtype=torch.float64)
GRID = Schedule(SIGNAL, (1 - SIGNAL.square()).sqrt())
"""Two steps, so long that the last one adds noise enough to keep something."""
ROWS, SHARD = 1 << 16, 1 << 12
"""Of a rule, and of a call, however long they take: a slow machine says the same as a fast one."""
EPSILON = 0.05
"""The bound, in Kolmogorov's distance, that is enough."""


def judged(name: str, verifier: Verifier, *, seed: int = 0, rows: int = ROWS) -> Verdict:
    """One verdict, in seconds: a rule for one Gaussian draft is called as a foreign function is; any other is judged by
    the first token of a round, against its known law. Nothing is timed: the seed decides every digit.
    """
    torch.set_num_threads(1)
    defect: Defect | None = getattr(verifier, "defect", None)
    covariance = "any" if defect is not None and defect.covariance == "unequal" else "equal"
    if verifier.claim.laws == "gaussian" and single(verifier):
        limits = Budget(rows, float("inf"))
        verdict = judge_gaussian(Function(verifier), dim=DIM, covariance=covariance, budget=limits, seed=seed)
    else:
        first = FirstToken(verifier)
        most = (rows, float("inf"))
        verdict = judge_sampler(first, first.truth, epsilon=EPSILON, budget=most, seed=seed, shard=SHARD)
    return replace(verdict, subject=name)


@dataclass(frozen=True, eq=False)
class FirstToken:
    """A sampler: ``rows`` first tokens of a round of ``verifier``, given a seed."""

    verifier: Verifier

    def __call__(self, rows: int, seed: int) -> Tensor:
        tape = GeneratorTape(seed)
        prior, target = self._laws
        nodes = NODES if not single(self.verifier) else 1
        index = torch.zeros(rows, nodes + 1, dtype=torch.long)
        law = prior[None][index[:, :nodes]]
        value = policy(self.verifier)(law, torch.zeros(0)).sample(tape, "draft")
        after = target[None][index]
        outcome = self.verifier.verify(Draft(value, law, parents(self.verifier, nodes)), after, tape)
        return after.token(outcome.value)[:, 0]

    @property
    def __name__(self) -> str:
        return type(self.verifier).__name__

    @property
    def truth(self) -> Gaussian:
        """The law of the target's token."""
        target = self._laws[1]
        if isinstance(target, PathLaw):
            return token_of_chain(target)
        if isinstance(target, FlowLaw):
            return token_of_flow(target)
        assert isinstance(target, Gaussian)
        return target

    @property
    def _laws(self) -> tuple[Law, Law]:
        kind = self.verifier.claim.laws
        if kind == "gaussian":
            pair = continuous_references()["A"]
            return pair.draft, pair.target
        if kind == "flow":
            return flow(0.0, 0.9), flow(0.25, 0.7)
        return chain(0.0, 1.0, 1.0), chain(0.2, 1.0, 0.0)


def head(shift: float, scale: float) -> ExactHead:
    """The exact head of data N(shift, scale^2 I)."""

    def data(condition: Tensor) -> Mixture:
        mean = torch.full((*condition.shape[:-1], 1, DIM), shift, dtype=torch.float64)
        return Mixture(torch.ones(mean.shape[:-1]), Gaussian(mean, torch.full((DIM,), scale).double()))

    return ExactHead(data, torch.zeros(1, dtype=torch.float64))


def chain(shift: float, scale: float, fraction: float) -> PathLaw:
    """Ancestral sampling of these data, with variances at a ``fraction`` of their range."""
    return PathLaw(Denoiser(head(shift, scale), GRID, torch.zeros(1).double(), fraction=fraction))


def flow(shift: float, scale: float) -> FlowLaw:
    """The deterministic sampler of these data."""
    return FlowLaw(head(shift, scale), GRID, torch.zeros(1).double(), with_noise=True)


def token_of_chain(law: PathLaw) -> Gaussian:
    """The law of x_0 where every kernel is N(a + b x_t, v) with numbers b and v: a and b are read off at 0 and 1."""
    start = law.kernel.start()
    assert isinstance(start, Gaussian)
    mean, variance = start.mean, start.scale.square()
    zero, one = torch.zeros(DIM).double(), torch.ones(DIM).double()
    for time in range(law.kernel.steps, 0, -1):
        low, high = law.kernel.step(time, zero), law.kernel.step(time, one)
        assert isinstance(low, Gaussian) and isinstance(high, Gaussian)
        slope = high.mean - low.mean
        mean, variance = low.mean + slope * mean, slope.square() * variance + low.scale.square()
    return Gaussian(mean, variance.sqrt())


def token_of_flow(law: FlowLaw) -> Gaussian:
    """The law of x_0 = a + b x_T."""
    low, high = (law.forward(torch.full((DIM,), place).double()).value for place in (0.0, 1.0))
    level = torch.hypot(law.schedule.signal[-1], law.schedule.noise[-1])
    return Gaussian(low, (high - low).abs() * level)

"""Path laws: exact reversals against the forward process, linear chains against one joint Gaussian, and the ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import ExactHead, Prediction
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.path import Denoiser, Kernel, PathLaw
from distributions.reversal import Reversal
from distributions.schedule import Schedule, cosine, exploding, straight
from distributions.tape import GeneratorTape, RecordingTape, ReplayTape

torch.set_num_threads(1)
SCHEDULES = {
    "cosine": cosine(6),
    "exploding": exploding(5),
    "straight": straight(4),
    "one step in": cosine(6).one_step_in(),
}


def full(dim: int, seed: int) -> FullGaussian:
    tape = GeneratorTape(seed)
    mixed = tape.normal("factor", (dim, dim)) / math.sqrt(dim)
    covariance = mixed @ mixed.T + 0.1 * torch.eye(dim)
    return FullGaussian(tape.normal("mean", (dim,)), torch.linalg.cholesky(covariance))


def mixture(dim: int, seed: int, parts: int = 3) -> Mixture:
    laws = [full(dim, 10 * seed + part) for part in range(parts)]
    components = FullGaussian(torch.stack([law.mean for law in laws]), torch.stack([law.scale_tril for law in laws]))
    return Mixture(1.0 + torch.arange(parts), components)


def affine(kernel: Kernel, time: int) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix, the shift and the covariance of a step that is linear and Gaussian, read off at unit vectors."""
    points = torch.cat((torch.zeros(1, kernel.dim), torch.eye(kernel.dim))).double()
    law = kernel.step(time, points)
    assert isinstance(law, (Gaussian, FullGaussian))
    shift = law.mean[0]
    return (law.mean[1:] - shift).T, shift, law.factor[0] @ law.factor[0].T


def joint(kernel: Kernel) -> FullGaussian:
    """The law of (x_T, ..., x_0) laid out as one vector: the recursion of means and of factors, one block row a step.

    The factor and not the covariance, whose condition number is the square of the ratio of the two end levels.
    """
    dim, count = kernel.dim, kernel.steps + 1
    start = kernel.start()
    assert isinstance(start, (Gaussian, FullGaussian))
    mean, factor = torch.zeros(count * dim).double(), torch.zeros(count * dim, count * dim).double()
    mean[:dim], factor[:dim, :dim] = start.mean, start.factor
    for place in range(1, count):
        matrix, shift, own = affine(kernel, kernel.steps - place + 1)
        old, new = slice((place - 1) * dim, place * dim), slice(place * dim, (place + 1) * dim)
        mean[new] = matrix @ mean[old] + shift
        factor[new] = matrix @ factor[old]
        factor[new, new] = torch.linalg.cholesky(own)
    return FullGaussian(mean, factor)


def forward_log_prob(data: Law, schedule: Schedule, path: Tensor) -> Tensor:
    """log p(x_0) + sum over t of log N(x_t; ratio x_{t-1}, added I): the path read from the clean end."""
    value = path.flip(-2)
    total = data.log_prob(value[..., 0, :])
    for time in range(1, schedule.steps + 1):
        ratio = schedule.signal[time] / schedule.signal[time - 1]
        scale = schedule.added(time, time - 1).sqrt().expand(value.shape[-1])
        total = total + Gaussian(ratio * value[..., time - 1, :], scale).log_prob(value[..., time, :])
    return total


def head(law: Mixture, error: float = 0.0) -> ExactHead:
    """The exact head of data that move with the condition."""

    def data(condition: Tensor) -> Mixture:
        moved = law.components.mean + condition.unsqueeze(-2)
        weights = law.weights.expand(*condition.shape[:-1], -1)
        return Mixture(weights, FullGaussian(moved, law.components.factor))

    return ExactHead(data, torch.zeros(law.event_shape, dtype=torch.float64), error)


# --- exact reversals -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_reversal_of_gaussian_data_has_the_forward_marginals(name: str, dim: int) -> None:
    """Closed form at every level: mean signal m, covariance signal^2 C + noise^2 I."""
    schedule, data = SCHEDULES[name], full(dim, 5)
    law = joint(Reversal(data, schedule))
    covariance = law.factor @ law.factor.T
    own = data.factor @ data.factor.T
    for time in range(schedule.steps + 1):
        place = slice((schedule.steps - time) * dim, (schedule.steps - time + 1) * dim)
        signal, noise = schedule.signal[time], schedule.noise[time]
        wanted = signal**2 * own + noise**2 * torch.eye(dim).double()
        assert torch.allclose(law.mean[place], signal * data.mean, rtol=0, atol=1e-12)
        assert torch.allclose(covariance[place, place], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "data", [full(2, 1), Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([0.3, 1.2])), mixture(2, 4)]
)
def test_a_reversal_is_the_forward_process_read_backwards(name: str, data: Gaussian | FullGaussian | Mixture) -> None:
    """Any path at all has the density that the forward process gives it, mixtures included."""
    schedule = SCHEDULES[name]
    law = PathLaw(Reversal(data, schedule))
    path = law.sample(GeneratorTape(1), "path")
    wild = GeneratorTape(2).normal("path", (20, *law.event_shape)) * (1 + schedule.noise.flip(0).unsqueeze(-1))
    for value in (path, wild):
        wanted = forward_log_prob(data, schedule, value)
        assert torch.allclose(law.log_prob(value), wanted, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("level", [0, 2, 6])
def test_a_reversal_of_a_mixture_has_the_forward_marginals(level: int) -> None:
    """Sampled: the marginal along three directions by Kolmogorov and Smirnov, false alarm 3e-8 a level."""
    data, schedule, rows = mixture(2, 4), cosine(6), 20_000
    copies = Mixture(
        data.weights.expand(rows, 3), FullGaussian(data.components.mean.expand(rows, 3, 2), data.components.factor)
    )
    path = PathLaw(Reversal(copies, schedule)).sample(GeneratorTape(7), "path")
    signal, noise = schedule.signal[level], schedule.noise[level]
    for angle in (0.0, 1.0, 2.0):
        axis = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        mean = signal * data.components.mean @ axis
        scale = (signal**2 * (data.components.factor.mT @ axis).square().sum(-1) + noise**2).sqrt()

        def cdf(place: object, mean: Tensor = mean, scale: Tensor = scale) -> object:
            wide = (torch.as_tensor(place).unsqueeze(-1) - mean) / scale
            return (torch.special.ndtr(wide) * data.weights).sum(-1).numpy()

        assert stats.kstest((path[:, schedule.steps - level] @ axis).numpy(), cdf).pvalue > 1e-8


def test_the_path_ratio_of_two_reversals_is_the_ratio_of_the_data() -> None:
    for data, other in ((full(2, 1), full(2, 2)), (mixture(2, 4), mixture(2, 5)), (full(2, 1), mixture(2, 5))):
        for schedule in SCHEDULES.values():
            target, draft = PathLaw(Reversal(data, schedule)), PathLaw(Reversal(other, schedule))
            path = GeneratorTape(2).normal("path", (20, *target.event_shape))
            total, token = target.log_prob(path), target.token(path)
            wanted = data.log_prob(token) - other.log_prob(token)
            rounding = 1e-14 * float(total.abs().max()) + 1e-10  # of two sums that are subtracted
            assert torch.allclose(total - draft.log_prob(path), wanted, rtol=0, atol=rounding)


# --- numbers beyond the range of floats ------------------------------------------------------------------------------
def test_a_thousand_deviations_apart() -> None:
    """d = 16, T = 100: the ratio of densities is e^-1e6 and beyond, and equals that of the data to rounding.

    Far components have weights that floats cannot hold; a path that crosses from one to another needs them.
    """
    dim, schedule = 16, cosine(100)
    apart = torch.stack((torch.full((dim,), -1000.0), torch.full((dim,), 1000.0))).double()
    one, two = (Mixture(torch.tensor([0.5, 0.5]), FullGaussian(apart + move, torch.eye(dim))) for move in (0.0, 700.0))
    target, draft = PathLaw(Reversal(one, schedule)), PathLaw(Reversal(two, schedule))
    crossing = torch.linspace(900, -900, 101, dtype=torch.float64).reshape(-1, 1).expand(101, dim)
    for path in (draft.sample(GeneratorTape(1), "path"), target.sample(GeneratorTape(1), "path"), crossing):
        logs = target.log_prob(path), draft.log_prob(path)
        token = target.token(path)
        for law, data, found in ((target, one, logs[0]), (draft, two, logs[1])):
            wanted = forward_log_prob(data, schedule, path)
            assert torch.isfinite(found) and law.event_shape == (101, dim)
            assert torch.allclose(found, wanted, rtol=1e-11, atol=0)
        wanted = one.log_prob(token) - two.log_prob(token)
        assert torch.allclose(logs[0] - logs[1], wanted, rtol=1e-9, atol=1e-10 * float(logs[0].abs()))


def test_trained_kernels_far_apart() -> None:
    """The same for the Gaussian steps of a Denoiser: finite, and quadratic in the separation."""
    law, schedule = Mixture(torch.ones(1), FullGaussian(torch.zeros(1, 16), torch.eye(16))), cosine(100)
    condition = torch.zeros(3, 16).double() + torch.tensor([[0.0], [1e3], [2e3]]).double()
    paths = PathLaw(Denoiser(head(law), schedule, condition, fraction=1.0))
    near = paths.sample(GeneratorTape(0), "path")[:1]
    found = paths.log_prob(near)
    assert bool(torch.isfinite(found).all())
    drop = found[0] - found[1:]
    assert float(drop[0]) > 1e6 and float(drop[1] / drop[0]) == pytest.approx(4, rel=0.01)


# --- linear chains ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_log_prob_is_that_of_one_joint_gaussian(
    name: str, fraction: float, temperature: float, guidance: float
) -> None:
    """Gaussian data make every step linear: the (T + 1) d numbers of a path are jointly Gaussian."""
    own = full(2, 3)
    data = Mixture(torch.ones(1), own[None])
    kernel = Denoiser(
        head(data, 0.1), SCHEDULES[name], torch.tensor([0.3, -0.2]).double(), temperature, guidance, fraction
    )
    law, whole = PathLaw(kernel), joint(kernel)
    value = GeneratorTape(1).normal("path", (10, *law.event_shape)) * (1 + SCHEDULES[name].noise.flip(0).unsqueeze(-1))
    assert torch.allclose(law.log_prob(value), whole.log_prob(value.flatten(-2)), rtol=1e-10, atol=1e-10)
    assert law.token(value).equal(value[..., -1, :])


def test_paths_are_sampled_from_their_density() -> None:
    """Mahalanobis distances of whole paths are chi-square with (T + 1) d degrees; false alarm 1e-8."""
    data = Mixture(torch.ones(1), full(2, 3)[None])
    kernel = Denoiser(head(data), cosine(6), torch.zeros(5000, 2).double(), fraction=0.3)
    whole = joint(kernel[0])
    path = PathLaw(kernel).sample(GeneratorTape(4), "path").flatten(-2)
    white = torch.linalg.solve_triangular(whole.factor, (path - whole.mean).T, upper=False)
    assert stats.kstest(white.square().sum(0).numpy(), stats.chi2(14).cdf).pvalue > 1e-8


def test_temperature_and_guidance() -> None:
    """Temperature multiplies the standard deviations of the steps, not of the start; guidance moves the means only."""
    data = Mixture(torch.ones(1), full(2, 3)[None])
    condition, value = torch.ones(4, 2).double(), GeneratorTape(1).normal("x", (4, 2))
    plain, cold, strong = (
        Denoiser(head(data), cosine(6), condition, temperature, guidance, 0.5)
        for temperature, guidance in ((1.0, 1.0), (0.5, 1.0), (1.0, 3.0))
    )
    for time in (1, 4, 6):
        one, two, three = (kernel.step(time, value) for kernel in (plain, cold, strong))
        assert torch.allclose(two.scale, 0.5 * one.scale, rtol=1e-14) and torch.equal(one.mean, two.mean)
        assert torch.equal(three.scale, one.scale)
        none = Denoiser(head(data), cosine(6), torch.zeros(4, 2).double(), fraction=0.5).step(time, value)
        assert torch.allclose(three.mean - none.mean, 3 * (one.mean - none.mean), atol=1e-12)
    assert torch.equal(plain.start().scale, cold.start().scale)
    assert torch.allclose(plain.start().scale, torch.ones(()).double())
    wide = Denoiser(head(data), exploding(4), condition)
    assert torch.allclose(wide.start().scale, torch.tensor(math.hypot(1, 80)).double())


@dataclass(frozen=True)
class Learned:
    """A head that says its variance."""

    dim: int = 2

    @property
    def null(self) -> Tensor:
        return torch.zeros(2)

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        clean = 0.5 * value + condition
        return Prediction(clean, (value - signal * clean) / noise, value.sigmoid())


def test_learned_variance_is_interpolated_in_logarithms() -> None:
    """Not clipped; ``fraction`` of the kernel, where given, overrides the head's; guidance leaves it."""
    schedule, value = cosine(5), GeneratorTape(1).normal("x", (3, 2))
    kernel = Denoiser(Learned(), schedule, torch.zeros(3, 2))
    for time in range(1, 6):
        small, large = (math.exp(0.5 * float(part)) for part in schedule.log_variances(time))
        wanted = small ** (1 - value.sigmoid()) * large ** value.sigmoid()
        assert torch.allclose(kernel.step(time, value).scale, wanted, rtol=1e-12)
        assert torch.allclose(
            Denoiser(Learned(), schedule, torch.ones(3, 2), guidance=2.0).step(time, value).scale, wanted
        )
        for fraction, scale in ((0.0, small), (1.0, large), (-0.5, small * math.sqrt(small / large))):
            fixed = Denoiser(Learned(), schedule, torch.zeros(3, 2), fraction=fraction)
            assert torch.allclose(fixed.step(time, value).scale, torch.tensor(scale).double(), rtol=1e-6)
    with pytest.raises(ValueError, match="give fraction"):
        data = Mixture(torch.ones(1), full(2, 3)[None])
        Denoiser(head(data), schedule, torch.zeros(3, 2).double()).step(2, value)


# --- batches, indices, ends ------------------------------------------------------------------------------------------
def kernels(rows: int) -> dict[str, Kernel]:
    """Kernels of batch (rows, 3) whose members all differ."""
    law, tape = mixture(2, 6), GeneratorTape(8)
    condition = tape.normal("condition", (rows, 3, 2))
    moved = law.components.mean + condition.unsqueeze(-2)
    several = Mixture(law.weights.expand(rows, 3, 3), FullGaussian(moved, law.components.factor))
    return {
        "denoiser": Denoiser(head(law), cosine(5), condition, fraction=0.5, guidance=1.5),
        "reversal, mixture": Reversal(several, cosine(5)),
        "reversal, gaussian": Reversal(several.components[:, :, 0], cosine(5)),
    }


@pytest.mark.parametrize("name", kernels(1))
def test_a_batch_is_its_members(name: str) -> None:
    kernel = kernels(4)[name]
    law = PathLaw(kernel)
    assert isinstance(law, Law) and isinstance(kernel, Kernel) and law.batch_shape == (4, 3)
    assert law.event_shape == (6, 2)
    path = law.sample(GeneratorTape(1), "path")
    found = law.log_prob(path)
    assert path.shape == (4, 3, 6, 2) and found.shape == (4, 3)
    for index in ((0, 0), (3, 2), (slice(1, 3), 0), torch.tensor([2, 0]), (torch.tensor([1, 3]), torch.tensor([0, 2]))):
        part = law[index]
        assert torch.allclose(part.log_prob(path[index]), found[index], rtol=1e-12, atol=1e-12)
    mask = torch.tensor([True, False, True, True])
    assert law[mask].batch_shape == (3, 3)
    # Values broadcast against the batch, on either side.
    assert torch.allclose(law.log_prob(path[:, :1])[:, 0], found[:, 0], rtol=1e-12, atol=1e-12)
    assert torch.allclose(law.log_prob(path.expand(2, 4, 3, 6, 2)), found.expand(2, 4, 3), rtol=1e-12, atol=1e-12)
    one = law[0, 1]
    assert torch.allclose(one.log_prob(path[0]), torch.stack([one.log_prob(item) for item in path[0]]), atol=1e-12)
    step = kernel.step(2, path[..., 3, :])
    assert torch.allclose(step[1:].log_prob(path[1:, :, 4]), step.log_prob(path[..., 4, :])[1:], atol=1e-12)


@pytest.mark.parametrize("name", kernels(1))
def test_sampling_is_replayed(name: str) -> None:
    law = PathLaw(kernels(3)[name])
    tape = RecordingTape(GeneratorTape(2))
    path = law.sample(tape, "path")
    assert torch.equal(law.sample(ReplayTape(tape.draws), "path"), path)
    assert len({draw.site for draw in tape.draws}) == len(tape.draws)
    assert not torch.equal(law.sample(GeneratorTape(3), "path"), path)


def test_the_noise_free_end() -> None:
    """x_0 is the mean of the last kernel, drawn with the noise of the others; such a law has no density."""
    kernel = kernels(3)["denoiser"]
    noisy, clean = PathLaw(kernel), PathLaw(kernel, last_noise=False)
    path, same = noisy.sample(GeneratorTape(2), "path"), clean.sample(GeneratorTape(2), "path")
    assert torch.equal(path[..., :-1, :], same[..., :-1, :])
    assert torch.equal(clean.token(same), kernel.step(1, same[..., -2, :]).mean)  # type: ignore[attr-defined]
    assert not torch.equal(path[..., -1, :], same[..., -1, :])
    with pytest.raises(ValueError, match="last_noise"):
        clean.log_prob(same)
    assert clean[:1].last_noise is False
    with pytest.raises(TypeError, match="has no mean"):
        PathLaw(kernels(3)["reversal, mixture"], last_noise=False).sample(GeneratorTape(0), "path")


def test_what_a_path_refuses() -> None:
    law = PathLaw(kernels(2)["denoiser"])
    with pytest.raises(ValueError, match="event shape"):
        law.log_prob(torch.zeros(2, 3, 5, 2))
    with pytest.raises(TypeError, match="no closed form"):
        law.overlap(law)
    with pytest.raises(ValueError, match="no variance"):
        Denoiser(head(mixture(2, 1)), cosine(3), torch.zeros(2).double()).step(1, torch.zeros(2).double())


def test_single_precision_values_are_taken_as_they_are() -> None:
    kernel = kernels(2)["denoiser"]
    value = GeneratorTape(1).normal("x", (2, 3, 2)).float()
    found, wanted = kernel.step(3, value), kernel.step(3, value.double())
    assert found.mean.dtype == torch.float64 and torch.equal(found.mean, wanted.mean)  # type: ignore[attr-defined]

"""Flow laws against closed forms, quadrature and transports, and flow-exact verification on top of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from distributions.datasets import conditions
from distributions.flow import FlowLaw
from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import ExactHead, Prediction, guided
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.preimage import jacobian, preimage
from distributions.schedule import Schedule, cosine, exploding, linear, straight
from distributions.tape import GeneratorTape, RecordingTape, ReplayTape, Tape
from distributions.training import pretrained
from verify.records import Draft
from verify.verifiers import flow_exact
from verify.verifiers.flow_exact import FlowExact, balance, thin_flow
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)

SCHEDULES = {
    "cosine, one step in": cosine(25).one_step_in(),
    "cosine": cosine(12),
    "linear": linear(20),
    "exploding": exploding(18),
    "straight": straight(15),
}
NULL = torch.zeros(1, dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
FACTOR = torch.tensor([[0.8, 0.0, 0.0], [0.3, 0.4, 0.0], [-0.2, 0.1, 0.1]], dtype=torch.float64)


def gaussian_head(error: float = 0.0) -> ExactHead:
    """Data N(MEAN + condition, FACTOR FACTOR^T)."""

    def data(condition: Tensor) -> Mixture:
        mean = (MEAN + condition).unsqueeze(-2)
        return Mixture(mean.new_ones(mean.shape[:-1]), FullGaussian(mean, FACTOR))

    return ExactHead(data, NULL, error)


def mixture_head(spread: float, means: Tensor) -> ExactHead:
    """Data: equal Gaussians of sd ``spread`` at ``means`` (K, d) times 1 + condition."""

    def data(condition: Tensor) -> Mixture:
        mean = means * (1 + condition.unsqueeze(-1))
        return Mixture(mean.new_ones(mean.shape[:-1]), Gaussian(mean, torch.full((means.shape[1],), spread)))

    return ExactHead(data, NULL)


LINE = mixture_head(0.35, torch.tensor([[-1.0], [0.8]], dtype=torch.float64))
PLANE = mixture_head(0.3, torch.tensor([[-1.0, 0.2], [0.8, 0.6], [0.2, -0.9]], dtype=torch.float64))


def linear_map(law: FlowLaw, condition: float = 0.0) -> tuple[Tensor, Tensor]:
    """(matrix, shift) of the map of a flow on Gaussian data, by the algebra of its steps.

    With C the covariance and S = signal^2 C + noise^2 I: clean = m + signal C S^-1 (x - signal m) and eps = noise S^-1
    (x - signal m), both affine in x, so a step is, and a product of matrices is the whole map. Written without the
    identity x = signal clean + noise eps, from which the code takes eps.
    """
    mean, covariance, eye = MEAN + condition, FACTOR @ FACTOR.T, torch.eye(3, dtype=torch.float64)
    signal, noise = law.schedule.signal, law.schedule.noise
    matrix, shift = eye, torch.zeros(3, dtype=torch.float64)
    for time in range(law.schedule.steps, 0, -1):

        def drift(level: int, time: int = time) -> tuple[Tensor, Tensor]:
            within = torch.linalg.inv(signal[level] ** 2 * covariance + noise[level] ** 2 * eye)
            more, less = signal[time - 1] - signal[time], noise[time - 1] - noise[time]
            slope = more * signal[level] * covariance @ within + less * noise[level] * within
            return slope, more * mean - signal[level] * slope @ mean

        slope, constant = drift(time)
        if law.scheme == "heun" and time > 1:
            again, more_constant = drift(time - 1)
            slope, constant = (
                0.5 * (slope + again @ (eye + slope)),
                0.5 * (constant + again @ constant + more_constant),
            )
        matrix, shift = (eye + slope) @ matrix, (eye + slope) @ shift + constant
    return matrix, shift


def linear_law(law: FlowLaw, condition: float = 0.0) -> FullGaussian:
    """The law of the token: its start is N(0, level^2 I), and the map is linear."""
    matrix, shift = linear_map(law, condition)
    level = torch.hypot(law.schedule.signal[-1], law.schedule.noise[-1])
    return FullGaussian(shift, torch.linalg.cholesky(level**2 * matrix @ matrix.T))


def flow_of(head: ExactHead, schedule: Schedule, *batch: int, scheme: str = "euler", condition: float = 0.0) -> FlowLaw:
    return FlowLaw(head, schedule, torch.full((*batch, 1), condition, dtype=torch.float64), scheme=scheme)


@pytest.mark.parametrize("scheme", ["euler", "heun"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_gaussian_data_have_a_gaussian_law(name: str, scheme: str) -> None:
    """Density, Jacobian, noise and round trip against the product of the steps' matrices, to 1e-10."""
    law = flow_of(gaussian_head(), SCHEDULES[name], 40, scheme=scheme)
    closed, (matrix, shift) = linear_law(law), linear_map(law)
    noise = law.start().sample(GeneratorTape(0), "noise")
    value = law.transport(noise)
    assert torch.allclose(value, noise @ matrix.T + shift, rtol=1e-10, atol=1e-10)
    _, slope = jacobian(law.transport, noise)
    assert torch.allclose(slope, matrix.expand_as(slope), rtol=1e-10, atol=1e-10)
    there, back = law.forward(noise), law.invert(value)
    assert bool(there.found.all()) and bool(back.found.all())
    assert torch.allclose(back.noise, noise, rtol=1e-9, atol=1e-9)  # to 1e-9: sd .1 from noise of sd up to 80
    for log_density in (there.log_prob, back.log_prob, law.log_prob(value)):
        assert torch.allclose(log_density, closed.log_prob(value), rtol=1e-10, atol=1e-10)
    assert torch.allclose(law.transport(back.noise), value, rtol=0, atol=1e-11)


def test_a_step_is_ddim() -> None:
    """Song et al. 2010.02502, eq. 12 with sigma_t = 0: sqrt(a') (x - sqrt(1 - a) eps) / sqrt(a) + sqrt(1 - a') eps."""
    schedule = SCHEDULES["linear"]
    law, value = flow_of(PLANE, schedule, 50), torch.linspace(-2, 2, 100, dtype=torch.float64).reshape(50, 2)
    for time in range(schedule.steps, 0, -1):
        bar, less = schedule.signal[time] ** 2, schedule.signal[time - 1] ** 2
        eps = PLANE(value, schedule.signal[time], schedule.noise[time], law.condition).noise
        wanted = less.sqrt() * (value - (1 - bar).sqrt() * eps) / bar.sqrt() + (1 - less).sqrt() * eps
        assert torch.allclose(law.step(time, value), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_a_step_is_that_of_karras(scheme: str) -> None:
    """Karras et al. 2206.00364, algorithm 1, lines 4 to 9: d = (x - D(x; t)) / t, and no correction where t' = 0."""
    schedule = SCHEDULES["exploding"]
    law = flow_of(PLANE, schedule, 50, scheme=scheme)
    one, value = torch.ones((), dtype=torch.float64), torch.linspace(-9, 9, 100, dtype=torch.float64).reshape(50, 2)
    for time in range(schedule.steps, 0, -1):
        now, then = schedule.noise[time], schedule.noise[time - 1]
        slope = (value - PLANE(value, one, now, law.condition).clean) / now
        wanted = value + (then - now) * slope
        if scheme == "heun" and then != 0:
            again = (wanted - PLANE(wanted, one, then, law.condition).clean) / then
            wanted = value + (then - now) * (slope / 2 + again / 2)
        assert torch.allclose(law.step(time, value), wanted, rtol=1e-12, atol=1e-11)


def test_a_step_follows_the_velocity() -> None:
    """Lipman et al. 2210.02747 with x_t = (1 - t) x_0 + t eps: x + h v, v = E[eps - x_0 | x_t], h = t' - t."""
    schedule = SCHEDULES["straight"]
    law, value = flow_of(PLANE, schedule, 50), torch.linspace(-2, 2, 100, dtype=torch.float64).reshape(50, 2)
    for time in range(schedule.steps, 0, -1):
        told = PLANE(value, schedule.signal[time], schedule.noise[time], law.condition)
        step = schedule.noise[time - 1] - schedule.noise[time]
        assert torch.allclose(law.step(time, value), value + step * (told.noise - told.clean), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("heun", 2)])
def test_schemes_converge_at_their_order(scheme: str, order: int) -> None:
    """On data N(m, v) the probability flow ends at m + sqrt(v / (signal^2 v + noise^2)) (x - signal m); halving the
    steps divides the error by 2^order. The last step is Euler's, and short enough here not to count."""
    head = mixture_head(0.7, torch.tensor([[0.4]], dtype=torch.float64))
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(-1)
    errors = []
    for steps in (40, 80):
        angle = torch.cat((torch.zeros(1), torch.linspace(1e-3, 1.4, steps))).double()
        law = flow_of(head, Schedule(angle.cos(), angle.sin()), 9, scheme=scheme)
        signal, noise = law.schedule.signal[-1], law.schedule.noise[-1]
        wanted = 0.4 + (0.49 / (0.49 * signal**2 + noise**2)).sqrt() * (start - 0.4 * signal)
        errors.append(float((law.transport(start) - wanted).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_guidance_is_that_of_the_head() -> None:
    """With scale 2 on Gaussian data: twice the conditional clean value less the unconditional one, in every step."""
    schedule = straight(1, 0.5)
    law = FlowLaw(gaussian_head(), schedule, torch.full((7, 1), 0.6, dtype=torch.float64), guidance=2.0)
    value = torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3)
    told = guided(law.head, value, schedule.signal[1], schedule.noise[1], law.condition, 2.0)
    assert torch.allclose(law.transport(value), told.clean, rtol=0, atol=1e-12)
    assert not torch.allclose(law.transport(value), replace(law, guidance=1.0).transport(value), atol=1e-2)


@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_the_density_on_the_line_is_the_transports(scheme: str) -> None:
    """In one dimension P(x_0 <= map(z)) = Phi(z / level) where the map is increasing: the CDF, by quadrature of the
    density up to map(z), and the total mass, against it to 1e-8."""
    law = flow_of(LINE, cosine(10).one_step_in(), 1, scheme=scheme)
    noise = torch.linspace(-8.5, 8.5, 20_001, dtype=torch.float64).reshape(-1, 1, 1)
    value = law.transport(noise).flatten()
    assert bool((value.diff() > 0).all())
    # Gauss-Legendre between the images of 400 cells of the noise.
    cells = value[::50]
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = cells.diff().unsqueeze(-1) / 2
    at = cells[:-1].unsqueeze(-1) + half * (1 + torch.as_tensor(nodes))
    density = law.log_prob(at.reshape(-1, 1, 1)).exp().reshape(at.shape)
    mass = (density * torch.as_tensor(weights) * half).sum(-1).cumsum(0)
    assert np.allclose(mass, special.ndtr(noise.flatten()[::50][1:].numpy()), rtol=0, atol=1e-8)


def test_the_density_in_the_plane_integrates_to_one() -> None:
    """By the trapezoidal rule, whose error falls faster than any power of the mesh on a smooth density that dies off;
    and its mean against that of the transported noise, by Gauss-Hermite quadrature."""
    law = flow_of(PLANE, cosine(4).one_step_in(), 1)
    side = torch.linspace(-2.7, 2.7, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    ends = law.invert(grid.unsqueeze(1))
    density = ends.log_prob.exp().nan_to_num(0.0).flatten()
    cell = float(side[1] - side[0]) ** 2
    assert bool(ends.found.all())
    assert float(density.sum()) * cell == pytest.approx(1, abs=1e-6)
    point, weight = special.roots_hermitenorm(60)
    noise = torch.cartesian_prod(*(torch.as_tensor(point),) * 2).unsqueeze(1)
    share = torch.as_tensor(np.outer(weight, weight).flatten()) / (2 * math.pi)
    wanted = (law.transport(noise).squeeze(1) * share.unsqueeze(-1)).sum(0)
    assert torch.allclose((density.unsqueeze(-1) * grid).sum(0) * cell, wanted, rtol=0, atol=1e-5)


def test_jacobians_against_differences() -> None:
    law = flow_of(PLANE, cosine(6).one_step_in(), 30, scheme="heun")
    place = law.start().sample(GeneratorTape(1), "place")
    for time in range(1, law.schedule.steps + 1):
        image, slope = jacobian(lambda x, time=time: law.step(time, x), place)  # type: ignore[misc]
        assert torch.allclose(image, law.step(time, place), rtol=0, atol=1e-13)
        for axis in range(2):
            shift = 1e-6 * torch.eye(2, dtype=torch.float64)[axis]
            wanted = (law.step(time, place + shift) - law.step(time, place - shift)) / 2e-6
            assert torch.allclose(slope[..., axis], wanted, rtol=1e-6, atol=1e-7)


@dataclass(frozen=True, eq=False)
class Wave:
    """A head on the line whose predicted noise is x - height sin(3 x) / 3 at every level."""

    height: float
    dim: int = 1
    null: Tensor = NULL

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        eps = value - self.height * torch.sin(3 * value) / 3
        return Prediction((value - noise * eps) / signal, eps)


FOLDED = straight(1, 0.5)
"""One step, x' = clean = 2 x - eps = x + height sin(3 x) / 3: folded where height cos(3 x) < -1."""


def folded(height: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The token of a noise, and the slope of the map there."""
    return noise + height * torch.sin(3 * noise) / 3, 1 + height * torch.cos(3 * noise)


def test_a_fold_is_reported_and_not_guessed() -> None:
    """x + 2 sin(3 x) / 3 has up to three noises for a value. What is found is never on the branch that falls; it leads
    to the value, with the density of its own branch. It may be another noise than the one drawn: the sign of det J
    does not see that, and comparing the noises does."""
    law = FlowLaw(Wave(2.0), FOLDED, torch.zeros(2000, 1, dtype=torch.float64))
    noise = law.start().sample(GeneratorTape(2), "noise")
    value, slope = folded(2.0, noise)
    there, back = law.forward(noise), law.invert(value)
    assert torch.allclose(there.value, value, rtol=0, atol=1e-12)
    assert torch.equal(there.found, slope[:, 0] > 0) and bool(there.log_prob[slope[:, 0] <= 0].isnan().all())
    again, slope = folded(2.0, back.noise[back.found])
    assert bool((slope > 0).all()) and torch.allclose(again, value[back.found], rtol=0, atol=1e-5)
    closed = Gaussian(NULL, torch.full((1,), math.sqrt(0.5))).log_prob(back.noise[back.found]) - slope.log().squeeze(-1)
    assert torch.allclose(back.log_prob[back.found], closed, rtol=0, atol=1e-6)  # near a fold the slope is small
    other = back.found & ((back.noise - noise).abs().squeeze(-1) > 1e-3)
    assert int(other.sum()) > 20 and int((~back.found).sum()) > 20
    with pytest.raises(ArithmeticError, match=r"no noise was found for \d+ of 2000 values.*one_step_in"):
        law.log_prob(value)


def test_a_value_that_no_noise_reaches_is_not_found() -> None:
    """clean of the exact head lies between the two modes' own posterior means: with one step from near pure noise, the
    tokens of all noises up to 40 lie within +- 1.05, so 1.2 is not one of them."""
    head = mixture_head(0.01, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    law = flow_of(head, cosine(2), 3)
    reach = law.transport(torch.linspace(-40, 40, 3, dtype=torch.float64).unsqueeze(-1))
    assert float(reach.abs().max()) < 1.05
    assert not bool(law.invert(torch.tensor([[1.2], [-1.2], [3.0]], dtype=torch.float64)).found.any())


def test_one_step_from_near_noise_is_not_guessed() -> None:
    """A sharp mixture, from signal 5e-5 in two steps: most noises collapse onto a mode within rounding, where det J
    underflows towards 0. What is called found does lead back to its value."""
    head = mixture_head(0.01, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    law = flow_of(head, cosine(2), 500)
    value = law.sample(GeneratorTape(0), "value")
    ends = law.invert(value)
    assert 0 < int((~ends.found).sum())
    again = law.transport(ends.noise)
    assert torch.allclose(again[ends.found], value[ends.found], rtol=0, atol=3e-5)


def test_batches_and_indices() -> None:
    """Rows do not depend on one another; values broadcast against the batch; an empty batch is one."""
    condition = torch.linspace(-0.3, 0.3, 6, dtype=torch.float64).reshape(2, 3, 1)
    law = FlowLaw(LINE, cosine(5).one_step_in(), condition)
    assert law.batch_shape == (2, 3) and law.event_shape == (1,)
    value = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(4, 1, 1, 1)
    log_prob = law.log_prob(value)
    assert log_prob.shape == (4, 2, 3)
    for index in ((0, 1), (1, 2)):
        assert torch.allclose(law[index].log_prob(value[:, 0, 0]), log_prob[:, index[0], index[1]], rtol=0, atol=1e-11)
    assert law[:, 1:].batch_shape == (2, 2) and law[..., 0].batch_shape == (2,)
    assert law.sample(GeneratorTape(0), "x").shape == (2, 3, 1)
    none = law[0][:0].invert(torch.zeros(0, 1, dtype=torch.float64))
    assert none.noise.shape == (0, 1) and none.found.shape == (0,)
    kept = replace(law, with_noise=True)
    pair = kept.sample(GeneratorTape(0), "x")
    assert pair.shape == (2, 3, 2, 1) and kept.event_shape == (2, 1)
    assert torch.equal(kept.token(pair), law.sample(GeneratorTape(0), "x"))
    assert torch.allclose(kept.log_prob(pair), law.log_prob(kept.token(pair)), rtol=0, atol=0)
    with pytest.raises(ValueError, match="event shape"):
        kept.log_prob(torch.zeros(2, 3, 1).double())
    with pytest.raises(ValueError, match="scheme"):
        FlowLaw(LINE, cosine(5), condition, scheme="midpoint")
    with pytest.raises(TypeError, match="overlap"):
        law.overlap(law)


def test_densities_far_out_neither_underflow_nor_overflow() -> None:
    """1e3 standard deviations away, where exp(log density) is 0: the logarithm agrees with the closed form."""
    law = flow_of(gaussian_head(), cosine(25).one_step_in(), 4)
    closed = linear_law(law)
    direction = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, 1], [1, 1, -1]], dtype=torch.float64)
    value = closed.mean + 1e3 * direction @ closed.factor.T
    wanted = closed.log_prob(value)
    assert bool((wanted < -4e5).all())
    assert torch.allclose(law.log_prob(value), wanted, rtol=1e-9, atol=0)
    near = flow_of(gaussian_head(), cosine(25).one_step_in(), 4, condition=1e-3)
    gap = near.log_prob(value) - law.log_prob(value)
    assert torch.allclose(gap, linear_law(near, 1e-3).log_prob(value) - wanted, rtol=1e-5, atol=1e-5)


def test_preimages_of_a_hard_map() -> None:
    """Newton's own steps diverge on atan from |x| > 1.4; a value outside (-pi/2, pi/2) has no preimage."""
    goal = torch.tensor([[1.3], [-1.5], [0.2], [1.6]], dtype=torch.float64)
    place, slope, solved = preimage(lambda _, x: torch.atan(2 * x), goal)
    assert solved.tolist() == [True, True, True, False]
    assert torch.allclose(place[:3], torch.tan(goal[:3]) / 2, rtol=1e-10, atol=0)
    assert torch.allclose(slope[:3, :, 0], 2 / (1 + 4 * place[:3] ** 2), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["64", "32"])
def test_the_round_trip_of_trained_heads(dtype: torch.dtype, apart: float) -> None:
    """Noise and density come back to ``apart``; in the precision of the head."""
    heads, rows = pretrained("ring", dtype=dtype), 200
    law = FlowLaw(heads.target, cosine(25).one_step_in(), conditions(GeneratorTape(0), rows))
    noise = law.start().sample(GeneratorTape(1), "noise")
    there = law.forward(noise)
    back = law.invert(there.value)
    assert bool(there.found.all()) and float(back.found.double().mean()) > 0.97
    assert torch.allclose(back.noise[back.found], noise[back.found], rtol=0, atol=apart)
    assert torch.allclose(back.log_prob[back.found], there.log_prob[back.found], rtol=0, atol=10 * apart)


# Flow-exact verification.


def line_pair(rows: int, with_noise: bool, nodes: int = 1) -> tuple[FlowLaw, FlowLaw]:
    """Draft (rows, nodes) and target (rows, nodes + 1) on the line, from other data and on other grids."""
    narrow = mixture_head(0.45, torch.tensor([[-0.3], [1.3]], dtype=torch.float64))
    draft, target = (
        FlowLaw(head, schedule, torch.zeros(rows, count, 1, dtype=torch.float64), with_noise=with_noise)
        for head, schedule, count in (
            (narrow, cosine(4).one_step_in(), nodes),
            (LINE, cosine(5).one_step_in(), nodes + 1),
        )
    )
    return draft, target


def overlap_on_the_line(draft: FlowLaw, target: FlowLaw) -> float:
    """1 - TV of two increasing maps on the line, by quadrature."""
    at = torch.linspace(-3.2, 3.2, 2001, dtype=torch.float64)
    logs = [replace(law[0, 0], with_noise=False).invert(at.unsqueeze(-1)) for law in (draft, target)]
    densities = [ends.log_prob.exp().nan_to_num(0.0) for ends in logs]
    assert all(abs(float(integrate.simpson(item, x=at)) - 1) < 1e-6 for item in densities)
    return float(integrate.trapezoid(torch.minimum(*densities), at))


def cdf_of(law: FlowLaw) -> Callable[[np.ndarray], np.ndarray]:
    """The CDF of the token of an increasing map on the line."""
    noise = torch.linspace(-9, 9, 40_001, dtype=torch.float64)
    value = law[0, 0].transport(noise.unsqueeze(-1)).flatten()
    assert bool((value.diff() > 0).all())
    return lambda x: special.ndtr(np.interp(x, value.numpy(), noise.numpy()))


@pytest.mark.parametrize("with_noise", [False, True])
def test_the_output_has_the_targets_law(with_noise: bool) -> None:
    rows = 3000
    draft, target = line_pair(rows, with_noise)
    tape = GeneratorTape(5)
    outcome = FlowExact().verify(Draft.chain(draft.sample(tape, "draft"), draft), target, tape)
    token = target.token(outcome.value)
    cdf = cdf_of(target)
    assert stats.kstest(token[:, 0, 0].numpy(), cdf).pvalue > 1e-6  # false alarm 1e-6
    second = outcome.length == 2
    assert stats.kstest(token[second, 1, 0].numpy(), cdf).pvalue > 1e-6  # false alarm 1e-6
    overlap, kept = overlap_on_the_line(draft, target), float(outcome.kept.double().mean())
    assert 0.4 < overlap < 0.8
    assert abs(kept - overlap) < 4 * math.sqrt(overlap * (1 - overlap) / rows)  # false alarm 6e-5
    chance = outcome.log_accept.exp()
    assert abs(float((outcome.kept.double() - chance).sum())) < 5 * float((chance * (1 - chance)).sum()) ** 0.5  # 6e-7


def test_acceptance_on_gaussian_data_is_the_closed_form() -> None:
    """Laws of two linear maps in three dimensions: 1 - TV of two Gaussians, in closed form, within 3 standard errors
    (false alarm 2.7e-3, and the seed is fixed)."""
    rows = 2000
    head, schedule = gaussian_head(), cosine(6).one_step_in()
    law = flow_of(head, schedule, rows, 1, condition=0.03)
    target = flow_of(head, schedule, rows, 2)
    overlap = float(linear_law(target).overlap(linear_law(law, 0.03)))
    tape = GeneratorTape(6)
    outcome = FlowExact().verify(Draft.chain(law.sample(tape, "draft"), law), target, tape)
    kept = float(outcome.kept.double().mean())
    assert 0.3 < overlap < 0.9 and abs(kept - overlap) < 3 * math.sqrt(overlap * (1 - overlap) / rows)
    white = torch.linalg.solve_triangular(
        linear_law(target).factor, (outcome.value[:, 0] - linear_law(target).mean).T, upper=False
    )
    for row in white:
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-6  # false alarm 3e-6 over the three


def folded_pair(rows: int, with_noise: bool, height: float) -> tuple[FlowLaw, FlowLaw]:
    """The draft's map has folds, with height 3; the target's, where its ``height`` exceeds 1."""
    draft, target = (
        FlowLaw(Wave(height), FOLDED, torch.zeros(rows, count, 1, dtype=torch.float64), with_noise=with_noise)
        for height, count in ((3.0, 1), (height, 2))
    )
    return draft, target


def folded_cdf(value: np.ndarray, height: float) -> np.ndarray:
    """P(map(z) <= x) for z ~ N(0, 1/2): the mass of all noises that lead below x, from a fine grid of them."""
    edges = np.linspace(-8, 8, 1_000_001)
    mass = np.diff(special.ndtr(edges * math.sqrt(2)))
    middle = (edges[1:] + edges[:-1]) / 2
    image = middle + height * np.sin(3 * middle) / 3
    order = image.argsort()
    return np.interp(value, image[order], mass[order].cumsum())


@pytest.mark.parametrize("height", [0.5, 2.0])
def test_folds_bias_nothing_where_the_noise_is_kept(height: float) -> None:
    """The claim of the docstring: exact for maps that are not one to one, be it the draft's alone or both."""
    rows = 20_000
    draft, target = folded_pair(rows, True, height)
    tape = GeneratorTape(7)
    outcome = FlowExact().verify(Draft.chain(draft.sample(tape, "draft"), draft), target, tape)
    token = target.token(outcome.value)[:, 0, 0].numpy()
    assert stats.kstest(token, folded_cdf, args=(height,)).pvalue > 1e-6  # false alarm 1e-6
    assert 0.02 < float(outcome.kept.double().mean()) < 0.9
    found = balance(draft[:, 0], target[:, 0], GeneratorTape(8))
    assert found.rejected > 0.05 and found.replaced > 0.05
    assert max(map(abs, found.scores)) < 5  # false alarm 1e-6


def test_the_balance_sees_folds_where_the_noise_is_not_kept() -> None:
    """Then a draft whose noise is another one than the inversion's is taken for a regular one, and the ratio is too
    large on average: E_draft[p' / q'] is the integral of q p' / q' > that of p'."""
    draft, target = folded_pair(20_000, False, 0.5)
    found = balance(draft[:, 0], target[:, 0], GeneratorTape(8))
    assert max(found.scores) > 8


@pytest.mark.parametrize("with_noise", [False, True])
def test_the_balance_of_injective_maps(with_noise: bool) -> None:
    draft, target = line_pair(4000, with_noise)
    found = balance(draft[:, 0], target[:, 0], GeneratorTape(9))
    assert found.rejected == found.replaced == 0
    assert max(map(abs, found.scores)) < 5  # false alarm 1e-6
    overlap = overlap_on_the_line(draft, target)
    for mean, error in (found.ahead, found.back):
        assert abs(mean - overlap) < 5 * error  # false alarm 1e-6


def test_rejection_unedited_is_flow_exact_where_nothing_fails() -> None:
    draft, target = line_pair(300, False)
    value = draft.sample(GeneratorTape(1), "draft")
    chain = Draft.chain(value, draft)
    one = Rejection().verify(chain, target, GeneratorTape(2))
    other = FlowExact().verify(chain, target, GeneratorTape(2))
    assert torch.equal(one.kept, other.kept) and torch.allclose(one.log_accept, other.log_accept, rtol=0, atol=0)
    assert torch.equal(one.value[one.kept[:, 0], 0], other.value[one.kept[:, 0], 0])


def test_replay_is_bit_for_bit() -> None:
    draft, target = line_pair(60, True, nodes=2)
    chain = Draft.chain(draft.sample(GeneratorTape(1), "draft"), draft)
    recording = RecordingTape(GeneratorTape(2))
    first = FlowExact().verify(chain, target, recording)
    again = FlowExact().verify(chain, target, ReplayTape(recording.draws))
    assert torch.equal(first.value, again.value) and torch.equal(first.length, again.length)
    assert set(first.length.tolist()) == {1, 2, 3}
    drawn = {item.site: len(item.value) for item in recording.draws if item.site in ("accept", "bonus")}
    assert drawn == {"accept": 60, "bonus": int(first.kept.all(1).sum())}


def test_other_laws_are_refused() -> None:
    law = Gaussian(torch.zeros(4, 2, 1), torch.ones(1))
    with pytest.raises(TypeError, match="FlowLaw"):
        FlowExact().verify(Draft.chain(torch.zeros(4, 1, 1).double(), law[:, :1]), law, GeneratorTape(0))
    draft, _ = line_pair(4, True)
    _, target = line_pair(4, False)
    with pytest.raises(TypeError, match="with_noise"):
        FlowExact().verify(Draft.chain(draft.sample(GeneratorTape(0), "x"), draft), target, GeneratorTape(0))


# Planted bugs: each must be seen by the checks above.


def test_a_density_without_its_determinant_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density is wrong, the acceptance is not the overlap, and the balance is off."""
    real = FlowLaw.invert

    def bare(self: FlowLaw, value: Tensor) -> object:
        ends = real(self, value)
        return replace(ends, log_prob=torch.where(ends.found, self.start().log_prob(ends.noise), math.nan))

    draft, target = line_pair(4000, False)
    overlap = overlap_on_the_line(draft, target)
    monkeypatch.setattr(FlowLaw, "invert", bare)
    tape = GeneratorTape(5)
    outcome = FlowExact().verify(Draft.chain(draft.sample(tape, "draft"), draft), target, tape)
    assert abs(float(outcome.kept.double().mean()) - overlap) > 4 * math.sqrt(overlap * (1 - overlap) / 4000)
    assert max(map(abs, balance(draft[:, 0], target[:, 0], GeneratorTape(9)).scores)) > 5
    law = flow_of(gaussian_head(), cosine(6).one_step_in(), 40)
    value = law.sample(GeneratorTape(0), "value")
    assert not torch.allclose(law.log_prob(value), linear_law(law).log_prob(value), atol=0.1)


def test_a_residual_of_the_draft_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(target: Law, draft: Law, tape: Tape, site: str = "residual") -> Tensor:
        return thin_flow(draft, target, tape, site)  # type: ignore[arg-type]

    rows = 2000
    draft, target = line_pair(rows, False)
    monkeypatch.setattr(flow_exact, "thin_flow", wrong)
    tape = GeneratorTape(5)
    outcome = FlowExact().verify(Draft.chain(draft.sample(tape, "draft"), draft), target, tape)
    assert stats.kstest(outcome.value[:, 0, 0].numpy(), cdf_of(target)).pvalue < 1e-6


def test_a_residual_that_trusts_folded_densities_is_seen() -> None:
    """Without its noise a folded draft is not verified exactly; the test of the folds has the power to see it."""
    rows = 20_000
    draft, target = folded_pair(rows, False, 0.5)
    tape = GeneratorTape(7)
    outcome = FlowExact().verify(Draft.chain(draft.sample(tape, "draft"), draft), target, tape)
    assert stats.kstest(outcome.value[:, 0, 0].numpy(), folded_cdf, args=(0.5,)).pvalue < 1e-6

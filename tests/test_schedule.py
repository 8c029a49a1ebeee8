"""Noise schedules against their textbook forms, and the kernels' coefficients against conditioning of Gaussians."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from distributions.schedule import Schedule, cosine, exploding, linear, respaced, straight

SCHEDULES = {
    "cosine 100": cosine(),
    "cosine 10": cosine(10),
    "linear 25": linear(25),
    "exploding": exploding(),
    "straight": straight(),
    "straight, short of noise": straight(7, 0.9),
    "one step in": cosine(25).one_step_in(),
    "two levels": Schedule(torch.tensor([1.0, 0.8, 0.1]), torch.tensor([0.0, 0.6, 2.0])),
}


def alpha_bar(length: int = 1000) -> list[float]:
    """Nichol and Dhariwal's cumulative products in plain floats, one beta after the other."""

    def curve(place: float) -> float:
        return math.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - curve((i + 1) / length) / curve(i / length), 0.999) for i in range(length)]
    return list(accumulate((1 - beta for beta in betas), lambda so_far, factor: so_far * factor))


def entries(schedule: Schedule) -> list[int]:
    """Which of the thousand levels of the cosine chain a respaced one holds."""
    known, kept = torch.tensor(alpha_bar(), dtype=torch.float64), schedule.signal[1:].square()
    found = (known.log().unsqueeze(0) - kept.log().unsqueeze(1)).abs().argmin(1)
    assert torch.allclose(known[found], kept, rtol=1e-9, atol=0)
    return found.tolist()


# --- MAR's grid ------------------------------------------------------------------------------------------------------
def test_the_entries_of_a_hundred_steps() -> None:
    """round(k 999 / 99), as the released code has them for "100" (LTH14/mar, commit fe470ac)."""
    found = entries(cosine())
    assert found[:8] == [0, 10, 20, 30, 40, 50, 61, 71] and found[-3:] == [979, 989, 999]
    assert found == [round(k * 999 / 99) for k in range(100)]


@pytest.mark.parametrize("steps", [1000, 250, 100, 59, 50, 43, 28, 25, 23, 21, 19, 10, 7, 3, 2])
def test_entries_are_those_of_a_running_sum(steps: int) -> None:
    """The released respacing adds strides up; at 21, 23, 43 and 59 steps rounding of the sum decides a half."""
    place, wanted = 0.0, []
    for _ in range(steps):
        wanted.append(round(place))
        place += 999 / (steps - 1)
    assert entries(cosine(steps)) == wanted


def test_one_step_is_the_noisiest_level() -> None:
    assert float(cosine(1).signal[1] ** 2) == pytest.approx(alpha_bar()[-1], rel=1e-9)
    assert exploding(1).noise.tolist() == pytest.approx([0.0, 80.0])


def test_the_numbers_of_a_hundred_steps() -> None:
    """To the digits published for MAR's head (2406.11838, released code): betas, cumulative products, both sigmas."""
    schedule = cosine()
    beta = [float(schedule.added(time, time - 1)) for time in range(1, 101)]
    assert beta[0] == pytest.approx(4.128e-5, rel=2e-4) and beta[1] == pytest.approx(6.798e-4, rel=2e-4)
    assert beta[-4:] == pytest.approx([0.437, 0.555, 0.750, 0.99999], abs=6e-4)
    kept = schedule.signal.square()
    assert float(kept[1]) == pytest.approx(0.99995872, abs=5e-9)
    assert float(kept[99]) == pytest.approx(2.4286e-4, rel=3e-5)
    assert float(kept[100]) == pytest.approx(2.4288e-9, rel=3e-5)
    sigmas = {
        0: (0.00624, 0.00643), 1: (0.00624, 0.02607), 2: (0.0211, 0.0341), 10: (0.0651, 0.0716),
        40: (0.1477, 0.1508), 80: (0.3045, 0.3060), 98: (0.8657, 0.8660), 99: (0.99987, 0.99999),
    }  # fmt: skip
    for index, wanted in sigmas.items():
        found = [math.exp(0.5 * float(part)) for part in schedule.log_variances(index + 1)]
        assert found == pytest.approx(wanted, rel=0, abs=7e-5), index


def test_the_betas_multiply_to_the_cumulative_product() -> None:
    schedule = cosine(50)
    factors = torch.stack([1 - schedule.added(time, time - 1) for time in range(1, 51)])
    # Relative to the signal: the last factors are 1 - .99999, and lose that many digits.
    assert torch.allclose(factors.cumprod(0), schedule.signal[1:] ** 2, rtol=1e-6, atol=1e-14)


# --- the other grids -------------------------------------------------------------------------------------------------
def test_linear_is_the_product_of_its_betas() -> None:
    kept = [1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(1000)]
    products = list(accumulate(kept, lambda a, b: a * b))
    assert linear(1000).signal[1:].square().tolist() == pytest.approx(products, rel=1e-12)
    assert float(linear(25).signal[-1] ** 2) == pytest.approx(products[-1], rel=1e-12)
    halved = [1 - (2e-4 + (0.04 - 2e-4) * i / 499) for i in range(500)]  # half as many steps, each twice as large
    assert linear(500, 500).signal[-1].square().item() == pytest.approx(math.prod(halved), rel=1e-12)


def test_exploding_is_karras_grid() -> None:
    """sigma_i = (s_max^(1/7) + i / (N - 1) (s_min^(1/7) - s_max^(1/7)))^7, i from 0 (2206.00364, eq. 5)."""
    ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    wanted = [(ends[0] + i / 17 * (ends[1] - ends[0])) ** 7 for i in range(18)]
    schedule = exploding()
    assert schedule.noise.flip(0).tolist() == pytest.approx([*wanted, 0.0], rel=1e-12)
    assert schedule.signal.tolist() == [1.0] * 19 and schedule.steps == 18


def test_straight_is_a_line() -> None:
    assert straight(4).noise.tolist() == [0, 0.25, 0.5, 0.75, 1] and straight(4).signal.tolist() == [
        1,
        0.75,
        0.5,
        0.25,
        0,
    ]
    assert straight(2, 0.5).noise.tolist() == [0, 0.25, 0.5]


def test_angles_rise_from_clean_to_noise() -> None:
    assert straight().angle[0] == 0 and float(straight().angle[-1]) == pytest.approx(math.pi / 2)
    for schedule in SCHEDULES.values():
        assert bool((schedule.angle.diff() > 0).all())
        unit = torch.hypot(schedule.signal, schedule.noise)
        assert torch.allclose(unit * schedule.angle.sin(), schedule.noise, atol=1e-14)


# --- coefficients ----------------------------------------------------------------------------------------------------
def chain(schedule: Schedule, time: int, width: float) -> Tensor:
    """The covariance (3, 3) of (x_0, x_{t-1}, x_t) in one coordinate, x_0 of variance ``width``, by simulation on
    matrices: x_{t-1} and x_t are linear in (x_0, e_1, e_2), the forward process adding to what is there.
    """
    ratio = float(schedule.signal[time] / schedule.signal[time - 1])
    grown = math.sqrt(float(schedule.noise[time] ** 2) - (ratio * float(schedule.noise[time - 1])) ** 2)
    row_0 = [1.0, 0.0, 0.0]
    row_1 = [float(schedule.signal[time - 1]), float(schedule.noise[time - 1]), 0.0]
    rows = torch.tensor([row_0, row_1, [ratio * row_1[0], ratio * row_1[1], grown]], dtype=torch.float64)
    return rows @ torch.diag(torch.tensor([width, 1.0, 1.0], dtype=torch.float64)) @ rows.T


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_forward_chain_has_the_marginals(name: str) -> None:
    """signal^2 + noise^2 for unit data at each level, so ``added`` is what the forward process adds, over any gap."""
    schedule = SCHEDULES[name]
    for time in range(1, schedule.steps + 1):
        variance = float(chain(schedule, time, 1.0)[2, 2])
        assert variance == pytest.approx(float(schedule.signal[time] ** 2 + schedule.noise[time] ** 2), rel=1e-12)
        assert float(schedule.added(time)) == pytest.approx(float(schedule.noise[time] ** 2), rel=1e-15)
    if schedule.steps > 2 and float(schedule.signal[3]) > 0:
        two = schedule.added(2, 1) * (schedule.signal[3] / schedule.signal[2]) ** 2 + schedule.added(3, 2)
        assert float(two) == pytest.approx(float(schedule.added(3, 1)), rel=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_posterior_is_conditioning(name: str) -> None:
    """Mean and variance of x_{t-1} given (x_0, x_t) by solving with the joint covariance; data of any width do."""
    schedule = SCHEDULES[name]
    for time in range(2, schedule.steps + 1):
        joint = chain(schedule, time, 1.0)
        known = [0, 2]
        gain = torch.linalg.solve(joint[known][:, known], joint[known][:, 1])
        spare = float(joint[1, 1] - joint[1, known] @ gain)
        found = torch.stack(schedule.posterior(time))
        assert torch.allclose(found, gain, rtol=1e-7, atol=1e-12), time
        small, large = schedule.log_variances(time)
        assert float(small.exp()) == pytest.approx(spare, rel=1e-7)
        assert float(large.exp()) == pytest.approx(float(schedule.added(time, time - 1)), rel=1e-12)
        assert small < large
    clean, current = schedule.posterior(1)  # level 0 is x_0 itself
    assert float(clean) == pytest.approx(1.0, rel=1e-12) and float(current) == 0.0


def test_the_large_variance_is_that_of_standard_normal_data() -> None:
    """On a variance-preserving chain with x_0 ~ N(0, 1), Var(x_{t-1} | x_t) = 1 - signal ratio^2 = beta."""
    schedule = cosine(40)
    for time in range(2, 41):
        joint = chain(schedule, time, 1.0)
        variance = float(joint[1, 1] - joint[1, 2] ** 2 / joint[2, 2])
        assert variance == pytest.approx(float(schedule.log_variances(time)[1].exp()), rel=1e-8)


def test_the_last_small_variance_is_borrowed() -> None:
    schedule = cosine(30)
    assert schedule.log_variances(1)[0] == schedule.log_variances(2)[0]
    assert schedule.log_variances(1)[1] == pytest.approx(2 * math.log(float(schedule.noise[1])), rel=1e-12)
    alone = cosine(1)
    assert alone.log_variances(1)[0] == alone.log_variances(1)[1]


def test_one_step_in() -> None:
    full, short = cosine(), cosine().one_step_in()
    assert short.steps == 99 and torch.equal(short.noise, full.noise[:-1])
    assert float(full.noise[-1] / full.signal[-1]) > 2e4 and float(short.noise[-1] / short.signal[-1]) < 65
    for time in (1, 2, 99):
        assert full.posterior(time) == short.posterior(time)
    with pytest.raises(ValueError, match="T >= 1"):
        cosine(1).one_step_in()


def test_on_another_device() -> None:
    moved = cosine(5).to("meta")
    assert moved.signal.device.type == moved.noise.device.type == "meta"


# --- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("signal", "noise", "words"),
    [
        ([1.0], [0.0], "one grid"),
        ([1.0, 0.5], [0.0, 0.5, 0.7], "one grid"),
        ([[1.0, 0.5]], [[0.0, 0.5]], "one grid"),
        ([0.9, 0.5], [0.0, 0.5], "must be clean"),
        ([1.0, 0.5], [0.1, 0.5], "must be clean"),
        ([1.0, 0.5, 0.4], [0.0, 0.5, 0.5], "sort the grid"),
        ([1.0, 0.5, 0.9], [0.0, 0.5, 0.6], "sort the grid"),
        ([1.0, 0.5, -0.1], [0.0, 0.5, 0.6], "non-negative"),
        ([1.0, 1.0], [0.0, math.inf], "finite"),
        ([1.0, math.nan], [0.0, 0.5], "finite"),
    ],
)
def test_grids_that_are_refused(signal: list[float], noise: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule(torch.tensor(signal), torch.tensor(noise))


@pytest.mark.parametrize("steps", [0, 11])
def test_more_levels_than_entries(steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        respaced(torch.linspace(0.9, 0.1, 10), steps)

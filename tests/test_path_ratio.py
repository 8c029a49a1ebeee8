"""The study of path ratios: its closed forms, its quadrature and its sampling, each against another way."""

from __future__ import annotations

import math
from itertools import count

import pytest
import torch
from torch.special import ndtr

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import ExactHead
from distributions.mixture import Mixture
from distributions.path import Denoiser, PathLaw
from distributions.reversal import Reversal
from distributions.schedule import cosine
from distributions.tape import GeneratorTape
from verify.studies.path_ratio import cells, present
from verify.studies.path_ratio.cells import denoiser, head, identity, line, plane
from verify.studies.path_ratio.chains import Mistaken, Wavy, accepted, distances, end, grid, joint
from verify.studies.path_ratio.line import Tabled, marginal, shared
from verify.study import write

torch.set_num_threads(1)


def one_gaussian(mean: float, scale: float) -> ExactHead:
    law = Mixture(torch.ones(1), Gaussian(torch.tensor([[mean]]), torch.tensor([[scale]])))
    return ExactHead(lambda condition: law, torch.zeros(1, dtype=torch.float64))


# --- chains ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_the_grid_ends_at_one_level_whatever_its_steps(steps: int) -> None:
    schedule, full = grid(steps), cosine(100)
    assert schedule.steps == steps and float(schedule.signal[-1]) == pytest.approx(float(full.signal[99]), rel=1e-9)
    if steps > 1:
        assert float(schedule.noise[1]) == pytest.approx(float(full.noise[1]), rel=1e-9)


def test_a_joint_law_is_the_path_law() -> None:
    """log densities of whole paths, and the marginal of x_0 of an exact reversal, which is the data's law."""
    for kernel in (Reversal(plane(0), grid(7)), denoiser(head(plane, 1), grid(7), 0.3)):
        law = PathLaw(kernel)
        path = GeneratorTape(1).normal("path", (10, *law.event_shape))
        assert torch.allclose(joint(kernel).log_prob(path.flatten(-2)), law.log_prob(path), rtol=1e-10, atol=1e-10)
    last = end(joint(Reversal(plane(0), grid(7))), 2)
    assert torch.allclose(last.mean, plane(0).mean) and torch.allclose(last.factor, plane(0).factor, atol=1e-12)
    with pytest.raises(TypeError, match="accepted"):
        joint(Reversal(line(0), grid(3)))
    with pytest.raises(ValueError, match="not linear"):
        joint(denoiser(head(line, 0), grid(3), 1.0))


@pytest.mark.parametrize("steps", [2, 11])
def test_the_theorem(steps: int) -> None:
    """Exact reversals: TV of paths is TV of the data at any number of steps, to 1e-10 in 2 and 16 dimensions."""
    for data in (plane, cells.wide):
        found = distances(*(Reversal(data(which), grid(steps)) for which in (0, 1)))
        assert found == pytest.approx([1 - float(data(0).overlap(data(1)))] * 2, rel=0, abs=1e-10)


@pytest.mark.parametrize("error", [0.0, 0.03, 0.3])
def test_chains_of_equal_matrices_and_variances(error: float) -> None:
    """TV of paths = 2 Phi(Delta / 2) - 1, Delta^2 the sum of squared moves over variances, step by step."""
    schedule, data = grid(20), Gaussian(torch.tensor([0.4]), torch.tensor([0.6]))
    right = Reversal(data, schedule)
    wrong = Mistaken(right, schedule, error)
    square = torch.zeros(()).double()
    for time in range(1, 21):
        signal, noise = schedule.signal[time], schedule.noise[time]
        spread = 0.36 * noise**2 / (signal**2 * 0.36 + noise**2)  # variance of x_0 given x_t
        clean = schedule.posterior(time)[0]
        spare = schedule.added(time, time - 1) * (schedule.noise[time - 1] / noise) ** 2
        square += (clean * error * noise / signal) ** 2 / (clean**2 * spread + spare)
    paths, last = distances(right, wrong)
    assert paths == pytest.approx(float(2 * ndtr(square.sqrt() / 2) - 1), abs=1e-9)
    assert last <= paths + 1e-12 and (paths - last > 1e-3) == (error > 0)


def test_ends_are_never_further_apart_than_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data-processing inequality, for every kind of pair in the study."""
    monkeypatch.setattr(cells, "FIXED", 8)
    for steps in (2, 6):
        for gaps in cells.gaussian_by_steps((steps,)).values():
            assert all(gap.size[0] > -1e-9 for gap in gaps.values())
    for swept in cells.gaussian_errors((6,)):
        for gaps in swept.values():
            sizes = [gap.paths[0] for gap in gaps.values()]
            assert all(gap.size[0] > -1e-9 for gap in gaps.values()) and sizes == sorted(sizes)
            assert 0.0 not in gaps or gaps[0.0].paths[0] == pytest.approx(0, abs=1e-9)


def test_sampled_acceptance_is_one_minus_total_variation() -> None:
    """On a linear pair with a gap; false alarm 2e-9."""
    pair = head(plane, 0), head(plane, 1)
    wanted, last = distances(*(denoiser(item, grid(10), 0.5) for item in pair))
    found = accepted(PathLaw(denoiser(pair[0], grid(10), 0.5)), PathLaw(denoiser(pair[1], grid(10), 0.5, 20_000)), 3)
    error = (found[2] - found[1]) / 2 / 1.96
    assert abs(1 - found[0] - wanted) < 6 * error
    assert wanted - last > 20 * error  # so that the ends' distance would not pass


def test_a_smooth_error_is_smooth_and_of_its_size() -> None:
    exact = head(plane, 0)
    value = 2 * GeneratorTape(1).normal("x", (4000, 2))
    level, none = (torch.tensor(0.8).double(), torch.tensor(0.6).double()), torch.zeros(4000, 1).double()
    right, wrong = exact(value, *level, none), Wavy(exact, 0.1)(value, *level, none)
    moved = wrong.noise - right.noise
    assert 0.05 < float(moved.square().mean().sqrt()) < 0.2
    assert torch.allclose(level[0] * wrong.clean + level[1] * wrong.noise, value, atol=1e-12)
    near = Wavy(exact, 0.1)(value + 1e-3, *level, none).noise - exact(value + 1e-3, *level, none).noise
    assert float((near - moved).abs().max()) < 0.01
    assert torch.equal(Wavy(exact, 0.0)(value, *level, none).noise, right.noise)


# --- the law of x_0 on the line --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("steps", "fraction"), [(1, 1.0), (3, 0.0), (10, 0.5), (40, 1.0)])
def test_the_quadrature_on_a_linear_chain(steps: int, fraction: float) -> None:
    kernel = denoiser(one_gaussian(0.3, 0.7), grid(steps), fraction)
    found, wanted = marginal(kernel), end(joint(kernel), 1)
    density = wanted.log_prob(found.place.unsqueeze(-1)).exp()
    assert torch.allclose(found.density, density, rtol=0, atol=1e-9 * float(density.max()))


def test_the_quadrature_settles() -> None:
    pair = [denoiser(item, grid(10), 0.5) for item in (head(line, 0), Wavy(head(line, 0), 0.1))]
    coarse, fine = (shared(*(marginal(kernel, part) for kernel in pair)) for part in (0.5, 0.2))
    assert coarse == pytest.approx(fine, abs=1e-5)
    with pytest.raises(ArithmeticError, match="fineness"):
        marginal(pair[0], 6.0)
    with pytest.raises(TypeError, match="Gaussians on the line"):
        marginal(denoiser(head(plane, 0), grid(3), 0.5))


def test_the_quadrature_against_samples() -> None:
    """Mean and variance of x_0 of a chain that is not linear; six standard errors, false alarm 4e-9 for both."""
    kernel, rows = denoiser(Wavy(head(line, 0), 0.3), grid(12), 0.5), 40_000
    found = marginal(kernel)
    value = PathLaw(denoiser(Wavy(head(line, 0), 0.3), grid(12), 0.5, rows)).sample(GeneratorTape(2), "path")[:, -1, 0]
    for power in (1, 2):
        wanted = float((found.density * found.place**power).sum()) * found.spacing
        spread = float((value**power).std()) / math.sqrt(rows)
        assert abs(float((value**power).mean()) - wanted) < 6 * spread


def test_the_overlap_of_tables() -> None:
    place = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    other = torch.linspace(-8, 10, 3001, dtype=torch.float64)
    first, second = (
        Tabled(grid_, torch.exp(-0.5 * (grid_ - mean) ** 2) / math.sqrt(2 * math.pi))
        for grid_, mean in ((place, 0.0), (other, 1.0))
    )
    wanted = float(2 * ndtr(torch.tensor(-0.5).double()))
    assert shared(first, second) == pytest.approx(wanted, abs=1e-6)
    assert shared(second, first) == shared(first, second)
    assert shared(first, first) == pytest.approx(1, abs=1e-9)


# --- the study -------------------------------------------------------------------------------------------------------
def fewer(monkeypatch: pytest.MonkeyPatch, *data: str) -> None:
    """Without the pairs whose overlap takes seconds, and long chains."""
    monkeypatch.setattr(cells, "DATA", {name: cells.DATA[name] for name in data})
    monkeypatch.setattr(
        cells, "SCHEDULES", {name: cells.SCHEDULES[name] for name in ("cosine, 10 steps", "straight, 25 steps")}
    )


@pytest.mark.slow
def test_the_identity_on_every_pair() -> None:
    rows = list(identity(200, count()))
    assert len(rows) == len(cells.DATA) * len(cells.SCHEDULES)
    for row in rows:  # acceptance is the overlap of the data; false alarm 2e-9 a row
        assert abs(row["paths accepted"] - 1 + row["TV of the data"]) < 6 / 1.96 * row["±"] + 1e-9


def test_the_identity_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer(monkeypatch, "Gaussian, d = 2", "three Gaussians on the line")
    for row in identity(200, count()):
        assert abs(row["paths accepted"] - 1 + row["TV of the data"]) < 6 / 1.96 * row["±"]  # false alarm 2e-9 a row
        assert row["largest difference of log-ratios"] < 1e-10

    class Nearly(Reversal):
        """A kernel that is no reversal: its means are off by one part in a million."""

        def step(self, time: int, value: torch.Tensor) -> FullGaussian:
            law = super().step(time, value)
            assert isinstance(law, FullGaussian)
            return FullGaussian(law.mean * (1 + 1e-6), law.scale_tril)

    fewer(monkeypatch, "Gaussian, d = 2")
    monkeypatch.setattr(cells, "Reversal", Nearly)
    with pytest.raises(ArithmeticError, match="path and data ratio differ"):
        list(identity(200, count()))


def test_variances_decide_the_gap() -> None:
    """Exact posterior covariance: none. Another: a gap that falls with the steps, faster than as their inverse root."""
    found = cells.gaussian_by_steps((10, 20, 50))
    assert max(abs(gap.size[0]) for gap in found[cells.EXACT].values()) < 1e-10
    for name in cells.SAID:
        sizes = [found[name][steps].size[0] for steps in (10, 20, 50)]
        assert sizes[0] > sizes[1] > sizes[2] > 1e-6 and cells.slope(found[name]) > 0.5


def test_a_small_study(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer(monkeypatch, "Gaussian, d = 2", "three Gaussians on the line")
    monkeypatch.setattr(cells, "ERRORS", (0.0, 0.02, 0.05, 0.1, 0.2))
    monkeypatch.setattr(cells, "FIXED", 5)
    steps, seed = (3, 5, 10), count()
    variances = cells.gaussian_by_steps(steps), cells.line_by_steps(steps, 200, seed)
    gaussian, mixture = cells.gaussian_errors(steps), cells.line_errors(steps, 200, seed)
    errors = {**gaussian[0], **mixture[0]}, {**gaussian[1], **mixture[1]}
    study = present(list(identity(50, seed)), variances, errors, 200)
    assert [len(table) for table in study.tables.values()] == [4, 21, 20, 12]
    assert len(study.figures) == 2 and "Girsanov" in study.text
    assert all(path.is_file() for path in write(study, "path_ratio", tmp_path, {"seed": "0"}))  # type: ignore[arg-type]
    assert isinstance(denoiser(head(plane, 0), grid(2), 0.5), Denoiser)

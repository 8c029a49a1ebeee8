"""The network head: its identities at every level of every schedule, its derivatives, and its variance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap

from distributions import network
from distributions.heads import Head, Prediction
from distributions.network import NetworkHead, initial
from distributions.path import Denoiser
from distributions.schedule import Schedule, cosine, exploding, linear, straight
from distributions.tape import GeneratorTape

torch.set_num_threads(1)
SCHEDULES = {
    "cosine": cosine(20),
    "linear": linear(20),
    "exploding": exploding(20),
    "straight": straight(20, 0.999),
    "one step in": cosine(100).one_step_in(),
}


def head(dim: int = 2, predicts: str = "noise", dtype: torch.dtype = torch.float64, depth: int = 2) -> NetworkHead:
    """An untrained head that says something: every weight, the output's too, is drawn."""
    tape = GeneratorTape(dim)
    weights = initial(tape, dim, 4, 24, depth)
    return NetworkHead(
        {name: (part + 0.3 * tape.normal(name, part.shape)).to(dtype) for name, part in weights.items()}, predicts
    )


def inputs(rows: int, dim: int) -> tuple[Tensor, Tensor]:
    tape = GeneratorTape(7)
    return tape.normal("value", (rows, dim)), tape.normal("condition", (rows, 4))


@pytest.mark.parametrize("predicts", network.PREDICTS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_value_is_its_signal_and_its_noise(name: str, predicts: str) -> None:
    """x = signal clean + noise eps to rounding, at every level, also where the head runs in single precision."""
    schedule, (value, condition) = SCHEDULES[name], inputs(50, 3)
    for kind in (torch.float32, torch.float64):
        subject = head(3, predicts, kind)
        for signal, noise in zip(schedule.signal[1:], schedule.noise[1:], strict=True):
            told = subject(value, signal, noise, condition)
            assert told.clean.dtype == told.noise.dtype == torch.float64
            sides = signal * told.clean, noise * told.noise
            scale = torch.stack((*(side.abs() for side in sides), value.abs())).max()
            assert float((sum(sides) - value).abs().max() / scale) < 1e-14


def test_the_velocity_is_the_velocity() -> None:
    """cos eps - sin clean is what the network said, and both ends are finite: nothing is divided by the signal."""
    subject, (value, condition) = head(2, "velocity"), inputs(9, 2)
    for angle in torch.linspace(0, torch.pi / 2, 7, dtype=torch.float64):
        told = subject(value, angle.cos(), angle.sin(), condition)
        said, _ = subject.raw(value, angle, condition)
        assert float((angle.cos() * told.noise - angle.sin() * told.clean - said).abs().max()) < 1e-13
    ends = straight(4)
    assert bool(torch.isfinite(subject(value, ends.signal[-1], ends.noise[-1], condition).clean).all())
    with pytest.raises(ValueError, match="velocity"):
        head(2)(value, ends.signal[-1], ends.noise[-1], condition)
    with pytest.raises(ValueError, match="velocity"):
        NetworkHead(head(2).weights, "score")


@pytest.mark.parametrize("predicts", network.PREDICTS)
def test_a_level_is_the_same_on_every_schedule(predicts: str) -> None:
    """At one angle, x in units of hypot(signal, noise) is all that the network sees; the fraction is u / h^2."""
    subject, (value, condition) = head(2, predicts), inputs(20, 2)
    for angle in (0.1, 0.8, 1.5):
        at = torch.tensor(angle, dtype=torch.float64)
        one = subject(value, at.cos(), at.sin(), condition)
        for size in (1 / at.cos(), 1 / (at.cos() + at.sin())):  # exploding, straight
            other = subject(size * value, size * at.cos(), size * at.sin(), condition)
            assert torch.allclose(other.noise, one.noise, rtol=0, atol=1e-9 / float(at.cos()))
            assert torch.allclose(other.clean, one.clean, rtol=1e-9, atol=1e-9)
            assert other.fraction is not None and one.fraction is not None
            assert torch.allclose(other.fraction * size**2, one.fraction, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", ["cosine", "exploding"])
def test_the_fraction_is_right_on_both_kinds_of_schedule(grid: str) -> None:
    """For data N(0, 1), u = Var(x_0 | x) / sin^2 = 1. A head that says so has, on a fine grid of either kind, the
    variance of the exact reverse kernel, 1 / (1 / marginal + (signal ratio)^2 / added); a head that says 0 has not.
    """
    schedule: Schedule = cosine(1000) if grid == "cosine" else exploding(1000)
    weights = {name: torch.zeros_like(part) for name, part in head(1).weights.items()}
    scales = []
    for fraction in (1.0, 0.0):
        weights["out.bias"] = torch.tensor([0.0, fraction], dtype=torch.float64)
        kernel = Denoiser(NetworkHead(weights), schedule, torch.zeros(1, 4, dtype=torch.float64))
        steps = range(100, 900, 50)
        scales.append(torch.stack([kernel.step(time, torch.zeros(1, 1)).scale[0, 0] for time in steps]))
    exact, spans = [], []
    for time in steps:
        before = schedule.signal[time - 1] ** 2 + schedule.noise[time - 1] ** 2
        ratio = schedule.signal[time] / schedule.signal[time - 1]
        exact.append((1 / before + ratio**2 / schedule.added(time, time - 1)).rsqrt())
        spans.append((schedule.noise[time] / schedule.noise[time - 1]).log())
    error, wrong = ((scale / torch.stack(exact)).log().abs() for scale in scales)
    assert float((error / torch.stack(spans)).max()) < 0.02 < 0.1 < float((wrong / torch.stack(spans)).max())


def test_untrained_it_is_the_zero_head() -> None:
    subject, (value, condition) = NetworkHead(initial(GeneratorTape(0), 2, 4, 16, 2)), inputs(5, 2)
    told = subject(value, torch.tensor(0.6), torch.tensor(0.8), condition)
    assert isinstance(subject, Head) and (subject.dim, subject.null.shape) == (2, (4,))
    assert not bool(told.noise.any()) and told.fraction is not None and not bool(told.fraction.any())


def test_rows_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's answer does not depend on the rows beside it, nor on how rows are cut into parts; batches broadcast."""
    subject, (value, condition) = head(3), inputs(37, 3)
    level = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    whole = subject(value, *level, condition).noise
    monkeypatch.setattr(network, "ROWS", 5)
    assert float((subject(value, *level, condition).noise - whole).abs().max()) < 1e-13
    alone = torch.stack([subject(value[row], *level, condition[row]).noise for row in range(37)])
    assert float((alone - whole).abs().max()) < 1e-13
    grid = subject(value[:36].reshape(4, 9, 3), *level, condition[:9]).noise
    assert float((grid[2] - subject(value[18:27], *level, condition[:9]).noise).abs().max()) < 1e-13
    assert subject(value[:0], *level, condition[:0]).noise.shape == (0, 3)


@pytest.mark.parametrize("predicts", network.PREDICTS)
def test_forward_mode_derivatives(predicts: str) -> None:
    """jvp under vmap, as flows take their Jacobians, is reverse mode's and the difference quotient's."""
    subject, (value, condition) = head(3, predicts), inputs(6, 3)
    level = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)

    def clean(point: Tensor) -> Tensor:
        return subject(point, *level, condition).clean

    def along(direction: Tensor) -> Tensor:
        return jvp(clean, (value,), (direction.expand_as(value),))[1]

    found = vmap(along)(torch.eye(3, dtype=torch.float64))
    reverse = torch.stack([jacrev(clean)(value)[row, :, row] for row in range(6)])
    assert float((found.permute(1, 2, 0) - reverse).abs().max()) < 1e-12
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    quotient = torch.stack([(clean(value + each) - clean(value - each)) / 2e-6 for each in step])
    assert float((found - quotient).abs().max()) < 1e-7
    assert float(found.abs().max()) > 0.1


def test_precision() -> None:
    """Single precision differs from double by its rounding, and only by it."""
    double, (value, condition) = head(2), inputs(100, 2)
    single = double.to(torch.float32)
    told: list[Prediction] = [
        subject(value, torch.tensor(0.6), torch.tensor(0.8), condition) for subject in (double, single)
    ]
    gap = float((told[0].noise - told[1].noise).abs().max() / told[0].noise.abs().max())
    assert 1e-9 < gap < 1e-5


def test_device() -> None:
    """Nothing is made on another device than the value's: on ``meta`` a tensor from the host would be refused."""
    subject, (value, condition) = head(3, "velocity").to("meta"), inputs(5, 3)
    signal, noise = torch.tensor(0.6, device="meta"), torch.tensor(0.8, device="meta")
    told = subject(value.to("meta"), signal, noise, condition.to("meta"))
    assert told.clean.device.type == told.noise.device.type == subject.null.device.type == "meta"
    assert told.clean.shape == (5, 3) and told.fraction is not None and told.fraction.shape == (5, 3)

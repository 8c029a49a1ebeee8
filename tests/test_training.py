"""Data sets, the training of heads on them, and what the shipped weights reach."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from distributions.datasets import conditions, datasets
from distributions.denoising import NAMELESS, Batch, denoising_error, exact, losses, noised
from distributions.gaussian import Gaussian
from distributions.mixture import Mixture
from distributions.network import NetworkHead
from distributions.path import Denoiser, PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape
from distributions.training import FOLDER, ROLES, Recipe, make, pretrained, recipe, train, weights_of
from verify.cli import main

torch.set_num_threads(1)
DATA = datasets()
SHIPPED = [tuple(file.name.removesuffix(".target.safetensors").split(".")) for file in FOLDER.glob("*.target.*")]
SHIPPED = [name for name in SHIPPED if name[0] in DATA]  # the others are models of images
FILES = [(name[0], role, (*name, "noise")[1]) for name in SHIPPED for role in ROLES]
PAIRS = [pytest.param(*item, id=".".join(item)) for item in sorted((*name, "noise")[:2] for name in SHIPPED)]


@pytest.mark.parametrize("name", DATA)
def test_data_sets(name: str) -> None:
    """A Mixture for any batch of conditions, the null one too; about as wide as N(0, I); the condition matters."""
    condition = conditions(GeneratorTape(0), 2000)
    assert torch.allclose(condition.reshape(-1, 2, 2).square().sum(-1), torch.ones(2000, 2).double())
    law = DATA[name](condition)
    dim = law.event_shape[0]
    assert isinstance(law, Mixture) and law.batch_shape == (2000,) and dim in (2, 16)
    assert DATA[name](torch.zeros(4)).batch_shape == () and DATA[name](condition.reshape(2, 10, 100, 4))[1, 2, 3]
    value = law.sample(GeneratorTape(1), "value")
    assert 0.8 < float(value.var(0).mean()) < 1.6 and float(value.mean(0).abs().max()) < 1
    other = DATA[name](condition.roll(1, 0))
    assert float((law.log_prob(value) - other.log_prob(value)).mean()) > 0.01  # KL, averaged over conditions
    assert torch.equal(DATA[name](condition[3:4]).log_prob(value[3]), law[3:4].log_prob(value[3]))


def test_noised_data() -> None:
    """x = cos clean + sin noise; levels uniform, and spread evenly within a datum; a tenth of the data nameless."""
    batch = noised(DATA["ring"], 40_000, GeneratorTape(2))
    angle = batch.angle.reshape(4, 10_000)
    assert torch.allclose(angle.sort(0).values.diff(dim=0), torch.tensor(math.pi / 8).double())
    assert torch.equal(batch.clean[:10_000], batch.clean[30_000:])
    place = (batch.angle[:10_000] / (0.5 * math.pi)).sort().values
    # Kolmogorov's bound for n = 10 000: sqrt(log(2 / alpha) / (2 n)) = .027 at alpha = 1e-6.
    assert float((place - (torch.arange(10_000) + 0.5) / 10_000).abs().max()) < 0.027
    nameless = (batch.condition == 0).all(-1).double().mean()
    assert abs(float(nameless) - NAMELESS) < 5 * math.sqrt(0.09 / 10_000)  # false alarms below 6e-7
    middle = torch.full((40_000,), math.pi / 4, dtype=torch.float64)
    half = Batch(batch.clean, batch.noise, middle, batch.condition)
    assert torch.allclose(half.value, (batch.clean + batch.noise) / math.sqrt(2))
    assert torch.allclose(half.wanted("velocity"), (batch.noise - batch.clean) / math.sqrt(2))


def losses_by_hand(fraction: Tensor, clean_hat: Tensor, batch: Batch, step: Tensor) -> Tensor:
    """The vb term of a variance-preserving chain, by torch's KL and by conditioning x_s, x_t on x_0."""
    time, earlier = batch.angle, torch.maximum(batch.angle - step, batch.angle / 2)
    ratio = time.cos() / earlier.cos()
    added = 1 - ratio**2
    small = 1 / (1 / earlier.sin() ** 2 + ratio**2 / added)
    pull = small * earlier.cos() / earlier.sin() ** 2  # of x_0 on the posterior mean of x_s
    kept = small.log() + fraction * (added.log() - small.log())
    real = Normal(pull.unsqueeze(-1) * batch.clean, small.sqrt().unsqueeze(-1))
    said = Normal(pull.unsqueeze(-1) * clean_hat, (0.5 * kept).exp().unsqueeze(-1))
    weight = (time.cos() ** 2 / (added.log() - small.log())) ** 2
    return (kl_divergence(real, said) * weight.unsqueeze(-1)).mean()


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
def test_losses(predicts: str) -> None:
    """Mean squared error, and the KL of Gaussian kernels; the KL leaves the prediction alone."""
    batch = noised(DATA["moons"], 400, GeneratorTape(3))
    batch = Batch(batch.clean, batch.noise, batch.angle.clamp(0.05, 1.5), batch.condition)
    miss = 0.3 * GeneratorTape(4).normal("miss", batch.clean.shape)
    main = (batch.wanted(predicts) + miss).requires_grad_()
    fraction = torch.full_like(miss, 0.7, requires_grad=True)
    step = torch.full_like(batch.angle, 0.03)
    error, variance = losses(torch.cat((main, fraction), -1), batch, predicts, step)
    assert abs(float(error.detach() - miss.square().mean())) < 1e-12
    angle = batch.angle.unsqueeze(-1)
    off = -angle.sin() * miss if predicts == "velocity" else -angle.tan() * miss
    wanted = losses_by_hand(torch.tensor(0.7).double(), batch.clean + off, batch, step)
    assert abs(float(variance.detach() / wanted) - 1) < 1e-7
    torch.autograd.backward(variance)
    assert main.grad is None or not bool(main.grad.any())
    assert fraction.grad is not None and bool(fraction.grad.any())


def test_the_variance_loss_is_least_at_the_truth() -> None:
    """For data N(0, 1) the exact kernel has the large variance, u = 1, at every step: the derivative there is zero.

    Where the prediction is E[eps | x] = sin x the gradient's mean is 0; 5 sd of 2e5 draws, false alarms below 6e-7.
    """
    tape, rows = GeneratorTape(5), 200_000
    angle = 0.5 * math.pi * (0.1 + 0.8 * tape.uniform("angle", (rows,)))
    clean, noise = tape.normal("clean", (rows, 1)), tape.normal("noise", (rows, 1))
    batch = Batch(clean, noise, angle, torch.zeros(rows, 4))
    said = angle.sin().unsqueeze(-1) * batch.value
    slopes = []
    for level in (1.0, 0.8, 1.2):
        fraction = torch.full((rows, 1), level, dtype=torch.float64, requires_grad=True)
        _, variance = losses(torch.cat((said, fraction), -1), batch, "noise", torch.full((rows,), 0.02))
        torch.autograd.backward(variance)
        assert fraction.grad is not None
        each = fraction.grad * rows
        slopes.append(float(each.mean() / (each.std() / math.sqrt(rows))))
    assert abs(slopes[0]) < 5 and slopes[1] < -20 and slopes[2] > 20


def test_training_learns_and_repeats() -> None:
    """In 250 steps a small head loses less than half of the zero head's excess; one seed gives one head."""
    ring = DATA["ring"]
    first, again = (train(ring, Recipe(24, 1, 3, batch=64), GeneratorTape(1)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    counted: list[int] = []

    def follow(steps: range) -> Iterator[int]:
        for step in steps:
            counted.append(step)
            yield step

    weights = train(ring, Recipe(24, 1, 250, octaves=2, batch=256), GeneratorTape(1), follow=follow)
    assert counted == list(range(250))
    least = denoising_error(exact(ring), ring, 512)
    assert least < denoising_error(NetworkHead(weights), ring, 512) < least + (1 - least) / 2


def about(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        found: dict[str, str] = opened.metadata()
    return found


def test_what_ships() -> None:
    """Every data set has its pair of heads; a pair that is not there is refused with the list of those that are."""
    assert {name for name, *_ in SHIPPED} == set(DATA)
    assert all(weights_of(*item).stat().st_size < 400_000 for item in FILES)
    with pytest.raises(ValueError, match="ring"):
        pretrained("torus")


def test_the_wheel_has_the_weights() -> None:
    """What the build backend packs, asked of itself."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="the build backend is not installed")
    builder = wheel.WheelBuilder(str(FOLDER.parents[1]))
    packed = {Path(item.distribution_path) for item in builder.recurse_included_files()}
    assert {Path("distributions/weights", weights_of(*item).name) for item in FILES} <= packed


@pytest.mark.parametrize(("name", "predicts"), PAIRS)
def test_shipped_heads_denoise(name: str, predicts: str) -> None:
    """The mean squared error of the noise, as the files say; the target within 10 % of the least there is, half as
    far from it as the drafter or nearer; the drafter within 60 %.
    """
    pair = pretrained(name, predicts)
    least = denoising_error(exact(pair.data), pair.data, 1000)
    found = {role: denoising_error(getattr(pair, role), pair.data, 1000) for role in ("target", "drafter")}
    for role, error in found.items():
        stated = about(weights_of(name, role, predicts))
        assert abs(error / float(stated["noise_error"]) - 1) < 0.05  # other draws than those of the file
        assert stated["predicts"] == predicts and stated["role"] == role
    assert found["target"] < 1.1 * least and found["drafter"] < 1.6 * least
    assert found["target"] - least < 0.5 * (found["drafter"] - least)


@pytest.mark.parametrize(("name", "predicts"), PAIRS)
def test_samples_of_the_target_are_near_the_data(name: str, predicts: str) -> None:
    """100 steps from one step in: along twelve directions Kolmogorov's distance from the data's law is below .09.

    A sampler without error passes .09 with 1200 draws by chance with probability 12 * 2 exp(-2 * 1200 * .09^2) = 9e-8,
    by the bound of Dvoretzky, Kiefer, Wolfowitz and Massart. Under a condition a quarter turn away the law is another.
    """
    pair = pretrained(name, predicts)
    condition = conditions(GeneratorTape(8), 1)
    kernel = Denoiser(pair.target, cosine(100).one_step_in(), condition.expand(1200, 4))
    with torch.no_grad():
        token = PathLaw(kernel).sample(GeneratorTape(9), "path")[..., -1, :]
    way = GeneratorTape(10).normal("way", (token.shape[-1], 12))
    way = way / way.norm(dim=0)
    turned = condition[:, [1, 0, 3, 2]] * torch.tensor([-1.0, 1.0, -1.0, 1.0])
    gaps = [sliced(token, pair.data(given)[0], way) for given in (condition, turned)]
    assert float(gaps[0].max()) < 0.09 < float(gaps[1].max())


def sliced(value: Tensor, law: Mixture, way: Tensor) -> Tensor:
    """Kolmogorov's distance along each direction (d, n) of ``value`` (rows, d) from a mixture: (n,)."""
    spread = (law.components.factor.mT @ way).norm(dim=-2)
    mean = law.components.mean @ way
    place = (value @ way).sort(0).values
    under = (torch.special.ndtr((place.unsqueeze(-2) - mean) / spread) * law.weights.unsqueeze(-1)).sum(-2)
    count = torch.arange(len(value)).double().unsqueeze(-1) / len(value)
    return torch.maximum(under - count, count + 1 / len(value) - under).amax(0)


def test_the_sliced_distance() -> None:
    """Of 4000 draws of the law it is below .045, but with probability 4 * 2 exp(-8000 * .045^2) = 7e-7; of draws that
    are moved by .2 it is 2 Phi(.1) - 1 = .08 along the move, of both components at once, if it has no error.
    """
    weights, mean = torch.tensor([0.3, 0.7]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    law = Mixture(weights.expand(4000, 2), Gaussian(mean.expand(4000, 2, 2), torch.ones(4000, 2, 2)))
    value, way = (
        law.sample(GeneratorTape(0), "value"),
        torch.tensor([[1.0, 0.0, 0.6, 0.8], [0.0, 1.0, 0.8, 0.6]]).double(),
    )
    assert float(sliced(value, law[0], way).max()) < 0.045
    moved = sliced(value + torch.tensor([0.2, 0.0]), law[0], way)
    assert abs(float(moved[0]) - 0.0797) < 0.045 and float(moved[1]) < 0.045


@pytest.mark.parametrize(("name", "predicts"), PAIRS)
def test_the_variance_is_worth_learning(name: str, predicts: str) -> None:
    """With its own variance the target gives real reverse steps a higher likelihood than with the small or the large.

    x_t, x_{t-1} are drawn jointly from the forward process, so this is the expected log-density of a path.
    """
    pair, schedule, tape = pretrained(name, predicts), cosine(50).one_step_in(), GeneratorTape(11)
    condition = conditions(tape, 1000)
    clean = pair.data(condition).sample(tape, "clean")
    totals = [0.0, 0.0, 0.0]
    for time in range(schedule.steps, 1, -4):
        before = schedule.signal[time - 1] * clean + schedule.noise[time - 1] * tape.normal("before", clean.shape)
        ratio = schedule.signal[time] / schedule.signal[time - 1]
        after = ratio * before + schedule.added(time, time - 1).sqrt() * tape.normal("after", clean.shape)
        for place, fraction in enumerate((None, 0.0, 1.0)):
            with torch.no_grad():
                law = Denoiser(pair.target, schedule, condition, fraction=fraction).step(time, after)
            totals[place] += float(law.log_prob(before).mean())
    assert totals[0] > max(totals[1:])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``specproof train`` writes both heads and how they were made; an unknown name is refused with a list."""
    monkeypatch.setattr("distributions.training.recipe", lambda dim, role: Recipe(8, 1, 3, batch=16))
    monkeypatch.setattr("distributions.training.denoising_error", lambda head, data: 0.5)
    assert main(["train", "moons", "--output", str(tmp_path), "--seed", "4"]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(weights_of("moons", role, folder=tmp_path)) for role in ("target", "drafter")]
    assert about(Path(printed[0]))["command"] == "specproof train moons --predicts noise --seed 4"
    assert load_file(printed[1])["out"].dtype == torch.float16
    assert main(["train", "torus"]) == 3 and "ring" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_the_stated_command_makes_the_stated_head(role: str, tmp_path: Path) -> None:
    """The command in the file, run again, reaches the error that the file states; in half precision, so nearly."""
    stated = about(weights_of("ring", role))
    words = shlex.split(stated["command"])
    assert words[:3] == ["specproof", "train", "ring"]
    file = make("ring", role, words[words.index("--predicts") + 1], int(words[words.index("--seed") + 1]), tmp_path)
    again = about(file)
    assert {**again, "noise_error": ""} == {**stated, "noise_error": ""}
    assert abs(float(again["noise_error"]) / float(stated["noise_error"]) - 1) < 0.01
    assert again["steps"] == str(recipe(2, role).steps)

"""Couplings of one step: their law by quadrature through the code itself, acceptance in closed form, whole vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.noise import Noise
from distributions.tape import GeneratorTape, RecordingTape
from tests.ladder_models import double, phi
from verify.couplings import reflection
from verify.gaussian.maximal import Coupling, independent, maximal, moved, synchronous
from verify.gaussian.pair import Pair, log_volume
from verify.residual import ThinningCapped

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

EXACT = {"synchronous": synchronous, "maximal": maximal, "independent": independent}


@dataclass(eq=False)
class Spy:
    """Answers coins by the end of their site and normals with what it is given, and notes the odds of every coin."""

    yes: Sequence[str]
    noise: Tensor | None = None
    odds: dict[str, Tensor] = field(default_factory=dict)

    def coin(self, site: str, prob: Tensor) -> Tensor:
        self.odds[site.rpartition(".")[2]] = prob
        return torch.full_like(prob, site.rpartition(".")[2] in self.yes, dtype=torch.bool)

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        assert self.noise is not None
        return self.noise.reshape(shape[0], 1, 1).expand(tuple(shape))

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        raise NotImplementedError

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def noise_(self, site: str, shape: Sequence[int]) -> Noise:
        raise NotImplementedError

    def __getitem__(self, rows: Tensor) -> Spy:
        return self


def read(place: Tensor, shift: float, ratio: float, full: bool) -> tuple[Tensor, ...]:
    """(a, h, k, image, thinned) at each place, of a draft N(0, 1) and a target N(shift, ratio^2), off the code's coins.

    A draft at ``place`` is kept with probability a and its image taken with h; a draw of the target with standard
    noise ``place`` is kept with k.
    """
    rows, value = len(place), place.unsqueeze(-1)
    draft: Law = Gaussian(torch.zeros(rows, 1), torch.ones(1))
    target: Law = Gaussian(double([[shift]]).expand(rows, 1), double([ratio]))
    if full:
        draft, target = (FullGaussian(law.mean, law.factor) for law in (draft, target))  # type: ignore[attr-defined]
    first, second = Spy(["image"]), Spy(["again"], place)
    image = maximal(value, target, draft, first, "s")[:, 0]  # type: ignore[arg-type]
    if "image" not in first.odds:
        return first.odds["keep"], torch.ones(rows).double(), torch.zeros(rows).double(), image, place
    # Where the image is certain nothing is thinned; the spy refuses it there as elsewhere, and is given the draws.
    thinned = maximal(value, target, draft, second, "s")[:, 0]  # type: ignore[arg-type]
    return first.odds["keep"], first.odds["image"], second.odds["again"][:, 0], image, thinned


def quadrature_gap(shift: float, ratio: float, full: bool) -> tuple[float, float]:
    """The largest error of E f(output) over test functions f, and the gap between need and yield of the thinning.

    The output is a kept draft, its image, or a thinned draw: its law is q a + T#(q (1 - a) h) + M p k / int p k, with M
    = int q (1 - a)(1 - h). By 8 Gauss-Legendre nodes to a panel; a panel in which a coin becomes certain, where there
    is a kink, is cut into a thousand.
    """
    edges = np.linspace(-12, 12, 1201)
    kept, taken, again, *_ = read(double(edges), shift, ratio, full)
    flags = torch.stack([kept == 1, taken == 1, taken == 0, again == 0])
    turns = (flags[:, 1:] != flags[:, :-1]).any(0)
    ends = zip(edges[:-1], edges[1:], (turns | turns.flip(0)).tolist(), strict=True)  # H is a change of sign
    parts = [np.linspace(low, high, 1001 if turn else 2) for low, high, turn in ends]
    edges = np.unique(np.concatenate(parts))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    place, weight = double((middle + half * nodes).ravel()), double((half * weights).ravel())
    kept, taken, again, image, thinned = read(place, shift, ratio, full)
    weight = weight * phi(place)
    lost, won = float(((1 - kept) * (1 - taken)) @ weight), float(again @ weight)
    worst = 0.0
    for function in (torch.ones_like, torch.tanh, torch.square, lambda y: torch.cos(3 * y), lambda y: torch.sin(7 * y)):
        found = (kept * function(place) + (1 - kept) * taken * function(image)) @ weight
        found += lost / won * (again * function(thinned)) @ weight if won else 0.0
        worst = max(worst, abs(float(found - function(shift + ratio * place) @ weight)))
    return worst, abs(lost - won)


PAIRS = [(0.0, 1.3), (0.0, 0.8), (0.5, 1.0), (0.7, 1.05), (1.0, 0.6), (3.0, 2.0), (0.01, 1.001), (9.0, 0.9)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shift, ratio", PAIRS)
def test_the_law_by_quadrature(shift: float, ratio: float, full: bool) -> None:
    """The target's law to 1e-11, and a thinned draw succeeds as often as one is needed: one draw to a coin (L8)."""
    law, need = quadrature_gap(shift, ratio, full)
    assert law < 1e-11 and need < 1e-11


@pytest.mark.parametrize("bug", ["excess", "missing", "mirror"])
def test_planted_bugs_fail_the_quadrature(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image always taken; thinning that forgets what the image gave; an image of another law."""
    right = {"excess": Pair.excess, "missing": Pair.missing, "mirror": Pair.mirror}
    wrong = {
        "excess": lambda pair, inside: torch.ones(inside.shape[:-1]).double(),
        "missing": lambda pair, inside: right["excess"](pair, inside),
        "mirror": lambda pair, noise: 0.9 * right["mirror"](pair, noise),
    }
    assert quadrature_gap(0.7, 1.3, False)[0] < 1e-11
    monkeypatch.setattr(Pair, bug, wrong[bug])
    assert quadrature_gap(0.7, 1.3, False)[0] > 1e-4


def pair_of(dim: int, full: bool, rows: int, seed: int = 0, equal: bool = False) -> tuple[Law, Law]:
    """Target and draft in ``dim`` dimensions, covariances unequal unless ``equal``, as one law repeated."""
    tape = GeneratorTape(seed + dim)
    apart = 0.6 * tape.normal("a", (dim,)) / math.sqrt(dim)
    mean = tape.normal("b", (dim,))
    scales = [0.7 + 0.2 * tape.uniform("c", (dim,)) for _ in range(2)]
    scales = [scales[0], scales[0]] if equal else scales
    if not full:
        return Gaussian((mean + apart).expand(rows, dim), scales[1]), Gaussian(mean.expand(rows, dim), scales[0])
    below = [0.15 * tape.normal("d", (dim, dim)).tril(-1) for _ in range(2)]
    below = [below[0], below[0]] if equal else below
    factors = [torch.diag_embed(scale) + part for scale, part in zip(scales, below, strict=True)]
    return FullGaussian((mean + apart).expand(rows, dim), factors[1]), FullGaussian(mean.expand(rows, dim), factors[0])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 4])
def test_acceptance_is_the_overlap(dim: int, full: bool) -> None:
    rows = 40_000
    target, draft = pair_of(dim, full, rows)
    tape = GeneratorTape(20 + dim)
    value = draft.sample(tape, "x")
    overlap = float(target[:1].overlap(draft[:1]))
    for couple in (maximal, independent):
        kept = float((couple(value, target, draft, tape, "s") == value).all(-1).double().mean())
        assert abs(kept - overlap) < 3 * math.sqrt(
            overlap * (1 - overlap) / rows
        )  # false alarm 0.0027; the seed is fixed


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_whole_vectors(name: str, full: bool) -> None:
    """Coordinates, sums of two, and the length of whitened outputs: 3 KS tests a case at 1e-7, 2e-6 in all."""
    target, draft = pair_of(16, full, 8_000)
    tape = GeneratorTape(7)
    output = EXACT[name](draft.sample(tape, "x"), target, draft, tape, "s")
    white = Pair.of(target, target).noise(output, target)
    assert stats.kstest(white.flatten().numpy(), "norm").pvalue > 1e-7
    assert stats.kstest(((white[:, ::2] + white[:, 1::2]) / math.sqrt(2)).flatten().numpy(), "norm").pvalue > 1e-7
    assert stats.kstest(white.square().sum(-1).numpy(), stats.chi2(16).cdf).pvalue > 1e-7


@pytest.mark.parametrize("full", [False, True])
def test_one_covariance_is_the_reflection_coupling(full: bool) -> None:
    """Against ``couplings.reflection``, whose rule is log(1 - u) <= ..., so with 1 - u for u; nothing is thinned."""
    target, draft = pair_of(4, full, 3_000, equal=True)
    tape = RecordingTape(GeneratorTape(2))
    value = draft.sample(GeneratorTape(1), "x")
    output = maximal(value, target, draft, tape, "s")
    assert [draw.site for draw in tape.draws] == ["s.keep"]
    pair = Pair.of(target, draft)
    noise, kept = reflection(pair.noise(value, draft), pair.shift, 1 - tape.draws[0].value)
    assert 500 < int(kept.sum()) < 2_900 and torch.equal((output == value).all(-1), kept)
    assert torch.allclose(output, pair.point(target, noise), rtol=0, atol=1e-12)


def test_rows_of_one_covariance_in_a_batch_of_others_are_reflected() -> None:
    scale = double([[1.0], [0.7]])
    draft, target = Gaussian(torch.zeros(2, 1), torch.ones(1)), Gaussian(torch.ones(2, 1), scale)
    spy = Spy(["image"])
    output = moved(double([[-1.0], [-1.0]]), target, draft, spy, "s")  # type: ignore[arg-type]
    assert float(spy.odds["image"][0]) == 1.0 and float(spy.odds["image"][1]) < 1.0
    assert output[:, 0].tolist() == [2.0, 1.7]


@pytest.mark.parametrize("couple", [synchronous, maximal, independent])
def test_equal_laws_keep_every_value_bit_for_bit(couple: Coupling) -> None:
    for full in (False, True):
        law, _ = pair_of(3, full, 500)
        value = law.sample(GeneratorTape(0), "x")
        assert torch.equal(couple(value, law, law[torch.arange(500)], GeneratorTape(1), "s"), value)


def test_synchronous_noise_is_the_same() -> None:
    for full in (False, True):
        target, draft = pair_of(4, full, 100)
        value = draft.sample(GeneratorTape(0), "x")
        output = synchronous(value, target, draft, GeneratorTape(1), "s")
        own, other = (Pair.of(law, law).noise(at, law) for law, at in ((draft, value), (target, output)))
        assert torch.allclose(own, other, rtol=0, atol=1e-12)


def test_volumes_are_the_normalisers() -> None:
    target, draft = pair_of(4, True, 1)
    at = [law.log_prob(law.mean) for law in (target, draft)]  # type: ignore[attr-defined]
    assert float(log_volume(draft) - log_volume(target)) == pytest.approx(float(at[0] - at[1]), abs=1e-12)
    mixture = Mixture(torch.ones(1, 1), draft[:, None])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give Gaussian"):
        log_volume(mixture)
    with pytest.raises(TypeError, match="shared noise"):
        synchronous(torch.zeros(1, 4), target, mixture, GeneratorTape(0), "s")


def test_mixtures_are_coupled_by_thinning() -> None:
    """KS at 1e-8."""
    rows, weights = 10_000, double([0.3, 0.7])
    target = Mixture(
        weights.expand(rows, 2), Gaussian(double([[-1.0], [1.0]]).expand(rows, 2, 1), torch.full((1,), 0.5))
    )
    draft = Gaussian(torch.zeros(rows, 1), torch.full((1,), 1.2))
    tape = GeneratorTape(3)
    output = maximal(draft.sample(tape, "x"), target, draft, tape, "s")
    law = stats.norm(scale=0.5)
    found = stats.kstest(output[:, 0].numpy(), lambda y: 0.3 * law.cdf(y + 1) + 0.7 * law.cdf(y - 1))
    assert found.pvalue > 1e-8


def test_thinning_that_does_not_end_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.gaussian.maximal.DRAWS", 1000)
    draft, target = Gaussian(torch.zeros(1, 1), torch.ones(1)), Gaussian(torch.zeros(1, 1), double([1 + 1e-12]))
    with pytest.raises(ThinningCapped, match="almost equal"):
        moved(double([[0.1]]), target, draft, Never(), "s")  # type: ignore[arg-type]


class Never(GeneratorTape):
    """A tape none of whose coins succeeds."""

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return torch.zeros(prob.shape, dtype=torch.bool)

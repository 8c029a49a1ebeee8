"""Laws on a finite vocabulary: normalisation, sampling, overlap, indexing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.law import Law, from_torch
from distributions.tape import GeneratorTape


def rows(*shape: int, seed: int = 0) -> Categorical:
    return Categorical(GeneratorTape(seed).race("probs", shape))


def test_is_a_law_normalised_in_float64() -> None:
    law = Categorical(torch.tensor([[1, 3], [2, 2]]))
    assert isinstance(law, Law)
    assert law.probs.dtype == torch.float64 and law.probs.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert law.batch_shape == (2,) and law.event_shape == ()


@pytest.mark.parametrize("bad", [[0.0, 0.0], [1.0, -0.1], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_refuses_rows_that_are_no_law(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="non-negative with a positive sum"):
        Categorical(torch.tensor([[0.5, 0.5], bad]))


def test_samples_have_the_law() -> None:
    # Three chi-square tests at 3.3e-7 each: false alarms at most 1e-6 together.
    law, size = rows(3, 5), 40_000
    drawn = Categorical(law.probs.expand(size, 3, 5)).sample(GeneratorTape(5), "x")
    assert drawn.shape == (size, 3)
    for column in range(3):
        count = drawn[:, column].bincount(minlength=5)
        assert chisquare(count.numpy(), size * law.probs[column].numpy()).pvalue > 3.3e-7


def test_log_prob_broadcasts_both_ways() -> None:
    law = rows(4, 3)
    single = torch.tensor([[0], [1], [2]]).expand(3, 4)
    assert torch.equal(law.log_prob(single), law.probs.T.log())
    assert torch.equal(law.log_prob(torch.tensor(1)), law.probs[:, 1].log())
    assert torch.equal(law[0].log_prob(torch.arange(3)), law.probs[0].log())
    assert Categorical(torch.tensor([1.0, 0.0])).log_prob(torch.tensor(1)) == -torch.inf


def test_overlap_is_one_less_total_variation() -> None:
    one, two = rows(6, 5), rows(6, 5, seed=1)
    assert torch.allclose(one.overlap(two), 1 - 0.5 * (one.probs - two.probs).abs().sum(-1), atol=1e-15)
    assert torch.equal(one.overlap(two), two.overlap(one))
    assert (one.overlap(one) - 1).abs().max() < 1e-15
    with pytest.raises(TypeError, match="overlap of Categorical and Gaussian"):
        one.overlap(Gaussian(torch.zeros(1), torch.ones(1)))


@pytest.mark.parametrize(
    "index",
    [
        1,
        slice(1, None),
        torch.tensor([2, 0, 0]),
        torch.tensor([True, False, True]),
        (slice(None), 2),
        (torch.tensor([0, 2]), torch.tensor([1, 3])),
        (slice(None), torch.tensor([3, 0])),
        (..., 0),
        (1, ...),
        None,
        (slice(None), None),
        torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) < 0.5,
    ],
)
def test_indexing_is_indexing_of_the_batch_bit_for_bit(index: Any) -> None:
    law = rows(3, 4, 5)
    marker = torch.arange(12).reshape(3, 4)[index]
    chosen = law[index]
    assert chosen.batch_shape == tuple(marker.shape)
    assert torch.equal(chosen.probs, law.probs.reshape(12, 5)[marker])


def test_indexing_never_reaches_the_vocabulary() -> None:
    with pytest.raises(IndexError):
        rows(3, 5)[0, 1]


def test_from_torch() -> None:
    probs = rows(2, 3).probs
    assert torch.allclose(from_torch(torch.distributions.Categorical(probs)).probs, probs, atol=1e-15)  # type: ignore[attr-defined]
    mixed = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.25, 0.75], dtype=torch.float64)),
        torch.distributions.Categorical(probs),
    )
    law = from_torch(mixed)
    assert isinstance(law, Categorical) and law.batch_shape == ()
    assert torch.allclose(law.log_prob(torch.arange(3)), mixed.log_prob(torch.arange(3)), atol=1e-14)
    with pytest.raises(TypeError, match="no law for Poisson"):
        from_torch(torch.distributions.Poisson(torch.ones(1)))

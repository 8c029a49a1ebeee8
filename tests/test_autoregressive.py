"""Sequence models of known law, against brute force and against sampling."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import chi2, chisquare
from torch import Tensor

from distributions.autoregressive import LinearGaussianAR, Markov
from distributions.categorical import Categorical
from distributions.enumeration import enumerate_tape
from distributions.gaussian import Gaussian
from distributions.model import Model
from distributions.tape import GeneratorTape, Tape

ONES = torch.ones((), dtype=torch.long)


def linear(seed: int = 0, order: int = 2, dim: int = 2) -> LinearGaussianAR:
    tape = GeneratorTape(seed)
    return LinearGaussianAR(
        0.4 * tape.normal("A", (order, dim, dim)), tape.normal("b", (dim,)), 0.5 + tape.uniform("s", (dim,))
    )


def by_hand(model: Markov, sequence: tuple[int, ...]) -> float:
    """The probability of a sequence, from the table's definition, one token at a time."""
    vocab, mass = model.vocab, 1.0
    for place, token in enumerate(sequence):
        context = ([vocab] * model.order + list(sequence[:place]))[place : place + model.order]
        row = 0
        for digit in context:
            row = row * (vocab + 1) + digit
        mass *= float(model.table[row, token])
    return mass


@pytest.mark.parametrize("vocab, order", [(3, 0), (3, 1), (2, 2), (3, 2), (2, 3)])
def test_sequence_probs_are_brute_force(vocab: int, order: int) -> None:
    model, length = Markov.random(vocab, order, seed=1), 4
    words = itertools.product(range(vocab), repeat=length)
    wanted = torch.tensor([by_hand(model, word) for word in words], dtype=torch.float64)
    assert (model.sequence_probs(length) - wanted).abs().max() < 1e-16
    assert abs(float(model.sequence_probs(length).sum()) - 1) < 1e-14


@pytest.mark.parametrize("vocab, order", [(3, 0), (3, 1), (2, 2)])
def test_sequence_probs_are_the_law_of_ancestral_sampling(vocab: int, order: int) -> None:
    model, length = Markov.random(vocab, order, seed=2), 4

    def run(index: Tensor, tape: Tape) -> Tensor:
        state, code = model.start(len(index)), torch.zeros(len(index), dtype=torch.long)
        for step in range(length):
            token = model.law(state).sample(tape, f"token.{step}")
            state = model.extend(state, token, ONES.expand(len(index)))
            code = code * vocab + token.squeeze(-1)
        return code

    law = torch.zeros(vocab**length, dtype=torch.float64)
    for _, mass, _, code in enumerate_tape(run, 1):
        law.index_add_(0, code, mass)
    assert (law - model.sequence_probs(length)).abs().max() < 1e-15


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_prefix_probs_are_ratios_of_sequence_probs(order: int) -> None:
    model = Markov.random(3, order, seed=3)
    for prefix in [(), (2,), (0, 1), (1, 2, 0)]:
        code = 0
        for token in prefix:
            code = code * 3 + token
        whole = model.sequence_probs(len(prefix) + 1).reshape(-1, 3)[code]
        assert (model.prefix_probs(prefix) - whole / whole.sum()).abs().max() < 1e-15


PARENTS = [[-1, 0, 1, 2], [-1, -1, -1, -1], [-1, 0, 0, 1], [-1, -1, 0, 1]]


def ancestry(parent: list[int], node: int) -> list[int]:
    """The nodes from the root to ``node``, inclusive."""
    return [] if node < 0 else [*ancestry(parent, parent[node]), node]


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_markov_law_follows_the_tree(order: int, parent: list[int]) -> None:
    model = Markov.random(3, order, seed=4)
    history = torch.tensor([[0, 1], [2, 0], [1, 1]])
    state = model.extend(model.start(3), history, torch.tensor([2, 1, 0]))
    value = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1], [0, 0, 1, 2]])
    law = model.law(state, value, torch.tensor(parent))
    assert isinstance(law, Categorical) and law.batch_shape == (3, 5)
    for row, known in enumerate([(0, 1), (2,), ()]):
        for node in range(-1, 4):
            drafted = tuple(value[row, at].item() for at in ancestry(parent, node))
            assert torch.equal(law.probs[row, node + 1], model.prefix_probs((*known, *drafted)))  # type: ignore[arg-type]


@pytest.mark.parametrize("parent", PARENTS)
def test_linear_law_follows_the_tree(parent: list[int]) -> None:
    model = linear(order=2)
    tape = GeneratorTape(5)
    state = model.extend(model.start(3), tape.normal("h", (3, 1, 2)), torch.tensor([1, 1, 0]))
    value = tape.normal("v", (3, 4, 2))
    law = model.law(state, value, torch.tensor(parent))
    assert isinstance(law, Gaussian) and law.batch_shape == (3, 5) and law.event_shape == (2,)
    for node in range(-1, 4):
        last = torch.cat((state, value[:, ancestry(parent, node)]), 1)[:, -2:]
        mean = last[:, 1] @ model.coefficients[0].T + last[:, 0] @ model.coefficients[1].T + model.bias
        assert (law.mean[:, node + 1] - mean).abs().max() < 1e-14
    assert torch.equal(law.scale, model.scale.expand(3, 5, 2))


@pytest.mark.parametrize("model", [Markov.random(3, 2, seed=0), linear()], ids=["markov", "linear"])
def test_extend_selects_and_rolls_back(model: Markov | LinearGaussianAR) -> None:
    assert isinstance(model, Model)
    if isinstance(model, Markov):
        value = torch.tensor([[0, 1, 2], [2, 2, 0], [1, 0, 1], [0, 0, 0]])
    else:
        value = GeneratorTape(6).normal("v", (4, 3, 2))
    start, length = model.start(4), torch.tensor([0, 1, 2, 3])
    before = start.clone()
    after = model.extend(start, value, length)
    assert torch.equal(start, before)
    for row, count in enumerate(length.tolist()):
        slow = model.start(1)
        for token in range(count):
            slow = model.extend(slow, value[row : row + 1, token : token + 1], ONES[None])
        assert torch.equal(after[row : row + 1], slow)
    junk = value.clone()
    junk[1, 1:] = 1
    junk[0] = 2
    assert torch.equal(model.extend(start, junk, length), after)  # what lies beyond the length does not count
    mask = torch.tensor([True, False, False, True])
    assert torch.equal(model.select(after, mask), after[[0, 3]])


def test_random_models_are_named_by_their_seed() -> None:
    assert torch.equal(Markov.random(4, 2, 7).table, Markov.random(4, 2, 7).table)
    assert not torch.equal(Markov.random(4, 2, 7).table, Markov.random(4, 2, 8).table)
    sharp, flat = Markov.random(4, 2, 7, concentration=0.1), Markov.random(4, 2, 7, concentration=100.0)
    assert sharp.table.amax(-1).mean() > 0.7 > 0.4 > flat.table.amax(-1).mean()


def test_random_rows_are_dirichlet() -> None:
    # The first entry of a flat Dirichlet row over 3 tokens is Beta(1, 2): ten equal cells, false alarms at 1e-6.
    first = Markov.random(3, 6, 0).table[:, 0]
    count = torch.histc(1 - (1 - first) ** 2, 10, 0.0, 1.0)
    assert chisquare(count.numpy()).pvalue > 1e-6


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(\(V \+ 1\)\*\*order, V\)"):
        Markov(torch.ones(3, 3), 1)
    model = Markov.random(3, 1, 0)
    with pytest.raises(ValueError, match=r"tokens 0\.\.2"):
        model.prefix_probs((3,))
    with pytest.raises(ValueError, match=r"tokens 0\.\.2"):
        model.law(model.start(1), torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match="earlier node"):
        model.law(model.start(1), torch.tensor([[0, 1]]), torch.tensor([-1, 1]))
    with pytest.raises(ValueError, match="earlier node"):
        model.law(model.start(1), torch.tensor([[0, 1]]), torch.tensor([-1]))
    with pytest.raises(ValueError, match="disagree"):
        LinearGaussianAR(torch.zeros(1, 2, 2), torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="scale must be positive"):
        LinearGaussianAR(torch.zeros(1, 2, 2), torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("order, length", [(0, 3), (1, 1), (2, 4), (3, 2)])
def test_linear_sequence_law_is_the_product_of_its_steps(order: int, length: int) -> None:
    model = linear(seed=3, order=order)
    value = GeneratorTape(1).normal("v", (7, length, 2))
    steps = model.law(model.start(7), value)[:, :-1].log_prob(value).sum(-1)
    assert (model.sequence_law(length).log_prob(value.flatten(1)) - steps).abs().max() < 1e-12


def test_linear_sequence_moments_are_those_of_sampling() -> None:
    # Whitened samples: n |mean|^2 is chi-square(6), and so is the sum of the 21 squared standardised second moments
    # with 21 degrees, both asymptotically at n = 1e5. False alarms at 5e-7 each.
    model, size, length = linear(seed=8), 100_000, 3
    tape, state, drawn = GeneratorTape(9), model.start(100_000), []
    for step in range(length):
        token = model.law(state).sample(tape, f"token.{step}")
        state = model.extend(state, token, ONES.expand(size))
        drawn.append(token.squeeze(1))
    mean, covariance = model.sequence_mean_cov(length)
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, (torch.cat(drawn, -1) - mean).T, upper=False)
    assert chi2.sf(float(size * white.mean(-1).square().sum()), 6) > 5e-7
    moment = (white @ white.T / size - torch.eye(6)) * size**0.5
    moment = moment / (1 + torch.eye(6)).sqrt()
    assert chi2.sf(float(moment.tril().square().sum()), 21) > 5e-7

"""The random image model on a grid: its laws, windows against single tokens, trees against chains, its sharpness."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.model import Model
from distributions.raster import Raster
from distributions.tape import GeneratorTape
from verify.checks.surprisal import Surprisal, surprise
from verify.decode import Round, decode
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)
SMALL = Raster.random(5, 1.5, seed=3, height=4, width=3)
SHARPNESS = {0.855: 3.81, 1.68: 3.00, 2.77: 2.01, 4.39: 1.20}
"""Sharpness at which 64 values have about these entropies in nats: the four levels of the study."""


def ancestral(model: Raster, rows: int, seed: int = 0) -> Tensor:
    """Images drawn token by token, each from a law of one column."""
    state, tape = model.start(rows), GeneratorTape(seed)
    for _ in range(model.size):
        state = model.extend(state, model.law(state).sample(tape, "token"), torch.ones(rows, dtype=torch.long))
    return state.tokens


def by_hand(model: Raster, image: list[int], place: int) -> Tensor:
    """The law of one token, from the definition: sharpness (A[left] + B[above] + C[above left]) / sqrt(3)."""
    row, column = divmod(place, model.width)
    left = image[place - 1] if column else model.vocab
    above = image[place - model.width] if row else model.vocab
    above_left = image[place - model.width - 1] if row and column else model.vocab
    one, two, three = model.tables
    return (model.sharpness * (one[left] + two[above] + three[above_left]) / math.sqrt(3)).softmax(-1)


def test_is_a_model() -> None:
    assert isinstance(SMALL, Model) and (SMALL.size, SMALL.vocab) == (12, 5)


def test_laws_are_the_definition() -> None:
    tokens = ancestral(SMALL, 7)
    law = SMALL.law(SMALL.start(7), tokens[:, :-1])
    wanted = torch.stack([torch.stack([by_hand(SMALL, image, j) for j in range(12)]) for image in tokens.tolist()])
    assert law.probs.dtype == torch.float64 and law.batch_shape == (7, 12)
    assert float((law.probs - wanted).abs().max()) < 1e-15


def test_the_window_does_not_matter() -> None:
    """One evaluation of a window gives, bit for bit, the laws of single tokens, also where rows stand unevenly."""
    tokens = ancestral(SMALL, 6)
    whole = SMALL.law(SMALL.start(6), tokens[:, :-1]).probs
    done = torch.tensor([0, 1, 3, 4, 6, 8])
    state = SMALL.extend(SMALL.start(6), tokens, done)
    assert torch.equal(SMALL.law(state).probs[:, 0], whole[torch.arange(6), done])
    ahead = done.unsqueeze(1) + torch.arange(3)
    window = SMALL.law(state, tokens.gather(1, ahead)).probs
    for shift in range(4):
        assert torch.equal(window[:, shift], whole[torch.arange(6), done + shift])


def test_what_is_beyond_a_place_does_not_matter() -> None:
    tokens = ancestral(SMALL, 4)
    other = tokens.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 5
    first, second = (SMALL.law(SMALL.start(4), image).probs for image in (tokens, other))
    assert torch.equal(first[:, :7], second[:, :7]) and not torch.equal(first[:, 7:], second[:, 7:])


def test_a_tree_is_its_paths() -> None:
    state = SMALL.extend(SMALL.start(3), ancestral(SMALL, 3), torch.tensor([0, 2, 5]))
    parent, value = torch.tensor([-1, 0, -1, 2, 0]), torch.tensor([[0, 1, 2, 3, 4]] * 3)
    laws = SMALL.law(state, value, parent).probs
    for node, path in enumerate([[], [0], [0, 1], [2], [2, 3], [0, 4]]):
        chain = SMALL.law(state, torch.tensor([path] * 3)).probs[:, -1] if path else SMALL.law(state).probs[:, 0]
        assert torch.equal(laws[:, node], chain)
    with pytest.raises(ValueError, match="earlier node"):
        SMALL.law(state, value, torch.tensor([-1, 2, 0, 0, 0]))


def test_the_end_of_the_image() -> None:
    """A window that runs out of the image changes nothing in it, and what is emitted out there is dropped."""
    tokens = ancestral(SMALL, 2)
    state = SMALL.extend(SMALL.start(2), tokens, torch.tensor([10, 9]))
    value = tokens[:, -4:]
    beyond = SMALL.law(state, value).probs
    assert beyond.shape == (2, 5, 5)
    assert torch.equal(beyond[0, :2], SMALL.law(state, value[:, :1]).probs[0])
    assert torch.equal(beyond[1, :3], SMALL.law(state, value[:, :2]).probs[1])
    ended = SMALL.extend(state, value, torch.tensor([4, 4]))
    assert ended.count.tolist() == [12, 12] and torch.equal(ended.tokens[0, 10:], value[0, :2])
    assert torch.equal(ended.tokens[1, 9:], value[1, :3]) and torch.equal(state.count, torch.tensor([10, 9]))


def test_a_state_is_a_value() -> None:
    state = SMALL.start(2)
    SMALL.extend(state, torch.full((2, 3), 4), torch.tensor([3, 1]))
    assert not state.tokens.any() and not state.count.any()


def test_no_sharpness_is_the_uniform_law() -> None:
    flat = Raster(SMALL.tables, 0.0, SMALL.height, SMALL.width)
    assert torch.allclose(flat.law(flat.start(1)).probs, torch.full((1, 1, 5), 0.2).double())


@pytest.mark.parametrize(("sharpness", "entropy"), SHARPNESS.items())
def test_entropy_at_the_four_levels(sharpness: float, entropy: float) -> None:
    """Measured on 64 x 256 tokens, whose mean entropy has a standard error below .01 at every level."""
    model = Raster.random(64, sharpness)
    law = model.law(model.start(64), ancestral(model, 64)[:, :-1])
    assert abs(float(torch.special.entr(law.probs).sum(-1).mean()) - entropy) < 0.05


def test_tables_have_unit_variance() -> None:
    """The sample variance of 3 x 65 x 64 normals lies within 7 % but for a chance below 1e-7."""
    assert abs(float(Raster.random(64, 1.0).tables.var()) - 1) < 0.07
    with pytest.raises(ValueError, match="V \\+ 1"):
        Raster(torch.zeros(3, 5, 5), 1.0)


def test_decoding_with_any_verifier() -> None:
    """Rejection against a uniform drafter, at a window that does not divide the image, is the target's law: the
    surprisal test at level 1e-6 (its false-alarm rate here), 300 images.
    """
    model, drafter = Raster.random(5, 1.5, height=6, width=6), Markov(torch.ones(1, 5), 0)
    trace = decode(model, drafter, Rejection(), 5, model.size, GeneratorTape(1), 300)
    law = model.law(model.start(300), trace.tokens[:, :-1])
    assert not Surprisal()(trace.tokens, law, 1e-6, GeneratorTape()).rejects
    cold = Raster(model.tables, 1.1 * model.sharpness, 6, 6)
    law = cold.law(cold.start(300), trace.tokens[:, :-1])
    assert Surprisal()(trace.tokens, law, 1e-6, GeneratorTape()).rejects  # 10 % sharper is another law


def test_finished_rows_do_not_disturb_the_others() -> None:
    """A round on selected rows is that round of the whole batch."""
    step = Round(SMALL, Markov(torch.ones(1, 5), 0), Rejection(), 3)
    state = step.extend(step.start(4), ancestral(SMALL, 4), torch.tensor([1, 4, 9, 11]))
    some = step.select(state, torch.tensor([2, 0]))
    value = torch.tensor([[1, 2, 3]] * 4)
    assert torch.equal(SMALL.law(state.target, value).probs[[2, 0]], SMALL.law(some.target, value[:2]).probs)


def test_surprise_has_mean_zero_and_its_stated_variance() -> None:
    """Over every token of a law the mean of the surprise is 0 and its variance as computed: an identity."""
    law = Categorical(torch.tensor([[0.5, 0.25, 0.25, 0.0]]))
    excess, variance = surprise(torch.arange(3).unsqueeze(1), law[torch.zeros(3, 1).long()])
    weight = torch.tensor([[0.5], [0.25], [0.25]]).double()
    assert abs(float((weight * excess).sum())) < 1e-15
    assert abs(float((weight * excess**2).sum() - variance[0, 0])) < 1e-15
    impossible = Surprisal()(torch.tensor([[3]]), law[torch.zeros(1, 1).long()], 1e-6, GeneratorTape())
    assert impossible.p_value == 0.0


def test_surprisal_holds_its_level() -> None:
    """2000 tests at 5 % on 512 ancestral tokens each: more than 160 or fewer than 50 rejections have a chance below
    1e-7 (binomial) if the level is 5 %; the normal limit is not exact, and costs under a percent.
    """
    model = Raster.random(5, 1.0, height=4, width=4)
    tokens = ancestral(model, 2000 * 32, seed=9)
    excess, variance = surprise(tokens, model.law(model.start(len(tokens)), tokens[:, :-1]))
    z = excess.reshape(2000, -1).sum(1) / variance.reshape(2000, -1).sum(1).sqrt()
    assert 50 < int((z.abs() > 1.959964).sum()) < 160

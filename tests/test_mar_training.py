"""MAR's training loss against its arithmetic by hand, in float64; what it is drawn from; and untrained weights."""

from __future__ import annotations

import math

import pytest
import torch

from distributions import images
from distributions.images import held_out
from distributions.mar import digits, draw, mar_tiny
from distributions.mar.backbone import NOBODY, Mar
from distributions.mar.initial import lay_out
from distributions.mar.loss import diffusion_loss, losses
from distributions.mar.training import dropout, loss, nameless
from distributions.tape import GeneratorTape, RecordingTape
from tests import mar_by_hand as hand

CLOSE = 1e-10


def tiny() -> Mar:
    return draw(mar_tiny().double(), GeneratorTape(5), spread=0.5)


@pytest.mark.parametrize("time", [0, 1, 2, 500, 998, 999])
def test_the_loss_of_one_token(time: int) -> None:
    tape = GeneratorTape(1)
    clean, noise, variance = (tape.normal(name, (9, 16)) for name in ("clean", "noise", "v"))
    eps = noise + 0.1 * tape.normal("error", (9, 16))
    clean[0] = torch.linspace(-1.2, 1.2, 16)  # on both sides of the half-lines' beginnings
    found = losses(torch.cat((eps, variance), -1), clean, noise, torch.full((9,), time))
    wanted = hand.losses(eps, variance, clean, noise, time)
    assert (found / wanted - 1).abs().max() < CLOSE


def test_the_bound_teaches_the_variance_and_not_the_noise() -> None:
    tape = GeneratorTape(2)
    clean, noise = tape.normal("clean", (50, 16)), tape.normal("noise", (50, 16))
    output = tape.normal("output", (50, 32)).requires_grad_()
    time = (tape.uniform("time", (50,)) * 1000).long()
    (gradient,) = torch.autograd.grad(losses(output, clean, noise, time).sum(), output)
    only = 2 * (output[:, :16] - noise) / 16  # that of the squared error alone
    assert (gradient[:, :16] - only).abs().max() < 1e-12
    assert (gradient[:, 16:].abs().amax(1) > 0).all()


def test_the_loss_of_the_true_posterior_is_that_of_its_error_only() -> None:
    """Limit: noise predicted exactly and the small variance: the bound vanishes at every time but 0."""
    tape = GeneratorTape(3)
    clean, noise = tape.normal("clean", (20, 16)), tape.normal("noise", (20, 16))
    time = (1 + tape.uniform("time", (20,)) * 999).long()
    told = torch.cat((noise, -torch.ones_like(noise)), -1)
    # The squared error of the mean is divided by the variance: rounding of 1e-12 leaves 1e-18.
    assert losses(told, clean, noise, time).abs().max() < 1e-10


def test_every_copy_of_a_token_has_a_time_and_noise_of_its_own() -> None:
    model, tape = tiny(), RecordingTape(GeneratorTape(4))
    clean, condition = tape.normal("clean", (5, 16)), tape.normal("z", (5, 32))
    found = diffusion_loss(model.head, condition, clean, tape, repeats=3)
    draws = {item.site: item.value for item in tape.draws}
    noise, time = draws["diffusion.noise"], (draws["diffusion.time"] * 1000).long()
    assert noise.shape == (15, 16) and len(set(time.tolist())) > 10
    each, whole = [], hand.Spaced(1000)
    for row in range(15):
        t, own = int(time[row]), clean[row % 5][None]
        x = math.sqrt(whole.bar[t]) * own + math.sqrt(1 - whole.bar[t]) * noise[row][None]
        eps, variance = hand.head(dict(model.state_dict()), x, float(t), condition[row % 5][None])
        each.append(hand.losses(eps, variance, own, noise[row][None], t))
    assert abs(float(found / torch.stack(each).mean()) - 1) < CLOSE


def test_the_loss_of_a_batch_of_images() -> None:
    """Only masked tokens count, and they are conditioned on the others."""
    model, tape = tiny(), RecordingTape(GeneratorTape(6))
    images, label = GeneratorTape(7).normal("images", (3, 16, 16)), torch.tensor([1, 2, 3])
    found = loss(model, images, label, tape, repeats=2, rate=0.0)
    draws = {item.site: item.value for item in tape.draws}
    order = draws["order"].argsort(-1)
    count = len(draws["diffusion.time"]) // 6
    assert math.ceil(0.7 * 16) <= count <= 16
    names = torch.where(draws["nameless"] < 0.1, NOBODY, label)
    each, whole, w, shape = [], hand.Spaced(1000), dict(model.state_dict()), model.shape
    for copy in range(2 * 3 * count):
        row, place = divmod(copy % (3 * count), count)
        masked = torch.zeros(16, dtype=torch.bool)
        masked[order[row, :count]] = True
        z = hand.backbone(w, shape.heads, shape.depth, shape.buffer, images[row], masked, int(names[row]))
        here, t, noise = (
            order[row, place],
            int(draws["diffusion.time"][copy] * 1000),
            draws["diffusion.noise"][copy][None],
        )
        clean = images[row, here][None]
        x = math.sqrt(whole.bar[t]) * clean + math.sqrt(1 - whole.bar[t]) * noise
        each.append(hand.losses(*hand.head(w, x, float(t), z[here][None]), clean, noise, t))
    assert abs(float(found / torch.stack(each).mean()) - 1) < CLOSE


def test_training_lowers_the_loss_and_reaches_every_weight() -> None:
    model = draw(mar_tiny(), GeneratorTape(8)).requires_grad_()
    images, label = 0.3 * GeneratorTape(9).normal("images", (8, 16, 16)), torch.arange(8)
    optimiser, seen, reached = torch.optim.AdamW(model.parameters(), lr=3e-3), [], set()
    for step in range(30):
        tape = GeneratorTape(step % 2)  # the same two draws, so that the loss can be compared
        value = loss(model, images, label, tape)
        optimiser.zero_grad()
        torch.autograd.backward(value)
        optimiser.step()
        seen.append(float(value.detach()))
        reached |= {name for name, part in model.named_parameters() if part.grad is not None and bool(part.grad.any())}
    assert reached == {name for name, _ in model.named_parameters()}
    assert seen[-1] < 0.8 * seen[1] and seen[-2] < 0.8 * seen[0]


def test_dropout_is_drawn_from_the_tape_and_keeps_the_mean() -> None:
    assert dropout(GeneratorTape(0), 0.0) is None
    dropped = dropout(GeneratorTape(0), 0.25)
    assert dropped is not None
    found = dropped(torch.ones(40_000), "site")
    assert set(found.tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    # The mean's standard error is .0029; five of them are passed one time in 2e6.
    assert abs(float(found.mean()) - 1) < 0.0145
    model, images, label = tiny(), torch.ones(2, 16, 16).double(), torch.tensor([1, 2])
    tape = RecordingTape(GeneratorTape(1))
    assert not torch.equal(loss(model, images, label, tape), loss(model, images, label, GeneratorTape(1), rate=0.0))
    sites = [item.site for item in tape.draws if item.site.startswith("dropout.")]
    assert len(sites) == len(set(sites)) == 2 * 2 * 4  # two transformers of two blocks, four places each


def test_a_tenth_of_the_classes_is_hidden() -> None:
    found = nameless(GeneratorTape(0), torch.full((10_000,), 3))
    assert set(found.tolist()) == {NOBODY, 3}
    # The standard error of the share is .003; five of them are passed one time in 2e6.
    assert abs(float((found == NOBODY).double().mean()) - 0.1) < 0.015


def test_untrained_weights_are_drawn_as_mar_draws_them() -> None:
    model = draw(mar_tiny(), GeneratorTape(0))
    state = model.state_dict()
    bound = math.sqrt(6 / (32 + 96))
    matrix = state["encoder_blocks.0.attn.qkv.weight"]
    assert 0.98 * bound < float(matrix.abs().max()) < bound
    # Uniform on (-b, b) has the standard deviation b / sqrt 3; 3072 draws of it have one within 2.9% (five sigma).
    assert abs(float(matrix.std()) / (bound / math.sqrt(3)) - 1) < 0.06
    for name in ("mask_token", "class_emb.weight", "diffloss.net.time_embed.mlp.2.weight"):
        assert abs(float(state[name].std()) / 0.02 - 1) < 0.65
    zero = {name for name, part in state.items() if not bool(part.any())}
    assert {name for name in zero if name.endswith("weight")} == {
        name for name in state if name.endswith("weight") and ("adaLN" in name or "final_layer.linear" in name)
    }
    assert {name for name in state if name.endswith("bias")} <= zero
    assert bool((state["encoder_norm.weight"] == 1).all())
    with torch.device("meta"):
        empty = mar_tiny()
    with pytest.raises(ValueError, match="no room for weights"):
        draw(empty, GeneratorTape(0))


def test_a_reader_adds_what_it_misses_of_the_masked_tokens() -> None:
    model, data = tiny(), GeneratorTape(7).normal("images", (3, 16, 16))
    label, reader = torch.tensor([1, 2, 3]), 0.1 * GeneratorTape(8).normal("reader", (32, 16))
    without, found = (loss(model, data, label, GeneratorTape(6), 1, 0.0, 5, part) for part in (None, reader))
    tape = RecordingTape(GeneratorTape(6))
    loss(model, data, label, tape, 1, 0.0, 5)
    draws = {item.site: item.value for item in tape.draws}
    order, names = draws["order"].argsort(-1), torch.where(draws["nameless"] < 0.1, NOBODY, label)
    missed, w, shape = [], dict(model.state_dict()), model.shape
    for row in range(3):
        masked = torch.zeros(16, dtype=torch.bool)
        masked[order[row, :5]] = True
        z = hand.backbone(w, shape.heads, shape.depth, shape.buffer, data[row], masked, int(names[row]))
        missed.append((z[masked] @ reader - data[row][masked]).square().mean())
    assert abs(float((found - without) / torch.stack(missed).mean()) - 1) < CLOSE


def test_places_are_laid_out_so_that_near_ones_are_alike() -> None:
    model = lay_out(mar_tiny())
    places, buffer = model.encoder_pos_embed_learned[0], model.shape.buffer
    assert not places[:buffer].any() and torch.equal(places, model.decoder_pos_embed_learned[0])
    found = places[buffer:]
    assert torch.equal(found, model.diffusion_pos_embed_learned[0]) and len(found) == 16
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    apart = (row[:, None] - row).square() + (column[:, None] - column).square()
    alike = found @ found.T / (found.square().sum(-1))
    # sum of cos(turn x difference) over frequencies of 1.5 at most falls with the distance up to pi / 1.5 > 2.
    assert float(alike[apart == 0].min()) > float(alike[apart == 1].max()) > 0.5
    assert float(alike[apart == 1].min()) > float(alike[apart == 4].max())


@pytest.mark.parametrize("data", digits.DATA)
def test_what_ships_looks_at_the_tokens_around(data: str) -> None:
    """The loss of one masked token is less, by far, than that of the same model told nothing: a model that had learned
    no more than what each class looks like at each place would have the two alike.
    """
    _, unseen = held_out(getattr(images, data)())
    model, tape = digits.trained("mar", data), GeneratorTape(0)
    assert isinstance(model, Mar)
    told: dict[int, float] = {}
    with torch.no_grad():
        for masked in (1, unseen.length):
            total, rounds = 0.0, 10 if masked == 1 else 1
            for _ in range(rounds):
                tokens, label = unseen.batch(128, tape)
                total += float(loss(model, tokens.float(), label, tape, 4, 0.0, masked)) / rounds
            told[masked] = total
    assert told[1] < 0.92 * told[unseen.length]

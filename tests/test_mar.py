"""MAR: its tensors are the published ones, and its arithmetic is that of an independent writing-out, in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions import mar
from distributions.gaussian import Gaussian
from distributions.heads import Head
from distributions.mar import masking, shapes
from distributions.mar.backbone import NOBODY, Mar
from distributions.mar.diffusion import DiffusionHead, Sampler, conditions, level
from distributions.mar.sampling import mask_step, sample, told
from distributions.mar.sequence import MaskedSequence, Start
from distributions.path import PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape, RecordingTape
from tests import mar_by_hand as hand
from verify.decode import decode
from verify.records import Draft
from verify.verifier import catalog

CLOSE = 1e-10
LISTED = (Path(__file__).with_name("mar_tensors.txt")).read_text().splitlines()


def listed(section: str) -> list[list[str]]:
    """The lines of one part of the listing."""
    start = next(i for i, line in enumerate(LISTED) if line.startswith(f"[{section}:")) + 1
    return [line.split() for line in itertools.takewhile(lambda line: not line.startswith("["), LISTED[start:])]


def expected(shape: shapes.Shape) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in order: lines with {i} that follow one another are repeated together."""
    known = {"D": shape.width, "W": shape.head_width, "N": shape.tokens, "U": shape.buffer}
    known |= {name: getattr(shape, name) for name in ("classes", "dim", "depth", "head_depth")}
    found = []
    for prefix, lines in itertools.groupby(
        listed("mar"), lambda line: line[0].partition("{i}")[::2][0] if "{i}" in line[0] else ""
    ):
        group = list(lines)
        count = eval(group[0][2], {}, known) if prefix else 1
        for number in range(count):
            for name, size, _ in group:
                found.append((name.replace("{i}", str(number)), tuple(eval(size + ",", {}, known))))
    return found


@pytest.mark.parametrize(
    ("maker", "shape", "parameters", "tensors", "head"),
    [
        (mar.mar_base, shapes.BASE, 207_924_768, 364, 35_749_920),
        (mar.mar_large, shapes.LARGE, 478_326_304, 476, 72_230_432),
        (mar.mar_huge, shapes.HUGE, 942_403_104, 604, 151_206_944),
        (mar.mar_tiny, shapes.TINY, 101_856, 92, None),
    ],
)
def test_names_shapes_order_and_counts_are_the_published_ones(maker, shape, parameters, tensors, head) -> None:
    with torch.device("meta"):
        model = maker()
    state = model.state_dict()
    assert [(name, tuple(part.shape)) for name, part in state.items()] == expected(shape)
    assert len(state) == tensors and sum(part.numel() for part in state.values()) == parameters
    assert all(part.is_meta for part in state.values())
    if head is not None:
        assert sum(part.numel() for part in model.diffloss.parameters()) == head


def test_building_a_model_draws_nothing() -> None:
    before = torch.get_rng_state()
    mar.mar_tiny(), mar.mar_digits(), mar.mar_small_digits()
    assert torch.equal(before, torch.get_rng_state())


def tiny(**changes: int) -> Mar:
    model = Mar(dataclasses.replace(shapes.TINY, **changes)).double()
    return mar.draw(model, GeneratorTape(5), spread=0.7)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


def z_by_hand(model: Mar, tokens: Tensor, masked: Tensor, label: Tensor) -> Tensor:
    shape, w = model.shape, weights(model)
    each = zip(tokens, masked, label.tolist(), strict=True)
    return torch.stack([hand.backbone(w, shape.heads, shape.depth, shape.buffer, *row) for row in each])


def test_conditions_are_those_written_out_by_hand() -> None:
    model, tape = tiny(), GeneratorTape(1)
    tokens, label = tape.normal("tokens", (4, 16, 16)), torch.tensor([3, NOBODY, 0, 9])
    # Equal and unequal numbers of visible tokens, none and all of them among these.
    for left in (torch.full((4,), 11), torch.tensor([16, 0, 5, 10])):
        masked = masking.masked(masking.orders(tape, 4, 16), left)
        assert masked.sum(1).equal(left)
        found = model(tokens, masked, label)
        assert (found - z_by_hand(model, tokens, masked, label)).abs().max() < CLOSE
        blind = torch.where(masked.unsqueeze(-1), 7.0, tokens)
        assert model(blind, masked, label).equal(found)


@pytest.mark.parametrize("index", [0, 1, 50, 98, 99])
def test_one_evaluation_of_the_head(index: int) -> None:
    model, tape, spaced = tiny(), GeneratorTape(2), hand.Spaced(100)
    value, z, none = (tape.normal(name, (6, size)) for name, size in (("x", 16), ("z", 32), ("none", 32)))
    time = spaced.index[index]
    eps, v = hand.head(weights(model), value, float(time), z)
    found = model.head(value, torch.tensor(time), z)
    assert (found - torch.cat((eps, v), -1)).abs().max() < CLOSE
    each = model.head(value, torch.full((6,), time), z)  # a time for every row, as in training
    assert (each - found).abs().max() < CLOSE

    schedule, scale = cosine(100), torch.linspace(0, 3, 6, dtype=torch.float64)
    head = DiffusionHead(model.head)
    assert isinstance(head, Head)
    assert int(level(schedule.signal[index + 1], schedule.noise[index + 1])) == time
    said = head(value, schedule.signal[index + 1], schedule.noise[index + 1], conditions(z, none, scale))
    untold = hand.head(weights(model), value, float(time), none)[0]
    assert (said.noise - (untold + scale.unsqueeze(1) * (eps - untold))).abs().max() < CLOSE
    assert (said.fraction - (v + 1) / 2).abs().max() < CLOSE


def test_a_level_between_those_of_the_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="no level of the cosine chain"):
        level(torch.tensor(0.6).double(), torch.tensor(0.8).double())
    model = tiny()
    with pytest.raises(ValueError, match="neither 32"):
        DiffusionHead(model.head)(torch.zeros(1, 16), cosine().signal[9], cosine().noise[9], torch.zeros(1, 33))


def test_the_respaced_chain_has_the_published_levels_and_variances() -> None:
    """The figures of LTH14/mar's own chain; index i is the kernel from level i + 1."""
    spaced, schedule = hand.Spaced(100), cosine(100)
    assert spaced.index[:8] == [0, 10, 20, 30, 40, 50, 61, 71] and spaced.index[-3:] == [979, 989, 999]
    assert math.isclose(spaced.bar[0], 0.99995872, rel_tol=1e-7) and math.isclose(
        spaced.bar[98], 2.4286e-4, rel_tol=1e-4
    )
    assert math.isclose(spaced.bar[99], 2.4288e-9, rel_tol=1e-4)
    for i, small, large in ((0, 0.00624, 0.00643), (1, 0.00624, 0.02607), (40, 0.1477, 0.1508), (99, 0.99987, 0.99999)):
        told = [float((part / 2).exp()) for part in schedule.log_variances(i + 1)]
        assert told == pytest.approx([small, large], rel=2e-3)
    for i in range(100):
        told = torch.stack((*schedule.posterior(i + 1), *schedule.log_variances(i + 1)))
        by_hand = torch.tensor(
            [spaced.coef1[i], spaced.coef2[i], spaced.small[i], spaced.large[i]], dtype=torch.float64
        )
        assert (told - by_hand).abs().max() < 1e-11


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(2.9, temperature=0.8), Sampler(2.0, "constant", 1.1)])
def test_one_mask_step_is_a_law_of_paths_with_the_kernels_written_out_by_hand(sampler: Sampler) -> None:
    model, tape = tiny(), GeneratorTape(3)
    w, spaced = weights(model), hand.Spaced(100)
    order, label = masking.orders(tape, 3, 16), torch.tensor([1, 2, NOBODY])
    tokens = tape.normal("tokens", (3, 16, 16))
    step = mask_step(model, sampler, tokens, order, label, 12, 7)
    assert step.places.sort(1).values.equal(order[:, 7:12].sort(1).values)
    masked = masking.masked(order, 12)
    some = z_by_hand(model, tokens, masked, label)[torch.arange(3)[:, None], step.places]
    none = z_by_hand(model, tokens, masked, torch.full((3,), -1))[torch.arange(3)[:, None], step.places]
    scale = {"linear": 1 + (sampler.guidance - 1) * (16 - 7) / 16, "constant": sampler.guidance}[sampler.growth]

    law = step.law
    assert isinstance(law, PathLaw) and law.batch_shape == (3, 5) and law.event_shape == (101, 16)
    # Noised data, not the law's own draw: an untrained head's path is at 5e4, and no float says where to 1e-10.
    clean, signal, noise = tape.normal("clean", (3, 5, 1, 16)), cosine(100).signal.flip(0), cosine(100).noise.flip(0)
    path = signal[:, None] * clean + noise[:, None] * tape.normal("noise", (3, 5, 101, 16))
    total = Gaussian(torch.zeros(16), torch.ones(16)).log_prob(path[..., 0, :])
    for i in reversed(range(100)):
        x = path[..., 99 - i, :].flatten(0, 1)
        eps, v = hand.head(w, x, float(spaced.index[i]), some.flatten(0, 1))
        untold = hand.head(w, x, float(spaced.index[i]), none.flatten(0, 1))[0]
        mean, log_variance = spaced.moments(i, x, untold + scale * (eps - untold), v)
        deviation = (log_variance / 2).exp() * sampler.temperature
        found = law.kernel.step(i + 1, path[..., 99 - i, :])
        # The first kernel divides by sqrt(2.4e-9): what cancels there leaves 1e-12 of the 2e4 it is multiplied by.
        assert (found.mean.flatten(0, 1) - mean).abs().max() < CLOSE * max(1, float(mean.abs().max()))
        assert (found.scale.flatten(0, 1) / deviation - 1).abs().max() < CLOSE
        after = path[..., 100 - i, :].flatten(0, 1)
        total = total + torch.distributions.Normal(mean, deviation).log_prob(after).sum(-1).reshape(3, 5)
    assert (law.log_prob(path) / total - 1).abs().max() < CLOSE


def by_hand(model: Mar, sampler: Sampler, draws: dict[str, Tensor], label: Tensor, iterations: int) -> Tensor:
    """The whole loop, on the draws of a recorded one."""
    size, rows = model.shape.tokens, len(label)
    order, spaced = draws["order"].argsort(-1), hand.Spaced(sampler.steps)
    tokens, masked = torch.zeros(rows, size, model.shape.dim).double(), torch.ones(rows, size, dtype=torch.bool)
    for step in range(iterations):
        keep = max(1, min(int(masked[0].sum()) - 1, math.floor(size * math.cos(math.pi / 2 * (step + 1) / iterations))))
        after = torch.zeros_like(masked)
        for row in range(rows):
            after[row, order[row, :keep]] = True
        filled = masked if step == iterations - 1 else masked ^ after
        scale = 1 + (sampler.guidance - 1) * (size - keep) / size if sampler.growth == "linear" else sampler.guidance
        some = z_by_hand(model, tokens, masked, label)
        none = z_by_hand(model, tokens, masked, torch.full_like(label, -1)) if sampler.guided else some
        noises = [draws[f"mask.{step}.{t}"].flatten(0, 1) for t in range(sampler.steps, 0, -1)]
        tokens[filled] = hand.draw_tokens(
            weights(model), spaced, some[filled], none[filled], scale, sampler.temperature, noises
        )
        masked = after
    return tokens


def assert_loop(size: int, iterations: int, sampler: Sampler, rows: int = 2) -> None:
    model, tape = tiny(tokens=size, depth=1), RecordingTape(GeneratorTape(6))
    mar.draw(model, GeneratorTape(7), spread=0.25)  # tame enough for errors not to grow over a hundred steps
    label = torch.tensor([4, NOBODY])[:rows]
    found = sample(model, sampler, tape, rows, label, iterations)
    draws = {draw.site: draw.value for draw in tape.draws}
    assert len(draws) == len(tape.draws) == 1 + iterations * sampler.steps
    wanted = by_hand(model, sampler, draws, label, iterations)
    assert ((found - wanted).abs() / wanted.abs().clamp(min=1)).max() < CLOSE


@pytest.mark.parametrize("iterations", [1, 7])
def test_sampling_with_all_levels_of_noise(iterations: int) -> None:
    assert_loop(16, iterations, Sampler(2.9, temperature=0.95, last_noise=False))


@pytest.mark.parametrize("growth", masking.GROWTHS)
def test_a_loop_with_one_token_a_step_and_few_levels_of_noise(growth: str) -> None:
    assert_loop(36, 36, Sampler(2.0, growth, steps=3, last_noise=False))


def test_a_full_loop_of_256_steps_with_few_levels_of_noise() -> None:
    assert_loop(256, 256, Sampler(1.0, temperature=0.9, steps=2, last_noise=False), rows=1)


@pytest.mark.slow
def test_a_full_loop_of_256_steps() -> None:
    assert_loop(256, 256, Sampler(2.9, last_noise=False))


def test_without_guidance_no_pass_is_spent_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny(), []
    forward = Mar.forward
    monkeypatch.setattr(
        Mar, "forward", lambda self, tokens, *rest: asked.append(len(tokens)) or forward(self, tokens, *rest)
    )
    for sampler in (Sampler(steps=2), Sampler(1.5, steps=2)):
        sample(model, sampler, GeneratorTape(0), 3, iterations=4)
    assert asked == [3] * 4 + [6] * 4


def test_how_many_tokens_stay_masked() -> None:
    assert masking.remaining(256, 256) == [*range(255, 0, -1), 1]  # one token a step
    for size, iterations in ((256, 64), (256, 16), (49, 12), (16, 16), (16, 1)):
        left = [size, *masking.remaining(size, iterations)]
        assert left[-1] == 1 and all(after < before for before, after in itertools.pairwise(left[:-1]))
    with pytest.raises(ValueError, match="iterations is 17"):
        masking.remaining(16, 17)
    with pytest.raises(ValueError, match="growth is 'cosine'"):
        masking.scale(2.0, "cosine", 3, 16)


def test_orders_are_permutations_and_every_one_is_as_likely() -> None:
    order = masking.orders(GeneratorTape(0), 6000, 3)
    assert order.sort(1).values.equal(torch.arange(3).expand(6000, 3))
    counts = torch.bincount((order * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    counts = counts[counts > 0].double()
    assert len(counts) == 6
    # Chi-square with 5 degrees of freedom exceeds 27.9 with probability 4e-5; the seed is fixed.
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 27.9


def test_training_masks_between_seven_tenths_and_all() -> None:
    tape = RecordingTape(GeneratorTape(0))
    counts = torch.tensor([masking.training_count(tape, 256) for _ in range(500)]).double()
    assert counts.min() >= 180 and counts.max() <= 256
    # Mean of ceil(256 rate): 256 * .867 + .5 = 222.5; the standard error is .9, so 5 of it are passed one time in 2e6.
    assert abs(float(counts.mean()) - 222.5) < 4.5
    rate = stats.truncnorm(-1.2, 0, loc=1, scale=0.25)
    assert rate.mean() == pytest.approx(0.867, abs=5e-4)
    for draw, count in zip(tape.draws, counts.tolist(), strict=True):
        assert count == math.ceil(256 * rate.ppf(float(draw.value)))


def test_rules_for_paths_verify_a_mask_step_unedited() -> None:
    """Drafts of a perturbed model for two mask steps' laws; what is emitted are finite paths of the right shape."""
    model, near, tape = tiny(), tiny(), GeneratorTape(8)
    with torch.no_grad():
        for part in near.diffloss.parameters():
            part.mul_(1.001)
    order, label = masking.orders(tape, 3, 16), torch.tensor([1, 2, 3])
    tokens = tape.normal("tokens", (3, 16, 16))
    laws = [mask_step(each, Sampler(steps=4, late=True), tokens, order, label, 12, 7).law for each in (near, model)]
    value = laws[0][:, :4].sample(tape, "draft")
    paths = {name: kind for name, kind in catalog().items() if kind.claim.laws == "path"}
    assert {"coalescing", "whole_path", "restarting"} <= set(paths)
    for kind in paths.values():
        outcome = kind().verify(Draft.chain(value, laws[0][:, :4]), laws[1], tape)
        assert outcome.value.shape == (3, 5, 4, 16) and bool(torch.isfinite(outcome.value).all())
        assert bool(((outcome.length >= 1) & (outcome.length <= 5)).all())


def test_mar_with_one_token_a_step_is_a_sequence_model() -> None:
    """The sampling loop with N iterations, redone through ``law`` and ``extend``: the same draws, the same tokens."""
    model, sampler = tiny(), Sampler(2.9, steps=5, last_noise=False)
    tape = RecordingTape(GeneratorTape(9))
    label = torch.tensor([4, 7])
    found = sample(model, sampler, tape, 2, label, 16)
    draws = {draw.site: draw.value for draw in tape.draws}

    class Again(GeneratorTape):
        def normal(self, site: str, shape) -> Tensor:  # type: ignore[no-untyped-def]
            return draws[site].reshape(shape)

    sequence = MaskedSequence(model, sampler)
    state = sequence.start(2, Start(draws["order"].argsort(-1), label))
    for number in range(16):
        state = sequence.extend(state, sequence.law(state).sample(Again(), f"mask.{number}"), torch.ones(2).long())
    assert (state.tokens - found).abs().max() < CLOSE


def test_every_prefix_of_a_draft_has_its_own_mask() -> None:
    model, sampler, tape = tiny(), Sampler(2.0, steps=3), GeneratorTape(10)
    sequence = MaskedSequence(model, sampler)
    state = sequence.start(3, Start.random(tape, 3, 16, 5))
    state = sequence.extend(state, tape.normal("first", (3, 6, 16)), torch.tensor([2, 6, 0]))
    value, parent = tape.normal("draft", (3, 4, 16)), torch.tensor([-1, 0, 0, -1])
    law = sequence.law(state, value, parent)
    assert law.batch_shape == (3, 5)
    for node, prefix in enumerate(([], [0], [0, 1], [0, 2], [3])):
        alone = sequence.extend(state, value[:, prefix], torch.full((3,), len(prefix)))
        told_alone = sequence.law(alone).kernel.condition[:, 0]
        assert (law.kernel.condition[:, node] - told_alone).abs().max() < 1e-12


@pytest.mark.parametrize("rule", ["coalescing", "whole_path"])
def test_decoding_with_mar_as_target_and_drafter(rule: str) -> None:
    model, near, tape = tiny(), tiny(), GeneratorTape(11)
    with torch.no_grad():
        near.diffloss.net.final_layer.linear.weight.mul_(1.01)
    sampler = Sampler(2.0, steps=3, late=True)
    start = Start.random(tape, 3, 16, 2)
    target, drafter = MaskedSequence(model, sampler), MaskedSequence(near, sampler)
    rows = torch.arange(3)
    assert target.select(target.start(3, start), rows[1:]).order.equal(start.order[1:])
    trace = decode(target, drafter, catalog()[rule](), 3, 16, tape, 3, start)
    assert trace.tokens.shape == (3, 16, 16) and bool(torch.isfinite(trace.tokens).all())
    assert bool((trace.work <= 1).all())


def test_told_runs_both_branches_in_one_pass() -> None:
    model, tape = tiny(), GeneratorTape(12)
    tokens, label = tape.normal("tokens", (2, 16, 16)), torch.tensor([3, 8])
    masked = masking.masked(masking.orders(tape, 2, 16), 9)
    some, none = told(model, Sampler(2.0), tokens, masked, label)
    assert none is not None
    assert (some - model(tokens, masked, label)).abs().max() < CLOSE
    assert (none - model(tokens, masked, torch.full_like(label, NOBODY))).abs().max() < CLOSE
    assert (some - none).abs().max() > 1e-3

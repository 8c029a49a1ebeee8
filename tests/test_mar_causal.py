"""The causal sibling: its cache changes nothing, cropping it is recomputing, and drafts of a smaller one decode."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from distributions.mar import NOBODY, CausalMar, CausalSequence, Sampler, draw
from distributions.mar.causal import CausalState
from distributions.mar.shapes import TINY
from distributions.model import Model
from distributions.path import PathLaw
from distributions.tape import GeneratorTape
from tests import mar_by_hand as hand
from verify.decode import decode, propose
from verify.verifier import catalog

SAME = 1e-12
SHAPE = dataclasses.replace(TINY, tokens=9, dim=4)
SMALLER = dataclasses.replace(SHAPE, width=16, depth=1, heads=2, head_depth=1, head_width=24)


def causal(sampler: Sampler | None = None, shape=SHAPE, seed: int = 5) -> CausalSequence:
    network = draw(CausalMar(shape).double(), GeneratorTape(seed), spread=0.5)
    return CausalSequence(network, Sampler(steps=4, late=True) if sampler is None else sampler)


def told(law: PathLaw) -> Tensor:
    """The conditions (rows, N + 1, c) of a law."""
    return law.kernel.condition  # type: ignore[attr-defined]


def by_hand(model: CausalSequence, tokens: Tensor, label: int) -> Tensor:
    """The condition (c,) after tokens (L, d), guidance included, without a cache."""
    shape, sampler = model.network.shape, model.sampler
    w = dict(model.network.state_dict())
    some, none = (hand.causal(w, shape.heads, shape.depth, tokens, name)[-1] for name in (label, NOBODY))
    if sampler.guidance == 1:
        return some
    done = (len(tokens) + 1) / shape.tokens
    scale = 1 + (sampler.guidance - 1) * done if sampler.growth == "linear" else sampler.guidance
    return torch.cat((torch.tensor([scale], dtype=torch.float64), some, none))


GUIDED = [Sampler(steps=4), Sampler(2.5, steps=4), Sampler(2.5, "constant", steps=4)]


@pytest.mark.parametrize("sampler", GUIDED)
def test_the_cache_gives_the_laws_of_no_cache(sampler: Sampler) -> None:
    """Rows of different lengths, grown by uneven steps, against a pass of each alone, written out by hand."""
    model, tape = causal(sampler), GeneratorTape(1)
    assert isinstance(model, Model)
    tokens, label = tape.normal("tokens", (3, 9, 4)), torch.tensor([3, 0, 9])
    state, done = model.start(3, label), torch.zeros(3, dtype=torch.long)
    for length in ([1, 2, 0], [3, 1, 2], [0, 3, 1], [4, 1, 1]):
        step = torch.tensor(length)
        column = (done.unsqueeze(1) + torch.arange(max(length))).clamp(max=8)
        state = model.extend(state, tokens.gather(1, column.unsqueeze(-1).expand(-1, -1, 4)), step)
        done = done + step
        assert state.count.equal(done)
        found = told(model.law(state))
        for row in range(3):
            wanted = by_hand(model, tokens[row, : done[row]], int(label[row]))
            assert (found[row, 0] - wanted).abs().max() < SAME


@pytest.mark.parametrize("sampler", GUIDED)
@pytest.mark.parametrize("parent", [None, [-1, 0, 1, 2], [-1, -1, -1, -1], [-1, 0, 0, 1]])
def test_a_draft_is_read_in_one_pass(sampler: Sampler, parent: list[int] | None) -> None:
    """Chain, siblings or tree: each law is that after the node's own ancestors."""
    model, tape = causal(sampler), GeneratorTape(2)
    first, value = tape.normal("first", (2, 4, 4)), tape.normal("value", (2, 4, 4))
    state = model.extend(model.start(2, 7), first, torch.tensor([4, 1]))
    found = told(model.law(state, value, None if parent is None else torch.tensor(parent)))
    line = [-1, 0, 1, 2] if parent is None else parent
    above = [[]]
    for node, up in enumerate(line):
        above.append([*above[up + 1], node])
    assert found.shape[:2] == (2, 5)
    for row, count in enumerate((4, 1)):
        for node in range(5):
            wanted = by_hand(model, torch.cat((first[row, :count], value[row, above[node]])), 7)
            assert (found[row, node] - wanted).abs().max() < SAME


@pytest.mark.parametrize("sampler", GUIDED)
def test_cropping_the_cache_equals_recomputing(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a draft of which rows keep 0, 1 and 3, and a token that replaces the next, no pass is needed, and the state
    is the one made from nothing; the old state is what it was.
    """
    model, tape = causal(sampler), GeneratorTape(3)
    first, value = tape.normal("first", (3, 2, 4)), tape.normal("value", (3, 3, 4))
    label = torch.tensor([1, NOBODY, 5])
    state = model.extend(model.start(3, label), first, torch.full((3,), 2))
    before = told(model.law(state))
    model.law(state, value)
    kept = torch.tensor([0, 1, 3])
    emitted = torch.cat((value, torch.zeros(3, 1, 4)), 1)
    emitted[torch.arange(3), kept] = tape.normal("replaced", (3, 4))
    passes = []
    forward = CausalMar.forward
    monkeypatch.setattr(CausalMar, "forward", lambda self, *rest: passes.append(1) or forward(self, *rest))
    cropped = model.extend(state, emitted, kept + 1)
    assert not passes
    fresh = model.start(3, label)
    for tokens, length in ((first, torch.full((3,), 2)), (emitted, kept + 1)):
        fresh = model.extend(fresh, tokens, length)
    assert passes and cropped.count.equal(fresh.count) and cropped.last.equal(fresh.last)
    for row, count in enumerate((kept + 3).tolist()):
        apart = cropped.keys[row, ..., :count, :] - fresh.keys[row, ..., :count, :]
        assert apart.abs().max() < SAME
    assert (told(model.law(cropped, value)) - told(model.law(fresh, value))).abs().max() < SAME
    assert told(model.law(state)).equal(before) and state.keys.shape[-2] == 2


def test_what_was_seen_is_not_used_for_other_tokens() -> None:
    model, tape = causal(), GeneratorTape(4)
    drafted, other = tape.normal("drafted", (2, 3, 4)), tape.normal("other", (2, 3, 4))
    state = model.start(2, 3)
    model.law(state, drafted)
    clean = model.extend(model.start(2, 3), other, torch.tensor([3, 1]))
    found = model.extend(state, other, torch.tensor([3, 1]))
    assert (told(model.law(found)) - told(model.law(clean))).abs().max() < SAME
    model.law(state, drafted, torch.tensor([-1, -1, -1]))  # siblings do not follow one another
    both = model.extend(state, drafted, torch.tensor([3, 2]))
    clean = model.extend(model.start(2, 3), drafted, torch.tensor([3, 2]))
    assert (told(model.law(both)) - told(model.law(clean))).abs().max() < SAME


def test_what_lies_beyond_the_count_is_not_looked_at() -> None:
    model, tape = causal(), GeneratorTape(6)
    state = model.extend(model.start(2, 3), tape.normal("tokens", (2, 5, 4)), torch.tensor([5, 2]))
    beyond = torch.arange(state.keys.shape[-2]) >= state.count.unsqueeze(1)
    spoiled = torch.where(beyond[:, None, None, None, None, :, None], 1e3, state.keys)
    assert not spoiled.equal(state.keys)
    other = CausalState(spoiled, state.count, state.last, state.label)
    value = tape.normal("value", (2, 2, 4))
    assert told(model.law(other, value)).equal(told(model.law(state, value)))
    for each in (state, other):
        each.seen.clear()
    grown = [model.extend(each, value, torch.tensor([1, 2])) for each in (state, other)]
    assert told(model.law(grown[1])).equal(told(model.law(grown[0])))


def test_selected_rows_are_those_rows() -> None:
    model, tape = causal(GUIDED[1]), GeneratorTape(7)
    state = model.extend(model.start(4, torch.tensor([1, 2, 3, 4])), tape.normal("x", (4, 3, 4)), torch.arange(4))
    rows = torch.tensor([3, 1])
    assert (told(model.law(model.select(state, rows))) - told(model.law(state))[rows]).abs().max() < SAME
    mask = torch.tensor([False, True, True, False])
    assert model.select(state, mask).count.tolist() == [1, 2]


def test_training_reads_a_whole_image_in_one_pass() -> None:
    model, tape = causal(), GeneratorTape(8)
    tokens, label = tape.normal("tokens", (2, 9, 4)), torch.tensor([4, NOBODY])
    found, w = model.network.whole(tokens, label), dict(model.network.state_dict())
    for row in range(2):
        wanted = hand.causal(w, SHAPE.heads, SHAPE.depth, tokens[row, :-1], int(label[row]))
        assert (found[row] - wanted).abs().max() < SAME


def test_a_class_that_there_is_not_is_refused() -> None:
    for label in (10, -2):
        with pytest.raises(ValueError, match="a class 0 to 9"):
            causal().start(2, label)


def test_the_label_matters_and_so_does_guidance() -> None:
    one, two = (told(causal().law(causal().start(1, label))) for label in (1, None))
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("rule", ["coalescing", "whole_path", "restarting", "last_gaussian"])
def test_decoding_with_a_smaller_drafter(rule: str) -> None:
    """Rows advance unevenly and finish; the images are finite, and repeated on the same tape."""
    sampler = Sampler(1.5, steps=3, late=True)
    target, drafter = causal(sampler), causal(sampler, SMALLER, 6)
    traces = [decode(target, drafter, catalog()[rule](), 3, 9, GeneratorTape(9), 4, torch.arange(4)) for _ in range(2)]
    assert traces[0].tokens.shape == (4, 9, 4) and bool(torch.isfinite(traces[0].tokens).all())
    assert traces[0].tokens.equal(traces[1].tokens)
    assert bool((traces[0].work <= 1).all()) and bool((traces[0].lengths.sum(0) >= 9).all())


def test_a_drafter_that_is_the_target_is_never_rejected() -> None:
    """Except by rounding of a whole window against a growing one: laws 1e-12 apart."""
    model = causal(Sampler(1.5, steps=3, late=True))
    trace = decode(model, model, catalog()["coalescing"](), 2, 9, GeneratorTape(10), 5, 3)
    assert bool(trace.kept.all(-1)[trace.lengths > 0].all())
    assert trace.lengths.tolist() == [[3] * 5] * 3


def test_decoding_gives_the_images_of_the_cacheless_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of a decode with what was seen forgotten, so that every key is computed again."""
    sampler = Sampler(1.5, steps=3, late=True)
    target, drafter = causal(sampler), causal(sampler, SMALLER, 6)
    run = lambda: decode(target, drafter, catalog()["restarting"](), 3, 9, GeneratorTape(11), 4, 2)  # noqa: E731
    with_cache = run()
    monkeypatch.setattr(CausalSequence, "_known", staticmethod(lambda *_: None))
    assert (run().tokens - with_cache.tokens).abs().max() < 1e-9


def test_drafts_carry_the_law_that_they_were_drawn_from() -> None:
    model = causal()
    draft = propose(model, model.start(2, 1), torch.arange(3) - 1, GeneratorTape(12))
    assert draft.value.shape == (2, 3, 4, 4) and isinstance(draft.law, PathLaw)
    assert bool(torch.isfinite(draft.law.log_prob(draft.value)).all())
    state = model.extend(model.start(2, 1), draft.value[:, :2], torch.full((2,), 2))
    assert (told(draft.law)[:, 2:] - told(model.law(state))).abs().max() < SAME

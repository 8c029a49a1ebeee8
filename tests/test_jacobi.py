"""Jacobi decoding is lossless: by enumeration, against a version on paper, and against sequential sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import replace as changed

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.enumeration import enumerate_tape
from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.noise import Noise
from distributions.streams import StreamTape
from distributions.tape import GeneratorTape, RecordingTape, Tape
from tests.jacobi_by_hand import Rule, decoded
from verify.decode import Trace, decode
from verify.exact import digits, exact_chain, exact_rows
from verify.jacobi import ENTRIES, Jacobi
from verify.races import race_match
from verify.records import Draft, Outcome
from verify.scenarios import Scenario, scenarios
from verify.verifier import Verifier
from verify.verifiers.gs_match import GsMatch
from verify.verifiers.scd import Scd
from verify.verifiers.scd_gumbel import ScdGumbel
from verify.verifiers.sjd import Sjd

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

TOLERANCE = 1e-12
RULES = {
    "sjd": Sjd(),
    "scd": Scd(),
    "scd_half": Scd(strength=0.5),
    "scd_zero": Scd(strength=0.0),
    "scd_gumbel": ScdGumbel(),
    "gs_match": GsMatch(),
}
CASES = scenarios((3,))


def pair(vocab: int, order: int = 1, seed: int = 0) -> tuple[Markov, Markov]:
    """A target that looks ``order`` tokens back, and a drafter that has nothing to do with it."""
    return Markov.random(vocab, order, 2 * seed + 1001), Markov.random(vocab, 1, 2 * seed + 1002)


def entering(name: str, entry: str) -> Jacobi:
    return changed(RULES[name], entry=entry)


# --- exactness by enumeration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", RULES)
def test_exact_at_every_window(name: str, entry: str) -> None:
    """Windows 2 to 5; a column that enters is tested where the sequence is longer than the window."""
    for vocab, order, length, windows in ((2, 2, 5, (2, 3, 4)), (2, 1, 6, (5,)), (3, 1, 4, (2, 3))):
        for window in windows:
            assert exact_chain(*pair(vocab, order), entering(name, entry), window - 1, length).tv < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("window", [2, 3, 4, 5])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", RULES)
def test_exact_on_longer_sequences(name: str, entry: str, window: int) -> None:
    for vocab, order, length in ((2, 3, 6), (2, 1, 6), (3, 2, 5), (3, 1, 5)):
        if (vocab, window) != (3, 5):
            found = exact_chain(*pair(vocab, order, window), entering(name, entry), window - 1, length)
            assert found.tv < TOLERANCE and found.dropped == 0


HOSTILE = ["disjoint_supports", "zeros_in_both", "point_mass_drafter", "point_mass_target", "ties", "subnormal"]


@pytest.mark.parametrize("entry", ["random", "repeat"])
@pytest.mark.parametrize("name", RULES)
def test_exact_on_hostile_pairs(name: str, entry: str) -> None:
    """Entry ``uniform``, on all scenarios, is in test_verifiers."""
    for case in (CASES[f"{case}/3"] for case in HOSTILE):
        assert exact_chain(case.target, case.drafter, entering(name, entry), 2, 3).tv < TOLERANCE


weight = st.one_of(st.just(0.0), st.floats(1e-9, 1.0), st.sampled_from([5e-324, 1e-300, 1e-16, 1.0]))


@st.composite
def generated(draw: st.DrawFn) -> Scenario:
    """Any two first-order models of two or three tokens, and two or three drafted columns."""
    vocab = draw(st.integers(2, 3))
    row = st.lists(weight, min_size=vocab, max_size=vocab).filter(lambda item: sum(item) > 0)
    tables = [draw(st.lists(row, min_size=vocab + 1, max_size=vocab + 1)) for _ in range(2)]
    drafter, target = (Markov(torch.tensor(table, dtype=torch.float64), 1) for table in tables)
    return Scenario(drafter, target, draw(st.integers(2, 3)))


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(case=generated(), entry=st.sampled_from(ENTRIES))
def test_exact_on_generated_tables(name: str, case: Scenario, entry: str) -> None:
    assert exact_chain(case.target, case.drafter, entering(name, entry), case.draft_length, 4).tv < TOLERANCE


# --- the same on paper -----------------------------------------------------------------------------------------------


ON_PAPER = {"sjd": Rule(), "scd": Rule("coupled")}


@pytest.mark.parametrize(("vocab", "nodes", "length"), [(2, 1, 4), (2, 2, 4), (2, 3, 4), (3, 2, 3)])
@pytest.mark.parametrize("name", ON_PAPER)
def test_rounds_and_laws_are_those_on_paper(name: str, vocab: int, nodes: int, length: int) -> None:
    """The law alone would not notice a column that is lost or doubled: that costs rounds, which paper counts."""
    target, drafter = pair(vocab, 2)
    laws = [lambda prefix, model=model: tuple(model.prefix_probs(prefix).tolist()) for model in (target, drafter)]
    law, rounds = decoded(ON_PAPER[name], *laws, nodes, length)
    found = exact_chain(target, drafter, RULES[name], nodes, length)
    sequences = digits(torch.arange(vocab**length), length, vocab).tolist()
    wanted = torch.tensor([law[tuple(row)] for row in sequences], dtype=torch.float64)
    assert torch.allclose(found.law, wanted, rtol=0, atol=1e-12)
    assert abs(found.rounds - rounds) < 1e-12


# --- rounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_coupling_saves_rounds(nodes: int) -> None:
    """Not a theorem but a fact on random models; with one drafted column no draft lives long enough to be coupled."""
    for seed in range(3):
        models = pair(3, 1, seed)
        rounds = {name: exact_chain(*models, RULES[name], nodes, 4).rounds for name in ("sjd", "scd", "scd_half")}
        if nodes == 1:
            assert rounds["scd"] == pytest.approx(rounds["sjd"], abs=1e-12)
        else:
            assert rounds["scd"] < rounds["scd_half"] < rounds["sjd"]


def test_no_coupling_is_speculative_jacobi() -> None:
    """Strength 0 has the rounds of SJD at every length, so the same law of rounds, and the same law of one round."""
    for nodes in (1, 2, 3):
        models = pair(3, 1, nodes)
        for length in range(1, 5):
            found = [exact_chain(*models, RULES[name], nodes, length).rounds for name in ("sjd", "scd_zero")]
            assert found[0] == pytest.approx(found[1], abs=1e-12)
        contexts = torch.arange(3).unsqueeze(1)
        one, other = (exact_rows(RULES[name], *models, contexts, nodes) for name in ("sjd", "scd_zero"))
        assert torch.allclose(one.kept, other.kept, rtol=0, atol=1e-14)


@dataclass(frozen=True)
class Endless(Scd):
    """Never told where the sequence ends, so that its window is always full."""

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        return super().verify(changed(draft, left=None), target, tape)


def test_the_end_of_the_sequence_changes_nothing_but_the_work() -> None:
    for vocab, length, nodes in ((2, 5, 3), (3, 3, 2), (2, 2, 4), (2, 1, 2)):
        full, short = (exact_chain(*pair(vocab), rule, nodes, length) for rule in (Endless(), Scd()))
        assert torch.allclose(full.law, short.law, rtol=0, atol=1e-13)
        assert full.rounds == pytest.approx(short.rounds, abs=1e-12)
        assert full.states > short.states or length == 1


def test_the_uniform_label_is_kept_more_often() -> None:
    rounds = {entry: exact_chain(*pair(3, 1, 5), entering("sjd", entry), 1, 5).rounds for entry in ENTRIES}
    assert rounds["uniform"] < min(rounds["random"], rounds["repeat"])


# --- rows and windows ------------------------------------------------------------------------------------------------


MODEL = Markov.random(6, 2, 77, 0.5)
FIRST = Markov.random(6, 1, 78)


def streamed(rule: Verifier, nodes: int, rows: Tensor, length: int = 23) -> Trace:
    return decode(MODEL, FIRST, rule, nodes, length, StreamTape(9, rows), len(rows))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", RULES)
def test_a_row_decodes_alone_as_it_does_beside_others(name: str, entry: str) -> None:
    """Four rows at uneven progress, backwards, and each alone, on streams of their own: token by token the same."""
    rule = entering(name, entry)
    for nodes in (1, 6):
        whole = streamed(rule, nodes, torch.arange(4))
        assert len(whole.rounds.unique()) > 1  # they do not keep step
        backwards = streamed(rule, nodes, torch.arange(4).flip(0))
        assert torch.equal(whole.tokens.flip(0), backwards.tokens)
        for row in range(4):
            alone = streamed(rule, nodes, torch.tensor([row]))
            assert torch.equal(alone.tokens[0], whole.tokens[row])
            assert torch.equal(alone.lengths[:, 0], whole.lengths[: int(whole.rounds[row]), row])


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", RULES)
def test_rows_are_independent_in_enumeration(name: str, entry: str) -> None:
    """RowsDependent would be raised; every context is a row, so that its law is that of the row alone."""
    target, drafter = pair(2, 2)
    contexts = digits(torch.arange(4), 2, 2)
    whole = exact_rows(entering(name, entry), target, drafter, contexts, 3)
    for row in range(4):
        alone = exact_rows(entering(name, entry), target, drafter, contexts[[row]], 3)
        assert torch.allclose(alone.law[0], whole.law[row], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", RULES)
def test_lengths_and_windows(name: str) -> None:
    """One token, windows longer than the sequence, and a carry that always has the width of the window."""
    for nodes, length in ((1, 1), (7, 1), (7, 3), (3, 11)):
        trace = streamed(RULES[name], nodes, torch.arange(40), length)
        assert trace.tokens.shape == (40, length) and bool((trace.lengths.sum(0) >= length).all())
        assert bool((trace.lengths <= nodes + 1).all())
        assert bool(((trace.tokens >= 0) & (trace.tokens < 6)).all())


def test_columns_beyond_the_end_cost_nothing() -> None:
    """With one token left, a round draws a coin and a replacement or a bonus, and no draft."""
    tape = RecordingTape(GeneratorTape(0))
    law = Categorical(torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)) + 0.1)
    draft = Draft(torch.zeros(4, 2, dtype=torch.long), law[:, :2], torch.tensor([-1, 0]), left=torch.ones(4).long())
    outcome = Sjd().verify(draft, law, tape)
    assert {item.site for item in tape.draws if item.value.numel()} <= {"accept", "residual"}
    assert outcome.carry is not None and not bool(outcome.carry.value.any())


# --- GS-match: the sequence that ancestral sampling gives ------------------------------------------------------------


def ancestral(target: Markov, length: int, rows: int, seed: int) -> Tensor:
    """Token by token, column j by the race of its own noise, the j-th that the row draws at this site."""
    noise = StreamTape.of(seed, rows).noise("noise", (rows, length, target.vocab))
    state, tokens = target.start(rows), []
    for column in range(length):
        law = target.law(state).probs[:, 0]
        token, _ = noise[:, column].winner(law, GeneratorTape(0), "race")
        state = target.extend(state, token.unsqueeze(1), torch.ones(rows, dtype=torch.long))
        tokens.append(token)
    return torch.stack(tokens, 1)


LARGE = Markov.random(24, 2, 5, 0.3)
GREEDY = Markov(torch.nn.functional.one_hot(torch.arange(25) % 24, 24), 1)  # a point mass leaves the noise alone


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("window", [2, 3, 5, 17, 64])
def test_gs_match_is_ancestral_sampling_bit_for_bit(window: int, entry: str) -> None:
    for rows, length in ((1, 40), (7, 40), (3, 5)):
        trace = decode(LARGE, GREEDY, GsMatch(entry), window - 1, length, StreamTape.of(3, rows), rows)
        assert torch.equal(trace.tokens, ancestral(LARGE, length, rows, 3))
        assert window < 5 or length < 40 or float(trace.work.mean()) < 1  # and it saves rounds


@dataclass(frozen=True)
class FreshNoise(GsMatch):
    """A planted bug: a column's noise is drawn again when the column has moved."""

    def slide(self, new: Draft, moved: Tensor, ends: Tensor, tape: Tape) -> Draft:
        made = super().slide(new, moved, ends, tape)
        return changed(made, noise=tape.noise("noise", (*made.value.shape, 24)))


@dataclass(frozen=True)
class NextNoise(GsMatch):
    """A planted bug: the noise stays where it is while the window moves by one column more."""

    def slide(self, new: Draft, moved: Tensor, ends: Tensor, tape: Tape) -> Draft:
        made = super().slide(new, moved, ends, tape)
        assert made.noise is not None
        return changed(made, noise=made.noise[:, torch.arange(made.value.shape[1]).roll(1)])


@pytest.mark.parametrize("bug", [FreshNoise(), NextNoise()])
def test_noise_that_is_not_the_columns_own_is_a_different_sequence(bug: GsMatch) -> None:
    trace = decode(LARGE, GREEDY, bug, 4, 40, StreamTape.of(3, 7), 7)
    assert not torch.equal(trace.tokens, ancestral(LARGE, 40, 7, 3))


def test_other_drafters_leave_the_law_and_change_the_tokens() -> None:
    """Noise made up after a real draft is other noise, with the same law: enumeration above says that it is exact."""
    uniform = Markov(torch.ones(25, 24), 1)
    trace = decode(LARGE, uniform, GsMatch(), 4, 40, StreamTape.of(3, 7), 7)
    assert not torch.equal(trace.tokens, ancestral(LARGE, 40, 7, 3))


# --- couplings of one column in two rounds ---------------------------------------------------------------------------


def redrafted(rule: Jacobi, label: Tensor, target: Tensor) -> Tensor:
    """The joint law (V, V) of a draft from ``label`` and of what it becomes under ``target``."""
    vocab = len(label)

    def run(index: Tensor, tape: Tape) -> Tensor:
        rows = len(index)
        laws = [Categorical(part.expand(rows, count, vocab)) for part, count in ((label, 1), (target, 2))]
        value = tape.categorical("draft", laws[0].probs)
        draft = Draft.chain(value, laws[0])
        draft = changed(draft, noise=rule.noise(draft, laws[1], tape))
        accept, _ = rule.accept(draft, laws[1][:, :1], tape)
        wanted = torch.tensor([True, False]).expand(rows, 2)
        new = rule.redraft(draft, laws[1], accept, wanted, tape)
        assert isinstance(new.law, Categorical) and torch.equal(
            new.law.probs, laws[1].probs
        )  # the label is the new law
        return torch.cat([value, new.value[:, :1]], 1)

    found = torch.zeros(vocab, vocab, dtype=torch.float64)
    for _, mass, _, token in enumerate_tape(run, 1):
        found.index_put_(tuple(token.T), mass, accumulate=True)
    return found


@pytest.mark.parametrize("vocab", [2, 3, 5])
def test_how_often_a_draft_survives(vocab: int) -> None:
    """Maximal coupling: 1 - TV. A race of kept noise: its formula, at least (1 - TV) / (1 + TV). Fresh: sum p q."""
    for seed in range(4):
        label, target = (Markov.random(vocab, 1, 100 + 2 * seed + which).table[0] for which in (0, 1))
        overlap = float(torch.minimum(label, target).sum())
        alike = float(label @ target)
        wanted = {
            "sjd": alike,
            "scd": overlap,
            "scd_half": (overlap + alike) / 2,
            "scd_zero": alike,
            "scd_gumbel": float(race_match(target, label)),
        }
        for name, same in wanted.items():
            found = redrafted(RULES[name], label, target)
            assert torch.allclose(found.sum(1), label, rtol=0, atol=1e-14)
            assert torch.allclose(found.sum(0), target, rtol=0, atol=1e-14)
            assert float(found.trace()) == pytest.approx(same, abs=1e-14)
        assert overlap / (2 - overlap) - 1e-14 <= wanted["scd_gumbel"] <= overlap + 1e-14


def test_noise_couples_any_two_rounds() -> None:
    """Drafts of one column two rounds apart agree with (1 - TV) / (1 + TV) of *their* laws, whatever lay between."""
    first, between, last = (Markov.random(3, 1, 200 + which).table[0] for which in range(3))

    def run(index: Tensor, tape: Tape) -> Tensor:
        noise: Noise = tape.noise("noise", (len(index), 3))
        tokens = []
        for law in (first, between, last):
            token, noise = noise.winner(law.expand(len(index), -1), tape, "race")
            tokens.append(token)
        return torch.stack(tokens, -1)

    agree = sum(float(mass[token[:, 0] == token[:, 2]].sum()) for _, mass, _, token in enumerate_tape(run, 1))
    assert agree == pytest.approx(float(race_match(last, first)), abs=1e-14)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Sjd, Scd, ScdGumbel, GsMatch])
def test_entries_are_known_by_name(kind: type[Jacobi]) -> None:
    with pytest.raises(ValueError, match="uniform, random, repeat, and is 'horizon'"):
        kind(entry="horizon")


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_the_strength_is_a_probability(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        Scd(strength=strength)


@pytest.mark.parametrize("rule", [Sjd(), Scd(), ScdGumbel(), GsMatch()])
def test_densities_are_refused(rule: Jacobi) -> None:
    law = Gaussian(torch.zeros(4, 3, 1), torch.ones(1))
    with pytest.raises(TypeError, match="vocabulary and got a Gaussian"):
        rule.verify(Draft.chain(torch.zeros(4, 2, 1).double(), law[:, :2]), law, GeneratorTape(0))
    target = Categorical(torch.ones(4, 3, 2))
    with pytest.raises(TypeError, match="vocabulary and got a Gaussian"):
        rule.verify(Draft.chain(torch.zeros(4, 2, dtype=torch.long), law[:, :2]), target, GeneratorTape(0))

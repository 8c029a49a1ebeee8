"""The enumerator itself: its laws against closed forms, against sampling, and against verifiers that are wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.enumeration import EnumerationExploded, NotEnumerable, RowsDependent
from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.decode import decode
from verify.exact import conditionals, digits, encode, exact_batch, exact_chain, exact_rows
from verify.records import Claim, Draft, Outcome
from verify.scenarios import scenarios
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

TARGET, DRAFTER = Markov.random(3, 1, 0), Markov.random(3, 2, 1)
CONTEXTS = digits(torch.arange(9), 2, 3)


def test_numbers_and_tokens_are_inverse() -> None:
    code = torch.arange(5**3)
    assert torch.equal(encode(digits(code, 3, 5), 5), code)
    assert digits(torch.tensor([7]), 3, 3).tolist() == [[0, 2, 1]]  # the first token is the most significant


def test_conditionals_multiply_to_the_models_own_law() -> None:
    law = torch.ones(1)
    for step in conditionals(DRAFTER, DRAFTER.start(1), 1, 4):
        law = (law.unsqueeze(-1) * step[0]).flatten()
    assert torch.allclose(law, DRAFTER.sequence_probs(4), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["random_first_order/3", "random_second_order/2", "three_nodes/2", "subnormal/3"])
def test_lenient_departs_by_its_closed_form_at_every_position(name: str) -> None:
    """Lemma A5, conditional on each prefix that is reached by acceptance."""
    case, verifier = scenarios()[name], Lenient(0.8)
    rows = exact_rows(verifier, case.target, case.drafter, case.contexts, case.draft_length)
    count = len(case.contexts)
    state = case.drafter.extend(case.drafter.start(count), case.contexts, torch.full((count,), case.contexts.shape[1]))
    for position, law in enumerate(conditionals(case.drafter, state, count, case.draft_length)):
        wanted = rows.reach[position] * verifier.bias(Categorical(rows.wanted[position]), Categorical(law))
        assert torch.allclose(rows.departure[position], wanted, rtol=0, atol=1e-14)
    assert float(rows.departure[-1].max()) < 1e-14  # the bonus is the target's own
    assert float(rows.tv.max()) > 0.01


def test_acceptance_and_overlap_of_the_maximal_rule_agree() -> None:
    rows = exact_rows(Rejection(), TARGET, DRAFTER, CONTEXTS, 2)
    first = DRAFTER.law(DRAFTER.extend(DRAFTER.start(9), CONTEXTS, torch.full((9,), 2)))[:, 0]
    target = TARGET.law(TARGET.extend(TARGET.start(9), CONTEXTS, torch.full((9,), 2)))[:, 0]
    assert torch.allclose(rows.overlap, target.overlap(first), rtol=0, atol=1e-15)
    assert torch.allclose(rows.acceptance, rows.overlap, rtol=0, atol=1e-15)
    assert torch.allclose(rows.expected_length, 1 + rows.kept.sum(-1), rtol=0, atol=1e-14)
    assert torch.allclose(rows.reach[1].sum(-1), rows.kept[:, 0], rtol=0, atol=1e-14)


def test_a_long_chain_is_exact_and_quick() -> None:
    begun = time.perf_counter()
    found = exact_chain(TARGET, DRAFTER, Rejection(), 2, 8)
    assert found.law.shape == (3**8,) and found.dropped == 0
    assert float((found.law - TARGET.sequence_probs(8)).abs().max()) < 1e-12 and found.tv < 1e-12
    assert time.perf_counter() - begun < 30


def test_chain_law_and_rounds_are_those_of_decoding() -> None:
    """A lossy verifier, so that the law found is not simply the target's."""
    rows, case = 40_000, scenarios()["random_first_order/3"]
    found = exact_chain(case.target, case.drafter, Lenient(0.5), 2, 4)
    assert found.tv > 0.02
    wanted = rows * (found.law / found.law.sum()).numpy()
    trace = decode(case.target, case.drafter, Lenient(0.5), 2, 4, GeneratorTape(4), rows)
    counts = torch.bincount(encode(trace.tokens, 3), minlength=81)
    assert stats.chisquare(counts.numpy(), wanted).pvalue > 1e-8  # false alarm 1e-8
    taken = trace.rounds.double()
    assert 1 < float(trace.work.min()) * 4 < float(trace.work.max()) * 4 <= 4
    assert abs(float(taken.mean()) - found.rounds) < 6 * float(taken.std()) / rows**0.5  # false alarm 2e-9
    honest = decode(case.target, case.drafter, Rejection(), 2, 4, GeneratorTape(4), rows)
    counts = torch.bincount(encode(honest.tokens, 3), minlength=81)
    assert stats.chisquare(counts.numpy(), wanted).pvalue < 1e-8  # the test has power: another law fails it


def test_dropped_mass_bounds_what_is_missing() -> None:
    whole = exact_rows(Rejection(), TARGET, DRAFTER, CONTEXTS, 2)
    part = exact_rows(Rejection(), TARGET, DRAFTER, CONTEXTS, 2, min_mass=1e-2)
    assert part.leaves < whole.leaves and float(part.dropped.min()) > 0
    assert bool((part.law <= whole.law + 1e-14).all())
    assert torch.allclose(1 - part.law.sum(-1), part.dropped, rtol=0, atol=1e-14)
    chain = exact_chain(TARGET, DRAFTER, Rejection(), 2, 3, min_mass=1e-2)
    assert chain.dropped > 0 and float(1 - chain.law.sum()) == pytest.approx(chain.dropped, abs=1e-14)


def test_explosions_and_continuous_draws_are_named() -> None:
    with pytest.raises(EnumerationExploded, match="draft.0|draft.1|accept"):
        exact_rows(Rejection(), TARGET, DRAFTER, CONTEXTS, 2, max_leaves=20)

    @dataclass(frozen=True)
    class Continuous:
        claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            tape.uniform("threshold", draft.value.shape)
            raise AssertionError("unreachable")

    with pytest.raises(NotEnumerable, match="threshold"):
        exact_rows(Continuous(), TARGET, DRAFTER, CONTEXTS, 2)


@dataclass(frozen=True)
class Altered:
    """Rejection whose outcome is shifted afterwards: out of the vocabulary, or out of 1..N + 1 tokens."""

    token: int = 0
    length: int = 0
    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        made = Rejection().verify(draft, target, tape)
        return Outcome(made.value + self.token, made.length + self.length, made.kept, made.log_accept)


@pytest.mark.parametrize("altered", [Altered(token=1), Altered(length=-1), Altered(length=1)])
def test_impossible_outcomes_raise(altered: Altered) -> None:
    with pytest.raises(ValueError, match=r"emitted|vocabulary|tokens 0\.\."):
        exact_rows(altered, TARGET, DRAFTER, CONTEXTS, 2)


@dataclass(frozen=True)
class Jacobi:
    """Speculative Jacobi decoding: the target's laws on the old prefix draft the next round (2410.01699).

    ``stale`` labels the drafts with the laws one column too early: the defect of a shifted buffer.
    """

    stale: bool = False
    claim: ClassVar[Claim] = Claim(exact=True, reference="Teng et al. 2410.01699")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        assert isinstance(target, Categorical)
        made = Rejection().verify(draft, target, tape)
        nodes, vocab = draft.value.shape[1], target.probs.shape[-1]
        beyond = torch.full((len(made.length), nodes, vocab), 1 / vocab, dtype=torch.float64)
        known = torch.cat([target.probs, beyond], 1)
        column = made.length.unsqueeze(-1) + torch.arange(nodes)
        laws = Categorical(_columns(known, column))
        value = laws.sample(tape, "carry")
        label = Categorical(_columns(known, column - 1)) if self.stale else laws
        return Outcome(made.value, made.length, made.kept, made.log_accept, Draft(value, label, draft.parent))


def _columns(probs: Tensor, column: Tensor) -> Tensor:
    return probs.gather(1, column.unsqueeze(-1).expand(-1, -1, probs.shape[-1]))


def test_carried_drafts_are_part_of_the_state() -> None:
    drafter = Markov(torch.ones(4, 3), 1)
    found = exact_chain(TARGET, drafter, Jacobi(), 2, 4)
    assert found.tv < 1e-12
    assert found.states > 1 + 3 + 9 + 27  # one prefix is met with different carries
    assert exact_chain(TARGET, drafter, Jacobi(stale=True), 2, 4).tv > 1e-3
    trace = decode(TARGET, drafter, Jacobi(), 2, 4, GeneratorTape(6), 20_000)
    taken = trace.rounds.double()
    assert abs(float(taken.mean()) - found.rounds) < 6 * float(taken.std()) / 20_000**0.5  # false alarm 2e-9


@dataclass(frozen=True)
class RowsMixed:
    """Rejection that judges every row by its neighbour's target: right on one row, and on equal rows."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        rows = draft.value.shape[0]
        return Rejection().verify(draft, target[(torch.arange(rows) + 1) % rows], tape)


def test_mixed_rows_are_refused_row_by_row_and_found_lossy_together() -> None:
    with pytest.raises(RowsDependent, match="other rows"):
        exact_rows(RowsMixed(), TARGET, DRAFTER, CONTEXTS, 2)
    pair = torch.tensor([[0], [1]])
    target, drafter = Markov.random(2, 1, 5), Markov.random(2, 1, 6)
    assert float(exact_batch(RowsMixed(), target, drafter, pair, 1).tv.min()) > 1e-2
    assert float(exact_batch(RowsMixed(), target, drafter, pair[:1], 1).tv.max()) < 1e-12  # one row hides it
    together, apart = (how(Rejection(), target, drafter, pair, 1) for how in (exact_batch, exact_rows))
    assert torch.allclose(together.law, apart.law, rtol=0, atol=1e-14) and together.leaves > apart.leaves

"""Verifiers written on the tape, enumerated in batches.

A verifier of this project runs on all leaves of all contexts at once, where a stranger's function takes two runs for
each leaf. Both columns count leaves of rejection sampling on the same models, and their laws agree to 1e-12; the
stranger's are of the first context alone, in a room that is open. How it grows is then measured one size at a time,
against 2 tokens and a draft of 1. A sequence is decoded in rounds of two drafted tokens, and equal states are merged
between rounds.
"""

from __future__ import annotations

import pytest
import torch

from distributions.autoregressive import Markov
from tests.benchmarks.in_room import in_room
from tests.benchmarks.report import Section, Versus
from tests.benchmarks.subjects import correct
from verify.exact import conditionals, digits, exact_chain, exact_rows
from verify.problems import Problem
from verify.spaces.discrete import law_of
from verify.verifiers.rejection import Rejection

PASSES = 3
SIZES = [(3, 2, 1), (3, 2, 9), (3, 2, 243), (3, 3, 9), (5, 2, 25)]  # vocabulary, draft length, contexts


@pytest.mark.parametrize(("vocab", "length", "rows"), SIZES, ids=lambda value: str(value))
def test_batched_against_one_run_a_leaf(vocab: int, length: int, rows: int, versus: Versus, section: Section) -> None:
    target, drafter = Markov.random(vocab, 1, 0), Markov.random(vocab, 1, 1)
    contexts = digits(torch.arange(rows), 5, vocab)
    state = target.extend(target.start(1), contexts[:1], torch.full((1,), 5))
    draft_tables, target_tables = (
        tuple(law[0] for law in conditionals(model, state, 1, count))
        for model, count in ((drafter, length), (target, length + 1))
    )
    problem = Problem(draft_tables, target_tables)
    run = versus(
        lambda: exact_rows(Rejection(), target, drafter, contexts, length),
        lambda: in_room(correct, lambda room: law_of(correct, problem, room), PASSES),
        turns=5,
    )
    answered = run.reference_result
    batched, single = run.result, answered.result
    working = PASSES / (1 - answered.share)  # passes that would have filled the time, had the room been open
    assert float(batched.tv.max()) < 1e-12 and single.bias < 1e-12
    assert float((batched.law[0] - single.law).abs().max()) < 1e-12
    section.row(
        vocabulary=vocab,
        draft_length=length,
        contexts=rows,
        leaves=batched.leaves,
        times_as_fast_a_leaf=batched.leaves / (single.leaves * working) / run.ratio,
        leaves_per_second=batched.leaves / run.seconds,
        one_run_a_leaf_per_second=single.leaves * working / run.reference_seconds,
    )


@pytest.mark.parametrize(
    ("vocab", "length"), [(2, 2), (3, 2), (4, 2), (6, 2), (8, 2), (12, 2), (16, 2), (3, 1), (3, 3), (3, 4), (3, 5)]
)
def test_scaling(vocab: int, length: int, versus: Versus, section: Section) -> None:
    target, drafter = Markov.random(vocab, 1, 0), Markov.random(vocab, 1, 1)
    few = Markov.random(2, 1, 0), Markov.random(2, 1, 1)
    context = torch.zeros(1, 1, dtype=torch.long)
    run = versus(
        lambda: exact_rows(Rejection(), target, drafter, context, length),
        lambda: exact_rows(Rejection(), *few, context, 1),
        turns=3,
    )
    found = run.result
    assert float(found.tv.max()) < 1e-12 and float(found.dropped.max()) == 0
    # Each of V^g drafts ends in one of V bonuses, or at one of g nodes in one of at most V - 1 replacements.
    assert vocab ** (length + 1) <= found.leaves <= vocab**length * (length * (vocab - 1) + vocab)
    section.row(
        round_of_vocabulary=vocab,
        draft_length=length,
        leaves=found.leaves,
        time_over_the_smallest=run.ratio,
        microseconds_a_leaf=run.seconds / found.leaves * 1e6,
        round_seconds=run.seconds,
    )


@pytest.mark.parametrize("length", range(4, 9))
def test_whole_sequences(length: int, versus: Versus, section: Section) -> None:
    target, drafter = Markov.random(3, 1, 0), Markov.random(3, 2, 1)

    def chain(tokens: int) -> object:
        return exact_chain(target, drafter, Rejection(), 2, tokens)

    run = versus(lambda: chain(length), lambda: chain(4), turns=5)
    found = run.result
    assert found.tv < 1e-12 and found.dropped == 0
    assert float((found.law - target.sequence_probs(length)).abs().max()) < 1e-12
    section.row(
        decoded_tokens=length,
        sequences=3**length,
        states_after_merging=found.states,
        time_over_4_tokens=run.ratio,
        chain_seconds=run.seconds,
    )

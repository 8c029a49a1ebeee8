"""Drafting, one round as a pure step, and the loop over rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.autoregressive import LinearGaussianAR, Markov
from distributions.categorical import Categorical
from distributions.enumeration import enumerate_tape
from distributions.law import Law
from distributions.tape import GeneratorTape, RecordingTape, ReplayTape, Tape
from verify.audit import finite
from verify.decode import Round, decode, depths, parents, propose
from verify.exact import encode
from verify.records import Claim, Draft, Outcome
from verify.scenarios import scenarios
from verify.verifier import catalog
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

TARGET, DRAFTER = Markov.random(3, 1, 0), Markov.random(3, 2, 1)
CHAIN, SIBLINGS, TREE = torch.arange(3) - 1, torch.full((3,), -1), torch.tensor([-1, 0, -1, 2, 0, 4])
FINITE = {name: kind for name, kind in catalog().items() if finite(kind.claim)}
EXACT = {name: kind for name, kind in FINITE.items() if kind.claim.exact}


@pytest.mark.parametrize("parent", [CHAIN, SIBLINGS, TREE], ids=["chain", "siblings", "tree"])
def test_a_draft_carries_the_law_each_node_was_drawn_from(parent: Tensor) -> None:
    rows = 20_000
    draft = propose(DRAFTER, DRAFTER.start(rows), parent, GeneratorTape(1))
    assert draft.value.shape == (rows, len(parent)) and torch.equal(draft.parent, parent)
    assert isinstance(draft.law, Categorical)
    for node in range(len(parent)):
        path: list[int] = []
        above = int(parent[node])
        while above >= 0:
            path.insert(0, above)
            above = int(parent[above])
        prefix = draft.value[:, path]
        wanted = torch.stack([DRAFTER.prefix_probs(row) for row in prefix[:50].tolist()])
        assert torch.equal(draft.law.probs[:50, node], wanted)
        # And it was drawn from that law: the counts of each token given the path, against the law given the path.
        cell = encode(torch.cat([prefix, draft.value[:, node : node + 1]], 1), 3)
        counts = torch.bincount(cell, minlength=3 ** (len(path) + 1)).double().reshape(-1, 3)
        table = torch.zeros_like(counts).index_put((encode(prefix, 3),), draft.law.probs[:, node])
        chi2 = ((counts - counts.sum(-1, keepdim=True) * table) ** 2 / (counts.sum(-1, keepdim=True) * table)).sum()
        assert stats.chi2.sf(float(chi2), 2 * len(counts)) > 1e-8  # false alarm 1e-8 a node, at most 6 nodes


def test_depths_and_shapes() -> None:
    assert depths(TREE).tolist() == [0, 1, 0, 1, 1, 2]
    with pytest.raises(ValueError, match="earlier node"):
        depths(torch.tensor([-1, 1]))

    @dataclass(frozen=True)
    class OfSiblings:
        claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

        def parent(self, nodes: int) -> Tensor:
            return torch.full((nodes,), -1)

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            raise AssertionError("unreachable")

    assert parents(OfSiblings(), 3).tolist() == [-1, -1, -1] and parents(Rejection(), 3).tolist() == [-1, 0, 1]


def test_a_round_is_a_pure_step() -> None:
    step = Round(TARGET, DRAFTER, Rejection(), 2)
    state = step.start(30)
    before = state.target.clone()
    tape = RecordingTape(GeneratorTape(3))
    after, turn = step(state, tape)
    again, same = step(state, ReplayTape(tape.draws))
    assert torch.equal(state.target, before)
    assert torch.equal(turn.outcome.value, same.outcome.value) and torch.equal(after.target, again.target)
    some = torch.tensor([4, 7])
    assert torch.equal(step.select(after, some).target, after.target[some])


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("length", [1, 5])
def test_a_certain_target_has_one_sequence(name: str, length: int) -> None:
    """Whatever the drafter and the exact rule: where the target is a point mass, there is nothing to give away."""
    case = scenarios((3,))["point_mass_target/3"]
    trace = decode(case.target, case.drafter, FINITE[name](), 2, length, GeneratorTape(4), 50)
    wanted, token = [], 3
    for _ in range(length):
        token = int(case.target.table[token].argmax())
        wanted.append(token)
    assert trace.tokens.tolist() == [wanted] * 50


@pytest.mark.parametrize("name", FINITE)
def test_the_trace_adds_up(name: str) -> None:
    rows, length, nodes = 300, 7, 2
    trace = decode(TARGET, DRAFTER, FINITE[name](), nodes, length, GeneratorTape(5), rows)
    assert trace.tokens.shape == (rows, length) and bool(((trace.tokens >= 0) & (trace.tokens < 3)).all())
    total = trace.lengths.sum(0)
    assert bool(((total >= length) & (total < length + nodes + 1)).all())  # the last round is cut, and is the last
    running = trace.lengths > 0
    assert bool((running[:-1] | ~running[1:]).all())  # a finished row stays finished
    assert bool(((trace.lengths >= 1) & (trace.lengths <= nodes + 1))[running].all())
    assert torch.equal(torch.isnan(trace.log_accept).all(-1), ~running) and not bool(trace.kept[~running].any())
    assert torch.equal(trace.rounds, running.sum(0))
    assert name not in EXACT or len(set(trace.rounds.tolist())) > 1  # rows advance unevenly; a lossy rule may keep all
    assert torch.equal(trace.work, trace.rounds.double() / length)


def test_equal_models_keep_everything() -> None:
    trace = decode(TARGET, TARGET, Rejection(), 3, 8, GeneratorTape(6), 40)
    assert bool(trace.kept.all()) and trace.lengths.tolist() == [[4] * 40] * 2
    assert trace.work.tolist() == [0.25] * 40


def test_decoding_replays_bit_for_bit() -> None:
    tape = RecordingTape(GeneratorTape(7))
    first = decode(TARGET, DRAFTER, Rejection(), 2, 9, tape, 25)
    again = decode(TARGET, DRAFTER, Rejection(), 2, 9, ReplayTape(tape.draws), 25)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.kept, again.kept)
    assert torch.equal(first.log_accept.nan_to_num(1.0), again.log_accept.nan_to_num(1.0))


def test_a_gaussian_sequence_has_its_closed_form_law() -> None:
    """Rejection, unedited, on two-dimensional tokens: whitened by the target's law, a sequence is standard normal."""
    rows, length = 6_000, 4
    turn = torch.tensor([[[0.6, 0.3], [-0.2, 0.5]]])
    target = LinearGaussianAR(turn, torch.tensor([0.5, -0.5]), torch.tensor([1.0, 0.7]))
    drafter = LinearGaussianAR(0.7 * turn, torch.tensor([0.2, 0.0]), torch.tensor([1.1, 0.8]))
    trace = decode(target, drafter, Rejection(), 2, length, GeneratorTape(8), rows)
    assert trace.tokens.shape == (rows, length, 2) and float(trace.work.mean()) < 0.9
    law = target.sequence_law(length)
    centred = (trace.tokens.flatten(1) - law.mean).T
    white = torch.linalg.solve_triangular(law.scale_tril, centred, upper=False)
    for coordinate in white:
        assert stats.kstest(coordinate.numpy(), "norm").pvalue > 1e-9  # false alarm 8e-9 over the eight
    squared = white.square().sum(0)
    assert stats.kstest(squared.numpy(), "chi2", args=(2 * length,)).pvalue > 1e-9
    cross = white @ white.T / rows - torch.eye(2 * length)
    # An entry off the diagonal has deviation 1 / sqrt(rows): false alarm 28 * 2e-9.
    assert float((cross - cross.diagonal().diag()).abs().max()) < 6 / math.sqrt(rows)


def test_acceptance_per_position_is_the_overlap_of_the_models() -> None:
    rows = 20_000
    trace = decode(TARGET, DRAFTER, Rejection(), 1, 1, GeneratorTape(9), rows)
    laws = [Categorical(model.prefix_probs([])) for model in (TARGET, DRAFTER)]
    overlap = float(laws[0].overlap(laws[1]))
    kept = float(trace.kept[0, :, 0].double().mean())
    assert abs(kept - overlap) < 6 * math.sqrt(overlap * (1 - overlap) / rows)  # false alarm 2e-9


@pytest.mark.parametrize("sizes", [(0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int, int]) -> None:
    nodes, length, rows = sizes
    with pytest.raises(ValueError, match="1 or more"):
        decode(TARGET, DRAFTER, Rejection(), nodes, length, GeneratorTape(0), rows)


def test_a_round_that_emits_nothing_is_refused() -> None:
    @dataclass(frozen=True)
    class Silent:
        claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

        def verify(self, draft: Draft, target: Any, tape: Tape) -> Outcome:
            made = Rejection().verify(draft, target, tape)
            return Outcome(made.value, made.length - 1, made.kept, made.log_accept)

    with pytest.raises(ValueError, match="1 to N"):
        decode(TARGET, DRAFTER, Silent(), 2, 4, GeneratorTape(0), 10)


# --- tokens that the target draws first ------------------------------------------------------------------------------
def law_of_sequences(rule: Any, prefill: int, length: int = 4, target: Markov = TARGET) -> Tensor:
    """The law (3^length,) of decoded sequences, by enumeration of every draw, those of the prefill among them."""
    total = torch.zeros(3**length, dtype=torch.float64)

    def run(index: Tensor, tape: Tape) -> Tensor:
        return decode(target, DRAFTER, rule, 2, length, tape, len(index), prefill=prefill).tokens

    for _, mass, _, tokens in enumerate_tape(run, 1, max_leaves=4_000_000):
        total.index_put_((encode(tokens, 3),), mass, accumulate=True)
    return total


@pytest.mark.parametrize("prefill", [0, 1, 3, 4])
@pytest.mark.parametrize("name", ["rejection", "block", "sjd"])
def test_a_prefill_leaves_the_law_of_sequences_as_it_is(name: str, prefill: int) -> None:
    """Total variation below 1e-12, whatever the number of tokens that the target draws first."""
    wanted = TARGET.sequence_probs(4).flatten()
    assert float((law_of_sequences(FINITE[name](), prefill) - wanted).abs().sum() / 2) < 1e-12


def test_a_prefill_hides_what_a_lossy_rule_does_to_those_tokens() -> None:
    """Bias falls with every token that the target draws itself, and with all of them it is none."""
    rule = catalog("saboteurs")["residual_target"]()
    wanted = TARGET.sequence_probs(4).flatten()
    bias = [float((law_of_sequences(rule, prefill) - wanted).abs().sum() / 2) for prefill in range(5)]
    assert bias[0] > bias[3] > 1e-3 and bias[4] < 1e-12


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("prefill", [1, 5, 7])
def test_a_prefilled_token_is_a_round_that_examines_nothing(name: str, prefill: int) -> None:
    rows, length, nodes = 100, 7, 2
    trace = decode(TARGET, DRAFTER, FINITE[name](), nodes, length, GeneratorTape(5), rows, prefill=prefill)
    assert trace.tokens.shape == (rows, length) and bool((trace.lengths[:prefill] == 1).all())
    assert bool(trace.log_accept[:prefill].isnan().all()) and not bool(trace.kept[:prefill].any())
    total = trace.lengths.sum(0)
    assert bool(((total >= length) & (total < length + nodes + 1)).all())
    assert bool((trace.rounds >= prefill + math.ceil((length - prefill) / (nodes + 1))).all())
    assert prefill < length or trace.lengths.shape == (length, rows)


def test_the_prefill_is_drawn_one_by_one_from_the_target() -> None:
    """A certain target's tokens, and a rule that would emit others: the drafter's, whatever the target says."""
    case = scenarios((3,))["point_mass_target/3"]
    rule = catalog("saboteurs")["always_accept"]()
    wanted, token = [], 3
    for _ in range(6):
        token = int(case.target.table[token].argmax())
        wanted.append(token)
    trace = decode(case.target, case.drafter, rule, 2, 6, GeneratorTape(4), 200, prefill=3)
    assert trace.tokens[:, :3].tolist() == [wanted[:3]] * 200 and len(set(map(tuple, trace.tokens.tolist()))) > 1


@pytest.mark.parametrize("prefill", [-1, 5])
def test_a_prefill_beyond_the_sequence_is_refused(prefill: int) -> None:
    with pytest.raises(ValueError, match="from 0 to the length, 4"):
        decode(TARGET, DRAFTER, Rejection(), 2, 4, GeneratorTape(0), 3, prefill=prefill)

"""The universal laws of every catalogue entry; a new file in verify/verifiers/ is covered without an edit here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.enumeration import enumerate_tape
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape, RecordingTape, ReplayError, ReplayTape, Tape
from verify.audit import TOLERANCE, finite
from verify.decode import parents, propose
from verify.exact import RoundLaw, exact_chain, exact_rows
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio, residual
from verify.scenarios import Scenario, scenarios
from verify.verifier import Verifier, catalog
from verify.verifiers.lenient import Lenient
from verify.verifiers.point_mass import PointMass
from verify.verifiers.rejection import Rejection
from verify.verifiers.sampler_match import SamplerMatch

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

FINITE = {name: kind for name, kind in catalog().items() if finite(kind.claim)}
EXACT = {name: kind for name, kind in FINITE.items() if kind.claim.exact}
SCENARIOS = scenarios((3,))


def round_of(verifier: Verifier, scenario: Scenario) -> RoundLaw:
    return exact_rows(verifier, scenario.target, scenario.drafter, scenario.contexts, scenario.draft_length)


def check_universal(rows: RoundLaw) -> None:
    """What holds of every verifier, exact or not. Lengths and vocabularies are checked by the enumeration itself."""
    assert torch.allclose(rows.law.sum(-1) + rows.dropped, torch.ones(()).double(), rtol=0, atol=TOLERANCE)
    assert rows.prefix_closed
    assert torch.allclose(rows.kept, rows.predicted, rtol=0, atol=TOLERANCE)
    assert bool((rows.expected_length >= 1 - TOLERANCE).all())


def check_exact(verifier: Verifier, scenario: Scenario, rows: RoundLaw) -> None:
    """What a claim of exactness means, at the level it is made for."""
    if verifier.claim.level == "round":
        assert float(rows.tv.max()) < TOLERANCE
        assert max(float(part.max()) for part in rows.departure) < TOLERANCE
        # No lossless rule accepts more than the overlap (lemma L1).
        assert bool((rows.acceptance <= rows.overlap + TOLERANCE).all())
    assert exact_chain(scenario.target, scenario.drafter, verifier, scenario.draft_length, 3).tv < TOLERANCE


def check_all(verifier: Verifier, scenario: Scenario) -> None:
    rows = round_of(verifier, scenario)
    check_universal(rows)
    if verifier.claim.exact:
        check_exact(verifier, scenario, rows)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
@pytest.mark.parametrize("name", FINITE)
def test_laws_on_scenarios(name: str, scenario: Scenario) -> None:
    check_all(FINITE[name](), scenario)


@pytest.mark.parametrize("name", [name for name in FINITE if name not in EXACT])
def test_lossy_claims_are_lossy_somewhere(name: str) -> None:
    verifier = FINITE[name]()
    assert any(float(round_of(verifier, scenario).tv.max()) > 1e-3 for scenario in SCENARIOS.values())


weight = st.one_of(st.just(0.0), st.floats(1e-9, 1.0), st.sampled_from([5e-324, 1e-300, 1e-16, 1.0]))


@st.composite
def generated(draw: st.DrawFn) -> Scenario:
    """Any two first-order models: zeros, ties, subnormals and all."""
    vocab = draw(st.integers(2, 3))
    row = st.lists(weight, min_size=vocab, max_size=vocab).filter(lambda item: sum(item) > 0)
    tables = [draw(st.lists(row, min_size=vocab + 1, max_size=vocab + 1)) for _ in range(2)]
    drafter, target = (Markov(torch.tensor(table, dtype=torch.float64), 1) for table in tables)
    return Scenario(drafter, target, draw(st.integers(1, 2)))


@pytest.mark.parametrize("name", FINITE)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=generated())
def test_laws_on_generated_tables(name: str, scenario: Scenario) -> None:
    check_all(FINITE[name](), scenario)


def drafted(verifier: Verifier, scenario: Scenario, rows: int, tape: Tape) -> tuple[Draft, Law]:
    parent = parents(verifier, scenario.draft_length)
    draft = propose(scenario.drafter, scenario.drafter.start(rows), parent, tape)
    return draft, scenario.target.law(scenario.target.start(rows), draft.value, draft.parent)


@pytest.mark.parametrize("name", FINITE)
def test_replay_is_bit_for_bit(name: str) -> None:
    verifier, scenario = FINITE[name](), SCENARIOS["random_second_order/3"]
    draft, target = drafted(verifier, scenario, 500, GeneratorTape(1))
    recording = RecordingTape(GeneratorTape(2))
    first = verifier.verify(draft, target, recording)
    again = verifier.verify(draft, target, ReplayTape(recording.draws))
    for one, other in zip(_parts(first), _parts(again), strict=True):
        assert torch.equal(one, other)
    # The recording is needed: another tape gives another outcome, and the outcome asks for every draw in it.
    assert not torch.equal(verifier.verify(draft, target, GeneratorTape(3)).value, first.value)
    with pytest.raises(ReplayError):
        verifier.verify(draft, target, ReplayTape(recording.draws[:-1]))


def _parts(outcome: Outcome) -> list[Tensor]:
    parts = [outcome.value, outcome.length, outcome.kept, outcome.log_accept]
    parts += [] if outcome.memory is None else [outcome.memory]
    return parts if outcome.carry is None else [*parts, outcome.carry.value]


@pytest.mark.parametrize("name", FINITE)
def test_verifying_changes_no_input(name: str) -> None:
    verifier, scenario = FINITE[name](), SCENARIOS["random_first_order/3"]
    draft, target = drafted(verifier, scenario, 50, GeneratorTape(1))
    assert isinstance(draft.law, Categorical) and isinstance(target, Categorical)
    before = [item.clone() for item in (draft.value, draft.law.probs, draft.parent, target.probs)]
    verifier.verify(draft, target, GeneratorTape(2))
    for old, new in zip(before, (draft.value, draft.law.probs, draft.parent, target.probs), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("name", [name for name, kind in EXACT.items() if kind.claim.needs == "any"])
def test_rules_for_any_draft_ignore_its_law(name: str) -> None:
    """The draft is drawn from one law and labelled with another, as a greedy or looked-up draft would be."""
    verifier, scenario = EXACT[name](), SCENARIOS["random_first_order/3"]
    assert _mislabelled(verifier, scenario) < TOLERANCE
    assert _mislabelled(Rejection(), scenario) > 1e-2  # which is fatal to a rule that needs the law


def _mislabelled(verifier: Verifier, scenario: Scenario) -> float:
    wrong, size = Markov.random(3, 1, 999), 3

    def run(index: Tensor, tape: Tape) -> Outcome:
        rows = len(index)
        draft = propose(scenario.drafter, scenario.drafter.start(rows), parents(verifier, 2), tape)
        label = wrong.law(wrong.start(rows), draft.value, draft.parent)[:, draft.parent + 1]
        target = scenario.target.law(scenario.target.start(rows), draft.value, draft.parent)
        return verifier.verify(Draft(draft.value, label, draft.parent), target, tape)

    law = torch.zeros(size, dtype=torch.float64)
    for _, mass, _, outcome in enumerate_tape(run, 1):
        law.index_add_(0, outcome.value[:, 0], mass)
    return float((law - scenario.target.sequence_probs(1)).abs().sum() / 2)


def test_acceptance_formulas() -> None:
    """A1 accepts 1 - TV, L3 and L4 the sum of draft times target, A5 the sum of min(draft, target / lenience)."""
    scenario = SCENARIOS["random_first_order/3"]
    count, length = scenario.contexts.shape
    laws = [
        model.law(model.extend(model.start(count), scenario.contexts, torch.full((count,), length))).probs[:, 0]
        for model in (scenario.drafter, scenario.target)
    ]
    wanted = {
        Rejection(): torch.minimum(*laws).sum(-1),
        PointMass(): (laws[0] * laws[1]).sum(-1),
        SamplerMatch(): (laws[0] * laws[1]).sum(-1),
        Lenient(0.7): torch.minimum(laws[0], laws[1] / 0.7).sum(-1),
    }
    for verifier, acceptance in wanted.items():
        rows = round_of(verifier, scenario)
        assert torch.allclose(rows.acceptance, acceptance, rtol=0, atol=1e-14)
        assert torch.allclose(rows.kept[:, 0], acceptance, rtol=0, atol=1e-14)


def test_a_value_the_target_excludes_is_never_kept() -> None:
    """Even where the uniform is 0 and the draft's own law denies the token too."""
    draft = Draft.chain(torch.tensor([[0], [0]]), Categorical(torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]])))
    target = Categorical(torch.tensor([0.0, 1.0]).expand(2, 2, 2))
    zeros = ReplayTape([_draw("accept", (2, 1)), _draw("residual", (2,))])
    outcome = Rejection().verify(draft, target, zeros)
    assert outcome.kept.tolist() == [[False], [False]] and outcome.length.tolist() == [1, 1]
    assert outcome.value[:, 0].tolist() == [1, 1]
    assert torch.isneginf(outcome.log_accept).all()


def _draw(site: str, shape: tuple[int, ...]) -> object:
    from distributions.tape import Draw

    return Draw(site, "uniform", torch.zeros(shape, dtype=torch.float64))


def test_only_the_rows_that_need_a_draw_get_one() -> None:
    scenario = SCENARIOS["three_nodes/3"]
    draft, target = drafted(Rejection(), scenario, 400, GeneratorTape(1))
    tape = RecordingTape(GeneratorTape(2))
    outcome = Rejection().verify(draft, target, tape)
    drawn = {item.site: len(item.value) for item in tape.draws}
    whole = int(outcome.kept.all(1).sum())
    assert 0 < whole < 400 and drawn == {"accept": 400, "residual": 400 - whole, "bonus": whole}


@pytest.mark.parametrize("kind", [PointMass, SamplerMatch])
def test_rules_of_a_vocabulary_refuse_densities(kind: type[PointMass] | type[SamplerMatch]) -> None:
    law = Gaussian(torch.zeros(4, 3, 2), torch.ones(2))
    with pytest.raises(TypeError, match="use rejection"):
        kind().verify(Draft.chain(torch.zeros(4, 2, 2).double(), law[:, :2]), law, GeneratorTape(0))


def test_chains_are_asked_for_by_name() -> None:
    law = Categorical(torch.ones(1, 2, 2))
    siblings = Draft(torch.zeros(1, 2, dtype=torch.long), law, torch.tensor([-1, -1]))
    with pytest.raises(ValueError, match="chain"):
        Rejection().verify(siblings, Categorical(torch.ones(1, 3, 2)), GeneratorTape(0))


@pytest.mark.parametrize("lenience", [0.0, -1.0, 1.1])
def test_lenience_is_a_fraction(lenience: float) -> None:
    with pytest.raises(ValueError, match="lenience"):
        Lenient(lenience)


def gaussian_pair(rows: int, full: bool) -> tuple[Law, Law]:
    """Draft (rows, 2) and target (rows, 3) in two dimensions, of unequal covariance where ``full``."""
    shift = torch.tensor([0.6, -0.8], dtype=torch.float64)
    if not full:
        return Gaussian(torch.zeros(rows, 2, 2), torch.ones(2)), Gaussian(shift.expand(rows, 3, 2), torch.ones(2))
    factor = torch.tensor([[1.0, 0.0], [0.5, 0.6]], dtype=torch.float64)
    drafter = torch.tensor([[1.2, 0.0], [0.0, 0.8]], dtype=torch.float64)
    return FullGaussian(torch.zeros(rows, 2, 2), drafter), FullGaussian(shift.expand(rows, 3, 2), factor)


@pytest.mark.parametrize("full", [False, True])
def test_rejection_on_gaussians_unedited(full: bool) -> None:
    """The same file on densities: output law by KS along four directions, acceptance by the overlap, draws by L8."""
    rows = 30_000
    prior, target = gaussian_pair(rows, full)
    tape = RecordingTape(GeneratorTape(8))
    value = prior.sample(tape, "draft")
    outcome = Rejection().verify(Draft.chain(value, prior), target, tape)
    first = target[:, 0]
    factor = first.factor[0]  # type: ignore[attr-defined]
    white = torch.linalg.solve_triangular(factor, (outcome.value[:, 0] - first.mean).T, upper=False).T  # type: ignore[attr-defined]
    for angle in (0.0, 0.25, 0.5, 0.75):
        along = white @ torch.tensor([math.cos(math.pi * angle), math.sin(math.pi * angle)], dtype=torch.float64)
        assert stats.kstest(along.numpy(), "norm").pvalue > 1e-8  # false alarm 4e-8 over the four
    second = outcome.length >= 2  # a second token is the target's own, given that it is reached
    later = torch.linalg.solve_triangular(factor, (outcome.value[second, 1] - first.mean[second]).T, upper=False)  # type: ignore[attr-defined]
    assert stats.kstest(later.flatten().numpy(), "norm").pvalue > 1e-8
    overlap = float(first[:1].overlap(prior[:1, 0]))
    kept = float(outcome.kept[:, 0].double().mean())
    assert abs(kept - overlap) < 6 * math.sqrt(overlap * (1 - overlap) / rows)  # false alarm 2e-9
    assert bool((outcome.log_accept <= 0).all())
    # Lemma L8: one residual draw for each coin examined, with second moment (2 - TV) / TV.
    examined = int((outcome.kept.sum(1) + 1).clamp(max=2).sum())
    proposals = sum(len(item.value) for item in tape.draws if item.site == "residual.proposal")
    spread = math.sqrt(examined * ((1 + overlap) / (1 - overlap) - 1))
    assert abs(proposals - examined) < 6 * spread  # false alarm 2e-9


@pytest.mark.parametrize("full", [False, True])
def test_kept_agrees_with_log_accept_on_densities(full: bool) -> None:
    rows = 20_000
    prior, target = gaussian_pair(rows, full)
    for verifier in (Rejection(), Lenient()):
        tape = GeneratorTape(12)
        outcome = verifier.verify(Draft.chain(prior.sample(tape, "draft"), prior), target, tape)
        chance = outcome.log_accept[:, 0].exp()
        gap = float((outcome.kept[:, 0].double() - chance).sum())
        assert abs(gap) < 6 * math.sqrt(float((chance * (1 - chance)).sum()))  # false alarm 2e-9


# Planted bugs: each must be caught by one of the checks above.


@dataclass(frozen=True)
class ResidualIsTarget:
    """Draws the target itself after a rejection."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a planted bug")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = log_ratio(draft.value, target[:, : draft.value.shape[1]], draft.law).clamp(max=0)
        coins = tape.coin("accept", log_accept.exp())
        return conclude(draft, target, coins, log_accept, tape, lambda law, _, some, site: law.sample(some, site))


@dataclass(frozen=True)
class GoesOnAfterRejection:
    """Keeps later nodes below a rejected one: the planted bug is in ``kept`` alone, the law stays right."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a planted bug")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = log_ratio(draft.value, target[:, : draft.value.shape[1]], draft.law).clamp(max=0)
        coins = tape.coin("accept", log_accept.exp())
        made = conclude(draft, target, coins, log_accept, tape)
        return Outcome(made.value, made.length, coins, log_accept)


@dataclass(frozen=True)
class MisreportsAcceptance:
    """Right in every way but ``log_accept``, which is the ratio before it is cut at 1."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a planted bug")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        made = Rejection().verify(draft, target, tape)
        return Outcome(
            made.value, made.length, made.kept, log_ratio(draft.value, target[:, : draft.value.shape[1]], draft.law)
        )


@dataclass(frozen=True)
class BonusFromDraft:
    """After a draft kept whole, the bonus comes from the last drafted law: right unless everything is kept."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a planted bug")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        made = Rejection().verify(draft, target, tape)
        whole = torch.nonzero(made.kept.all(1)).squeeze(1)
        value = made.value.clone()
        if len(whole):
            value[whole, -1] = draft.law[whole, -1].sample(tape[whole], "bug")
        return Outcome(value, made.length, made.kept, made.log_accept)


@pytest.mark.parametrize("bug", [ResidualIsTarget(), BonusFromDraft()])
def test_planted_bugs_in_the_law_fail_the_exactness_check(bug: Verifier) -> None:
    scenario = SCENARIOS["random_first_order/3"]
    rows = round_of(bug, scenario)
    check_universal(rows)
    with pytest.raises(AssertionError):
        check_exact(bug, scenario, rows)


@pytest.mark.parametrize("bug", [GoesOnAfterRejection(), MisreportsAcceptance()])
def test_planted_bugs_in_the_record_fail_the_universal_laws(bug: Verifier) -> None:
    scenario = SCENARIOS["random_first_order/3"]
    rows = round_of(bug, scenario)
    check_exact(bug, scenario, rows)
    with pytest.raises(AssertionError):
        check_universal(rows)


def test_a_planted_bug_of_the_residual_fails_on_densities() -> None:
    rows = 30_000
    prior, target = gaussian_pair(rows, False)
    tape = GeneratorTape(8)
    outcome = ResidualIsTarget().verify(Draft.chain(prior.sample(tape, "draft"), prior), target, tape)
    along = outcome.value[:, 0] @ torch.tensor([0.6, -0.8], dtype=torch.float64) - 1.0
    assert stats.kstest(along.numpy(), "norm").pvalue < 1e-8


def test_residual_dispatches_by_law() -> None:
    tape = RecordingTape(GeneratorTape(0))
    pair = Categorical(torch.tensor([[0.9, 0.1]])), Categorical(torch.tensor([[0.1, 0.9]]))
    assert residual(*pair, tape, "here").tolist() == [0]
    normal = Gaussian(torch.full((1, 1), 9.0), torch.ones(1)), Gaussian(torch.zeros(1, 1), torch.ones(1))
    assert float(residual(*normal, tape, "there")) > 4.5
    assert [item.site for item in tape.draws[:2]] == ["here", "there.proposal"]

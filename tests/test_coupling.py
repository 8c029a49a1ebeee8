"""Coupling certificates: what two programs on one tape prove, and what the white box adds.

Mismatches and acceptances are computed, not tested: there is no p-value, and no false alarm. An exact rule beside
itself has none by construction. Where a test draws, its chance of failing on right code is stated.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.certificate import Beside, OfLaws, OfModels, certificate
from verify.certificate.altered import AlteredAcceptance, Raised, RoundedLogs, RoundedRatio, Scaled, Tempered
from verify.certificate.shared_tape import SharedTape
from verify.checks.coupling import Block, Coupling, Mismatches, upper
from verify.checks.white_box import AcceptanceDifference, WhiteBox, margin
from verify.records import Draft, Outcome, Verdict
from verify.scenarios import scenarios
from verify.statistics.extremes import First, Largest
from verify.verifiers.lenient import Lenient
from verify.verifiers.poisson_race import PoissonRace
from verify.verifiers.recursive_rejection import RecursiveRejection
from verify.verifiers.rejection import Rejection
from verify.verifiers.scd import Scd
from verify.verifiers.thorisson import Thorisson
from verify.verifiers.tolerance import Tolerance

torch.set_num_threads(1)

TAPE = GeneratorTape()
BF16 = RoundedRatio(torch.bfloat16)


def laws(dim: int) -> OfLaws:
    """N(0, I) against a mean 1/2 away: TV .197 in any dimension."""
    zero, one = torch.zeros(dim).double(), torch.ones(dim).double()
    return OfLaws(Gaussian(zero, one), Gaussian(zero + 0.5 / dim**0.5, one))


# --- the shared tape ------------------------------------------------------------------------------------------------


def test_programs_share_what_they_draw_at_a_site_whatever_else_they_draw() -> None:
    rows = torch.tensor([7, 2, 5])
    one, other = SharedTape.of(3, 9), SharedTape(3, rows, names={"coin": "accept"})
    one.uniform("before", (9, 4))
    whole = one.uniform("accept", (9, 2))
    first, second = other.uniform("coin", (3,)), other[torch.tensor([True, False, True])].uniform("coin", (2,))
    assert torch.equal(first, whole[rows, 0]) and torch.equal(second, whole[rows[[0, 2]], 1])
    again = one[torch.tensor([5])].normal("accept", (1, 3))  # the third draw of row 5, as of the other program
    third = other[torch.tensor([2])].normal("coin", (1, 3))
    assert torch.equal(again, third)
    assert not torch.equal(SharedTape.of(3, 9).uniform("coin", (9,)), SharedTape.of(3, 9).uniform("accept", (9,)))


# --- what is counted ------------------------------------------------------------------------------------------------


def test_extremes_merge_like_sums() -> None:
    labels = [First((1, 4)), First(), First((0, 9)), First((0, 12))]
    assert sum(labels, First()) == First((0, 9)) == labels[2] + labels[0] and First() + First() == First()
    assert Largest(0.5) + Largest(2.0) == Largest(2.0) == Largest(2.0) + Largest()


def blocks(value: list[list[float]], length: list[int], kept: list[list[int]], shard: int = 0) -> Block:
    label = torch.stack((torch.full((len(length),), shard), torch.arange(len(length))), -1)
    return Block(torch.tensor(value), torch.tensor(length), torch.tensor(kept, dtype=torch.bool), label)


def test_blocks_differ_by_length_or_by_a_token_that_counts() -> None:
    ours = blocks([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 9, 9], [4, 0, 0]], [3, 2, 3, 1, 1], [[1], [1], [1], [0], [0]])
    theirs = blocks([[1, 2, 3], [1, 2, 8], [1, 2, 3], [1, 0, 0], [5, 0, 0]], [3, 2, 2, 1, 1], [[1], [1], [0], [0], [0]])
    tally = Mismatches()(ours, theirs, TAPE)
    # Row 1 differs beyond its length only; row 2 in length and acceptance; row 4 in its replacement.
    assert (tally.n, tally.emitted, tally.accepted, tally.replaced) == (5, 2, 1, 1)
    assert tally.first == First((0, 2))
    longer = replace(theirs, value=torch.cat((theirs.value, theirs.value), 1))
    assert Mismatches()(ours, longer, TAPE).emitted == 2
    parts = [
        Mismatches()(
            *(Block(b.value[cut], b.length[cut], b.kept[cut], b.label[cut]) for b in (ours, theirs)),  # type: ignore[index]
            TAPE,
        )
        for cut in (slice(0, 2), slice(2, None))
    ]
    total = parts[0] + parts[1]
    assert vars(total) == vars(tally) == vars(parts[1] + parts[0])


def test_rounding_is_forgiven_up_to_the_room_and_nothing_else_is() -> None:
    value = torch.tensor([[1.0, 1e3], [1.0, 1e3], [1.0, 1e3], [1.0, math.nan]], dtype=torch.float64)
    moved = value + torch.tensor([[0.0, 0.0], [0.0, 1e-13], [0.0, 1e-11], [0.0, 0.0]], dtype=torch.float64)
    assert Mismatches()(value, moved, TAPE).emitted == 2 + 1  # 1e3 + 1e-13 is 1e3 and something; NaN is never equal
    assert Mismatches(8.0)(value, moved, TAPE).emitted == 2
    assert Mismatches(8.0)(value.float(), moved, TAPE).emitted == 1  # single precision cannot tell
    assert Mismatches(8.0)(value, moved, TAPE).first == First()  # rows without labels are only counted


def test_the_bound_is_clopper_pearson() -> None:
    for hits, n, delta in ((0, 1000, 1e-6), (3, 1000, 1e-6), (999, 1000, 0.01), (1000, 1000, 0.01)):
        wanted = proportion_confint(hits, n, alpha=2 * delta, method="beta")[1]
        assert upper(hits, n, delta) == pytest.approx(wanted, rel=1e-9)
    assert upper(0, 10**6, 1e-6) == pytest.approx(math.log(1e6) / 1e6, rel=1e-5)
    assert upper(0, 0, 1e-6) == 1.0
    for chance in (1e-3, 0.02, 0.3):  # exact at every n: P(bound < chance) <= delta, by summing the binomial law
        missed = sum(float(binom.pmf(hits, 400, chance)) for hits in range(401) if upper(hits, 400, 0.05) < chance)
        assert missed <= 0.05


def test_the_finding_says_what_differs_and_where() -> None:
    ours, theirs = blocks([[1], [2]], [1, 1], [[1], [0]], 4), blocks([[1], [3]], [1, 1], [[1], [0]], 4)
    found = Coupling()(ours, theirs, 0.05, TAPE)
    assert found.p_value is None and not found.rejects and found.metric == "tv" and found.statistic == 0.5
    assert "1 of 2 runs" in found.note and "first at (4, 1)" in found.note
    # A defect of this size would leave no mismatch with probability 0.1.
    clean = Coupling()(ours, ours, 0.05, TAPE)
    assert (1 - (clean.smallest or 0.0)) ** 2 == pytest.approx(0.1) and clean.bound == pytest.approx(1 - 1e-3)


# --- the white box ---------------------------------------------------------------------------------------------------


def line(accept: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
    """By quadrature on the line: E+, E-, and the total variation of what ``AlteredAcceptance`` emits, and the deficit
    whose residual has the exact rule's weight.
    """
    x = torch.linspace(-12, 12, 2_400_001, dtype=torch.float64).unsqueeze(-1)
    step, problem = 1e-5, laws(1)
    prior, after = problem.draft.log_prob(x), problem.target.log_prob(x)
    draft, target = prior.exp(), after.exp()
    chance, exact = accept(after, prior).double().clamp(0, 1), torch.minimum(target / draft, torch.ones(()).double())
    excess = (target - draft).clamp(min=0)
    refused = float((draft * (1 - chance)).sum() / excess.sum())
    emitted = draft * chance + refused * excess
    return {
        "over": float((draft * (chance - exact).clamp(min=0)).sum()) * step,
        "under": float((draft * (exact - chance).clamp(min=0)).sum()) * step,
        "tv": float((emitted - target).abs().sum()) * step / 2,
        "trap": float((target - draft * chance - excess).clamp(min=0).sum()) * step,
    }


@pytest.mark.parametrize("accept", [Tempered(), Scaled(), Raised(), BF16, Scaled(0.98)], ids=str)
def test_the_acceptance_alone_gives_the_bias_where_the_residual_is_exact(accept: Callable[..., Tensor]) -> None:
    exact = line(accept)
    assert exact["tv"] <= max(exact["over"], exact["under"]) + 1e-9
    assert exact["tv"] >= exact["over"] - 1e-9
    if not isinstance(accept, Scaled) or accept.factor > 1:  # 0.98 refuses where p >= q too, and draws that again
        assert exact["tv"] == pytest.approx(max(exact["over"], exact["under"]), rel=1e-5)


def test_a_residual_at_the_exact_weight_hides_a_rule_that_accepts_too_often() -> None:
    exact = line(Scaled(1.02))
    assert exact["trap"] < 1e-12 and exact["tv"] > 0.007


@pytest.mark.parametrize("accept", [Tempered(), Scaled(), Raised(), BF16, Scaled(0.98)], ids=str)
def test_the_bounds_of_the_white_box_hold(accept: Callable[..., Tensor]) -> None:
    """On drafts, without the coins: each bound fails with probability 1e-6 at most."""
    n, problem, exact = 100_000, laws(1), line(accept)
    draft, target = problem(Rejection(), n, GeneratorTape(5))
    prior, after = draft.law.log_prob(draft.value), target[:, :1].log_prob(draft.value)
    log_exact = (after - prior).clamp(max=0)
    tally = AcceptanceDifference()(accept(after, prior).double().clamp(0, 1).log(), log_exact, TAPE)
    right, blind = WhiteBox(residual=0.0).judge(tally, 0.0), WhiteBox().judge(tally, 0.0)
    lower = WhiteBox().lower(tally)
    assert lower <= exact["over"] + 1e-9 and exact["tv"] <= (right.bound or 0.0) < (blind.bound or 0.0)
    assert right.statistic == pytest.approx(exact["over"] + exact["under"], rel=0.2)  # ten standard errors
    assert (lower > 0) == (exact["over"] > 1e-3)
    halves = [
        AcceptanceDifference()(accept(after, prior)[part].double().clamp(0, 1).log(), log_exact[part], TAPE)
        for part in (slice(0, 999), slice(999, None))
    ]
    total = halves[0] + halves[1]
    for name, value in vars(tally).items():
        found = getattr(total, name)
        assert found == value if name in ("n", "astray", "largest") else found == pytest.approx(value, rel=1e-12)


def test_the_margin_is_maurer_and_pontil() -> None:
    value = GeneratorTape(1).uniform("value", (50,))
    level = math.log(2 / 0.01)
    wanted = math.sqrt(2 * float(value.var()) * level / 50) + 7 * level / (3 * 49)
    assert margin(float(value.sum()), float(value.square().sum()), 50, 0.01) == pytest.approx(wanted, rel=1e-12)
    assert margin(1.0, 1.0, 1, 0.01) == 1.0
    # Misses at delta = .05 on rare coins, where the normal approximation fails most: 400 of 2000 runs may not; more
    # than 146 has probability 1e-6 if each does with probability .05.
    coins = GeneratorTape(2).coin("coins", torch.full((2000, 300), 0.004, dtype=torch.float64)).double().sum(1)
    missed = sum(float(hits) / 300 + margin(float(hits), float(hits), 300, 0.05) < 0.004 for hits in coins.tolist())
    assert missed <= binom.isf(1e-6, 2000, 0.05)


def test_not_a_number_is_a_coin_that_fails() -> None:
    tally = AcceptanceDifference()(torch.tensor([[math.nan, 0.0], [0.0, -9.0]]), torch.zeros(2, 2), TAPE)
    assert (tally.over, tally.under, tally.inner, tally.largest) == (0.0, 1.0, 0.0, Largest(1.0))
    with pytest.raises(ValueError, match="log_accept"):
        AcceptanceDifference()(blocks([[1]], [1], [[1]]), torch.zeros(1), TAPE)


# --- certificates ----------------------------------------------------------------------------------------------------


@cache
def certified(accept: Callable[[Tensor, Tensor], Tensor], dim: int = 1, shards: int = 4) -> Verdict:
    return certificate(Beside(AlteredAcceptance(accept), Rejection(), laws(dim)), range(shards))


@pytest.mark.parametrize(
    ("dim", "shards"),
    [(1, 4), pytest.param(1, 16, marks=pytest.mark.slow), pytest.param(16, 16, marks=pytest.mark.slow)],
)
def test_single_precision_is_certified(dim: int, shards: int) -> None:
    """E|a' - a*| is 1.8e-8 on the line and 2.6e-7 in d = 16: of 1e6 runs one differs with probability .02 and .23."""
    verdict = certified(RoundedLogs(torch.float32), dim, shards)
    runs = 65_536 * shards
    assert verdict.status == "lossless" and verdict.evidence == "coupling" and verdict.metric == "tv", str(verdict)
    assert verdict.bias_lower == 0 and verdict.findings[1].statistic < 1e-6
    odd = round(verdict.findings[0].statistic * runs)
    assert odd <= 4 and verdict.bias_upper == pytest.approx(upper(odd, runs, 5e-7), rel=1e-9)
    assert shards < 16 or verdict.bias_upper < 4e-5  # 1.4e-5 without a mismatch


def test_a_bf16_ratio_is_caught_in_seconds_and_its_witness_replays(capsys: pytest.CaptureFixture[str]) -> None:
    """TV 2.6e-4, KS 1.8e-6: no test of samples sees it. 2.6e5 runs have no mismatch with probability 1e-59, and a
    mismatch is no test: the exact rule beside itself has none (``test_an_exact_rule_beside_itself_never_differs``).
    """
    exact, verdict = line(BF16), certified(BF16)
    assert exact["tv"] == pytest.approx(2.6e-4, rel=0.02)
    assert verdict.status == "lossy" and verdict.evidence == "coupling", str(verdict)
    # Each of the three bounds fails with probability 1e-6 at most.
    assert 0.3 * exact["tv"] < verdict.bias_lower <= exact["tv"] <= verdict.bias_upper < 1e-3
    case = verdict.counterexample
    assert case is not None
    beside = Beside(AlteredAcceptance(BF16), Rejection(), laws(1))
    exec(case.snippet, {"beside": beside, "torch": torch})
    ours, theirs = (line.split("] ") for line in capsys.readouterr().out.splitlines())
    assert ours[0] != theirs[0] and {ours[1], theirs[1]} == {"[True", "[False"} and ours[2] != theirs[2]
    # The row alone gives what it gave among 65 536.
    block = beside(case.sizes["shard"])[0]
    _, _, alone, _ = beside.runs(case.sizes["shard"], torch.tensor([case.sizes["row"]]))
    assert torch.equal(alone.value[0], block.value[case.sizes["row"]])


@pytest.mark.parametrize(
    ("accept", "runs"), [(Tempered(), 8.0e2), (Scaled(), 2.9e2), (Raised(), 3.9e2), (BF16, 4.4e3)], ids=str
)
def test_runs_until_a_mismatch(accept: Callable[..., Tensor], runs: float) -> None:
    """ln 10 / E|a' - a*| runs hold a mismatch with probability 0.9: the figure, and the share of groups that do."""
    shards = 4 if accept is BF16 else 1
    exact, verdict = line(accept), certified(accept, shards=shards)
    needed = math.log(10) / (exact["over"] + exact["under"])
    assert needed == pytest.approx(runs, rel=0.03)
    assert verdict.bias_lower <= exact["tv"] <= verdict.bias_upper
    assert verdict.status == "lossy" and verdict.bias_lower > 0.3 * exact["tv"], str(verdict)
    beside = Beside(AlteredAcceptance(accept), Rejection(), laws(1))
    odd = []
    for shard in range(shards):
        ours, theirs = beside(shard)
        odd.append((ours.value[:, 0] != theirs.value[:, 0]).any(-1))
    group = math.ceil(needed)
    groups = torch.cat(odd)[: shards * 65_536 // group * group].reshape(-1, group).any(-1)
    share = float(groups.double().mean())
    assert abs(share - 0.9) < 5 * math.sqrt(0.09 / len(groups))  # false alarm 6e-7


SCENARIOS = scenarios((3,))


@pytest.mark.parametrize("name", ["random_second_order/3", "three_nodes/3", "disjoint_supports/3", "equal_laws/3"])
def test_an_exact_rule_beside_itself_never_differs(name: str) -> None:
    pair = SCENARIOS[name]
    verdict = certificate(Beside(Rejection(), Rejection(), OfModels(pair.drafter, pair.target, 3), rows=20_000))
    assert verdict.status == "lossless" and verdict.counterexample is None
    assert verdict.findings[0].statistic == 0 and verdict.findings[1].statistic == 0


@pytest.mark.parametrize("full", [False, True])
def test_refactorings_with_the_same_sites_are_certified(full: bool) -> None:
    """Recursive rejection of one sibling is rejection; so is a Gaussian told as a full one, up to rounding."""
    vocabulary = OfLaws(*(Categorical(torch.tensor(row)) for row in ([0.5, 0.3, 0.2], [0.2, 0.5, 0.3])))
    beside = Beside(RecursiveRejection(), Rejection(), replace(vocabulary, nodes=1), rows=20_000)

    @dataclass(frozen=True)
    class One:
        """Reads one sibling as a chain of one node, which it is."""

        def parent(self, nodes: int) -> Tensor:
            return torch.full((nodes,), -1)

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            return Rejection().verify(Draft.chain(draft.value, draft.law), target, tape)

    if not full:
        verdict = certificate(replace(beside, reference=One()))  # type: ignore[arg-type]
        assert verdict.status == "lossless" and verdict.findings[0].statistic == 0, str(verdict)
        return

    @dataclass(frozen=True)
    class Told:
        """Rejection on the same Gaussians, their factors written out."""

        claim = Rejection.claim

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            both = [FullGaussian(law.mean, law.factor) for law in (draft.law, target)]  # type: ignore[attr-defined]
            return Rejection().verify(replace(draft, law=both[0]), both[1], tape)

    verdict = certificate(Beside(Told(), Rejection(), laws(4), rows=20_000), room=64.0)
    assert verdict.status == "lossless" and verdict.findings[0].statistic == 0, str(verdict)


def test_sites_of_other_names_are_mapped() -> None:
    @dataclass(frozen=True)
    class Renamed:
        """Rejection that calls its coin otherwise."""

        claim = Rejection.claim

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            return Rejection().verify(draft, target, SharedTape(tape.seed, tape.rows, tape._drawn, {"accept": "toss"}))  # type: ignore[attr-defined]

    alone = Beside(Renamed(), Rejection(), laws(1), rows=20_000)

    @dataclass(frozen=True)
    class Asks:
        """Rejection whose sites have a prefix."""

        claim = Rejection.claim

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            return Rejection().verify(draft, target, Prefixed(tape))  # type: ignore[arg-type]

    assert certificate(alone).status == "inconclusive"  # other noise at the coin: exact, but not on one tape
    prefixed = replace(alone, verifier=Asks())
    assert certificate(prefixed).status == "inconclusive"
    sites = ("accept", "residual.keep", "residual.proposal", "bonus")
    assert certificate(replace(prefixed, names={f"my.{site}": site for site in sites})).status == "lossless"


@dataclass(frozen=True)
class Prefixed:
    """A tape under which every site has a prefix."""

    tape: Tape

    def uniform(self, site: str, shape: tuple[int, ...]) -> Tensor:
        return self.tape.uniform(f"my.{site}", shape)

    def normal(self, site: str, shape: tuple[int, ...]) -> Tensor:
        return self.tape.normal(f"my.{site}", shape)

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self.uniform(site, tuple(prob.shape)) < prob

    def __getitem__(self, rows: Tensor) -> Prefixed:
        return Prefixed(self.tape[rows])


@pytest.mark.parametrize("rule", [PoissonRace(), Thorisson()], ids=lambda rule: type(rule).__name__)
def test_an_exact_rule_that_draws_otherwise_is_not_accused(rule: PoissonRace | Thorisson) -> None:
    """Mismatches alone never make a rule lossy: the bound is true, and of no use."""
    verdict = certificate(Beside(rule, Rejection(), laws(1), rows=20_000))
    assert verdict.status == "inconclusive" and verdict.bias_lower == 0 and verdict.bias_upper > 0.01, str(verdict)
    assert "a reference" in verdict.needs and verdict.counterexample is not None


def test_a_lossy_rule_gets_bounds_around_its_bias() -> None:
    """Lenience has its bias in closed form (lemma A5). The bounds fail with probability 1e-6 at most."""
    vocabulary = OfLaws(*(Categorical(torch.tensor(row)) for row in ([0.5, 0.3, 0.2], [0.2, 0.5, 0.3])))
    bias = float(Lenient(0.8).bias(vocabulary.target, vocabulary.draft))  # type: ignore[arg-type]
    verdict = certificate(Beside(Lenient(0.8), Rejection(), vocabulary))
    assert bias == pytest.approx(0.05) and verdict.status == "lossy", str(verdict)
    assert 0.8 * bias < verdict.bias_lower <= bias <= verdict.bias_upper


def test_an_acceptance_that_is_drawn_is_not_opened() -> None:
    """Tolerance tells its acceptance after a draw of its own: held against a*, it would overstate the bias."""
    near = Beside(Tolerance(0.5), Rejection(), laws(1), rows=20_000)
    assert not near.opens and Beside(Rejection(), Rejection(), laws(1), rows=2000).opens
    verdict = certificate(near)
    assert verdict.status == "inconclusive" and verdict.bias_lower == 0 and len(verdict.findings) == 1
    ruled = Beside(Scd(), Rejection(), OfModels(SCENARIOS["one_node/3"].drafter, SCENARIOS["one_node/3"].target, 1))
    assert certificate(replace(ruled, rows=5000)).bias_lower == 0


def test_a_rule_does_not_meet_its_drafts_noise() -> None:
    """Not even at a site of the drafts' name; nor do two shards or seeds meet."""
    met: list[Tensor] = []

    @dataclass(frozen=True)
    class Namesake:
        """Rejection that draws at the drafts' site, too."""

        claim = Rejection.claim

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            met.append(tape.normal("draft", draft.value.shape))
            return Rejection().verify(draft, target, tape)

    drafts = []
    for seed, shard in ((0, 0), (0, 1), (1, 0), (0, 2**24 - 1)):
        beside = Beside(Namesake(), Rejection(), laws(1), rows=500, seed=seed)
        drafts += [beside.runs(shard, torch.arange(500), other=other)[0].value for other in (0, 1)]
    assert torch.equal(drafts[0], drafts[1]) and not torch.equal(met[0], met[1])
    every = torch.cat([*drafts[::2], *met])
    assert len(every.unique()) == 500 * (4 + 8)


def test_sources_travel_and_shards_are_functions_of_their_number() -> None:
    beside = Beside(AlteredAcceptance(BF16), Rejection(), laws(2), rows=500, names={"a": "b"})
    assert beside.opens
    sent = pickle.loads(pickle.dumps(beside))
    for ours, theirs in zip(beside(3), sent(3), strict=True):
        assert torch.equal(ours.value, theirs.value) and torch.equal(ours.label, theirs.label)
    assert not torch.equal(beside(3)[0].value, beside(4)[0].value)

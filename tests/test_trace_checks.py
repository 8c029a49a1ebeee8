"""Checks of traces: their size, what each sees and leaves to others, what it takes to see it, and that they add up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import pytest
import torch
from scipy.stats import binom, kstest
from torch import Tensor
from torch.special import ndtr

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.checks import Check, Tally
from verify.checks.accepted_length import AcceptedLength
from verify.checks.branches import Branches
from verify.checks.coin import Coin
from verify.checks.dependence import RowDependence
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.independence import Independence
from verify.checks.martingale import Martingale
from verify.checks.proposal import Proposal
from verify.checks.residual_law import ResidualLaw, residual_uniforms
from verify.checks.support import Repeats, Support, repeats_p_value
from verify.checks.violations import KINDS, Violations
from verify.engine import tallied
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Draft, Finding, Outcome
from verify.references import references
from verify.residual import conclude
from verify.saboteurs.gaussian_residual_padded import GaussianResidualPadded
from verify.saboteurs.gaussian_residual_target import GaussianResidualTarget
from verify.statistics.scores import bernoulli
from verify.statistics.trace import Trace, Traced, same
from verify.verifier import Verifier, catalog
from verify.verifiers.block import Block
from verify.verifiers.recursive_rejection import RecursiveRejection
from verify.verifiers.reflection import Reflection
from verify.verifiers.rejection import Rejection
from verify.verifiers.thorisson import Thorisson

torch.set_num_threads(1)
TAIL = 1e-6
"""Each assertion on a count of runs fails by chance with at most this probability (a binomial quantile)."""
TOKEN: tuple[Check, ...] = (
    Violations(), Coin(), AcceptedLength(), ResidualLaw(), Proposal(), Independence(), ExcessAcceptance(),
    RowDependence(), Branches(), Martingale(),
)  # fmt: skip
"""For rules that keep each node with probability min(1, target / draft)."""
RECORD: tuple[Check, ...] = (
    Violations(False), Coin(False), AcceptedLength(False), ExcessAcceptance(), RowDependence(), Branches(),
    Martingale(),
)  # fmt: skip
"""For any lossless rule that says what its coins were."""
LEVEL = 1e-6


def name_of(check: Check) -> str:
    return type(check).__name__ + ("" if getattr(check, "token_rule", True) else " of the record")


def on_the_line(rule: Verifier, rows: int, seed: int, delta: float = 0.5, nodes: int = 1, dim: int = 1) -> Trace:
    """Rounds on q = N(0, I) and p = N(delta e, I): the pair of which the numbers below are."""
    one = torch.ones(dim, dtype=torch.float64)
    shift = torch.zeros_like(one).index_fill(0, torch.tensor([0]), delta)
    tape, index = GeneratorTape(seed), torch.zeros(rows, nodes + 1, dtype=torch.long)
    draft, target = Gaussian(0 * one, one)[None][index[:, :nodes]], Gaussian(shift, one)[None][index]
    drafted = Draft.chain(draft.sample(tape, "draft"), draft)
    trace = Trace.of(drafted, target, rule.verify(drafted, target, tape))
    return replace(trace, draft=draft[:1], target=target[:1])  # the rows share their laws


def found(checks: Sequence[Check], traces: Sequence[Trace], alpha: float) -> dict[str, Finding]:
    """What each check says of all traces together, shard by shard."""
    answers = {}
    for check in checks:
        tallies: list[Tally] = [check.statistic(trace, None, GeneratorTape(10**6)) for trace in traces]
        total = tallies[0]
        for tally in tallies[1:]:
            total = total + tally
        answers[name_of(check)] = check.judge(total, alpha)
    return answers


def seen(checks: Sequence[Check], *traces: Trace, level: float = LEVEL) -> set[str]:
    return {name for name, item in found(checks, traces, level / len(checks)).items() if item.rejects}


# Planted defects on continuous laws; each records what it does, so that only its rule is wrong.


@dataclass(frozen=True)
class Scaled(PlantedThinning):
    """min(1, factor p / q)."""

    factor: float = 1.02
    claim: ClassVar[Claim] = Claim(exact=False, reference="a ratio 2 % too large", laws="gaussian")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        return (target.log_prob(value) - draft.log_prob(value) + math.log(self.factor)).clamp(max=0)


@dataclass(frozen=True)
class Tempered(PlantedThinning):
    """min(1, (p / q)^power)."""

    power: float = 0.98
    claim: ClassVar[Claim] = Claim(exact=False, reference="a ratio at another temperature", laws="gaussian")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        return (self.power * (target.log_prob(value) - draft.log_prob(value))).clamp(max=0)


@dataclass(frozen=True)
class Lifted(PlantedThinning):
    """min(1, p / q + step)."""

    step: float = 0.01
    claim: ClassVar[Claim] = Claim(exact=False, reference="a hundredth added", laws="gaussian")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        return ((target.log_prob(value) - draft.log_prob(value)).exp() + self.step).log().clamp(max=0)


@dataclass(frozen=True)
class ReusesDraft(PlantedThinning):
    """The coin's uniform is the one that the draft came from."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="one uniform twice", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = self.log_accept(draft.value, target[:, : draft.value.shape[1]], draft.law)
        accept = ndtr(draft.value[..., 0]) < log_accept.exp()
        return conclude(draft, target, accept, log_accept, tape, self.replace)


@dataclass(frozen=True)
class SortedReplacements(PlantedThinning):
    """Replacements of the right law, dealt to the refused drafts in order of their ratio."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="coin and residual share noise", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        made = super().verify(draft, target, tape)
        rows = torch.nonzero(~made.kept[:, 0]).squeeze(1)
        value, order = made.value.clone(), made.log_accept[rows, 0].argsort()
        value[rows[order], 0] = value[rows, 0].sort(0).values
        return replace(made, value=value)


@dataclass(frozen=True)
class OneCoin(PlantedThinning):
    """One uniform for all rows."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="a coin shared by a batch", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = self.log_accept(draft.value, target[:, : draft.value.shape[1]], draft.law)
        accept = tape.uniform("accept", (1, log_accept.shape[1])) < log_accept.exp()
        return conclude(draft, target, accept, log_accept, tape, self.replace)


SCALED = (Scaled, Tempered, Lifted)
PLANTED: dict[str, tuple[Verifier, set[str], set[str]]] = {
    # defect: the checks that must see it, and those that must not, at 1e-6 on 3 x 10^5 rows
    "scale 1.02": (Scaled(), {"Coin", "AcceptedLength"}, {"ResidualLaw", "Proposal", "Violations", "RowDependence"}),
    "temperature 0.96": (Tempered(0.96), {"Coin"}, {"ResidualLaw", "Proposal", "Violations", "RowDependence"}),
    "plus 0.01": (Lifted(), {"Coin", "AcceptedLength"}, {"ResidualLaw", "Proposal", "Violations", "RowDependence"}),
    "residual is the target": (
        GaussianResidualTarget(), {"Violations", "ResidualLaw", "Branches"},
        {"Coin", "AcceptedLength", "Proposal", "RowDependence"},
    ),
    "residual loop capped at 4": (
        GaussianResidualPadded(4), {"ResidualLaw", "Branches"}, {"Coin", "AcceptedLength", "Proposal", "RowDependence"},
    ),
    "uniform used twice": (ReusesDraft(), {"Coin", "Independence"}, {"ResidualLaw", "Proposal", "Violations"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_defects_are_seen_by_the_check_made_for_them(name: str) -> None:
    """And the others are silent: at most 1e-6 a defect to be wrong there. 3 x 10^5 rows where the bias is small."""
    rule, must, not_these = PLANTED[name]
    found_by = seen(
        TOKEN, *(on_the_line(rule, 150_000 if isinstance(rule, SCALED) else 5_000, seed) for seed in (1, 2))
    )
    assert must <= found_by
    assert not not_these & found_by


@pytest.mark.parametrize("rule", [Scaled(), Tempered(), Lifted(), GaussianResidualTarget(), GaussianResidualPadded(4)])
def test_a_record_that_is_honest_hides_the_wrong_coin(rule: Verifier) -> None:
    """Against their own account these coins are right: only the token rule contradicts. False alarm 1e-6."""
    assert "Coin of the record" not in seen(RECORD, on_the_line(rule, 100_000, 3))


def test_noise_shared_by_coin_and_replacement_is_seen_by_independence_alone() -> None:
    """Each of the two has the right law. Three chances of 1e-6."""
    assert seen(TOKEN, on_the_line(SortedReplacements(), 20_000, 4)) == {"Independence"}


def test_noise_shared_by_rows_is_seen() -> None:
    """One coin for all rows of a call. Others see it too, since their sums have the variance of independent rows."""
    traces = [on_the_line(OneCoin(), 200, seed) for seed in range(40)]
    assert {"Independence", "RowDependence"} <= seen(TOKEN, *traces)


@pytest.mark.parametrize(("delta", "dim"), [(0.5, 1), (0.1, 4), (3.0, 2)])
@pytest.mark.parametrize("rule", [Rejection(), Reflection()], ids=["rejection", "reflection"])
def test_maximal_couplings_are_not_accused(rule: Verifier, delta: float, dim: int) -> None:
    """Of chains of two. Reflection moves the refused draft, so its replacement remembers it. False alarm 1e-6."""
    checks = [Independence(fresh=isinstance(rule, Rejection)), *(c for c in TOKEN if not isinstance(c, Independence))]
    assert not seen(checks, *(on_the_line(rule, 10_000, seed, delta, 2, dim) for seed in (5, 6)))
    if isinstance(rule, Reflection) and dim == 1:
        assert "Independence" in seen([Independence()], on_the_line(rule, 10_000, 5, delta, 2, dim))


def test_work_that_is_lost_is_noted_and_is_no_bias() -> None:
    """Thorisson's rule with eta = 1/2 keeps less than it may. The bound fails with probability 1e-6."""
    answer = found([ExcessAcceptance()], [on_the_line(Thorisson(0.5), 20_000, 7)], 1e-6)["ExcessAcceptance"]
    assert answer.p_value is not None and answer.p_value > 0.5 and "work is lost" in answer.note
    exact = found([ExcessAcceptance()], [on_the_line(Rejection(), 20_000, 7)], 1e-6)["ExcessAcceptance"]
    assert "lost" not in exact.note


def rounds(rule: Verifier, rows: int, letter: str = "A", nodes: int = 2, shards: int = 2) -> list[Trace]:
    """The first rounds of sequences, and the second ones."""
    pair = references()[letter]
    source = Traced(rule, pair.target, pair.drafter, nodes, rows, shards)
    return [source(shard)[0] for shard in range(shards)]


EXACT = {
    name: kind
    for name, kind in catalog().items()
    if kind.claim.exact and kind.claim.level == "round" and kind.claim.laws in ("any", "categorical")
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_rules_keep_their_own_record(name: str) -> None:
    """Blocks, siblings, trees, couplings, Jacobi. False alarm 1e-6 each."""
    assert not seen(RECORD, *rounds(EXACT[name](), 5_000))


def test_a_block_rule_is_not_a_token_rule() -> None:
    assert {"Violations", "AcceptedLength"} <= seen(TOKEN, *rounds(Block(), 5_000))


@cache
def kill_table(rows: int) -> dict[str, set[str]]:
    """Every planted defect of a finite vocabulary, and the checks that see it on pair A at 1e-6: ``rows`` rounds, half
    of them second rounds. A rule for chains is held to the token rule, unless it is a block rule; others to the record.
    """
    table = {}
    for name, kind in catalog("saboteurs").items():
        if kind.claim.laws in ("any", "categorical"):
            nodes = kind.defect.draft_length if hasattr(kind, "defect") else 2
            traces = rounds(kind(), rows // 2, nodes=nodes)
            token = traces[0].chain and not name.startswith("block")
            table[name] = seen(TOKEN if token else RECORD, *traces)
    return table


UNSEEN = {
    "block_token_residual": "its residual is wrong by 0.010 in total variation, of tokens late in the block",
    "coin_at_most": "a coin that is heads at 0 differs where a ratio is 0, which is nowhere on A; bias 0.002",
    "draft_half_precision": "a bias of 2e-4",
    "scd_gumbel_tail": "no round is wrong, only sequences of them",
    "scd_stale_label": "no round is wrong given its label, only sequences of them",
    "sjd_half_precision_coin": "a bias of 0.002",
    "sjd_residual_epsilon": "a bias of 1e-6",
    "sjd_unprocessed_label": "no round is wrong given its label, only sequences of them",
}
"""What 20,000 rounds do not show, and why."""


@pytest.mark.slow
def test_which_check_sees_which_saboteur(capsys: pytest.CaptureFixture[str]) -> None:
    """All but a few that 20,000 rounds cannot show."""
    table = kill_table(20_000)
    with capsys.disabled():
        for name, checks in table.items():
            print(f"{name:32s} {', '.join(sorted(checks)) or '-'}")
    assert {name for name, checks in table.items() if not checks} == set(UNSEEN)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("target_row_off_by_one", "Coin"),
        ("draft_row_stale", "Coin"),
        ("coin_shared_by_nodes", "AcceptedLength"),
        ("coin_reuses_draft_uniform", "Independence"),
        ("residual_target", "ResidualLaw"),
        ("residual_reuses_coin", "Independence"),
        ("residual_argmax", "ResidualLaw"),
        ("residual_floor", "Violations"),
        ("penalty_not_rolled_back", "Violations"),
        ("draft_temperature", "Proposal"),
        ("greedy_draft_dense_law", "Proposal"),
        ("bonus_from_draft", "Martingale"),
        ("bonus_previous_row", "Martingale"),
        ("siblings_same_target", "Martingale"),
        ("siblings_sorted_by_target", "Coin of the record"),
        ("always_accept", "ExcessAcceptance"),
    ],
)
def test_a_saboteur_is_seen_by_the_check_made_for_it(name: str, check: str) -> None:
    kind = catalog("saboteurs")[name]
    traces = rounds(kind(), 10_000, nodes=kind.defect.draft_length)
    assert check in seen(TOKEN if traces[0].chain else RECORD, *traces)


def null_trace(seed: int, rows: int) -> Trace:
    """Small calls of an exact rule, on tokens or on Gaussians by turns."""
    if seed % 2:
        trace = on_the_line(Rejection(), rows, seed, 1.0, 2, 2)
    else:
        pair = references()["B"]
        trace = Traced(Rejection(), pair.target, pair.drafter, 2, rows)(seed)[0]
    return replace(trace, call=torch.arange(rows) // 50)


def sizes(runs: int, rows: int) -> None:
    checks = (*TOKEN, Coin(False), AcceptedLength(False))
    hits = {name_of(check): [0, 0] for check in checks}
    for seed in range(runs):
        for name, item in found(checks, [null_trace(seed, rows)], 1e-2).items():
            for place, alpha in enumerate((1e-2, 1e-3)):
                hits[name][place] += item.p_value is not None and item.p_value <= alpha
    for name, counts in hits.items():
        for count, alpha in zip(counts, (1e-2, 1e-3), strict=True):
            assert count <= binom.isf(TAIL / (2 * len(hits)), runs, alpha), name


def test_sizes() -> None:
    """250 exact rounds at 1e-2 and 1e-3: more rejections than the binomial quantile have probability 1e-6 in all."""
    sizes(250, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sizes_of_many() -> None:
    """10,000 of them, to the same false alarm."""
    sizes(10_000, 200)


def tail_ratio(n: int, chance: float, count: int) -> float:
    """The p-value of ``count`` events of ``n`` over twice the binomial tail."""
    event = torch.arange(n) < count
    one = torch.ones(n, 1, dtype=torch.float64)
    tail = binom.sf(count - 1, n, chance) if count > n * chance else binom.cdf(count, n, chance)
    return float(bernoulli(n, one, event, chance * one[:, 0]).p_values[0]) / (2 * tail)


@pytest.mark.parametrize(("n", "chance"), [(40, 0.5), (200, 0.1), (2000, 0.01), (2000, 0.99), (100_000, 0.3)])
def test_tails_are_those_of_the_binomial(n: int, chance: float) -> None:
    """Pearson's type III with half a unit off, from a variance of 10 on, down to 1e-8: never half of the truth, and six
    times of it where the law ends nearby (40 coins).
    """
    spread = math.sqrt(n * chance * (1 - chance))
    for deviations in (-5, -3, -2, 2, 3, 5):
        count = round(n * chance + deviations * spread)
        if 0 <= count <= n:
            assert 0.5 < tail_ratio(n, chance, count) < 6, (deviations, count)


def test_sums_of_small_variance_are_not_judged() -> None:
    few = bernoulli(5, torch.ones(5, 1).double(), torch.ones(5).bool(), torch.full((5,), 0.01).double())
    assert few.p_values[0] == 1.0


def test_coins_are_seen_at_the_promised_size() -> None:
    """An acceptance that is wrong by the promise, on average: nine times in ten, less binomial noise (1e-6)."""
    check, alpha, rows, runs = Coin(), 1e-3, 2_000, 200
    size = found([check], [on_the_line(Rejection(), rows, 0)], alpha)["Coin"].smallest
    assert size is not None and 0.01 < size < 0.04
    hits = 0
    for seed in range(runs):
        trace = on_the_line(Rejection(), rows, seed)
        # Each node is tossed; those refused are kept with the probability that lifts the mean by the promise.
        refused = 1 - trace.acceptance(True).mean()  # type: ignore[union-attr]
        lift = GeneratorTape(10**7 + seed).coin("lift", torch.full((rows, 1), float(size / refused)))
        hits += found([check], [replace(trace, kept=trace.kept | lift)], alpha)["Coin"].rejects
    assert hits >= binom.ppf(TAIL, runs, 0.9)


def residual_by_thinning(target: Law, draft: Law, rows: int) -> Tensor:
    index = torch.zeros(rows, dtype=torch.long)
    return PlantedThinning().replace(target[None][index], draft[None][index], GeneratorTape(11), "residual")


FULL = torch.tensor([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.3, 0.2, 0.7]])


@pytest.mark.parametrize("delta", [0.05, 1.0, 4.0])
def test_residuals_become_uniform(delta: float) -> None:
    """Against thinned draws, Kolmogorov-Smirnov at 1e-6 a column: on the line and with a full covariance."""
    for start, scale in ((torch.ones(1), torch.tensor([[0.7]])), (torch.tensor([1.0, -1.0, 0.5]), FULL)):
        shift = delta * scale.double() @ torch.ones(len(start)).double() / len(start) ** 0.5
        draft, target = FullGaussian(start, scale), FullGaussian(start.double() + shift, scale)
        value = residual_by_thinning(target, draft, 20_000)
        columns = residual_uniforms(value, target[None], draft[None], GeneratorTape(0))
        assert columns is not None and columns.shape == (20_000, min(2, len(start)))
        for column in columns.T:
            assert kstest(column.numpy(), "uniform").pvalue > 1e-6
        one = replace_by_mean(value, target)
        assert (
            kstest(residual_uniforms(one, target[None], draft[None], GeneratorTape(0))[:, 0], "uniform").pvalue < 1e-9
        )  # type: ignore[index]


def replace_by_mean(value: Tensor, law: FullGaussian) -> Tensor:
    return law.mean + 0.9 * (value - law.mean)


def test_residuals_of_tokens_become_uniform_in_both_orders() -> None:
    """Rows with laws of their own; Kolmogorov-Smirnov at 1e-6 a column."""
    tape = GeneratorTape(12)
    target, draft = (Categorical(tape.race(name, (30_000, 6)) ** 2) for name in ("target", "draft"))
    rest = Categorical((target.probs - draft.probs).clamp(min=0))
    columns = residual_uniforms(rest.sample(tape, "rest"), target, draft, tape)
    assert columns is not None and columns.shape == (30_000, 2)
    assert all(kstest(column.numpy(), "uniform").pvalue > 1e-6 for column in columns.T)
    wrong = residual_uniforms(target.sample(tape, "wrong"), target, draft, tape)
    assert wrong is not None and all(kstest(column.numpy(), "uniform").pvalue < 1e-9 for column in wrong.T)


def one_row(kept: list[bool], emitted: list[int], length: int, log_accept: list[float] | None = None) -> Trace:
    """Drafts 0, 1 from laws that favour 0 and 1; the target favours 1 and then 0, excludes 3, and 2 at first."""
    draft = Categorical(torch.tensor([[[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]]]))
    target = Categorical(torch.tensor([[[0.2, 0.8, 0.0, 0.0], [0.1, 0.8, 0.1, 0.0], [0.4, 0.3, 0.3, 0.0]]]))
    record = [math.log(2 / 7), 0.0] if log_accept is None else log_accept
    return Trace(
        torch.tensor([[0, 1]]), draft, target, torch.tensor([kept]), torch.tensor([emitted]), torch.tensor([length]),
        torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([record]),
    )  # fmt: skip


VIOLATING: dict[str, Trace] = {
    KINDS[0]: one_row([True, True], [0, 1, 0], 0),
    KINDS[1]: one_row([False, True], [1, 1, 0], 2),
    KINDS[2]: one_row([True, True], [0, 1, 0], 1),
    KINDS[3]: one_row([True, True], [0, 2, 0], 3),
    KINDS[4]: one_row([True, True], [0, 1, 9], 3),
    KINDS[5]: one_row([True, True], [0, 1, 3], 3),
    KINDS[6]: one_row([True, False], [0, 0, 0], 2),
    KINDS[8]: one_row([True, True], [0, 1, 0], 3, [0.5, 0.0]),
    KINDS[9]: one_row([False, False], [0, 0, 0], 1),
}


@pytest.mark.parametrize("kind", VIOLATING)
def test_every_kind_of_violation_is_named(kind: str) -> None:
    answer = found([Violations()], [VIOLATING[kind]], 1e-6)["Violations"]
    assert answer.p_value == 0.0 and answer.rejects and kind in answer.note


def test_what_is_no_violation() -> None:
    for trace in (
        one_row([True, True], [0, 1, 2], 3),
        one_row([True, True], [0, 1, 9], 2),  # no bonus after a whole chain
        one_row([False, False], [1, 9, 9], 1),
    ):
        answer = found([Violations()], [trace], 1e-6)["Violations"]
        assert answer.p_value == 1.0 and answer.note == "none"
    impossible = replace(one_row([True, True], [2, 1, 0], 3), drafted=torch.tensor([[2, 1]]))
    notes = found([Violations()], [impossible], 1e-6)["Violations"].note
    assert KINDS[7] in notes and KINDS[5] in notes
    refused = one_row([False, False], [1, 0, 0], 1, [0.0, 0.0])
    assert KINDS[6] in found([Violations(False)], [refused], 1e-6)["Violations of the record"].note


def equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.allclose(first.double(), second.double(), rtol=1e-10, atol=1e-8)
    return first == pytest.approx(second) if isinstance(first, float) else first == second


@pytest.mark.parametrize("check", (*TOKEN, *RECORD), ids=name_of)
@pytest.mark.parametrize("kind", ["line", "plane", "tokens", "siblings"])
def test_tallies_of_two_traces_add_up_to_that_of_both(check: Check, kind: str) -> None:
    """Continuous laws draw nothing; of tokens, rows are transformed with the same draws, by a tape that knows rows."""
    if kind in ("line", "plane"):
        first, second = (on_the_line(Rejection(), 300, seed, 1.0, 2, 1 if kind == "line" else 3) for seed in (1, 2))
    else:
        rule = Rejection() if kind == "tokens" else RecursiveRejection()
        first, second = rounds(rule, 300)
    both = first.then(second)
    assert len(both) == 600 and int(both.call.max()) == 1
    apart = check.statistic(first, None, Halves(0)) + check.statistic(second, None, Halves(300))
    together = check.statistic(both, None, Halves(0))
    for item in dataclasses.fields(together):
        assert equal(getattr(apart, item.name), getattr(together, item.name)), item.name
    parts = both[torch.arange(300)], both[torch.arange(300, 600)]
    again = check.statistic(parts[0], None, Halves(0)) + check.statistic(parts[1], None, Halves(300))
    for item in dataclasses.fields(together):
        assert equal(getattr(again, item.name), getattr(together, item.name)), item.name


@dataclass(frozen=True)
class Halves:
    """A tape of which every uniform is one half, wherever a trace is cut."""

    start: int

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return torch.full(tuple(shape), 0.5, dtype=torch.float64)


def test_a_trace_is_a_source_for_the_engine() -> None:
    pair = references()["A"]
    source = Traced(Rejection(), pair.target, pair.drafter, 2, 500, 2)
    check = AcceptedLength()
    counted = tallied([check.statistic], source, range(4))[check.statistic]
    parts = [check.statistic(source(shard)[0], None, GeneratorTape()) for shard in range(4)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert counted.n == 2000 and torch.equal(counted.total, total.total)  # type: ignore[attr-defined]
    again = source(1)[0]
    assert torch.equal(again.emitted, source(1)[0].emitted) and not torch.equal(again.emitted, source(3)[0].emitted)


def test_checks_state_what_they_are_and_skip_what_they_cannot_see() -> None:
    tree = rounds(RecursiveRejection(), 50)
    for check in (*TOKEN, *RECORD):
        assert check.claim.level in ("exact", "asymptotic") and check.claim.against and check.claim.blind_to
        assert hash(check.statistic) == hash(type(check)(*dataclasses.astuple(check)).statistic)
    skipped = {name for name, item in found(TOKEN, tree, 0.01).items() if item.p_value is None}
    assert skipped == {"Coin", "AcceptedLength", "ResidualLaw", "Independence", "ExcessAcceptance", "Branches"}
    silent = replace(tree[0], log_accept=None)
    assert found([Coin(False)], [silent], 0.01)["Coin of the record"].p_value is None
    with pytest.raises(ValueError, match="different shapes"):
        tree[0].then(rounds(Rejection(), 10)[0])


def test_repeats_across_shards_are_counted_and_never_too_often() -> None:
    """One value in a hundred is 0: two or more of it in each shard of 1000, 1000 in all."""
    law, check = Gaussian(torch.zeros(1), torch.ones(1)), Support()
    tape, total, most = GeneratorTape(13), None, 0
    for _ in range(20):
        rows = law[None][torch.zeros(1000, dtype=torch.long)].sample(tape, "rows")
        rows[tape.coin("atom", torch.full((1000,), 0.01))] = 0.0
        most += int((rows == 0).sum())
        tally = check.statistic(rows, law, tape)
        total = tally if total is None else total + tally
    assert total is not None and total.repeats.times == most  # type: ignore[attr-defined]
    answer = check.judge(total, 1e-6)
    assert answer.rejects and f"one row occurs {most} times" in answer.note
    table = Repeats(((3, 1), (2, 9))) + Repeats(((2, 9), (2, 4)))
    assert table.counts == ((4, 9), (3, 1), (2, 4))
    wide = Repeats(tuple((2, k) for k in range(16))) + Repeats(((5, 99),))
    assert len(wide.counts) == 16 and wide.times == 5


def test_rows_that_come_in_pairs_are_seen_though_none_comes_often() -> None:
    """Every tenth row is its neighbour's copy: no value occurs three times. Two chances of 1e-6."""
    law, tape = Gaussian(torch.zeros(2), torch.ones(2)), GeneratorTape(14)
    rows = law[None][torch.zeros(200_000, dtype=torch.long)].sample(tape, "rows")
    assert not Support()(rows, law, 1e-6, tape).rejects
    rows[1::10] = rows[0::10]
    answer = Support()(rows, law, 1e-6, tape)
    assert answer.rejects and "20000 rows are repeats" in answer.note
    assert repeats_p_value(200_000, 2, 2.0**-22) == 1.0  # by the most frequent value alone it is chance


def test_single_tokens_are_traces() -> None:
    drafted, emitted = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    law = Gaussian(torch.zeros(2, 1), torch.ones(1))
    trace = Trace.single(drafted, emitted, law, law)
    assert trace.kept.tolist() == [[True], [False]] and trace.chain and len(trace) == 2
    assert trace.draft.batch_shape == (2, 1) and trace.target.batch_shape == (2, 2)
    shared = Trace.single(drafted, emitted, law[0], law[0])
    assert shared.draft.batch_shape == (1, 1) and bool(same(shared.emitted[:, 0], emitted).all())
    assert trace.context.tolist() == [[0, -1], [0, -1]]


def test_the_context_of_a_token_is_the_path_that_was_emitted() -> None:
    """Siblings 4, 7, 4 and a child of the second: after 7 the law is column 2, then after the child column 4."""
    drafted = torch.tensor([[4, 7, 4, 1]] * 3)
    law = Categorical(torch.ones(3, 5, 9))
    emitted = torch.tensor([[7, 1, 3, 0, 0], [4, 1, 0, 0, 0], [5, 1, 0, 0, 0]])
    parent, length = torch.tensor([-1, -1, -1, 1]), torch.tensor([3, 2, 2])
    kept = torch.zeros(3, 4, dtype=torch.bool)
    trace = Trace(drafted, law[:, :4], law, kept, emitted, length, parent, torch.zeros(3, dtype=torch.long))
    assert trace.context.tolist() == [[0, 2, 4, -1, -1], [0, 1, -1, -1, -1], [0, -1, -1, -1, -1]]


def test_drafts_are_counted_in_the_cells_of_their_own_law() -> None:
    """Cells against their chance, which sum to nothing; and a mean that is off is seen nine times in ten (1e-6)."""
    check, alpha, rows, runs = Proposal(), 1e-3, 4_000, 100
    trace = on_the_line(Rejection(), rows, 0)
    tally = check.statistic(trace, None, GeneratorTape())
    cells = torch.histc(ndtr(trace.drafted.flatten()), 16, 0, 1) - rows / 16
    assert torch.allclose(tally.total[2:], cells, rtol=0, atol=1e-9) and abs(float(tally.total[2:].sum())) < 1e-9
    assert torch.allclose(tally.variance[2:], torch.full((16,), rows * 15 / 256).double())
    size = check.judge(tally, alpha).smallest
    assert size is not None and size < 0.1
    hits = 0
    for seed in range(runs):
        drafted = GeneratorTape(seed).normal("drafted", (rows, 1, 1)) + size * math.sqrt(math.pi / 3)
        hits += found([check], [replace(trace, drafted=drafted)], alpha)["Proposal"].rejects
    assert hits >= binom.ppf(TAIL, runs, 0.9)

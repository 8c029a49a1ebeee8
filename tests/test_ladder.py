"""The ladder of rules on paths: the target's law for the exact ones, their acceptance, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.heads import ExactHead, Prediction
from distributions.path import Denoiser, PathLaw
from distributions.reversal import Reversal
from distributions.schedule import cosine
from distributions.tape import GeneratorTape, RecordingTape, ReplayError, ReplayTape
from tests.ladder_models import Case, Tokens, cases, double, head, innovations, normal_data, reversal
from verify.decode import decode
from verify.gaussian.maximal import independent, synchronous
from verify.paths import Cost, link
from verify.records import Draft, Outcome
from verify.verifier import Verifier, catalog
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.cspd import Cspd
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.last_gaussian import LastGaussian
from verify.verifiers.restarting import Restarting
from verify.verifiers.whole_path import WholePath

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

PATHS = {name: kind for name, kind in catalog().items() if kind.claim.laws == "path"}
CASES = cases()
EXACT: list[Verifier] = [WholePath(), Restarting(), Coalescing(), LastGaussian()]
LADDER: list[Verifier] = [*EXACT, Cspd(), CspdReleased()]
COMMON = Case(head(normal_data(), 2, cosine(6)), head(normal_data(0.6), 2, cosine(6)), 2)


def named(rule: Any) -> str:
    """A rule's name, for the parameters of a test."""
    return type(rule).__name__


def run(case: Case, rule: Verifier, rows: int, nodes: int = 1, seed: int = 0) -> tuple[Draft, PathLaw, Outcome]:
    tape = GeneratorTape(seed)
    draft, target = case.round(rows, nodes, tape, rule)
    assert isinstance(target, PathLaw)
    return draft, target, rule.verify(draft, target, tape)


# --- universal laws, of every rule on paths in the catalogue ---


@pytest.mark.parametrize("name", PATHS)
def test_universal_laws(name: str) -> None:
    """Lengths, values, prefixes, and kept against log_accept (6 standard errors: false alarm 2e-9 a node)."""
    rule = PATHS[name]()
    rows, nodes = 2_000, 2
    draft, target, outcome = run(COMMON, rule, rows, nodes)
    assert outcome.value.shape == (rows, nodes + 1, *target.event_shape) and outcome.value.dtype == torch.float64
    assert bool(torch.isfinite(outcome.value).all())
    assert bool(((outcome.length >= 1) & (outcome.length <= nodes + 1)).all())
    assert outcome.kept.shape == outcome.log_accept.shape == (rows, nodes) and bool((outcome.log_accept <= 0).all())
    if getattr(rule, "rollback", True):
        assert not bool((outcome.kept[:, 1:] & ~outcome.kept[:, :-1]).any())
        assert torch.equal(outcome.length, outcome.kept.sum(1) + 1)
    else:
        assert bool((outcome.kept[:, 1:] & ~outcome.kept[:, :-1]).any())  # the defect it is known for
    seen = torch.cat([torch.ones(rows, 1, dtype=torch.bool), outcome.kept[:, :-1]], 1)
    chance = outcome.log_accept.exp()
    for node in range(nodes):
        mine, odds = outcome.kept[seen[:, node], node], chance[seen[:, node], node]
        gap = float((mine.double() - odds).sum())
        assert abs(gap) <= 6 * math.sqrt(float((odds * (1 - odds)).sum())) + 1e-9
    # A kept token is the drafted one, bit for bit; a refused one is not.
    token, drafted = target.token(outcome.value), target.token(draft.value)
    same = (token[:, :nodes] == drafted).all(-1)
    assert bool(same[outcome.kept].all())
    refused = ~outcome.kept & (torch.arange(nodes) < outcome.length.unsqueeze(1))
    assert not bool(same[refused].any())


@pytest.mark.parametrize("name", PATHS)
def test_replay_is_bit_for_bit(name: str) -> None:
    rule = PATHS[name]()
    draft, target = COMMON.round(300, 2, GeneratorTape(1), rule)
    recording = RecordingTape(GeneratorTape(2))
    first = rule.verify(draft, target, recording)
    again = rule.verify(draft, target, ReplayTape(recording.draws))
    for part in ("value", "length", "kept", "log_accept"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    assert not torch.equal(rule.verify(draft, target, GeneratorTape(3)).value, first.value)
    with pytest.raises(ReplayError):
        rule.verify(draft, target, ReplayTape(recording.draws[:-1]))


@pytest.mark.parametrize("name", PATHS)
def test_verifying_changes_no_input(name: str) -> None:
    rule = PATHS[name]()
    draft, target = COMMON.round(50, 2, GeneratorTape(1), rule)
    assert isinstance(draft.law, PathLaw) and isinstance(target, PathLaw)
    inputs = [draft.value, draft.law.kernel.condition, draft.parent, target.kernel.condition]  # type: ignore[attr-defined]
    before = [item.clone() for item in inputs]
    rule.verify(draft, target, GeneratorTape(2))
    assert all(torch.equal(*pair) for pair in zip(before, inputs, strict=True))


@pytest.mark.parametrize("rule", LADDER, ids=named)
def test_claims_and_what_is_refused(rule: Verifier) -> None:
    name = next(name for name, kind in PATHS.items() if kind is type(rule))
    assert rule.claim.exact == (rule in EXACT)
    plain = Gaussian(torch.zeros(2, 3, 2), torch.ones(2))
    with pytest.raises(TypeError, match=f"{name} needs laws of paths and got Gaussian"):
        rule.verify(Draft.chain(plain[:, :2].mean, plain[:, :2]), plain, GeneratorTape(0))
    draft, target = COMMON.round(2, 2, GeneratorTape(0))
    assert isinstance(draft.law, PathLaw) and isinstance(target, PathLaw)
    silent = replace(draft, law=replace(draft.law, last_noise=False))
    with pytest.raises(ValueError, match="set last_noise to True"):
        rule.verify(silent, target, GeneratorTape(0))
    longer = Case(COMMON.drafter, head(normal_data(), 2, cosine(7)), 2).round(2, 2, GeneratorTape(0))[1]
    with pytest.raises(ValueError, match="as many steps"):
        rule.verify(draft, longer, GeneratorTape(0))
    if getattr(rule, "rollback", True):
        with pytest.raises(ValueError, match="chain"):
            rule.verify(replace(draft, parent=torch.tensor([-1, -1])), target, GeneratorTape(0))


# --- the target's law of whole paths ---


def assert_standard(white: Tensor) -> None:
    """Innovations (rows, points, d) are independent N(0, 1): four KS tests at 1e-8 each.

    All of them; sums of neighbours in time, and differences, normal again if the two are independent; squared lengths.
    """
    early, late = white[:, 0:-1:2], white[:, 1::2]
    assert stats.kstest(white.flatten().numpy(), "norm").pvalue > 1e-8
    for mixed in (early + late, early - late):
        assert stats.kstest((mixed / math.sqrt(2)).flatten().numpy(), "norm").pvalue > 1e-8
    count = white[0].numel()
    assert stats.kstest(white.square().sum((-1, -2)).numpy(), stats.chi2(count).cdf).pvalue > 1e-8


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", EXACT, ids=named)
def test_emitted_paths_have_the_targets_law(rule: Verifier, name: str) -> None:
    """The emitted path's innovations under the target's own kernels (false alarm 4e-8 a case, 2e-6 over the 36)."""
    check_law(rule, CASES[name], 1_000 if CASES[name].dim < 16 else 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", [*EXACT, Coalescing(independent), Coalescing(synchronous)], ids=str)
def test_emitted_paths_have_the_targets_law_at_length(rule: Verifier, name: str) -> None:
    """The same, with 20 times the rows, and with other couplings (false alarm 2e-6 over the 54)."""
    check_law(rule, CASES[name], 20_000 if CASES[name].dim < 16 else 2_000)


def check_law(rule: Verifier, case: Case, rows: int) -> None:
    _, target, outcome = run(case, rule, rows, seed=5)
    assert_standard(innovations(outcome.value[:, 0], target[:, 0]))


@pytest.mark.parametrize("bug", ["restart with the draft's law", "residual is the target", "same coin for all links"])
def test_planted_bugs_fail_on_innovations(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "restart with the draft's law":
        monkeypatch.setattr("verify.paths.link", _drafts_link)
    elif bug == "residual is the target":
        module = "verify.verifiers.restarting.moved"
        monkeypatch.setattr(module, lambda value, target, draft, tape, site: target.sample(tape, site))
    else:
        monkeypatch.setattr(GeneratorTape, "coin", _one_coin)
    case = CASES["means"]
    rule = Restarting()
    tape = GeneratorTape(5)
    draft, target = case.round(6_000, 1, tape)
    assert isinstance(target, PathLaw)
    outcome = rule.verify(draft, target, tape)
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        assert_standard(innovations(outcome.value[:, 0], target[:, 0]))


def _drafts_link(law: PathLaw, place: int, path: Tensor) -> Any:
    made = link(law, place, path)
    return Gaussian(made.mean + 0.1 * made.scale, made.scale) if place else made  # type: ignore[attr-defined]


def _one_coin(tape: GeneratorTape, site: str, prob: Tensor) -> Tensor:
    return tape.uniform(site, (*prob.shape[:-1], 1)).expand(prob.shape) < prob


# --- acceptance ---


@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("shift, scale", [(0.5, 1.0), (0.0, 0.6), (0.8, 1.3)])
def test_whole_paths_of_exact_reversals_accept_the_overlap_of_the_tokens(
    shift: float, scale: float, steps: int
) -> None:
    """The forward kernels cancel: log P / Q = log p(x_0) / q(x_0) draft by draft; so acceptance is that of tokens."""
    grid = cosine(steps)
    case = Case(reversal(grid), reversal(grid, shift, scale), 1)
    rows = 5_000
    draft, _, outcome = run(case, WholePath(), rows)
    laws = [Gaussian(double([[at]]), double([size])) for at, size in ((shift + 0.5, scale), (0.5, 1.0))]
    token = draft.value[:, 0, -1]
    ratio = laws[0].log_prob(token) - laws[1].log_prob(token)
    assert torch.allclose(outcome.log_accept[:, 0], ratio.clamp(max=0), rtol=0, atol=1e-8)
    overlap = float(laws[0].overlap(laws[1]))
    kept = float(outcome.kept.double().mean())
    assert abs(kept - overlap) < 3 * math.sqrt(overlap * (1 - overlap) / rows)  # false alarm 0.0027; the seed is fixed


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_acceptance(name: str) -> None:
    """Restarting keeps a draft no more often than whole paths (draft by draft) and coalescing (6 s.e., 2e-9)."""
    case = CASES[name]
    rows = 1_000 if case.dim < 16 else 100
    draft, target = case.round(rows, 1, GeneratorTape(1))
    restart, whole, coalesce = (
        rule.verify(draft, target, GeneratorTape(2)).log_accept[:, 0].exp() for rule in (EXACT[1], EXACT[0], EXACT[2])
    )
    assert bool((restart <= whole * (1 + 1e-9)).all())
    assert float(restart.mean() - coalesce.mean()) <= 6 * math.sqrt(float(restart.var() + coalesce.var()) / rows)


@pytest.mark.parametrize("rule", EXACT, ids=named)
def test_no_exact_rule_accepts_more_than_the_marginals_share(rule: Verifier) -> None:
    """Lemma L1 on exact reversals of unlike data, whose 1 - TV is known."""
    grid, rows = cosine(5), 5_000
    case = Case(reversal(grid, 0.0, 1.0), reversal(grid, 2.5, 0.5), 1)
    overlap = float(Gaussian(double([[2.5]]), double([0.5])).overlap(Gaussian(double([[0.0]]), double([1.0]))))
    _, _, outcome = run(case, rule, rows)
    kept = float(outcome.kept.double().mean())
    slack = 6 * math.sqrt(overlap * (1 - overlap) / rows)  # false alarm 1e-9
    assert kept <= overlap + slack


def test_coalescing_in_closed_form_for_one_step() -> None:
    """T = 1: the start is shared, and x_0 given it is one Gaussian under each: E[1 - TV], for every exact rule."""
    case = Case(head(normal_data(), 1, cosine(1), 0.0), head(normal_data(0.8), 1, cosine(1), 0.0), 1)
    rows = 20_000
    draft, target, outcome = run(case, Coalescing(), rows)
    assert isinstance(draft.law, PathLaw)
    start = draft.value[:, :, 0]
    laws = [law.kernel.step(1, start) for law in (target[:, :1], draft.law)]
    wanted = laws[0].overlap(laws[1])[:, 0]
    for rule in (Coalescing(), WholePath(), Restarting(), LastGaussian(), Cspd()):
        kept = run(case, rule, rows, seed=3)[2].kept.double().mean()
        assert abs(float(kept - wanted.mean())) < 5 * 0.5 / math.sqrt(rows)  # false alarm 6e-7 each


@pytest.mark.parametrize("rule", [Restarting(), Coalescing()], ids=named)
def test_equal_models_keep_everything(rule: Verifier) -> None:
    case = Case(COMMON.target, COMMON.target, 2)
    draft, _, outcome = run(case, rule, 200, 2)
    assert bool(outcome.kept.all()) and torch.equal(outcome.value[:, :2], draft.value)


# --- far apart ---


@pytest.mark.parametrize("rule", LADDER, ids=named)
def test_a_thousand_deviations_apart(rule: Verifier) -> None:
    """d = 16, T = 100, means of a middle step 1e3 deviations apart: finite, refused, and the target's law (4e-8)."""
    data = normal_data(3e3 * float(cosine(100).noise[50]), 0.5)
    case = Case(head(normal_data(scale=0.5), 16, cosine(100)), head(data, 16, cosine(100), 0.55), 16)
    rows = 40
    draft, target, outcome = run(case, rule, rows)
    assert isinstance(draft.law, PathLaw)
    if rule.claim.exact:
        apart = [law.kernel.step(50, draft.value[:, :, 50]) for law in (target[:, :1], draft.law)]
        gap = ((apart[0].mean - apart[1].mean) / apart[1].scale).norm(dim=-1)  # type: ignore[attr-defined]
        assert float(gap.min()) > 1e3
        assert_standard(innovations(outcome.value[:, 0], target[:, 0]))
    assert not bool(outcome.kept.any())
    assert bool(torch.isfinite(outcome.value).all()) and not bool(torch.isnan(outcome.log_accept).any())


# --- whole sequences ---


@pytest.mark.parametrize("rule", EXACT, ids=named)
def test_decoded_sequences_have_the_targets_law(rule: Verifier) -> None:
    """Exact reversals of N(shift + slope last token, scale^2): tokens' innovations are N(0, 1) (false alarm 4e-8)."""
    grid, shift, scale, slope = cosine(4), 0.3, 0.8, 0.7
    target, drafter = Tokens(reversal(grid, shift, scale, slope), 2), Tokens(reversal(grid, 0.0, scale, 0.5), 2)
    trace = decode(target, drafter, rule, 2, 5, GeneratorTape(1), 1_000)
    before = torch.cat([torch.ones(1_000, 1, 2).double(), trace.tokens[:, :-1]], 1)
    assert_standard((trace.tokens - shift - slope * before) / scale)
    if type(rule) is not LastGaussian:  # which keeps next to nothing, so that all rows keep pace
        assert len(trace.rounds.unique()) > 1


# --- cost ---


class Tick(torch.autograd.Function):
    """A mark in the graph of what was computed from what."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


@dataclass(frozen=True, eq=False)
class Counting:
    """A head that counts the values it is asked about, and marks its answers in the graph."""

    inner: ExactHead
    rows: list[int] = field(default_factory=list)

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def null(self) -> Tensor:
        return self.inner.null

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        self.rows.append(value[..., 0].numel())
        told = self.inner(value, signal, noise, condition)
        return Prediction(Tick.apply(told.clean), told.noise, told.fraction)


def depth(value: Tensor) -> int:
    """The most marks on a way back through the graph of ``value``."""
    known: dict[Any, int] = {None: 0}
    stack = [value.grad_fn]
    while stack:
        node = stack[-1]
        before = [other for other, _ in node.next_functions] if node is not None else []
        todo = [other for other in before if other not in known]
        if node in known or not todo:
            stack.pop()
            if node is not None:
                known[node] = max((known[other] for other in before), default=0) + (
                    type(node).__name__ == "TickBackward"
                )
        else:
            stack += todo
    return known[value.grad_fn]


@pytest.mark.parametrize("rule", LADDER, ids=named)
def test_cost_is_what_the_heads_count(rule: Any) -> None:
    """Target evaluations to judge, to replace and for the bonus; their depth; drafter evaluations."""
    steps, nodes, rows = 6, 2, 50
    heads = [Counting(ExactHead(normal_data(at), torch.zeros(2).double())) for at in (0.0, 0.15)]
    drafter, target = (lambda c, h=h: Denoiser(h, cosine(steps), c, fraction=0.5) for h in heads)
    draft, law = Case(drafter, target, 2).round(rows, nodes, GeneratorTape(0), rule)
    draft = replace(draft, value=draft.value.requires_grad_())
    heads[0].rows.clear()
    outcome = rule.verify(draft, law, GeneratorTape(1))
    cost: Cost = rule.cost(steps, nodes)
    whole = int((outcome.length == nodes + 1).sum())
    refused = 0 if rule in LADDER[4:] and not getattr(rule, "rollback", True) else rows - whole
    spent = sum(heads[1].rows) - rows * cost.target - whole * steps
    assert refused * cost.replacement[0] <= spent <= refused * cost.replacement[1]
    assert depth(outcome.log_accept) == cost.depth
    if type(rule) not in (WholePath, Restarting):  # whose replacements ask the drafter again
        assert sum(heads[0].rows) == rows * cost.drafter


def test_depth_counts_marks_in_sequence() -> None:
    value = torch.zeros(2, requires_grad=True)
    assert depth(Tick.apply(value) + Tick.apply(value)) == 1
    assert depth(Tick.apply(Tick.apply(value) * 2) + value) == 2


def test_reversals_of_mixtures_have_no_shared_noise() -> None:
    data = normal_data()(torch.zeros(3, 2, 1).double())
    law = PathLaw(Reversal(data, cosine(3)))
    draft = Draft.chain(law[:, :1].sample(GeneratorTape(0), "x"), law[:, :1])
    assert bool(Coalescing().verify(draft, law, GeneratorTape(1)).kept.all())
    with pytest.raises(TypeError, match="shared noise needs Gaussian steps"):
        LastGaussian().verify(draft, law, GeneratorTape(1))

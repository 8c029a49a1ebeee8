"""Functions that are not ours, beside an exact rule on their own draws: the bound holds whatever they do.

Coupling raises no alarm, so the false alarms stated here are those of the tests of laws.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from distributions.tape import Draw, GeneratorTape
from tests.test_gaussian_space import (
    direct,
    numpy_rejection,
    ratio,
    reflection,
    speculative,
    thinned,
    unguarded_reflection,
)
from verify.certificate.following_tape import FollowingTape, queues
from verify.checks.coupling import upper
from verify.foreign.followed import Followed, NotCoupled
from verify.foreign.plain import isolated
from verify.spaces.gaussian import Budget, judge_gaussian
from verify.spaces.gaussian_coupling import Coupled, OwnDraw, Reference, Runs, couple, exact_rules
from verify.spaces.gaussian_pairs import Pair, pairs
from verify.spaces.gaussian_rows import Subject
from verify.spaces.gaussian_rules import Function
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)

PAIR = pairs(1, "equal")[0]  # means one sigma apart: TV .383
FAR = pairs(2, "equal")[1]
Fn = Callable[[Tensor, Distribution, Distribution], Tensor]


def followed(draw: Callable[[], object]) -> tuple[object, list[Draw]]:
    """What ``draw`` returns under the mode, and what was recorded."""
    follows = Followed(GeneratorTape(3))
    with isolated(), follows.call():
        value = draw()
    return value, follows.draws


def coupled(fn: Fn, chosen: Sequence[Pair] = (PAIR,), rows: int = 8192, seconds: float = 60.0) -> Coupled:
    with isolated():
        return couple(Subject(fn), chosen, rows, seconds, 1e-6, 1)


# --- answering and recording draws -----------------------------------------------------------------------------------

N = 4000
SIZE = (N, 1)
KINDS: dict[str, tuple[Callable[[], Tensor], str, Callable[[Tensor], Tensor]]] = {
    "rand": (lambda: torch.rand(N, 1, dtype=torch.float64), "uniform", lambda u: u),
    "rand of a size": (lambda: torch.rand(size=SIZE, dtype=torch.float64), "uniform", lambda u: u),
    "rand_like": (lambda: torch.rand_like(torch.empty(SIZE, dtype=torch.float64)), "uniform", lambda u: u),
    "uniform_": (lambda: torch.empty(SIZE).double().uniform_(-1, 3), "uniform", lambda u: -1 + 4 * u),
    "randn": (lambda: torch.randn(SIZE, dtype=torch.float64), "normal", lambda z: z),
    "randn_like": (lambda: torch.randn_like(torch.empty(SIZE).double()), "normal", lambda z: z),
    "normal_": (lambda: torch.empty(SIZE).double().normal_(2, 3), "normal", lambda z: 2 + 3 * z),
    "normal of tensors": (
        lambda: torch.normal(torch.ones(SIZE).double(), 2 * torch.ones(1).double()),
        "normal",
        lambda z: 1 + 2 * z,
    ),
    "normal of a size": (lambda: torch.normal(1.0, 2.0, SIZE, dtype=torch.float64), "normal", lambda z: 1 + 2 * z),
    "exponential_": (lambda: torch.empty(SIZE).double().exponential_(2.0), "uniform", lambda u: -torch.log1p(-u) / 2),
    "bernoulli": (lambda: torch.bernoulli(torch.full(SIZE, 0.3).double()), "uniform", lambda u: (u < 0.3).double()),
    "bernoulli_": (lambda: torch.empty(SIZE).double().bernoulli_(0.3), "uniform", lambda u: (u < 0.3).double()),
    "multinomial": (
        lambda: torch.multinomial(torch.tensor([[1.0, 3.0]]).expand(N, 2), 1).double(),
        "uniform",
        lambda u: (u >= 0.25).double().unsqueeze(-1),
    ),
    "Normal.sample": (lambda: Normal(torch.ones(1).double(), 2.0).sample((N,)), "normal", lambda z: 1 + 2 * z),
    "Independent.rsample": (
        lambda: Independent(Normal(torch.ones(1).double(), torch.full((1,), 2.0).double()), 1).rsample((N,)),
        "normal",
        lambda z: 1 + 2 * z,
    ),
    "MultivariateNormal.sample": (
        lambda: MultivariateNormal(torch.ones(1).double(), scale_tril=torch.full((1, 1), 2.0).double()).sample((N,)),
        "normal",
        lambda z: 1 + 2 * z,
    ),
    "single precision": (
        lambda: torch.rand(SIZE),
        "uniform",
        lambda u: ((u * 2**24).floor() * 2.0**-24).float(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_draws_are_answered_from_the_tape_and_recorded(name: str) -> None:
    """As functions of recorded uniforms and normals, whose own law is that of the tape: two tests at 1e-9."""
    draw, kind, function = KINDS[name]
    value, record = followed(draw)
    assert [item.kind for item in record] == [kind] and record[0].value.numel() == N
    assert isinstance(value, Tensor) and torch.allclose(value, function(record[0].value).to(value.dtype), rtol=1e-15)
    law = "uniform" if kind == "uniform" else "norm"
    assert stats.kstest(record[0].value.flatten().numpy(), law).pvalue > 1e-9
    with isolated():
        plain = draw()
    assert plain.dtype == value.dtype and plain.shape == value.shape
    assert stats.ks_2samp(plain.flatten().numpy(), value.flatten().numpy()).pvalue > 1e-9


STORE: dict[str, torch.Generator] = {}


def own(reseeds: bool = False, anew: bool = False) -> Tensor:
    generator = torch.Generator() if anew else STORE.setdefault("own", torch.Generator().manual_seed(7))
    if reseeds:
        generator.manual_seed(7)
    return torch.rand(5, generator=generator)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: torch.manual_seed(0), "torch past the answers"),
        (lambda: np.random.rand(3), "numpy.random"),
        (lambda: random.random(), "draws from random"),
        (lambda: torch.randint(0, 5, (3,)), "torch.randint, which is not answered"),
        (lambda: torch.randperm(5), "randperm"),
        (lambda: torch.nn.functional.dropout(torch.ones(3)), "dropout"),
        (lambda: torch.rand(3, dtype=torch.bfloat16), "bfloat16"),
        (lambda: torch.rand(3, out=torch.empty(3)), "out="),
        (lambda: torch.multinomial(torch.ones(3), 2), "several indices"),
        (lambda: own(reseeds=True), "seeds a torch.Generator"),
        (lambda: own(anew=True), "makes a torch.Generator"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_followed_is_refused(draw: Callable[[], object], says: str) -> None:
    """Even where the function swallows the refusal. A generator of its own that it leaves alone may stay."""
    follows = Followed(GeneratorTape(3))
    with isolated():
        for _ in range(2):
            with follows.call():
                own()
        with pytest.raises(NotCoupled, match=says), follows.call():
            try:
                draw()
            except NotCoupled:
                pass


# --- the tape that follows -------------------------------------------------------------------------------------------


def test_the_next_draw_is_the_earliest_that_fits() -> None:
    value = GeneratorTape(0).uniform("u", (40,))
    every, some = Draw("a", "uniform", value[:6]), Draw("b", "uniform", value[6:10].reshape(2, 2))
    two, last, one = (
        Draw("c", "uniform", value[10:12]),
        Draw("d", "uniform", value[12:18]),
        Draw("e", "normal", value[18:24]),
    )
    tape = FollowingTape.of([every, some, two, last, one], 6, GeneratorTape(9))
    left = tape[torch.tensor([1, 4])]
    assert torch.equal(left.uniform("x", (2,)), value[[1, 4]])  # of all rows those at hand
    assert torch.equal(left.uniform("x", (2, 1)), value[10:12].unsqueeze(-1))
    assert torch.equal(left.uniform("x", (2, 2)), value[6:10].reshape(2, 2))  # other numbers a row: another queue
    assert torch.equal(left.normal("x", (2,)), value[[19, 22]])
    assert torch.equal(tape.uniform("x", (6,)), value[12:18])
    fresh = GeneratorTape(9)
    assert torch.equal(tape.uniform("x", (6,)), fresh.uniform("x", (6,)))  # the record is spent
    turned = FollowingTape.of([every], 6, GeneratorTape(9), frozenset({"x"}))
    assert torch.equal(turned.uniform("x", (6,)), 1 - 2.0**-53 - value[:6])


def spiteful(rows: int, tape: GeneratorTape) -> list[Draw]:
    """What a program draws that tries to bias whoever follows: shapes and numbers of draws depend on earlier values.

    After a first uniform it draws two a row where that is low in the first row, three where it is not; then normals
    until one exceeds it; then a last uniform.
    """
    record = [Draw("u", "uniform", tape.uniform("u", (rows,)))]
    low = float(record[0].value[0]) < 0.5
    record.append(Draw("u", "uniform", tape.uniform("u", (rows, 2 if low else 3))))
    while len(record) < 6:
        record.append(Draw("z", "normal", tape.normal("z", (rows, 1))))
        if float(record[-1].value[0]) > float(record[0].value[0]):
            break
    record.append(Draw("u", "uniform", tape.uniform("u", (rows,))))
    return record


class Twice(FollowingTape):
    """A planted error: what was used may be used again."""

    def _next(self, kind: str, shape: Sequence[int]) -> Tensor | None:
        heads = {key: queue[0] for key, queue in self.queues.items() if queue}
        value = super()._next(kind, shape)
        for key, head in heads.items():
            if not self.queues[key] or self.queues[key][0] is not head:
                self.queues[key].appendleft(head)
        return value


class Forward(FollowingTape):
    """A planted error: one cursor, which passes over what does not fit and never returns."""

    def _next(self, kind: str, shape: Sequence[int]) -> Tensor | None:
        before = {place for queue in self.queues.values() for place, _ in queue}
        value = super()._next(kind, shape)
        used = before - {place for queue in self.queues.values() for place, _ in queue}
        for queue in self.queues.values():
            while used and queue and queue[0][0] < min(used):
                queue.popleft()
        return value


def answers(kind: type[FollowingTape]) -> Tensor:
    """(runs, 4): the first row's answers to asks for two uniforms, for one, for a normal, and for one more uniform,
    from many records; the normal as a uniform.
    """
    found = []
    for run in range(3000):
        record = spiteful(4, GeneratorTape(2 * run))
        tape = kind(queues(record, 4), torch.arange(4), 4, GeneratorTape(2 * run + 1))
        asks = [tape.uniform("a", (4, 2))[0, 0], tape.uniform("b", (4,))[0]]
        asks += [torch.special.ndtr(tape.normal("c", (4, 1)))[0, 0], tape.uniform("b", (4,))[0]]
        found.append(torch.stack(asks))
    return torch.stack(found)


def law_holds(value: Tensor) -> bool:
    """Each answer uniform and every two independent, ten tests at 1e-9 each: false alarm 1e-8."""
    columns = [column.numpy() for column in value.unbind(-1)]
    least = min(float(stats.kstest(column, "uniform").pvalue) for column in columns)
    for first, second in itertools.combinations(columns, 2):
        cells = (first * 4).astype(int) * 4 + (second * 4).astype(int)
        least = min(least, float(stats.chisquare(np.bincount(cells, minlength=16)).pvalue))
    return least > 1e-9


def test_answers_are_independent_whatever_the_program_did() -> None:
    assert law_holds(answers(FollowingTape))


@pytest.mark.parametrize("kind", [Twice, Forward])
def test_planted_errors_in_following_are_caught(kind: type[FollowingTape]) -> None:
    assert not law_holds(answers(kind))


def test_a_reference_on_a_spiteful_record_emits_the_target() -> None:
    """The law of what the rule emits, where the record's shapes depend on its values; false alarm 1e-9."""
    rows, emitted = 16, []
    index = torch.zeros(rows, dtype=torch.long)

    class Answered:
        draws: list[Draw]

    for run in range(500):
        drafted = PAIR.draft[None][index].sample(GeneratorTape(3 * run), "draft")
        follows = Answered()
        follows.draws = spiteful(rows, GeneratorTape(3 * run + 1))
        emitted.append(Reference(Rejection()).block(PAIR, drafted, follows, 3 * run + 2).value[:, 0])  # type: ignore[arg-type]
    assert stats.kstest(PAIR.columns(torch.cat(emitted))[:, 0].numpy(), "uniform").pvalue > 1e-9


# --- coupling a function ---------------------------------------------------------------------------------------------


def flipped(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Rejection that keeps where the uniform is large, in both places."""
    kept = 1 - torch.rand(len(draft_value), dtype=draft_value.dtype) < ratio(draft_value, draft, target)
    out, todo = draft_value.clone(), torch.nonzero(~kept).squeeze(-1)
    while len(todo):
        z = target.sample((len(todo),))
        keep = torch.rand(len(todo), dtype=z.dtype) > 1 / ratio(z, draft, target)
        out[todo[keep]] = z[keep]
        todo = todo[~keep]
    return out


def whole_batches(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Thinning that draws for every row in every round, and looks at the unfinished ones."""
    kept = torch.rand(len(draft_value), dtype=draft_value.dtype) < ratio(draft_value, draft, target)
    out = draft_value.clone()
    while not bool(kept.all()):
        z = target.sample((len(out),))
        keep = ~kept & (torch.rand(len(out), dtype=z.dtype) < 1 - 1 / ratio(z, draft, target))
        out, kept = torch.where(keep.unsqueeze(-1), z, out), kept | keep
    return out


def coins_of_bernoulli(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    kept = torch.bernoulli(ratio(draft_value, draft, target).clamp(max=1)).bool()
    out = draft_value.clone()
    out[~kept] = thinned(draft_value[~kept], draft, target)
    return out


def single(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """The rule in single precision, whatever it is given."""
    laws = (Independent(Normal(law.mean.float(), law.stddev.float()), 1) for law in (draft, target))
    return speculative()(draft_value.float(), *laws)


def residual_first(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Exact, but draws its replacements before the coins that decide on the drafts."""
    if torch.equal(draft.mean, target.mean):
        return draft_value  # nothing is ever replaced, and no draw of a residual ends
    out, drawn = draft_value.clone(), thinned(draft_value, draft, target)
    kept = torch.rand(len(out), dtype=out.dtype) < ratio(draft_value, draft, target)
    return torch.where(kept.unsqueeze(-1), out, drawn)


COUPLES: dict[str, tuple[Fn, str]] = {
    "rejection": (speculative(), "Rejection"),
    "kept where the uniform is large": (flipped, "Rejection with 1 - u at accept, residual.keep"),
    "every row in every round": (whole_batches, "Rejection"),
    "bernoulli": (coins_of_bernoulli, "Rejection"),
    "single precision": (single, "Rejection"),
    "reflection": (reflection, "Reflection"),
    "reflection from a logarithm": (unguarded_reflection, "Reflection with 1 - u at accept"),
    "the target": (direct, "OwnDraw"),
}


@pytest.mark.parametrize("name", COUPLES)
def test_exact_functions_couple_with_their_rule(name: str) -> None:
    """With no mismatch; in single precision one flips with probability 1e-7 a row or so."""
    fn, reference = COUPLES[name]
    for pair in (PAIR, FAR):
        found = coupled(fn, [pair])
        assert found.reference == reference
        assert found.bound == pytest.approx(upper(0, found.rows, 1e-6), rel=1e-9) and found.rows > 8192


@pytest.mark.parametrize("rule", list(exact_rules()), ids=lambda rule: type(rule).__name__)
def test_every_exact_rule_of_the_catalogue_couples_with_itself(rule: object) -> None:
    """Or with another that is the same rule on one draft; as a function with a generator of its own."""
    found = coupled(Function(rule), [FAR])  # type: ignore[arg-type]
    assert found.bound == pytest.approx(upper(0, found.rows, 1e-6), rel=1e-9)
    if type(rule).__name__ in ("GaussianBlock", "ResidualCoupling"):
        assert found.reference in ("GaussianBlock", "ResidualCoupling")
    else:
        assert found.reference == type(rule).__name__


def test_pairs_of_two_kinds_may_have_two_references() -> None:
    def either(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        """Reflection where it can, rejection where it must."""
        same = torch.equal(draft.stddev, target.stddev)
        return (reflection if same else speculative())(draft_value, draft, target)

    chosen = pairs(1, "any")[:2]
    found = coupled(either, chosen)
    assert found.reference == "Reflection and Rejection" and [item.scenario for item in found.findings] == [
        pair.name for pair in chosen
    ]
    assert found.bound == pytest.approx(upper(0, found.rows, 5e-7), rel=1e-9)  # each has half of the confidence


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (numpy_rejection, "numpy.random and random"),
        (residual_first, "differs from every exact rule"),
        (lambda x, q, p: (torch.manual_seed(3), speculative()(x, q, p))[1], "seeds it"),
        (lambda x, q, p: torch.cat([direct(row[None], q, p) for row in x]), "differs from every"),
    ],
)
def test_others_are_not_coupled_and_the_reason_is_told(fn: Fn, says: str) -> None:
    with pytest.raises(NotCoupled, match=says):
        coupled(fn)


def beside(fn: Fn, reference: object, pair: Pair = PAIR, rows: int = 8192) -> float:
    """The bound on TV at 1 - 1e-6, however many rows differ."""
    with isolated():
        runs = Runs(Subject(fn), Followed(GeneratorTape(4)), 11)
        tally = runs.beside(pair, [rows] * 4, [Reference(reference)], math.inf)[0]  # type: ignore[arg-type]
    return upper(tally.emitted, tally.n, 1e-6)


def departure(accept: Callable[..., Tensor], replaced: str) -> float:
    """TV by quadrature of a function that accepts so and replaces by the residual or by the target."""
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64).unsqueeze(-1)
    draft, target = PAIR.draft.log_prob(x).exp(), PAIR.target.log_prob(x).exp()
    laws = PAIR.distributions(torch.float64)
    kept = draft * accept(x, *laws).clamp(0, 1)
    excess = target if replaced == "target" else (target - draft).clamp(min=0)
    emitted = kept + (1 - kept.sum() * 1e-4) * excess / (excess.sum() * 1e-4)
    return float((emitted - target).abs().sum()) * 1e-4 / 2


@pytest.mark.parametrize("lenience", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("replaced", ["residual", "target"])
def test_the_bound_is_above_the_bias_of_a_lossy_function(lenience: float, replaced: str) -> None:
    """It fails with probability 1e-6. Sharp it is not: one row kept otherwise puts its whole call out of step."""

    def accept(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        return ratio(x, draft, target) / lenience

    def fn(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        return speculative(accept, thinned if replaced == "residual" else lambda x, q, p: direct(x, q, p))(
            x, draft, target
        )

    bias = departure(accept, replaced)
    assert bias > (1e-4 if replaced == "residual" else 0.1)
    for reference in (Rejection(), OwnDraw()):
        assert beside(fn, reference) >= bias
    small = beside(fn, Rejection(), rows=256)
    assert small >= bias and (replaced == "target" or small <= 0.5)


def test_the_bound_of_an_exact_function_that_draws_otherwise_is_true_and_of_no_use() -> None:
    # Accepted rows agree; replaced ones, .383 of all, do not.
    assert 0.35 < beside(residual_first, Rejection()) < 1.0
    assert beside(residual_first, OwnDraw()) > 0.5
    verdict = judge_gaussian(residual_first, budget=Budget(16_384, 60.0))
    assert verdict.status == "lossless" and verdict.evidence == "known law" and verdict.metric == "ks"
    assert any("not coupled" in note for note in verdict.notes)


def test_a_seed_inside_the_function_is_not_hidden_by_the_answers() -> None:
    """A function that repeats its noise in every call would look exact once its draws are answered."""

    @dataclass
    class Repeats:
        generator: torch.Generator

        def __call__(self, draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
            self.generator.manual_seed(0)
            noise = torch.randn(draft_value.shape, generator=self.generator, dtype=draft_value.dtype)
            return target.mean + target.stddev * noise

    with pytest.raises(NotCoupled, match="seeds a torch.Generator"):
        coupled(Repeats(torch.Generator()))


def test_slow_functions_get_fewer_rows() -> None:
    def slow(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        for _ in range(len(draft_value) // 2):
            torch.linalg.inv(torch.eye(8))
        return direct(draft_value, draft, target)

    chosen = pairs(1, "equal")[:3]
    found = coupled(slow, chosen, 10**6, seconds=0.6)
    assert 8192 <= found.rows < 10**5 and found.bound == pytest.approx(upper(0, found.rows, 1e-6 / 3), rel=1e-6)

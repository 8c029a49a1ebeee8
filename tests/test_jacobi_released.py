"""What breaks Jacobi decoding: every condition as a planted defect, its law known exactly and from elsewhere too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cache

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.enumeration import EnumerationTape, enumerate_tape
from distributions.tape import GeneratorTape, Tape
from tests.jacobi_by_hand import Rule, decoded
from verify.decode import decode
from verify.exact import ChainLaw, digits, encode, exact_chain, exact_rows
from verify.exact.leaves import _Batch
from verify.jacobi import Index, Jacobi, categorical
from verify.records import Draft
from verify.residual import residual_law
from verify.saboteurs.scd_frozen_coin import ScdFrozenCoin
from verify.saboteurs.scd_gumbel_tail import ScdGumbelTail
from verify.saboteurs.scd_keep_or_redraw import ScdKeepOrRedraw
from verify.saboteurs.scd_shared_coin import ScdSharedCoin
from verify.saboteurs.scd_stale_label import ScdStaleLabel
from verify.saboteurs.sjd_batch_minimum import SjdBatchMinimum
from verify.saboteurs.sjd_half_precision_coin import SjdHalfPrecisionCoin
from verify.saboteurs.sjd_residual_epsilon import SjdResidualEpsilon
from verify.saboteurs.sjd_residual_target import SjdResidualTarget
from verify.saboteurs.sjd_residual_temperature import SjdResidualTemperature
from verify.saboteurs.sjd_residual_top_p import SjdResidualTopP
from verify.saboteurs.sjd_suffix_window import SjdSuffixWindow
from verify.saboteurs.sjd_unprocessed_label import SjdUnprocessedLabel
from verify.studies.jacobi_conditions import CoinFromNoise
from verify.verifier import catalog
from verify.verifiers.scd import Scd
from verify.verifiers.sjd import Sjd

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

TOLERANCE = 1e-12
PLANTED = {name: kind for name, kind in catalog("saboteurs").items() if issubclass(kind, Jacobi)}
SMALLEST = {"sjd_residual_epsilon": 1e-10, "sjd_half_precision_coin": 1e-3}  # by design; the others exceed 3e-3
TARGET, DRAFTER = Markov.random(3, 1, 0), Markov.random(3, 1, 900)


@cache
def chain(rule: Jacobi, nodes: int = 2, length: int = 4, seed: int = 0) -> ChainLaw:
    return exact_chain(Markov.random(3, 1, seed), DRAFTER, rule, nodes, length)


# --- lossy, and exact where the defect is switched off ---------------------------------------------------------------


@pytest.mark.parametrize("name", PLANTED)
def test_lossy_as_it_comes(name: str) -> None:
    for seed in range(2):
        found = chain(PLANTED[name](), seed=seed)
        assert found.tv > SMALLEST.get(name, 3e-3)
        assert float(found.law.sum()) == pytest.approx(1, abs=1e-12)


OFF: list[Jacobi] = [
    SjdResidualTemperature(temperature=1.0),
    SjdUnprocessedLabel(temperature=1.0),
    SjdResidualTopP(mass=1.0),
    SjdHalfPrecisionCoin(zero=0.0),
    SjdBatchMinimum(share=0.0),
    ScdGumbelTail(tail=1),
]


@pytest.mark.parametrize("rule", OFF, ids=lambda rule: type(rule).__name__)
def test_exact_where_it_is_switched_off(rule: Jacobi) -> None:
    assert chain(rule).tv < TOLERANCE


@pytest.mark.parametrize(
    "rule", [ScdStaleLabel(), ScdKeepOrRedraw(), ScdFrozenCoin(), ScdSharedCoin(), SjdSuffixWindow()]
)
def test_a_window_of_two_hides_what_needs_a_draft_to_be_tested_twice(rule: Jacobi) -> None:
    """One drafted column: it is drawn in one round and committed in the next."""
    assert chain(rule, 1).tv < TOLERANCE and chain(rule, 1, 5).tv < TOLERANCE
    assert chain(rule, 2).tv > 3e-3 and chain(rule, 3).tv > 3e-3


def test_the_bias_vanishes_with_its_parameter() -> None:
    """To first order in the mass of zero and in epsilon."""
    for kind, name, size in ((SjdHalfPrecisionCoin, "zero", 2.0**-9), (SjdResidualEpsilon, "epsilon", 1e-6)):
        whole, half = (chain(kind(**{name: size * part})).tv for part in (1, 0.5))  # type: ignore[arg-type]
        assert half == pytest.approx(whole / 2, rel=0.01)


# --- the whole law from elsewhere ------------------------------------------------------------------------------------


ON_PAPER = {
    ScdStaleLabel(): Rule("coupled", stale=True),
    ScdKeepOrRedraw(): Rule("kept or fresh"),
    SjdResidualTarget(): Rule(replace="target"),
}


@pytest.mark.parametrize(("vocab", "nodes", "length"), [(2, 2, 4), (2, 3, 4), (3, 2, 3)])
@pytest.mark.parametrize("rule", ON_PAPER, ids=lambda rule: type(rule).__name__)
def test_the_law_is_that_on_paper(rule: Jacobi, vocab: int, nodes: int, length: int) -> None:
    target, drafter = Markov.random(vocab, 2, 31), Markov.random(vocab, 1, 32)
    laws = [lambda prefix, model=model: tuple(model.prefix_probs(prefix).tolist()) for model in (target, drafter)]
    law, rounds = decoded(ON_PAPER[rule], *laws, nodes, length)
    found = exact_chain(target, drafter, rule, nodes, length)
    wanted = [law[tuple(row)] for row in digits(torch.arange(vocab**length), length, vocab).tolist()]
    assert torch.allclose(found.law, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found.rounds == pytest.approx(rounds, abs=1e-12) and found.tv > 1e-3


@pytest.mark.parametrize("name", PLANTED)
def test_sampled_decoding_has_the_enumerated_law(name: str) -> None:
    """40,000 sequences of four tokens: Pearson's test against the enumerated law, false alarm 1e-6 each; and the
    sampled law of the grossest defects is refused as the target's.
    """
    rows, found = 40_000, chain(PLANTED[name]())
    tokens = decode(TARGET, DRAFTER, PLANTED[name](), 2, 4, GeneratorTape(7), rows).tokens
    count = torch.bincount(encode(tokens, 3), minlength=81).double()
    assert float(stats.chisquare(count, rows * found.law / found.law.sum()).pvalue) > 1e-6
    if found.tv > 0.03:
        assert float(stats.chisquare(count, rows * found.truth / found.truth.sum()).pvalue) < 1e-6


# --- the first token, in closed form ---------------------------------------------------------------------------------


def first(rule: Jacobi) -> Tensor:
    """The enumerated law (V) of the first token."""
    return exact_rows(rule, TARGET, DRAFTER, torch.zeros(1, 0, dtype=torch.long), 2).joint[0][0, 0]


def replaced(weights: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """min(p, q) + TV r, with r the replacement's law from p, q and (p - q)+ / TV."""
    target, label = TARGET.table[-1], DRAFTER.table[-1]
    residual = (target - label).clamp(min=0)
    law = weights(target, label, residual / residual.sum())
    return torch.minimum(target, label) + residual.sum() * law / law.sum()


def nucleus(residual: Tensor) -> Tensor:
    """The fewest largest entries with 0.8 of the mass, one by one."""
    kept, mass = torch.zeros_like(residual), 0.0
    for token in sorted(range(3), key=lambda token: -float(residual[token])):
        if mass < 0.8:
            kept[token] = residual[token]
            mass += float(residual[token])
    return kept


REPLACED: dict[Jacobi, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    Sjd(): lambda target, label, residual: residual,
    SjdResidualTarget(): lambda target, label, residual: target,
    SjdResidualTemperature(): lambda target, label, residual: residual ** (1 / 0.7),
    SjdResidualTopP(): lambda target, label, residual: nucleus(residual),
    SjdResidualEpsilon(epsilon=1e-3): lambda target, label, residual: (target - label).clamp(min=0) + 1e-3,
}


def test_replacements_in_closed_form() -> None:
    for rule, weights in REPLACED.items():
        assert torch.allclose(first(rule), replaced(weights), rtol=0, atol=1e-14)


def test_a_coin_of_half_precision_in_closed_form() -> None:
    """q min(1, p / q + 2**-9), and the residual for the rest."""
    target, label = TARGET.table[-1], DRAFTER.table[-1]
    kept = label * (target / label + 2.0**-9).clamp(max=1)
    residual = (target - label).clamp(min=0)
    wanted = kept + (1 - kept.sum()) * residual / residual.sum()
    assert torch.allclose(first(SjdHalfPrecisionCoin()), wanted, rtol=0, atol=1e-14)
    excluded = Markov(torch.tensor([[0.5, 0.5, 0.0]]).expand(4, 3), 1)  # and what the target excludes stays out
    assert float(exact_chain(excluded, DRAFTER, SjdHalfPrecisionCoin(), 2, 2).law[[2, 5, 6, 7, 8]].sum()) == 0


def test_half_precision_as_torch_rounds_it() -> None:
    """2**-9 of float32 uniforms round to 1 in bfloat16, which is sent to 0; half of that below, so 1 is not reached."""
    grid = torch.arange(2**24, dtype=torch.float32) / 2**24
    assert float((grid.bfloat16() == 1).double().mean()) == pytest.approx(2.0**-9, rel=1e-3)


def test_keeping_or_redrawing_in_closed_form() -> None:
    """The new draft has the law min(p, q) + TV p; it is the label p that is wrong."""
    label, target = DRAFTER.table[-1], TARGET.table[-1]

    def run(index: Tensor, tape: EnumerationTape) -> Tensor:
        rows = len(index)
        laws = [Categorical(law.expand(rows, size, 3)) for law, size in ((label, 1), (target, 2))]
        draft = Draft.chain(tape.categorical("draft", laws[0].probs), laws[0])
        rule = ScdKeepOrRedraw()
        accept, _ = rule.accept(draft, laws[1][:, :1], tape)
        return rule.redraft(draft, laws[1], accept, torch.tensor([True, False]).expand(rows, 2), tape).value[:, 0]

    law = torch.zeros(3, dtype=torch.float64)
    for _, mass, _, token in enumerate_tape(run, 1):
        law.index_add_(0, token, mass)
    assert torch.allclose(law, torch.minimum(label, target) + (target - label).clamp(min=0).sum() * target, atol=1e-14)


def test_a_frozen_coin_is_a_threshold() -> None:
    """A column that was kept at ratio a is kept again at any b >= a, and at b < a with probability b / a."""
    tape = EnumerationTape(torch.full((1, 1), -1))
    noise = tape.noise("coin", (1, 2))
    masses = []
    for chance in (0.6, 0.8, 0.3):
        law = torch.tensor([[chance, 1 - chance]], dtype=torch.float64)
        before = tape.mass.clone()
        side, noise = noise.winner(law, tape, "accept")
        masses.append((int(side), float(tape.mass / before)))
    kept = masses[0][0] == 0
    assert masses[0][1] == pytest.approx(0.6 if kept else 0.4, abs=1e-15)
    if kept:
        assert masses[1] == (0, 1.0) and masses[2][1] == pytest.approx(0.5, abs=1e-15)
    else:
        assert masses[2] == (1, 1.0) and masses[1][1] == pytest.approx(0.5, abs=1e-15)


# --- a coin read from the noise that drew the draft ------------------------------------------------------------------


def test_a_coin_from_the_noise_in_closed_form() -> None:
    """x wins at a time m ~ Exp(1) with E_x = m q_x, and u = exp(-E_x) < a iff m > -ln a / q_x: probability a^(1/q_x).

    So the draft is kept with probability sum of q a^(1/q) and not 1 - TV. 200,000 drafts, 5 standard errors, false
    alarm 6e-7. Enumeration knows no scale of the noise, and refuses.
    """
    rows, target, label = 200_000, TARGET.table[-1], DRAFTER.table[-1]
    laws = [Categorical(law.expand(rows, size, 3)) for law, size in ((label, 1), (target, 2))]
    tape = GeneratorTape(3)
    draft = Draft.chain(tape.categorical("draft", laws[0].probs), laws[0])
    kept = CoinFromNoise().verify(draft, laws[1], tape).kept.double().mean()
    chance = float((label * (target / label).clamp(max=1) ** (1 / label)).sum())
    overlap = float(torch.minimum(target, label).sum())
    error = math.sqrt(chance * (1 - chance) / rows)
    assert abs(float(kept) - chance) < 5 * error < abs(overlap - chance)
    with pytest.raises(TypeError, match="sampled noise"):
        exact_chain(TARGET, DRAFTER, CoinFromNoise(), 2, 2)


# --- a batch that commits as many columns as its slowest row ---------------------------------------------------------


@dataclass(frozen=True)
class SlowestRow(SjdBatchMinimum):
    """The defect in a real batch: the minimum is over its rows, and no coin stands for them."""

    fresh_label: bool = False

    def most(self, accept: Tensor, tape: Tape) -> Tensor:
        return (accept.long().cumprod(1).sum(1) + 1).min().expand(len(accept))

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        new = super().redraft(draft, target, accept, wanted, tape)
        return changed(new, law=target) if self.fresh_label else new


def batch_law(rule: Jacobi, rows: int, nodes: int = 2, length: int = 2) -> tuple[Tensor, Tensor]:
    """The exact law (V**length) of a batch's first row, every leaf one run of ``decode``, and the target's."""
    target, drafter = Markov.random(2, 1, 1), Markov.random(2, 1, 2)

    def run(index: Tensor, tape: EnumerationTape) -> Tensor:
        tapes = (_Batch(tape, torch.full((1,), leaf)) for leaf in range(len(index)))
        return torch.stack([decode(target, drafter, rule, nodes, length, one, rows).tokens[0] for one in tapes])

    law = torch.zeros(2**length, dtype=torch.float64)
    for _, mass, _, tokens in enumerate_tape(run, 1):
        law.index_add_(0, encode(tokens, 2), mass)
    return law, target.sequence_probs(length)


def test_a_batch_at_its_minimum_is_lossy_and_one_row_is_not() -> None:
    """The accepted draft of the faster row is tested again under the label q; with the label p all is well."""
    law, truth = batch_law(SlowestRow(), 2)
    assert float((law - truth).abs().sum() / 2) > 5e-3
    for rule, rows in ((SlowestRow(), 1), (SlowestRow(fresh_label=True), 2)):
        law, truth = batch_law(rule, rows)
        assert float((law - truth).abs().sum() / 2) < TOLERANCE


@dataclass(frozen=True)
class FreshLabel(SjdBatchMinimum):
    """The planted defect without its label."""

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        return changed(super().redraft(draft, target, accept, wanted, tape), law=target)


def test_the_coin_that_stands_for_a_batch_does_no_harm_itself() -> None:
    assert chain(FreshLabel()).tv < TOLERANCE < chain(SjdBatchMinimum()).tv
    assert chain(FreshLabel()).rounds > chain(Sjd()).rounds


# --- controls: what looks alike and is right -------------------------------------------------------------------------


@dataclass(frozen=True)
class ResidualTopK(Sjd):
    """The residual cut to its k largest entries, p being cut to k already: nothing is left to cut."""

    k: int = 2

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        law = residual_law(target[at], categorical(draft.law)[at]).probs
        least = law.topk(self.k, -1).values[..., -1:]
        return tape.categorical("residual", torch.where(law >= least, law, 0.0))


def test_top_k_applied_again_is_no_defect() -> None:
    top = Markov(TARGET.table * (TARGET.table > TARGET.table.amin(-1, keepdim=True)), 1)
    assert exact_chain(top, DRAFTER, ResidualTopK(), 2, 4).tv < TOLERANCE
    assert exact_chain(top, DRAFTER, ResidualTopK(k=1), 2, 4).tv > 3e-3  # which is greedy, and shows that it cuts


@dataclass(frozen=True)
class CoupledSuffixWindow(Scd):
    """The adaptive window of ``sjd_suffix_window``, under SCD."""

    most = SjdSuffixWindow.most


def test_an_adaptive_window_is_harmless_where_accepted_drafts_stay() -> None:
    """They are labelled with the law that they passed under, in a context that did not change: the ratio is 1."""
    for nodes in (2, 3):
        slow, plain = chain(CoupledSuffixWindow(), nodes), chain(Scd(), nodes)
        assert slow.tv < TOLERANCE and slow.rounds > plain.rounds + 0.01
        assert chain(SjdSuffixWindow(), nodes).tv > 3e-3


def test_the_label_makes_the_release_biased_and_the_repair_restores_it() -> None:
    """Every entry, every window from 3 on; the repair is ``Scd`` itself, which differs in the label alone."""
    for entry in ("uniform", "random", "repeat"):
        for nodes in (2, 3):
            assert chain(ScdStaleLabel(entry=entry), nodes).tv > 3e-3 > TOLERANCE > chain(Scd(entry), nodes).tv

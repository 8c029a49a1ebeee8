"""The identity at production size against sampling.

One context, one drafted token. The reference is what one would do by hand: 40,960 draws of the rule, vectorised,
counted and put to a chi-square test with the threshold df + 10 sqrt(2 df) (tokens expected less than five times are one
bin). The draws that it needs are those with which it sees the defect nine times in ten, by powers of two; the identity
needs none. Recovering what an unmodified function does takes some 30 drafted tokens and three runs for every way that
their coins fall, and is timed against as many plain runs of the function.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.benchmarks.report import Section, Versus
from verify.foreign.plain import seeded
from verify.studies.real_vocabulary import DRAWS, chi_square_power
from verify.vocabulary.identity import Identity, check_identity
from verify.vocabulary.probe import Probe, probe
from verify.vocabulary.production import CASES, logits, table

SIZES = [32_000, 128_256, 151_936]
RULES = ["correct, float32 arithmetic", "residual floor 1e-5", "residual + 1e-10", "bfloat16 coin, u < a"]


def sampled(accept: Tensor, replace: Tensor, draft: Tensor, target: Tensor) -> bool:
    """Whether the chi-square test on DRAWS draws rejects."""
    with seeded(0):
        tokens = torch.multinomial(draft, DRAWS, replacement=True)
        rejected = torch.rand(DRAWS) >= accept[tokens]
        tokens[rejected] = torch.multinomial(replace, int(rejected.sum()), replacement=True)
    counts = torch.bincount(tokens, minlength=len(target)).double()
    wanted = target.double() / target.double().sum() * DRAWS
    own = wanted >= 5
    pairs = [torch.cat((item[own], item[~own].sum().reshape(1))) for item in (counts, wanted)]
    freedom = len(pairs[0]) - 1
    return float(((pairs[0] - pairs[1]) ** 2 / pairs[1]).sum()) > freedom + 10 * math.sqrt(2 * freedom)


def draws_needed(found: Identity) -> float | None:
    """The draws, by powers of two, with which the chi-square test sees it nine times in ten; None past 2**60."""
    if found.lossless:
        return None
    return next((2.0**power for power in range(8, 61) if chi_square_power(found, 0, 2**power) >= 0.9), None)


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("name", RULES)
def test_identity(name: str, vocab: int, versus: Versus, section: Section) -> None:
    case, (draft, target) = CASES[name], (table(item, torch.float32) for item in logits(1, vocab))
    accept, replace = case.accept(draft[0], target[0]), case.replace(draft[0], target[0])

    run = versus(
        lambda: check_identity(case.accept, case.replace, draft, target),
        lambda: sampled(accept, replace, draft[0], target[0]),
        turns=9,
    )
    found: Identity = run.result
    assert found.lossless == (name == RULES[0])
    section.row(
        rule=name,
        vocabulary=vocab,
        bias=float(found.bias),
        beyond_rounding=float(found.lower),
        time_over_sampling=run.ratio,
        draws_needed=draws_needed(found),
        identity_seconds=run.seconds,
        sampling_seconds=run.reference_seconds,
    )


@pytest.mark.parametrize("vocab", SIZES)
def test_unmodified_function(vocab: int, versus: Versus, section: Section) -> None:
    draft, target = (table(item, torch.float32)[0] for item in logits(1, vocab))
    both = torch.stack((target, target.roll(1)))

    def fn(drafted: Tensor, draft: Tensor, target: Tensor) -> Any:
        token = int(drafted[0])
        if torch.rand(()) < target[0, token] / draft[0, token]:
            return [token, torch.multinomial(target[1], 1).item()]
        return [torch.multinomial((target[0] - draft[0]).clamp(min=0), 1).item()]

    tried = probe(fn, draft, target).tokens

    def plain() -> None:
        with seeded(0):
            for token in tried.tolist():
                for _ in range(6):
                    fn(torch.tensor([token]), draft.unsqueeze(0).clone(), both.clone())

    run = versus(lambda: probe(fn, draft, target), plain, turns=3)
    found: Probe = run.result
    assert found.status == "lossless" and found.bonus == 0
    section.row(
        vocabulary=vocab,
        tokens_tried=len(found.tokens),
        share_of_drafts=found.seen,
        time_over_plain_runs=run.ratio,
        recovery_seconds=run.seconds,
    )

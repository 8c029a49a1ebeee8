"""Surprisal: its promised power, and one law for all tokens."""

from __future__ import annotations

import pytest
import torch

from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from tests.chance import at_least
from tests.law_checks_under_test import WORDS, normal, seen
from verify.checks.surprisal import Surprisal


def test_surprisal_sees_its_smallest_defect() -> None:
    """A colder sampler whose surprise is lower by the promised number of nats a token."""
    rows, length = 300, 4
    opening = WORDS.rows[-1]
    truth = opening[None, None][torch.zeros(rows, length, dtype=torch.long), 0]
    size = Surprisal()(truth.sample(GeneratorTape(), "y"), truth, 1e-3, GeneratorTape()).smallest
    assert size is not None

    def excess(sharpness: float) -> float:
        cold = Categorical(opening.probs**sharpness)
        return float((cold.probs * -opening.probs.log()).sum() - (opening.probs * -opening.probs.log()).sum())

    sharpness = 1.0
    while excess(sharpness) > -size:
        sharpness += 0.001
    cold = Categorical(truth.probs**sharpness)
    assert seen(Surprisal(), lambda tape: cold.sample(tape, "y"), truth) >= at_least(0.9, 100)
    with pytest.raises(TypeError, match="Gaussian"):
        Surprisal()(torch.zeros(3, 1), normal(), 1e-3, GeneratorTape())


def test_surprisal_of_one_law_for_all_tokens_is_that_of_the_law_repeated() -> None:
    """A batch () of laws broadcasts: the same sums, variances counted for every token."""
    law = Categorical(torch.tensor([0.5, 0.3, 0.2]))
    tokens = law[None][torch.zeros(50, 4, dtype=torch.long)].sample(GeneratorTape(3), "tokens")
    every = Categorical(law.probs.expand(50, 4, 3))
    once, repeated = (Surprisal().statistic(tokens, truth, GeneratorTape(4)) for truth in (law, every))
    assert once.n == repeated.n == 200
    assert once.excess == pytest.approx(repeated.excess) and once.variance == pytest.approx(repeated.variance)

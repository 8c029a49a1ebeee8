"""Decode speed: images a second, of the target alone and of exact decoders.

What `specproof decode` does, without the writing: the digits model that ships, sixteen tokens an image, a chain of 25
steps a token, and the small model of the pair as drafter; without one the decoder is Jacobi's, whose window is the
draft. Both sides decode as many images, in turn. The images of an exact decoder have the target's law: their mean
brightness is compared here, and whole sequences with their known law in the study of images. Both models are small, and
a path that is verified runs through the chains of both, so that evaluations are saved here and time is not.
"""

from __future__ import annotations

import pytest
from scipy import stats

from tests.benchmarks.report import Section, Versus
from verify.decode import Trace
from verify.imaging.setting import ALONE, Setting

STEPS = 25
CELLS = [
    ("coalescing", "small", 4),
    ("restarting", "small", 4),
    ("last_gaussian", "small", 4),
    ("coalescing_jacobi", "none", 8),
]


@pytest.mark.parametrize(("rule", "drafter", "length", "batch"), [(*cell, 40) for cell in CELLS] + [(*CELLS[0], 4)])
def test_images(rule: str, drafter: str, length: int, batch: int, versus: Versus, section: Section) -> None:
    exact = Setting("digits.causal", rule, drafter, draft_length=length, steps=STEPS)
    alone = Setting("digits.causal", ALONE, steps=STEPS, seed=1)
    first = [setting.decoded(1, 0) for setting in (exact, alone)]  # the weights are read once
    assert first[0][0].tokens.shape == first[1][0].tokens.shape
    numbers = [0, 0]

    def images(side: int, setting: Setting) -> Trace:
        numbers[side] += 1
        return setting.decoded(batch, numbers[side])[0]

    run = versus(lambda: images(0, exact), lambda: images(1, alone), turns=3)
    found, plain = run.result, run.reference_result
    tokens = exact.images.length
    assert found.tokens.shape == plain.tokens.shape and bool(found.tokens.isfinite().all())
    assert int(plain.rounds.max()) == tokens and bool((found.lengths.sum(0) >= tokens).all())
    # The same classes in both, image by image; false alarm 1e-6.
    means = [trace.tokens.flatten(1).mean(1).cpu().numpy() for trace in (found, plain)]
    assert stats.ttest_ind(*means, equal_var=False).pvalue > 1e-6
    section.row(
        rule=rule + ("" if drafter == "small" else ", no drafter"),
        draft=length,
        images_a_batch=batch,
        evaluations_saved=tokens / float(found.rounds.double().mean()),
        speed_over_target_alone=1 / run.ratio,
        images_per_second=batch / run.seconds,
        target_alone_images_per_second=batch / run.reference_seconds,
    )

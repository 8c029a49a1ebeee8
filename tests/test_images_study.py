"""The study of images: paths held against the law they should have, what is flagged, what is timed, what is scored."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from distributions.autoregressive import Markov
from distributions.images import patches
from distributions.mar import draw
from distributions.mar.sequence import Start
from distributions.pooled import noises
from distributions.tape import GeneratorTape
from tests.imaging_models import random_model
from verify.decode import decode
from verify.imaging import setting as settings
from verify.imaging.setting import begun
from verify.studies import images
from verify.studies.images.evidence import between, known, levels
from verify.studies.images.rules import COMPARED, EXACT, LOSSY, Careless
from verify.studies.images.scores import Method, fewer, scores
from verify.studies.images.speed import Speed, rolls_back, speed
from verify.studies.images.subjects import Job, Misled, Subject, batches, shipped, tokens
from verify.studies.images.windows import continuous, discrete
from verify.study import write
from verify.verifiers.coalescing import Coalescing
from verify.work import Subject as Coded

torch.set_num_threads(1)
KINDS = ("causal", "mar")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "trained", random_model)


@cache
def pair(kind: str, data: str = "digits") -> Subject:
    return shipped(f"{data}.{kind}", 4)


@cache
def strong(spread: float = 0.6, apart: float = 0.001) -> Subject:
    """A causal pair of larger weights, whose tokens depend more on those before, and that are so far ``apart``."""
    found = pair("causal")
    network = draw(copy.deepcopy(found.target.network), GeneratorTape(3), spread=spread)
    other, tape = copy.deepcopy(network), GeneratorTape(4)
    with torch.no_grad():
        for name, part in other.named_parameters():
            part.add_(tape.normal(name, part.shape), alpha=apart)
    target, small = (replace(found.target, network=each) for each in (network, other))
    return replace(found, target=target, small=small)


# --- whole paths -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_showing_paths_changes_no_token(kind: str) -> None:
    subject, tape = pair(kind), GeneratorTape(0)
    job = Job("coalescing", Coalescing(), 3, 0.15, batch=5)
    (part,) = batches(subject, job, 5, 0)
    condition, place, label = begun(subject.target, 5, 0, 16, tape)
    trace = decode(subject.target, subject.small, Coalescing(), 3, 16, tape, 5, condition, 3)
    assert torch.equal(part.decoded.trace.tokens, trace.tokens) and torch.equal(part.paths[..., -1, :], trace.tokens)
    assert torch.equal(part.decoded.place, place) and torch.equal(part.decoded.label, label)
    assert part.paths.shape == (5, 16, 4, 4)  # 4 steps entered one in: three, and the start


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_those_of_the_normals_that_made_the_paths(kind: str) -> None:
    """The length of all noises of a token's path, its chi-square level: token by token, with no batch of laws."""
    subject = pair(kind)
    (part,) = batches(subject, Job("alone", None, batch=3), 3, 1)
    found = levels(subject, part)
    assert found.shape == (3, 16, 5)
    state, one = subject.target.start(3, part.condition), torch.ones(3, dtype=torch.long)
    for place in range(16):
        path = part.paths[:, place : place + 1]
        square = noises(subject.target.law(state).kernel, path).square().sum((-1, -2)).squeeze(1)
        wanted = torch.special.gammainc(torch.tensor(8.0).double(), square / 2)  # 16 normals
        assert torch.allclose(found[:, place, 4], wanted, rtol=0, atol=1e-9)
        state = subject.target.extend(state, path, one)


def test_batches_begin_where_the_last_one_ended() -> None:
    subject, job = pair("causal"), Job("coalescing", Coalescing(), batch=4)
    found = list(batches(subject, job, 10, 2))
    assert torch.cat([part.decoded.label for part in found]).tolist() == list(range(10))
    assert [len(part.paths) for part in found] == [4, 4, 2]
    assert torch.equal(tokens(subject, job, 8, 2), tokens(subject, job, 10, 2)[:8])


# --- drafters --------------------------------------------------------------------------------------------------------
def test_a_misled_drafter_is_told_the_next_class() -> None:
    label = torch.tensor([0, 4, 9])
    causal, masked = pair("causal").small, pair("mar").small
    assert torch.equal(Misled(causal).start(3, label).label, causal.start(3, torch.tensor([1, 5, 0])).label)
    start = Start.random(GeneratorTape(0), 3, 16, label)
    told = Misled(masked).start(3, start)
    assert told.label.tolist() == [1, 5, 0] and torch.equal(told.order, start.order)


def test_an_untrained_drafter_predicts_no_noise() -> None:
    subject = pair("causal")
    model: Any = subject.drafters["untrained"]
    law = model.law(model.start(2, torch.tensor([0, 1])))
    value = torch.ones(2, 1, 4).double()
    told = law.kernel.head(value, *(law.kernel.schedule.signal[1], law.kernel.schedule.noise[1]), law.kernel.condition)
    assert not bool(told.noise.any())
    assert bool(subject.small.law(subject.small.start(2, 0)).kernel.condition.any())  # the small one is as it was


# --- lossless or not -------------------------------------------------------------------------------------------------
EVERY = [
    ("target alone", None, {}),
    *((name, rule, {}) for name, rule in EXACT.items()),
    *(("coalescing", Coalescing(), change) for change in images.CHANGES),
]


@pytest.mark.parametrize("case", range(len(EVERY)))
def test_exact_decoders_have_the_law_of_their_target(case: int) -> None:
    """Flagged by chance twice in a million. 24 images of 16 tokens."""
    name, rule, change = EVERY[case]
    job = replace(Job(name, rule, batch=24), **change)
    found = known(strong(), job, 24, case)
    assert found.gap.n == 24 * 16 and not found.flagged and job.exact
    assert found.calls <= 16 and found.kept <= found.drafted


@pytest.mark.parametrize("rule", ["coalescing", "whole_path", "coalescing_jacobi"])
def test_masked_images_too(rule: str) -> None:
    assert not known(pair("mar"), Job(rule, EXACT[rule], batch=24), 24, 5).flagged


WEAK = {"released": (0.6, 0.001), "no rollback": (0.8, 0.01), "no context": (0.6, 0.001)}
"""Where each shows: what refused tokens leave behind where many are refused and they matter, a wrong context where many
are kept."""


@pytest.mark.parametrize("name", LOSSY)
def test_what_is_not_exact_is_flagged(name: str) -> None:
    """And the exact rule beside it is not."""
    subject, job = strong(*WEAK[name]), Job(name, LOSSY[name], 8, batch=96)
    found = known(subject, job, 96, 7)
    assert found.flagged and not job.exact and 0 < found.gap.least < found.gap.found
    assert not known(subject, replace(job, verifier=Coalescing()), 96, 7).flagged


def test_a_rule_that_leaves_nothing_out_is_coalescing() -> None:
    """The study's own rule with both switches as they should be, bit for bit."""
    first, second = (tokens(pair("causal"), Job("", rule), 6, 3) for rule in (Careless(), Coalescing()))
    assert torch.equal(first, second)


def test_without_rollback_every_round_emits_its_draft() -> None:
    (part,) = batches(strong(), Job("", LOSSY["no rollback"], 4, batch=9), 9, 3)
    assert part.decoded.trace.lengths.tolist() == [[4] * 9] * 4 and not bool(part.decoded.trace.kept.all())


def test_two_samples() -> None:
    """Equal laws: false alarm 1e-6. A shift by .3 in 16 directions, and an event that certifies it."""
    first, second = (GeneratorTape(seed).normal("x", (600, 16)) for seed in (1, 2))
    same, other = between(first, second), between(first, second + 0.3)
    assert same.p_value > 1e-6 and same.least == 0.0 and same.n == 300
    assert other.p_value < 1e-6 and 0.1 < other.least < math.erf(0.6 / math.sqrt(2))  # TV of two normals 1.2 apart
    few = between(first[:80], second[:80])
    assert few.n == 40 and few.p_value > 1e-6


# --- what it costs ---------------------------------------------------------------------------------------------------
def test_predictions_in_the_limits() -> None:
    """All kept: N + 1 tokens a round; none: one; all prefilled: the target's own time."""
    subject = pair("causal")
    found = speed(subject, Job("coalescing", Coalescing(), 3, batch=6), 6, 1, alone=2.0)
    assert 0 < found.acceptance < 1 and found.seconds > 0 and set(found.parts) == {"draft", "verify"}
    assert found.measured == 2.0 / found.seconds

    def predicted(rate: float, prefill: float = 0.0, job: Job = found.job) -> float:
        case: Speed = replace(found, acceptance=rate, parts={"draft": 1.0, "verify": 3.0}, job=job)
        return replace(case, job=replace(job, prefill=prefill)).predicted

    assert predicted(1.0) == pytest.approx(4 * 2 / 4) and predicted(0.0) == pytest.approx(2 / 4)
    assert predicted(0.5) == pytest.approx((1 + 0.5 + 0.25 + 0.125) * 2 / 4)
    assert predicted(0.3, 1.0) == pytest.approx(1.0)
    released = Job("released", COMPARED["released"], 3)
    assert not rolls_back(released) and predicted(0.0, 0.0, released) == pytest.approx(3 * 2 / 4)


def test_calls_are_rounds() -> None:
    """The same draws: evaluations a token of what is timed are the rounds of what is decoded."""
    subject, job = pair("causal"), Job("coalescing", Coalescing(), batch=8)
    found = speed(subject, job, 8, 4, alone=1.0)
    (part,) = batches(subject, job, 8, 4)
    assert found.calls == pytest.approx(float(part.decoded.trace.work.mean()))
    assert found.kept == pytest.approx(float(part.decoded.kept.double().mean()))


def test_coupled_windows_need_fewer_evaluations() -> None:
    """Than the target alone by far, and than redrawn ones: 300 images, 4 standard errors."""
    cells = {item.rule: item for item in continuous(strong(), (9,), 300, count())}
    coupled, redrawn = cells["coalescing_jacobi"], cells["coalescing_jacobi, redrawn"]
    assert coupled.calls + 2 * coupled.half_width < redrawn.calls - 2 * redrawn.half_width < 16
    assert coupled.saved[1] < coupled.saved[0] == 16 / coupled.calls < coupled.saved[2]


# --- how good it is --------------------------------------------------------------------------------------------------
def test_fewer_iterations_are_fewer_evaluations() -> None:
    subject = pair("mar", "mnist")
    found = {number: fewer(subject, number, 12, 3, batch=8) for number in (7, 49)}
    assert found[7].calls == 7 / 49 and found[49].calls == 1 and found[49].exact and not found[7].exact
    assert found[7].tokens.shape == (12, 49, 16) and bool((found[7].tokens != 0).any(-1).all())


def test_scores_of_the_same_images_and_of_noise() -> None:
    subject = pair("causal", "mnist")
    pixels = subject.images.pixels[torch.arange(80) * 60]
    real = patches(pixels, subject.images.patch)
    noise = GeneratorTape(0).normal("x", real.shape)
    methods = [Method(name, True, value, 1.0, 1.0) for name, value in (("same", real), ("noise", noise))]
    same, other = scores(subject.images, real, methods)
    assert abs(same.target) < 1e-3 < same.data < other.data and same.apart.p_value > 1e-6
    assert other.target > 1 and other.apart.p_value < 1e-4 and 1 <= other.inception < same.inception <= 10


# --- the whole -------------------------------------------------------------------------------------------------------
def coded(rows: int) -> Coded:
    """In place of the transformer over codes: a Markov chain of 8 values."""
    return Coded("codes", Markov.random(8, 1, 0), 8, 16)


def test_windows_of_codes() -> None:
    found = list(discrete(coded(20), (2, 4), 20, count()))
    assert [item.rule for item in found] == ["sjd", "sjd", "scd", "scd", "scd_gumbel", "scd_gumbel"]
    assert all(item.calls <= 16 and item.length == 16 for item in found)


@pytest.mark.slow
def test_a_small_study(tmp_path: Path) -> None:
    size = images.Size(
        ("digits.causal",), 4, (12, 12), {"digits.causal": ("coalescing",)}, {"digits.causal": tuple(LOSSY)},
        ("digits.causal",), 6, (1, 6), (0.0, 0.15),
        ("coalescing", "released"), (2, 4), 6, "digits.causal", {"mnist.mar": ("coalescing", "released")}, (7, 49), 40,
    )  # fmt: skip
    study = images.study(size, shipped, coded)
    first, *_, last = study.tables.values()
    assert len(first) == 1 + len(EXACT) + len(images.CHANGES) + len(LOSSY) * len(images.LENGTHS)
    assert len(last) == 1 + 1 + 3 + 2 and len(study.figures) == 5
    assert all(path.is_file() for path in write(study, "images", tmp_path, {"seed": "0"}))


def test_sizes() -> None:
    """The thorough one has 2000 images a cell or more where the law of sequences is judged."""
    thorough = images.SIZES["thorough"]
    assert min(thorough.images) >= 2000
    jobs = list(images.lossless_jobs(thorough))
    for model in thorough.models:
        mine = [job for name, job in jobs if name == model]
        assert {job.rule for job in mine} == {"target alone", *EXACT, *thorough.lossy[model]}
        assert {"released", "no rollback"} <= set(thorough.lossy[model])
        assert {job.draft_length for job in mine if job.rule == "released"} == set(images.LENGTHS)

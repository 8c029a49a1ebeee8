"""What the study of Jacobi decoding measures, its gates at small sizes, and what a planted defect does to them."""

from __future__ import annotations

import csv
import dataclasses
import math
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from scipy.stats import norm
from statsmodels.stats.weightstats import DescrStatsW
from torch import Tensor
from torch.nn.functional import pad

from distributions import pixels
from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.processing import Processed, Processing
from distributions.raster import Raster
from distributions.tape import GeneratorTape, Tape
from verify.decode import Round, decode
from verify.exact import exact_chain
from verify.hamming import follow
from verify.jacobi import Jacobi
from verify.records import Draft
from verify.studies.jacobi import cells_of, present, processings, strengths_of
from verify.studies.jacobi.cells import FALSE_ALARM, SHARPNESS, WINDOWS, digits, grid
from verify.studies.jacobi.latency import Line, passes
from verify.studies.jacobi.tables import PUBLISHED, published
from verify.study import write
from verify.verifiers.rejection import Rejection
from verify.verifiers.scd import Scd
from verify.verifiers.sjd import Sjd
from verify.work import Subject, Work, ancestral, gate, measure, rules

torch.set_num_threads(1)
SMALL = Raster.random(6, 1.2, height=6, width=6)
SUBJECT = Subject("small", SMALL, 6, 36)
FLAT = Markov(torch.ones(1, 6), 0)
EXACT = {name: rule for name, rule in rules().items() if rule.claim.exact}
CHAINS = 24


class Stale(Scd):
    """The defect of the study: a draft that is kept stays under the law it was drawn from, as its label."""

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        new = super().redraft(draft, target, accept, wanted, tape)
        assert isinstance(draft.law, Categorical)
        old = torch.cat([draft.law.probs, target.probs[:, -1:]], 1)
        return dataclasses.replace(
            new, law=Categorical(torch.where(pad(accept, (0, 1)).unsqueeze(-1), old, target.probs))
        )


@pytest.fixture(scope="module")
def flattest() -> dict[tuple[str, int], Work]:
    """The two redrafting rules on the flattest grid."""
    cells = [(name, window) for name in ("sjd", "scd", "scd_gumbel") for window in (16, 32, 64)]
    subject = grid(SHARPNESS[0])
    return {
        (name, window): measure(subject, name, EXACT[name], window, CHAINS, seed)
        for seed, (name, window) in enumerate(cells)
    }


# --- what is measured ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", EXACT)
def test_following_is_decoding(name: str) -> None:
    """On one tape the same images in the same number of rounds."""
    found = follow(SMALL, FLAT, EXACT[name], 5, 36, GeneratorTape(3), 8)
    trace = decode(SMALL, FLAT, EXACT[name], 5, 36, GeneratorTape(3), 8)
    assert torch.equal(found.tokens, trace.tokens) and torch.equal(found.rounds, trace.rounds)


def test_distances_are_those_of_the_windows() -> None:
    """Column by column, from the carried windows of one image, against ``follow``."""
    step, length = Round(SMALL, FLAT, Sjd(), 19), 36
    state, tape = dataclasses.replace(step.start(1), left=torch.tensor([length])), GeneratorTape(5)
    filled, boards = 0, list[dict[int, int]]()
    while filled < length:
        state, turn = step(state, tape)
        filled += int(turn.outcome.length)
        assert turn.outcome.carry is not None
        tokens = turn.outcome.carry.value[0].tolist()
        boards.append({filled + place: token for place, token in enumerate(tokens) if filled + place < length})
    found = follow(SMALL, FLAT, Sjd(), 19, length, GeneratorTape(5), 1)
    for gap in (1, 3):
        pairs = [(new[j], old[j]) for old, new in zip(boards, boards[gap:], strict=False) for j in new.keys() & old]
        share = sum(one != two for one, two in pairs) / len(pairs)
        assert 0 < share < 1 and float(found.distance[gap]) == pytest.approx(share, abs=1e-6)


def test_no_draft_waits_in_a_window_of_two() -> None:
    """One draft is tested in the next round, whatever the rule: there is nothing to compare."""
    found = follow(SMALL, FLAT, Sjd(), 1, 36, GeneratorTape(0), 4)
    assert bool(found.distance[1].isnan().all())


def test_a_rule_without_a_carry_cannot_be_followed() -> None:
    with pytest.raises(ValueError, match="carries no draft"):
        follow(SMALL, FLAT, Rejection(), 3, 36, GeneratorTape(0), 2)
    with pytest.raises(ValueError, match="2 is the least"):
        measure(SUBJECT, "sjd", Sjd(), 1, 4, 0)


def test_the_interval_is_students() -> None:
    work = measure(SUBJECT, "scd", Scd(), 8, 25, seed=4)
    rounds = follow(SMALL, FLAT, Scd(), 7, 36, GeneratorTape(4), 25).rounds.double().numpy()
    low, high = DescrStatsW(rounds).tconfint_mean(0.05)
    assert work.evaluations - work.half_width == pytest.approx(low)
    assert work.speedup == pytest.approx((36 / rounds.mean(), 36 / high, 36 / low))


def test_ancestral_sampling_costs_one_evaluation_a_token() -> None:
    work = ancestral(SUBJECT, 50, GeneratorTape(0))
    assert (work.evaluations, work.speedup) == (36, (1.0, 1.0, 1.0))
    assert abs(work.z) < 5  # false alarm 6e-7


@pytest.mark.parametrize("name", EXACT)
def test_rules_are_exact_on_a_small_grid(name: str) -> None:
    """Enumerated: the law of all four tokens of a processed grid; the stale label is off by a percent and more."""
    model = Processed(Raster.random(2, 2.0, height=2, width=2), Processing(temperature=0.8))
    assert exact_chain(model, Markov(torch.ones(1, 2), 0), EXACT[name], 3, 4).tv < 1e-12
    assert exact_chain(model, Markov(torch.ones(1, 2), 0), Stale(), 3, 4).tv > 1e-3


# --- the scale gate --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", EXACT)
def test_exact_rules_pass_the_scale_gate(name: str) -> None:
    """Flattest grid and trained model at window 32: |z| < 5, a false alarm of 6e-7 each if z is normal."""
    for subject in (grid(SHARPNESS[0]), digits(CHAINS)):
        assert abs(measure(subject, name, EXACT[name], 32, CHAINS, seed=11).z) < 5


def test_the_stale_label_fails_the_scale_gate_and_is_slower(flattest: dict[tuple[str, int], Work]) -> None:
    """z is about -28 at the flattest level: the images are too probable. And they take 1.7 times the evaluations."""
    stale = measure(grid(SHARPNESS[0]), "stale", Stale(), 64, CHAINS, seed=0)
    assert stale.z < -8 and stale.nats < -0.05
    exact = flattest["scd", 64]
    assert stale.evaluations - stale.half_width > exact.evaluations + exact.half_width


def test_the_gate_sees_what_a_normal_deviate_would() -> None:
    """z of images of a slightly different model, against -sum(KL) over its deviation, computed from both laws."""
    other = Subject("colder", Raster(SMALL.tables, 1.1 * SMALL.sharpness, 6, 6), 6, 36)
    tokens = decode(other.target, FLAT, Scd(), 5, 36, GeneratorTape(2), 400).tokens
    mine, theirs = (each.law(each.start(400), tokens[:, :-1]).probs for each in (SMALL, other.target))
    drift = ((theirs - mine) * -mine.log()).sum(-1).mean()  # E of -log p under the other law, less H(p)
    nats, sigma, entropy = gate(SUBJECT, tokens)
    assert entropy == pytest.approx(float(torch.special.entr(mine).sum(-1).mean()))
    assert drift < -0.01 and abs(nats - float(drift)) < 5 * sigma  # false alarm 6e-7
    assert nats / sigma < -5


# --- the shape -------------------------------------------------------------------------------------------------------
def test_redrawn_drafts_are_flat_beyond_sixteen_and_coupled_ones_rise(flattest: dict[tuple[str, int], Work]) -> None:
    """5 % between 16 and 64, and 5 standard deviations of the difference more, which chance passes at 6e-7."""
    narrow, wide = flattest["sjd", 16], flattest["sjd", 64]
    noise = 5 / 1.96 * math.hypot(narrow.half_width, wide.half_width) / wide.evaluations
    assert abs(narrow.evaluations / wide.evaluations - 1) < 0.05 + noise
    for name in ("scd", "scd_gumbel"):
        for less, more in pairwise(flattest[name, window] for window in (16, 32, 64)):
            # From 16 to 32, 6.8 to 10.2; to 64, 13.9: the intervals are 3 to 5 % wide.
            assert more.evaluations + more.half_width < less.evaluations - less.half_width
        assert flattest["sjd", 32].evaluations > 1.5 * flattest[name, 32].evaluations


def test_same_token_rates(flattest: dict[tuple[str, int], Work]) -> None:
    """At window 32: redrawn .02, coupled .80, noise kept .75, give or take .02."""
    same = {name: 1 - flattest[name, 32].distance[0] for name in ("sjd", "scd", "scd_gumbel")}
    assert same["sjd"] < 0.15 and same["scd"] > 0.5 and same["scd_gumbel"] > 0.5
    assert same["scd"] > same["scd_gumbel"]


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_three_step_distances(sharpness: float) -> None:
    """One step: maximal coupling changes less. Three: kept noise does. On 200 images the gaps are over 6 deviations."""
    one, two = (measure(grid(sharpness), name, EXACT[name], 32, 200, 1) for name in ("scd", "scd_gumbel"))
    assert one.distance[0] < two.distance[0] and two.distance[1] < one.distance[1]


def test_strength_of_the_coupling() -> None:
    """Strength 0 is redrawing; evaluations fall with it. Differences are tens of standard deviations."""
    subject = grid(SHARPNESS[1])
    redrawn = measure(subject, "sjd", Sjd(), 32, CHAINS, 2)
    none, half, whole = (measure(subject, "scd", Scd(strength=x), 32, CHAINS, 3) for x in (0.0, 0.5, 1.0))
    assert abs(none.evaluations - redrawn.evaluations) < 5 / 1.96 * math.hypot(none.half_width, redrawn.half_width)
    for less, more in pairwise((none, half, whole)):
        assert more.evaluations + more.half_width < less.evaluations - less.half_width
        assert more.distance[0] < less.distance[0]


# --- tables, figures, times ------------------------------------------------------------------------------------------
def test_the_study_says_what_was_measured(tmp_path: Path) -> None:
    """On a small grid with five images a cell; its pages are written, and the gate's verdict is each rule's own."""
    seed = count()
    cells = {"small": cells_of(SUBJECT, 5, seed)}
    strength = {"small": strengths_of(SUBJECT, 5, seed)}
    study = present(cells, {"guidance": strength["small"]}, strength)
    table = study.tables["Every cell"]
    assert len(table) == len(cells["small"]) and {row["rule"] for row in table} == {"ancestral", *rules()}
    scd = next(work for work in cells["small"] if (work.rule, work.window) == ("scd", 16))
    row = next(row for row in table if (row["rule"], row["window"]) == ("scd", 16))
    assert row["evaluations"] == scd.evaluations and row["z"] == pytest.approx(scd.nats / scd.sigma)
    for row in study.tables["The scale gate"]:
        worst = max(abs(work.z) for work in cells["small"] if work.rule == row["rule"])
        cells_of_rule = sum(work.rule == row["rule"] for work in cells["small"])
        assert row["p-value"] == pytest.approx(min(1.0, cells_of_rule * 2 * norm.sf(worst)))
        assert row["gate"] == ("fails" if 2 * cells_of_rule * norm.sf(worst) < FALSE_ALARM else "passes")
    assert len(study.figures) == 3 and "%" not in study.text
    assert all(path.is_file() for path in write(study, "jacobi", tmp_path, {"seed": "0"}))


def test_a_planted_defect_is_named_in_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maximal coupling and its stale label on 60 images of a grid of 10 x 10 tokens: z is about -14."""
    known = {name: rules()[name] for name in ("scd", "scd_gumbel", "sjd")} | {"saboteurs/stale_label": Stale()}
    monkeypatch.setattr("verify.studies.jacobi.rules", lambda: known)
    subject, seed = Subject("flat", Raster.random(20, 0.8, height=10, width=10), 20, 100), count()
    cells = {"flat": cells_of(subject, 60, seed)}
    strength = {"flat": strengths_of(subject, 5, seed)}
    study = present(cells, {"guidance": strength["flat"]}, strength)
    gates = {row["rule"]: row["gate"] for row in study.tables["The scale gate"]}
    assert gates["saboteurs/stale_label"] == "fails"
    assert all(gates[name] == "passes" for name in ("ancestral", "scd", "sjd"))  # false alarm 1e-3 each, seeds fixed
    assert "saboteurs/stale_label (-" in study.text and "is no short cut" in study.text


def test_published_ratios() -> None:
    """13.6 is the ratio of evaluations on video, 11.6 that of seconds: both are in the table, as published."""
    with PUBLISHED.open() as file:
        assert {line["method"] for line in csv.DictReader(file)} == {"AR", "SJD", "SCD maximal", "SCD Gumbel"}
    found = {row["published"]: row for row in published({})}
    video = found["Cosmos-1 AR 4B, SCD Gumbel"]
    assert (video["evaluations saved"], video["seconds saved"]) == ("13.61", "11.56")
    assert found["Lumina-mGPT 7B 768, SCD maximal"]["evaluations saved"] == "4.21"
    assert found["Janus-Pro 7B 384, SJD"]["seconds saved"] == "no figure"


def test_the_line_through_times() -> None:
    line = Line.through((1, 2, 4), (3.0, 5.0, 9.0))
    assert (line.a, line.b, line(8)) == pytest.approx((1.0, 2.0, 17.0))
    timed = passes(pixels.trained(torch.float32), (1, 32))
    assert timed.lengths == (1, 32) and min(timed.seconds) > 0


@pytest.mark.slow
def test_the_whole_study_runs() -> None:
    """Two images a cell: every model, rule and setting."""
    seed = count()
    subjects = [*map(grid, SHARPNESS), digits(2)]
    cells = {subject.name: cells_of(subject, 2, seed) for subject in subjects}
    study = present(cells, processings(2, seed), {subject.name: strengths_of(subject, 2, seed) for subject in subjects})
    assert len(study.tables["Speed-up in target evaluations by window, with 95 % intervals"]) == 5 * len(rules())
    assert all(issubclass(type(rule), Jacobi) for rule in rules().values()) and WINDOWS[-1] == 64

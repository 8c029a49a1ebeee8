"""The study of the published ablations: what it counts, its rules without alignment, and what is printed beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import norm

from distributions.datasets import conditions
from distributions.gaussian import Gaussian
from distributions.path import Denoiser, PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape
from distributions.training import Trained, pretrained
from verify.decode import decode
from verify.gaussian.pair import log_volume
from verify.paths import link
from verify.records import Draft
from verify.residual import thin
from verify.studies.ablations import Size, jobs, present, published, run
from verify.studies.ablations.cells import Cell, Counting, Setting, heads, measure, ratio
from verify.studies.ablations.distance import distances
from verify.studies.ablations.rules import ALIGNMENTS, SWEPT, OwnNoise
from verify.studies.ablations.tables import aligned, along, at
from verify.studies.ablations.words import change
from verify.study import write
from verify.verifiers.cspd_released import CspdReleased

torch.set_num_threads(1)
SMALL = Setting(steps=5, length=8, nodes=3)


def counted(kept: list[list[int]], examined: list[list[int]], setting: Setting) -> Cell:
    """A cell with these counts."""
    parts = [torch.tensor(part) for part in (examined, examined, kept)]
    return Cell("rule", setting, *parts, torch.ones(len(kept)), torch.ones(len(kept)), torch.zeros(0))


# --- counting --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["coalescing", "whole_path"])
def test_equal_models_keep_everything(name: str) -> None:
    """Every test is passed, nothing is lost, and a round is all drafts and the bonus; under guidance as well."""
    same = Trained(heads("ring").drafter, heads("ring").drafter, heads("ring").data)
    for setting in (SMALL, Setting(steps=4, length=6, nodes=2, guidance=2.0, temperature=0.8, prefilled=0.3)):
        cell = measure(name, SWEPT[name], setting, 5, 0, same)
        assert cell.token == cell.alpha == (1.0, 0.0)
        assert cell.emitted == (setting.nodes + 1, 0.0)
        assert int(cell.drafted.sum()) == setting.nodes * int(cell.rounds.sum())
        assert not len(cell.tries)


def test_walking_node_by_node_is_decoding_in_law() -> None:
    """Kept drafts of the first round, and tokens a round over sequences, against ``decode`` with whole drafts: five
    standard errors each (6e-7 each).
    """
    rows, setting = 150, Setting(steps=4, length=9, nodes=3, variance="equal")
    walked = measure("coalescing", SWEPT["coalescing"], setting, rows, 1)
    models = [setting.model(head) for head in (heads("ring").target, heads("ring").drafter)]
    trace = decode(models[0], models[1], SWEPT["coalescing"], 3, 9, GeneratorTape(2), rows)
    # Whole rounds, what they emit beyond the end included: kept drafts and one token more.
    whole = ratio(trace.kept.sum((0, 2)) + trace.rounds, trace.rounds)
    assert 1.3 < whole[0] < 3.7
    assert abs(walked.emitted[0] - whole[0]) < 5 * math.hypot(walked.emitted[1], whole[1])
    first = ratio(trace.kept[0].sum(1), torch.full((rows,), 3))
    once = measure("coalescing", SWEPT["coalescing"], replace(setting, length=1), rows, 3)
    assert bool((once.rounds == 1).all()) and bool((once.drafted.sum(1) == 3).all())
    assert abs(once.alpha[0] - first[0]) < 5 * math.hypot(once.alpha[1], first[1])


def test_a_rule_without_rollback_has_every_draft_examined() -> None:
    cell = measure("released", CspdReleased(), SMALL, 6, 0)
    assert bool((cell.examined == 1).all()) and cell.alpha == cell.token
    assert cell.kept.shape == (6, 9) and bool((cell.rounds == 3).all())
    first, later = cell.by_node
    assert (first[0] + 2 * later[0]) / 3 == pytest.approx(cell.token[0])


def test_ratios_and_their_errors() -> None:
    """A mean where every denominator is one; nothing where nothing was examined."""
    part = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    assert ratio(part, torch.ones(5)) == pytest.approx((0.6, float(part.std()) / math.sqrt(5)))
    assert ratio(torch.tensor([2, 4]), torch.tensor([4, 8])) == (0.5, 0.0)
    assert math.isnan(ratio(part, torch.zeros(5))[0])


def test_places_and_pre_filled_tokens() -> None:
    assert [Setting(length=20, prefilled=share).before for share in (0.0, 0.05, 0.15)] == [0, 1, 3]
    assert Setting(length=10, prefilled=0.15).before == 2
    cell = counted([[1, 1, 0, 0, 1]], [[1, 1, 1, 0, 1]], Setting(length=4))
    first, second = cell.by_place(2)
    assert first[0] == 1.0 and second[0] == 0.0  # the fifth place is beyond the length
    filled = measure("coalescing", SWEPT["coalescing"], Setting(steps=4, length=10, nodes=2, prefilled=0.35), 4, 0)
    assert bool((filled.tokens >= 6).all()) and bool((filled.tokens <= 8).all())


def test_tries_are_counted_and_geometric() -> None:
    """Loops of falling counts; thinning keeps a draw with probability TV: the mean is 1 / TV to 5 errors (6e-7)."""
    tape = Counting(0)
    tape.loops.extend([[5, 2, 1], [3]])
    assert tape.tries().tolist() == [6, 1, 1]
    rows, tape = 2000, Counting(1)
    laws = [Gaussian(torch.full((rows, 1), at).double(), torch.ones(rows, 1).double()) for at in (0.0, 1.0)]
    thin(laws[0], laws[1], tape)
    tape.normal("other", (1,))
    thin(laws[0], laws[1], tape)
    assert len(tape.loops) == 2
    found = tape.tries().double()
    tv = 2 * float(norm.cdf(0.5)) - 1
    mean = float((found * torch.arange(1, len(found) + 1)).sum() / found.sum())
    assert int(found.sum()) == 2 * rows
    assert abs(mean - 1 / tv) < 5 * math.sqrt(1 - tv) / tv / math.sqrt(2 * rows)


# --- without alignment -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fraction", [None, 0.5])
def test_own_noise_has_the_ratio_of_two_paths(fraction: float | None) -> None:
    """log p(Y_p) / q(Y_q) with the drafted x_0, recomputed from the emitted path, which is the target's own; the
    released test has volumes alone, upside down, and its last quadratic form divided by 42^2.
    """
    condition, pair = conditions(GeneratorTape(0), 40).unsqueeze(1), pretrained("ring")
    grid = cosine(4).one_step_in()
    prior, after = (PathLaw(Denoiser(head, grid, condition, fraction=fraction)) for head in (pair.drafter, pair.target))
    draft = Draft.chain(prior.sample(GeneratorTape(1), "draft"), prior)
    target = after[:, [0, 0]]
    for rule in (OwnNoise.published(tries=3), OwnNoise(tries=3, rollback=True)):
        outcome = rule.verify(draft, target, GeneratorTape(2))
        ours, theirs = outcome.value[:, :1], draft.value
        assert not torch.equal(ours[..., 0, :], theirs[..., 0, :])
        weight, last = torch.zeros(40, 1).double(), theirs.shape[-2] - 1
        for place in range(last):
            laws = link(after, place, ours), link(prior, place, theirs)
            volume = log_volume(laws[0]) - log_volume(laws[1])
            both = laws[0].log_prob(ours[..., place, :]) - laws[1].log_prob(theirs[..., place, :])
            weight += volume if rule.inverted else both
        laws = link(after, last, ours), link(prior, last, theirs)
        volume = log_volume(laws[1]) - log_volume(laws[0])
        quadratic = laws[0].log_prob(theirs[..., -1, :]) - laws[1].log_prob(theirs[..., -1, :]) - volume
        wanted = (weight + volume + quadratic / rule.inner_temperature**2).clamp(max=0)
        assert torch.allclose(outcome.log_accept, wanted, rtol=1e-9, atol=1e-9)


def test_shared_noise_brings_chains_together() -> None:
    """Tokens nearer, and more of them accepted by the released test: beyond six errors (1e-9)."""
    setting = Setting(steps=8, length=6, nodes=2, variance="equal")
    apart = distances(setting, 300, 0)
    assert apart.shared < 0.7 * apart.own and 0 < apart.forgiven(42.0) < 1
    own, shared = (measure("rule", rule, setting, 80, 5).token for rule in (OwnNoise(), CspdReleased()))
    assert shared[0] - own[0] > 6 * math.hypot(own[1], shared[1])
    same = Trained(heads("ring").target, heads("ring").target, heads("ring").data)
    assert distances(setting, 50, 0, same).shared == 0.0


# --- what is printed -------------------------------------------------------------------------------------------------
def test_published_figures_are_complete() -> None:
    """Three pairs at four lengths: one column of table 1, two of table 3, three of table 4."""
    assert len(published.lines()) == 12 * 6
    assert all(0 < float(line["alpha"]) < 0.5 for line in published.lines())
    own, shared = (published.alphas(3, name) for name in ("unaligned", "aligned"))
    assert own.keys() == shared.keys() and all(shared[key] > own[key] for key in own)
    assert published.alphas(1, "pre-filled 15 %")["MAR-H", "MAR-B", 32] == 0.19
    assert published.alphas(4, "pre-filled 5 %", 8)["MAR-L", "MAR-B", 8] == 0.39
    assert published.span(3, "aligned", 32) == "0.30 to 0.34" and published.span(3, "aligned", 5) == ""


@pytest.mark.parametrize("nodes", [1, 4, 32])
def test_what_rollback_leaves(nodes: int) -> None:
    """a (1 - a^N) / (N (1 - a)), its inverse, and both ends."""
    assert published.dropped(1.0, nodes) == 1.0 and published.dropped(0.0, nodes) == 0.0
    assert published.dropped(0.3, nodes) == pytest.approx(0.3 * (1 - 0.3**nodes) / (nodes * 0.7))
    assert published.needed(published.dropped(0.6, nodes), nodes) == pytest.approx(0.6)


def test_words_for_a_change() -> None:
    assert change((0.1, 0.01), (0.3, 0.01)).startswith("rises from 0.100")
    assert change((0.3, 0.01), (0.1, 0.01)).startswith("falls from 0.300")
    assert change((0.3, 0.1), (0.1, 0.1)).startswith("does not change")


def test_the_study_at_a_small_size(tmp_path) -> None:
    """Every cell is there, and every table and page can be written."""
    start = Setting(steps=3, length=6, nodes=2)
    size = Size(start, 3, 4, (0.5,), (2.0,), {"low_rank": 2})
    listed = list(jobs(size))
    assert len({(name, setting) for name, _, setting, _ in listed}) == len(listed)
    cells = [
        measure(name, rule, setting, rows, seed)
        for seed, (name, rule, setting, rows) in enumerate(listed)
        if setting.nodes < 16
    ]
    assert [place for place, _ in along(cells, "released", start, "guidance")] == [1.0, 2.0]
    assert at(cells, "released", start) is cells[0] and at(cells, "nothing", start) is None
    rows = list(aligned(cells, (start, size.equal)))
    assert len(rows) == len(ALIGNMENTS) and all(row["ring, equal variance"] for row in rows)
    study = present(cells, size, [distances(start, 20, 0), distances(size.others[0], 20, 0)])
    assert "nan" not in study.text and all(study.tables.values())
    assert write(study, "ablations", tmp_path, {})


@pytest.mark.slow
def test_the_quick_study() -> None:
    """The shapes it speaks of: the published effect of alignment, and less under guidance. Six errors and more."""
    found = run("quick").text
    assert "the released test rises" in found and "so is that of released" in found

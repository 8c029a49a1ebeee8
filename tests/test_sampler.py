"""``check_sampler``: what it says of samplers that are right, and of samplers that are wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Gamma, Independent, MixtureSameFamily, MultivariateNormal, Normal

from distributions.gaussian import Gaussian
from tests.interrupts import heard
from verify import assert_lossless, check_sampler, check_verifier
from verify.cli import main
from verify.errors import SubjectError
from verify.records import Verdict
from verify.sampler import Drawn, Draws

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as the tests need, however slow the machine is."""
    monkeypatch.setattr("verify.sampler.FIRST", {"quick": (1 << 15, 1e9), "thorough": (1 << 17, 1e9)})
    monkeypatch.setattr("verify.sampler.ROWS", 1 << 12)


def line(rows: int, seed: int) -> Tensor:
    return torch.randn(rows)


def from_numpy(rows: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, 3))


def chain(rho: float) -> Any:
    """Two steps of an autoregressive chain, N(0, 1) each."""

    def draw(rows: int, seed: int) -> Tensor:
        first, second = torch.randn(2, rows)
        return torch.stack((first, rho * first + (1 - rho**2) ** 0.5 * second), -1)

    return draw


STANDARD = Normal(0.0, 1.0)
SPHERE = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
TOKENS = torch.tensor([0.5, 0.3, 0.15, 0.05])
COVARIANCE = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
CHAIN = MultivariateNormal(torch.zeros(2), COVARIANCE)
TWO = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7])), Normal(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 1]))
)


def tokens(rows: int, seed: int) -> Tensor:
    return torch.multinomial(TOKENS, rows, replacement=True)


def check(sampler: Any, target: Any, **options: Any) -> Verdict:
    return check_sampler(sampler, target, **{"epsilon": 0.05, **options})


@pytest.mark.parametrize(
    ("sampler", "target"),
    [
        (line, STANDARD),
        (lambda rows, seed: line(rows, seed).unsqueeze(-1), STANDARD),
        (from_numpy, SPHERE),
        (from_numpy, Gaussian(torch.zeros(3), torch.ones(3))),
        (chain(0.5), CHAIN),
        (tokens, Categorical(TOKENS)),
        (lambda rows, seed: TWO.sample((rows,)), TWO),
    ],
    ids=["line", "column", "numpy", "a law", "full", "tokens", "mixture"],
)
def test_right_samplers_are_lossless_to_the_bound(sampler: Any, target: Any) -> None:
    verdict = check(sampler, target)
    assert verdict.status == "lossless" and verdict.evidence == "known law" and verdict.metric == "ks"
    assert 0 == verdict.bias_lower < verdict.bias_upper <= 0.05 and verdict.confidence == 1 - 1e-6
    assert any(note.startswith("ks:") and "blind to" in note for note in verdict.notes)
    assert any(
        "defects seen nine times in ten" in note and "that is a mean shifted by" in note for note in verdict.notes
    )


@pytest.mark.parametrize(
    ("sampler", "target", "words", "tv"),
    [
        (lambda rows, seed: line(rows, seed) + 0.1, STANDARD, "column 0 of the transform lies", 0.0399),
        (lambda rows, seed: line(rows, seed) * 1.1, STANDARD, "column 0 of the transform lies", 0.0463),
        (lambda rows, seed: line(rows, seed).clamp(-2, 2), STANDARD, "column 0 of the transform lies", 0.0456),
        (chain(0.6), CHAIN, "fresh rows", 0.10),
        (lambda rows, seed: tokens(rows, seed).clamp(max=2), Categorical(TOKENS), "fresh rows", 0.0501),
    ],
    ids=["shift", "scale", "clamped", "dependence", "a token lost"],
)
def test_wrong_samplers_are_lossy_with_a_certified_bias(sampler: Any, target: Any, words: str, tv: float) -> None:
    """The lower bound is positive, and below the total variation (0.1 for the chain is an upper bound by Pinsker)."""
    verdict = check(sampler, target)
    assert verdict.status == "lossy" and verdict.metric == "tv" and 0 < verdict.bias_lower <= tv
    assert "certified on rows that did not choose it" in verdict.notes[0] and words in verdict.notes[0]
    assert "rejects on fresh rows as it did before" in verdict.notes[1]
    assert sum(item.rejects for item in verdict.findings) >= 2


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda rows: rows.index_fill(0, torch.tensor([7]), torch.nan), "not finite"),
        (lambda rows: rows[:1].expand_as(rows), "repeats"),
    ],
    ids=["nan", "one row again and again"],
)
def test_impossible_rows_are_lossy(spoil: Any, what: str) -> None:
    verdict = check(lambda rows, seed: spoil(line(rows, seed)), STANDARD)
    assert verdict.status == "lossy" and any(item.check == "support" and what in item.note for item in verdict.findings)


def test_a_bound_that_is_not_reached_is_inconclusive_and_says_what_would_decide() -> None:
    verdict = check(line, STANDARD, epsilon=0.003)
    assert verdict.status == "inconclusive" and "rows certify ks <= 0.003 if it is exact" in verdict.needs
    rows = int(verdict.needs.split()[0])
    assert rows == pytest.approx(16 / 0.003**2, rel=0.01)


def test_the_rows_it_asks_for_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exact sampler certifies with these nineteen times in twenty; the seed is fixed."""
    verdict = check(line, STANDARD, epsilon=0.015)
    assert verdict.status == "inconclusive"
    asked = int(verdict.needs.split()[0])
    monkeypatch.setattr("verify.sampler.FIRST", {"quick": (asked + 4096, 1e9)})
    assert check(line, STANDARD, epsilon=0.015).status == "lossless"


def test_the_metric_is_chosen_beforehand() -> None:
    verdict = check(line, STANDARD, metric="tv on cells", epsilon=0.2)
    assert verdict.metric == "tv on cells" and verdict.status == "lossless"
    every = check(line, STANDARD, metric=None)
    assert every.bias_upper <= 0.05 and every.metric in ("ks", "rms gap", "tv on cells", "feature mean", "mmd")
    none = check(line, STANDARD, metric="wasserstein")
    assert none.status == "inconclusive" and "no check certifies a bound in this metric" in none.needs


def test_two_samplers_are_compared_where_no_law_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "verify.engine.batteries.find_spec", lambda name: None
    )  # the classifier is slow, and tested elsewhere
    same = check(line, lambda rows, seed: -torch.randn(rows))
    assert same.status == "lossless" and same.evidence == "two samples" and same.metric == "ks"
    assert {item.check for item in same.findings} >= {
        "sliced",
        "mmd",
        "quadratic_witness",
        "fourier_witness",
        "betting",
    }
    assert any(note.startswith("mmd:") for note in same.notes)
    other = check(lambda rows, seed: line(rows, seed) + 0.15, line)
    assert other.status == "lossy" and 0 < other.bias_lower <= 0.0598 and "fresh rows" in other.notes[0]


def test_target_and_sampler_do_not_share_their_draws() -> None:
    """One function as both is two streams: paired rows that were equal would hide every bias."""
    sample, truth = Drawn(line, line, 100)(3)
    assert not torch.equal(sample, truth)
    again, _ = Drawn(line, line, 100)(3)
    assert torch.equal(sample, again) and not torch.equal(sample, Drawn(line, line, 100)(4)[0])


def test_the_law_of_a_transform_that_is_not_known_is_drawn_from() -> None:
    drawn = Draws(Gaussian(torch.zeros(2), torch.ones(2)))(50, 1)
    assert drawn.shape == (50, 2) and torch.equal(drawn, Draws(Gaussian(torch.zeros(2), torch.ones(2)))(50, 1))


def test_generators_are_left_as_they_were_and_verdicts_are_repeatable() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = check(line, STANDARD, seed=2), check(line, STANDARD, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert one.findings == other.findings and one.findings != check(line, STANDARD, seed=3).findings


def test_until_goes_on_to_the_bound_and_not_beyond_the_time(capfd: pytest.CaptureFixture[str]) -> None:
    verdict = check(line, STANDARD, until=0.01)
    assert verdict.status == "lossless" and 0.005 < verdict.bias_upper <= 0.01
    late = check(line, STANDARD, until=1e-5, seconds=0.5)
    assert late.status == "inconclusive" and "rows certify ks <= 1e-05" in late.needs
    assert check(lambda rows, seed: line(rows, seed) + 0.1, STANDARD, until=1e-3).status == "lossy"


def test_assert_lossless_takes_samplers() -> None:
    assert assert_lossless(line, space="sampler", target=STANDARD, epsilon=0.05).lossless
    with pytest.raises(AssertionError, match="(?s)lossy .known law.*certified on rows that did not choose it"):
        assert_lossless(lambda rows, seed: line(rows, seed) + 1, space="sampler", target=STANDARD)
    with pytest.raises(SubjectError, match="pass target="):
        assert_lossless(line, space="sampler")


@pytest.mark.parametrize(
    ("sampler", "target", "options", "words"),
    [
        (3, STANDARD, {}, "sampler is an int; pass a function"),
        (line, 3, {}, "target is an int; pass a torch distribution, a law, or a sampler"),
        (line, Gamma(1.0, 1.0), {}, "no law for Gamma.* or pass a function"),
        (line, Normal(torch.zeros(3), torch.ones(3)), {}, "batch .3,. of laws"),
        (line, STANDARD, {"epsilon": 0}, "epsilon is 0; give a number above 0"),
        (line, STANDARD, {"until": -1.0}, "until is -1.0; give"),
        (line, STANDARD, {"budget": "huge"}, "budget is 'huge'"),
        (lambda rows: line(rows, 0), STANDARD, {}, "the sampler raised TypeError.* accept .rows, seed"),
        (lambda rows, seed: None, STANDARD, {}, "the sampler returned nothing; return a tensor"),
        (lambda rows, seed: torch.randn(3), STANDARD, {}, "returned shape .3,. for 64 rows"),
        (lambda rows, seed: torch.randn(rows, 2), STANDARD, {}, "rows of shape .2,.; return rows of the target's"),
        (lambda rows, seed: torch.randn(rows, 2), line, {}, "shape .2,., the target of shape ..; return events"),
        (lambda rows, seed: torch.arange(rows) / rows, STANDARD, {}, "the same rows for two seeds; draw from `seed`"),
        (lambda rows, seed: torch.zeros(rows, dtype=torch.cfloat), STANDARD, {}, "complex64; return real numbers"),
    ],
)
def test_wrong_calls_get_one_sentence(sampler: Any, target: Any, options: Any, words: str) -> None:
    with pytest.raises(SubjectError, match=words):
        check_sampler(sampler, target, **options)


def test_until_means_nothing_where_everything_is_enumerated() -> None:
    with pytest.raises(SubjectError, match="enumerated"):
        check_verifier(lambda a, b, c: [0], until=0.1)


FILE = """
import torch

def right(rows, seed):
    return torch.randn(rows, 2)

def wrong(rows, seed):
    return torch.randn(rows, 2) + 0.1

def slow(rows, seed):
    import time
    time.sleep(0.05)
    return torch.randn(rows, 2)

law = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "draws.py"
    path.write_text(FILE)
    return path


def test_the_command_line_judges_samplers(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = ["--space", "sampler", "--target", f"{file}::law", "--epsilon", "0.05"]
    assert main(["check", f"{file}::right", *common]) == 0
    assert "lossless [known law]" in capfd.readouterr().out
    assert main(["check", f"{file}::wrong", *common, "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["bias_lower"] > 0
    assert main(["check", f"{file}::right", *common, "--until", "0.02", "--metric", "any"]) == 0
    assert "lossless" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", "sampler"], "needs --target FILE.py::NAME"),
        (["--until", "0.1"], "--until has no meaning with --space discrete, where every branch is enumerated"),
        (["--space", "gaussian", "--target", "x.py::f"], "--target has no meaning with --space gaussian"),
    ],
)
def test_wrong_options_get_one_line(words: list[str], message: str, file: Path, capfd: Any) -> None:
    assert main(["check", f"{file}::right", *words]) == 3
    assert message in capfd.readouterr().err


def test_an_interrupt_prints_the_verdict_so_far(file: Path) -> None:
    """Ctrl-C after the first line of progress: the status is 2, undecided, and nothing is lost."""
    words = [sys.executable, "-m", "verify", "check", f"{file}::slow", "--space", "sampler", "--target", f"{file}::law"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen([*words, "--until", "1e-6"], **pipes, text=True, preexec_fn=heard)
    assert running.stderr is not None
    line = running.stderr.readline()
    assert line.startswith("n = ") and "bound" in line and "e-value" in line
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2 and "inconclusive [known law]" in out and "interrupted at n =" in err

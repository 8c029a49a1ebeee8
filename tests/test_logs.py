"""Audits of logs: clean ones pass at the stated level, planted faults are found with their size, no file is fatal."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tests.interrupts import heard
from tests.logs_by_hand import Coin, World, honest, laws, lines, records, softmax, top, world, write
from verify.cli import main
from verify.logs import scan as scanning
from verify.logs.findings import COINS, DRAFTS, EXCESS, findings, tails, two_sided_wealth
from verify.logs.judge import bend, excess, judge
from verify.logs.records import parse
from verify.logs.tally import LogTally, Settings, count
from verify.records import Finding, Verdict

ALPHA = 0.01
TARGET, DRAFT = (softmax(logits) for logits in laws())
TRUNCATED = {"target": top(TARGET, 12), "drawn": top(DRAFT, 12), "claimed": DRAFT}


def audited(subject: World, blocks: int = 100_000, seed: int = 1, without: tuple[str, ...] = ()) -> Verdict:
    return judge(count(records(subject.columns(blocks, seed), without)), "log", ALPHA)


def by_name(verdict: Verdict) -> dict[str, Finding]:
    return {item.check: item for item in verdict.findings}


def rejecting(verdict: Verdict) -> set[str]:
    return {item.check for item in verdict.findings if item.rejects}


# --- clean logs


def alarms(logs: int, blocks: int, first: int = 0) -> int:
    subject = world()
    return sum(audited(subject, blocks, first + seed).status == "faulty" for seed in range(logs))


def test_clean_logs_raise_no_alarm() -> None:
    """100 logs at a level of 1 % each: more than 5 alarms have a probability below 6e-4, if 1 % is the truth."""
    assert binom.sf(5, 100, ALPHA) < 6e-4
    assert alarms(100, 2_000) <= 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("blocks", [300, 2_000, 8_000])
def test_a_thousand_clean_logs(blocks: int) -> None:
    """At a level of 1 % each: more than 22 alarms of 1000 have a probability below 4e-4."""
    assert binom.sf(22, 1000, ALPHA) < 4e-4
    assert alarms(1000, blocks, 10_000) <= 22


def test_the_level_is_that_of_all_tests_together() -> None:
    """The smallest p-value of a log times the number of tests is rarely small: at 20 %, 60 logs give more than 23
    alarms with a probability below 7e-4. Were the levels not divided, nearly every log would raise one.
    """
    assert binom.sf(23, 60, 0.2) < 7e-4
    subject, seeds = world(), range(60)
    tallies = [count(records(subject.columns(1_000, seed))) for seed in seeds]
    assert sum(any(item.rejects for item in findings(tally, 0.2, Settings())) for tally in tallies) <= 23


def test_lawful_logs_of_other_kinds_pass() -> None:
    """Truncated laws that are claimed as drawn, equal laws, a narrow target: false alarm 1 % each."""
    cases = [
        world(drawn=top(DRAFT, 8), claimed=top(DRAFT, 8), target=top(TARGET, 10)),
        world(target=DRAFT),
        world(target=top(TARGET, 2)),
    ]
    for subject in cases:
        assert audited(subject, 20_000).status == "consistent"


def test_tails_are_those_of_binomials_far_out() -> None:
    """Sums of n coins at a = 0.95: p-values within 20 % of the exact ones where these are 1e-3 and 1e-5, both sides."""
    n, chance = 4_000, 0.95
    variance = n * chance * (1 - chance)
    for level in (1e-3, 1e-5):
        for hits in (int(binom.isf(level, n, chance)) + 1, int(binom.ppf(level, n, chance)) - 1):
            exact = min(binom.sf(hits - 1, n, chance), binom.cdf(hits, n, chance))
            sums = np.array([[hits - n * chance, variance, variance * (1 - 2 * chance)]])
            assert tails(sums, step=1.0)[0] / 2 == pytest.approx(exact, rel=0.2)
    assert math.isnan(tails(np.array([[3.0, 9.9, 0.0]]))[0])


def test_wealth_is_an_e_value() -> None:
    """Its mean is at most 1, exactly: enumerated over 2^12 outcomes of 12 skewed steps of mean 0 within [-1, 1]."""
    steps = np.array([(-0.25, 0.75), (1.0, 0.25)])  # values -0.25 and 1 with probabilities 0.8 and 0.2
    outcomes = (np.arange(2**12)[:, None] >> np.arange(12)) & 1
    value = np.where(outcomes == 0, steps[0, 0], steps[1, 0])
    chance = np.where(outcomes == 0, 0.8, 0.2).prod(1)
    assert value[:2].mean() is not None and abs(0.8 * -0.25 + 0.2 * 1.0) < 1e-12
    wealth = np.exp(two_sided_wealth(value.sum(1), (value**2).sum(1)))
    assert 0.5 < float((chance * wealth).sum()) <= 1.0


# --- planted faults: each is missed, at these sizes, with a probability far below 1e-4, and the numbers compared lie
# within five standard errors with probability 1 - 6e-7

COIN_FAULTS: dict[str, Coin] = {
    "scale": lambda ratio: np.minimum(1.0, 1.02 * ratio),
    "temperature": lambda ratio: np.minimum(1.0, ratio**0.98),
    "sharpened": lambda ratio: np.minimum(1.0, ratio**1.02),
    "threshold": lambda ratio: np.where(ratio > 0.8, 1.0, np.minimum(1.0, ratio)),
    "lenience": lambda ratio: np.minimum(1.0, ratio / 0.9),
}


@cache
def bent(name: str) -> LogTally:
    """A log with that fault: 50 000 blocks, and 250 000 for those that change the acceptance least."""
    blocks = 250_000 if name in ("temperature", "sharpened") else 50_000
    return count(records(world(COIN_FAULTS[name]).columns(blocks, 5)))


@pytest.mark.parametrize("name", COIN_FAULTS)
def test_a_bent_coin_is_found_with_its_size(name: str) -> None:
    subject = world(COIN_FAULTS[name])
    tally = bent(name)
    verdict = judge(tally, "log", ALPHA)
    assert verdict.status == "faulty" and {item for item in rejecting(verdict) if item.startswith(COINS)}
    assert not {item for item in rejecting(verdict) if item.startswith(DRAFTS)}
    n, accepted, expected = tally.cells[1].sum(0)
    truth = subject.mean(subject.coin) - subject.mean(honest)
    assert (accepted - expected) / n == pytest.approx(truth, abs=5 * math.sqrt(tally.coins[0, 1]) / n)
    assert 0 <= verdict.bias_lower <= max(truth, 0.0)  # misses with a probability of 1 % at most, by its definition


def test_scale_and_exponent_are_told_apart() -> None:
    for name, wanted in (("scale", (1.02, 1.0)), ("temperature", (1.0, 0.98)), ("sharpened", (1.0, 1.02))):
        found = bend(bent(name))
        assert found is not None
        scale, error, power, other = found
        assert scale == pytest.approx(wanted[0], abs=5 * error) and power == pytest.approx(wanted[1], abs=5 * other)
        assert error < 0.006 and other < 0.012


def test_a_threshold_is_found_where_it_is() -> None:
    """The bins beyond 0.8 accept everything, those below are as they should be."""
    tally = bent("threshold")
    n, accepted, expected = tally.cells[0].T
    assert np.array_equal(accepted[13:], n[13:])
    values = tails(tally.coins[5 : 5 + 12], step=1.0)
    assert np.nanmin(values) > 1e-5  # 12 bins: false alarm 1.2e-4
    assert "acceptance 0.8" in by_name(judge(tally, "log"))[COINS + "bins"].note


def test_always_accepting_is_the_distance_itself() -> None:
    """alpha = 1: the certificate is the total variation distance, less its radius, and never more (risk 1 %)."""
    subject = world(np.ones_like)
    verdict = audited(subject)
    distance = 1 - float(subject.overlap.mean())
    assert distance - 0.02 < verdict.bias_lower <= distance
    assert by_name(verdict)[EXCESS].statistic == pytest.approx(distance, abs=0.01)
    assert "rejected" not in verdict.diagnosis


def test_a_raw_law_claimed_for_a_truncated_draft() -> None:
    """HF #47932: the ratio is inflated by 1 / Z. Its mean is the sum of drawn target / claimed."""
    subject = world(**TRUNCATED)
    truth = subject.mean(lambda ratio: ratio)
    assert truth > 1.01
    for without in ((), ("overlap",), ("overlap", "context", "token")):
        verdict = audited(subject, without=without)
        item = by_name(verdict)[DRAFTS + "mean ratio"]
        assert verdict.status == "faulty" and item.rejects
        assert item.statistic == pytest.approx(truth, abs=0.01)  # the standard error is 0.0015
        assert verdict.bias_lower == 0.0 and not any(name.startswith(COINS) for name in rejecting(verdict))
    found = by_name(audited(subject))
    gap = subject.mean(honest) - float(subject.overlap.mean())
    assert found[DRAFTS + "overlap"].statistic == pytest.approx(gap, abs=0.006)
    match = (subject.drawn * (subject.drawn - subject.claimed)).sum(1).mean()
    assert found[DRAFTS + "repeats"].statistic == pytest.approx(match, abs=0.005)


def test_a_truncated_law_claimed_for_a_raw_draft() -> None:
    """Tokens come that the claimed law does not have; their share is the mass cut off."""
    subject = world(claimed=top(DRAFT, 12))
    cut = float(np.where(subject.claimed > 0, 0.0, subject.drawn).sum(1).mean())
    tally = count(records(subject.columns(60_000, 1)))
    verdict = judge(tally, "log", ALPHA)
    assert tally.violations[1] / tally.n == pytest.approx(cut, abs=5 * math.sqrt(cut / tally.n))
    assert verdict.status == "faulty" and "claimed probability 0" in verdict.diagnosis and verdict.bias_lower == 0.0


def test_a_stale_or_tempered_claim() -> None:
    stale = audited(world(claimed=np.roll(DRAFT, 1, 0)), 20_000, without=("overlap", "context", "token"))
    assert DRAFTS + "mean ratio" in rejecting(stale)
    tempered = world(claimed=softmax(0.95 * laws()[1]))
    assert DRAFTS + "repeats" in rejecting(audited(tempered)) and DRAFTS + "overlap" in rejecting(audited(tempered))


def test_the_size_of_the_vocabulary_shows_a_claim_that_is_too_sharp() -> None:
    """E[1 / (V claimed)] <= 1: drafts at temperature 1 that claim 0.5 exceed it; the honest ones do not (1 % risk)."""
    subject, vocab = world(claimed=softmax(2 * laws()[1]), target=softmax(2 * laws()[1])), 24
    without = ("overlap", "context", "token")
    for item, faulty in ((subject, True), (world(), False)):
        tally = count(records(item.columns(20_000, 2), without), settings=Settings(vocab=vocab))
        assert (
            DRAFTS + "inverse of the claimed" in rejecting(judge(tally, "log", ALPHA, Settings(vocab=vocab)))
        ) == faulty


def test_dropped_rejections() -> None:
    """Of 5 % of the rejections missing: acceptance a / (a + (1 - a) 0.95), which both coins and drafts show."""
    subject = world(dropped=0.05)
    verdict = audited(subject, 200_000)
    base = subject.mean(honest)
    acceptance = base / (base + (1 - base) * 0.95)
    assert verdict.acceptance == pytest.approx(acceptance, abs=0.003)
    assert {COINS + "every coin", EXCESS} <= rejecting(verdict) and verdict.bias_lower == 0.0


def test_certain_things_that_do_not_happen() -> None:
    clean = world().columns(2_000, 3)
    rows = {
        "accepted a token of target probability 0": {"target": 0.0, "accepted": True},
        "rejected a token whose target": {"claimed": 0.2, "target": 0.5, "accepted": False},
    }
    for name, change in rows.items():
        columns = {key: column.copy() for key, column in clean.items()}
        for key, value in change.items():
            columns[key][17] = value
        verdict = audited_columns(columns)
        assert verdict.status == "faulty" and name in verdict.diagnosis and "1 times" in verdict.diagnosis
    columns = {key: column.copy() for key, column in clean.items()}
    at = int(np.flatnonzero(columns["position"][1:] == 1)[0])
    columns["accepted"][at], columns["target"][at] = False, 0.5 * columns["claimed"][at]
    assert "examined a token after a rejection" in audited_columns(columns).diagnosis


def audited_columns(columns: dict[str, np.ndarray], **settings: Any) -> Verdict:
    return judge(count(records(columns), settings=Settings(**settings)), "log", ALPHA, settings=Settings(**settings))


def test_rounded_probabilities_do_no_harm_and_noisy_ones_need_a_tolerance() -> None:
    """Rounding keeps the order of two numbers, so that no certain acceptance is invented; noise of 1 % does not."""
    columns = world(target=0.99 * DRAFT + 0.01 * TARGET).columns(50_000, 4)
    rounded = {**columns, **{key: np.round(columns[key], 5) for key in ("claimed", "target")}}
    assert not any(name.startswith("rejected") for name in rejecting(audited_columns(rounded)))
    noise = 1e-2 * np.random.default_rng(0).standard_normal(len(columns["claimed"]))
    noisy = {**columns, "claimed": columns["claimed"] * (1 + noise)}
    assert any(name.startswith("rejected") for name in rejecting(audited_columns(noisy)))
    assert not any(name.startswith("rejected") for name in rejecting(audited_columns(noisy, tolerance=0.06)))


def test_other_rules_are_not_held_against_the_token_rule() -> None:
    """The rule that draws from the target and accepts what agrees: lawful, with the acceptance of the target."""
    columns = world().columns(50_000, 8)
    random = np.random.default_rng(0)
    columns["accepted"] = random.random(len(columns["draft"])) < columns["target"]
    columns["draft"], columns["position"] = np.arange(len(columns["draft"])), np.zeros(len(columns["draft"]), int)
    assert audited_columns(columns).status == "faulty"
    assert audited_columns(columns, token_rule=False).status == "consistent"


def test_tokens_not_examined_count_as_drafts_alone() -> None:
    columns = world().columns(5_000, 9)
    columns = {key: np.append(column.astype(float), column[0]) for key, column in columns.items()}
    columns["accepted"][-1] = np.nan
    tally = count(records(columns))
    assert (tally.n, tally.unexamined) == (len(columns["draft"]) - 1, 1)
    assert tally.ratios[0] == tally.n + 1 and tally.cells[1].sum(0)[0] == tally.n


def test_a_fault_of_one_position_or_one_hour_is_named() -> None:
    subject = world()
    columns = subject.columns(100_000, 10)
    late = columns["position"] == 3
    ratio = columns["target"] / columns["claimed"]
    random = np.random.default_rng(1)
    lucky = late & (random.random(len(late)) < 0.1)
    last = {**columns, "accepted": columns["accepted"] | lucky}
    assert by_name(audited_columns(last))[COINS + "positions"].note.startswith("position 3:")
    hour = (np.arange(len(late)) // (len(late) // 16 + 1)) == 11
    for fault, check, name in (
        (hour & (random.random(len(late)) < 0.1), COINS + "slices", "part 12 of 16"),
        (np.linspace(0, 0.1, len(late)) > random.random(len(late)), COINS + "drift", "mean of w"),
    ):
        drifted = {**columns, "accepted": columns["accepted"] | (fault & (ratio < 1))}
        found = by_name(audited_columns(drifted))[check]
        assert found.rejects and found.note.startswith(name)


def test_the_bound_holds_at_its_confidence() -> None:
    """The excess of a coin that is 3 % lenient, at confidence 50 %: of 200 logs more than 130 above it is 1e-5."""
    subject = world(lambda ratio: np.minimum(1.0, ratio / 0.97))
    truth = subject.mean(subject.coin) - subject.mean(honest)
    over = sum(excess(count(records(subject.columns(300, seed))), 0.5) > truth for seed in range(200))
    assert binom.sf(130, 200, 0.5) < 1e-5 and over <= 130


def test_too_few_records_decide_nothing() -> None:
    verdict = audited(world(), 200)
    assert verdict.status == "inconclusive" and "examined records" in verdict.needs
    assert verdict.lossless is False and json.loads(verdict.to_json())["status"] == "inconclusive"


# --- tallies and files


def same(one: LogTally, other: LogTally) -> bool:
    """Up to the places of records in the file, the pairs across an edge, and rounding."""
    skip = {"repeats", "times", "examples"}
    for item in dataclasses.fields(LogTally):
        mine, theirs = (np.asarray(getattr(tally, item.name), dtype=object) for tally in (one, other))
        if item.name in skip:
            continue
        if not np.allclose(mine.astype(float), theirs.astype(float), rtol=1e-9, atol=1e-9):
            return False
    return True


def test_tallies_of_shards_add() -> None:
    columns = world().columns(3_000, 11)
    size = len(columns["draft"])
    cut = int(np.flatnonzero(columns["position"][size // 3 :] == 0)[0]) + size // 3  # between two blocks
    parts = [{key: column[part] for key, column in columns.items()} for part in (slice(cut), slice(cut, None))]
    share = cut / size
    one = count(records(parts[0]), (0.0, share)) + count(records(parts[1]), (share, 1.0))
    assert same(one, count(records(columns)))


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "parquet"])
@pytest.mark.parametrize("chunk", [1 << 22, 10_001])
def test_every_format_and_piece_gives_the_same(
    kind: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is counted once, wherever the file is cut."""
    columns = world().columns(2_000, 12)
    path = write(tmp_path / "log", columns)
    if kind == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow.parquet import write_table

        columns = {**columns, "draft": np.array([f"r{item}" for item in columns["draft"]])}
        write_table(pyarrow.table(columns), path, row_group_size=chunk // 10)
    monkeypatch.setattr(scanning, "CHUNK", chunk)
    found, interrupted = scanning.scan(path, Settings())
    whole = count(records(columns))
    assert not interrupted and found.n == whole.n and found.blocks == whole.blocks == 2_000 and found.malformed == 0
    for name in ("ratios", "violations", "wealth"):
        assert np.allclose(getattr(found, name), getattr(whole, name), rtol=1e-9)
    assert np.allclose(found.cells[:2], whole.cells[:2], rtol=1e-9)
    assert np.allclose(found.cells[2].sum(0), whole.cells[2].sum(0), rtol=1e-9)
    if kind != "gzip":  # whose places are those of the compressed bytes
        assert (np.abs(found.cells[2, :, 0] - whole.cells[2, :, 0]) < 0.1 * whole.n / 16).all()


def test_a_piece_may_end_anywhere_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of equal length and pieces of every length around it: each record once, the last without a line feed."""
    line = '{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5, "accepted": true}\n'
    path = tmp_path / "log"
    path.write_text((7 * line)[:-1])
    for chunk in (1, *range(len(line) - 2, len(line) + 3), 2 * len(line), 10 * len(line)):
        monkeypatch.setattr(scanning, "CHUNK", chunk)
        found, _ = scanning.scan(path, Settings())
        assert (found.n, found.malformed) == (7, 0), chunk


def test_records_of_several_requests_may_interleave() -> None:
    """Then the record before may be another request's rejection: no violation (and 1 % of false alarm)."""
    columns = world().columns(5_000, 18)
    order = np.random.default_rng(0).permutation(len(columns["draft"]))
    assert audited_columns({key: column[order] for key, column in columns.items()}).status == "consistent"


BAD = [
    '{"draft": 1, "position": 0, "claimed": 0.5, "target"',
    "not json at all",
    "[1, 2, 3]",
    "null",
    '"draft"',
    '{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5}',
    '{"draft": 1, "position": 0, "claimed": 1.5, "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": 0, "claimed": NaN, "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": 0, "claimed": null, "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": 0, "claimed": "half", "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": 0, "claimed": [0.5], "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": -1, "claimed": 0.5, "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": 0.5, "claimed": 0.5, "target": 0.5, "accepted": true}',
    '{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5, "accepted": 2}',
    '{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5, "accepted": true} {}',
    '{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5, "accepted": true, "overlap": -0.1}',
    "[" * 100_000,
    "\x00\ufffd",
]
GOOD = [
    '{"draft": "a", "position": 0, "claimed": 0.5, "target": 0.5, "accepted": true}',
    '  {"draft": [1, 2], "position": 1, "claimed": 0.5, "target": 0, "accepted": 0, "more": {"a": 1}}  ',
    '{"draft": null, "position": 2, "claimed": 1, "target": 1.00001, "accepted": null, "overlap": null}\r',
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_line_that_is_no_record_is_counted(bad: str) -> None:
    found = parse("\n".join([GOOD[0], bad, "", *GOOD[1:], ""]))
    assert (
        len(found) == 3
        and found.malformed == 1
        and found.example.startswith(f"{bad[:80]!r}, wh")
        or "without" in found.example
    )
    assert count(found).malformed == 1
    assert parse("\n".join(BAD)).malformed == len(BAD)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"draft": 1, "position": 0, "claimed": 0.5', "which is no JSON"),
        ("[1]", "which is no JSON object"),
        ('{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5, "acepted": true}', "(there is 'acepted')"),
        (
            '{"draft": 1, "position": -1, "claimed": 0.5, "target": 0.5, "accepted": true}',
            "position is no whole number",
        ),
        (
            '{"draft": 1, "position": 0, "claimed": 1.5, "target": 0.5, "accepted": true}',
            "claimed is no probability: 1.5",
        ),
        (
            '{"draft": 1, "position": 0, "claimed": 0.5, "target": [1], "accepted": true}',
            "target is no probability: [1]",
        ),
        (
            '{"draft": 1, "position": 0, "claimed": 0.5, "target": 0.5, "accepted": "yes"}',
            "not true, false or null: yes",
        ),
    ],
)
def test_it_is_said_why_a_line_is_no_record(line: str, why: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "log").write_text(line + "\n")
    assert main(["audit-log", str(tmp_path / "log")]) == 3
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("n", [1, 20, 115])
def test_a_few_records_decide_nothing(n: int, tmp_path: Path, capsys: Any) -> None:
    """Certain coins have no variance, and one that errs once in fifty passes 115 of them with a chance of .098."""
    row = '{{"draft": {}, "position": 0, "claimed": 0.5, "target": 0.5, "accepted": true}}\n'
    (tmp_path / "log").write_text("".join(map(row.format, range(n))))
    assert main(["audit-log", str(tmp_path / "log")]) == 2
    out = capsys.readouterr().out
    assert "to decide: about 116 examined records" in out and "no bias is shown (confidence 0.99)" in out
    (tmp_path / "log").write_text("".join(map(row.format, range(116))))
    assert main(["audit-log", str(tmp_path / "log")]) == 0


def test_a_damaged_log_is_audited_all_the_same(tmp_path: Path, capsys: Any) -> None:
    every = lines(world().columns(8_000, 13))
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([*every[:100], "half a li", *every[100:]])[:-20])
    assert main(["audit-log", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2 of " in out and "half a li" in out
    path.write_text("\n".join([*every, *["spoiled"] * (len(every) // 50)]))
    assert main(["audit-log", str(path)]) == 2
    assert "malformed" in capsys.readouterr().out
    whole = gzip.compress("\n".join(every).encode())
    (tmp_path / "log.gz").write_bytes(whole[: len(whole) * 9 // 10])
    assert main(["audit-log", str(tmp_path / "log.gz")]) in (0, 2)
    assert "ends early or is damaged" in capsys.readouterr().out


def test_wrong_files_are_named_in_a_sentence(tmp_path: Path, capsys: Any) -> None:
    cases = {
        "empty": b"",
        "text": b"a\nb\n",
        "array": b"[1]",
        "PAR": b"PAR1 and then nothing",
        "utf16": "{}".encode("utf-16"),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert main(["audit-log", str(tmp_path / name)]) == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and name in error
    for name, what in (("absent", "is not there"), (".", "is a folder")):
        assert main(["audit-log", str(tmp_path / name)]) == 3
        assert what in capsys.readouterr().err
    assert main(["audit-log", str(tmp_path / "text"), "--alpha", "2"]) == 3
    assert main(["audit-log", str(tmp_path / "text"), "--workers", "0"]) == 3


def test_a_table_of_other_columns_or_types(tmp_path: Path, capsys: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = {"draft": ["a"], "position": [0], "claimed": ["much"], "target": [0.5], "accepted": [True]}
    write_table(pyarrow.table(columns), tmp_path / "words")
    assert main(["audit-log", str(tmp_path / "words")]) == 3
    assert "wrong type" in capsys.readouterr().err
    write_table(pyarrow.table({"draft": ["a"]}), tmp_path / "few")
    assert main(["audit-log", str(tmp_path / "few")]) == 3
    assert "lacks the columns position, claimed" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "status"), [("clean", 0), ("scaled", 1), ("short", 2)])
def test_the_command(name: str, status: int, tmp_path: Path, capsys: Any) -> None:
    """Three logs; the clean one is blamed with a probability of 1 %."""
    coin = COIN_FAULTS["lenience"] if name == "scaled" else honest
    path = write(tmp_path / "log.jsonl", world(coin).columns(100 if name == "short" else 8_000, 14))
    assert main(["audit-log", str(path)]) == status
    out = capsys.readouterr().out
    assert out.startswith(("consistent", "faulty", "inconclusive")[status] + " [log] log.jsonl")
    assert "by positions" in out and "part 1 of 16 of the file" in out
    assert main(["audit-log", str(path), "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["findings"] and len(found["cells"]["positions"]) == 16


def test_processes_agree_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log.jsonl", world().columns(4_000, 15))
    monkeypatch.setattr(scanning, "SMALL", 0)
    found, _ = scanning.scan(path, Settings(), workers=2)
    assert same(found, scanning.scan(path, Settings(), workers=1)[0])


def test_an_interrupt_prints_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = write(tmp_path / "log.jsonl", world().columns(4_000, 16))
    monkeypatch.setattr(scanning, "CHUNK", 100_000)
    whole, seen = scanning._range, []

    def impatient(*arguments: Any) -> LogTally:
        seen.append(arguments)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(scanning, "_range", impatient)
    assert main(["audit-log", str(path)]) == 130
    out = capsys.readouterr().out
    assert "interrupted: this is what was known by then" in out and "examined records" in out


def test_nothing_read_decides_nothing() -> None:
    verdict = judge(LogTally(0), "log", interrupted=True)
    assert verdict.status == "inconclusive" and verdict.acceptance is None and str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0.1, 1.0, 6.0])
def test_an_interrupt_from_the_terminal(patience: float, tmp_path: Path) -> None:
    """SIGINT to the whole group, as Ctrl-C sends it, while processes start or read."""
    path, bound = tmp_path / "log.jsonl", 0.0
    with path.open("w") as file:
        for seed in range(8):
            file.write("\n".join(lines(world().columns(40_000, 100 + seed))) + "\n")
    code = "from verify.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "audit-log", str(path), "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("the system does not tell which processes a process has")
    while len(children.read_text().split()) < 3 and bound < 120:  # two workers, and one that tracks resources
        time.sleep(0.05)
        bound += 0.05
    time.sleep(patience)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in out and "Traceback" not in error

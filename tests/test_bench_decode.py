"""What decoding costs: the command on a CPU, what it keeps when it is stopped, and the speed-ups it derives."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from distributions.mar import draw, masking
from distributions.mar.backbone import Mar
from distributions.mar.shapes import BASE, HUGE, LARGE, TINY
from distributions.tape import GeneratorTape
from verify.bench import decode
from verify.bench.command import add_options, run_bench
from verify.bench.decode import Setting, backbone, head, measure, network
from verify.bench.derived import ALPHAS, PARTS, costs, largest, speedups
from verify.bench.measure import FEWEST, MOST, OutOfMemory, Timing, prepared, refused, timed, ways
from verify.claims.bounds import speedup, tokens_at_most, tokens_per_call
from verify.cli import main
from verify.errors import SubjectError

CPU = torch.device("cpu")
torch.set_num_threads(1)


def run(folder: Path, *options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert run_bench(parser.parse_args(["decode", "--output", str(folder), *options])) == 0
    (path,) = folder.glob("bench-decode-cpu-*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_command_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of the tiny setting, in less than the half minute that is promised; and none of it twice."""
    begin = time.process_time()
    found = run(tmp_path, "--seconds", "0.01")
    assert time.process_time() - begin < 30
    sizes, batches, lengths = ("tiny", "tiny drafter"), (1, 4), (0, 1, 3)
    wanted = set(product(sizes, ("float32", "bfloat16"), ("eager",), batches, lengths, PARTS))
    assert {decode.key_of(point) for point in found["points"]} == wanted and len(found["points"]) == len(wanted)
    for point in found["points"]:
        assert 0 < point["low"] <= point["median"] <= point["high"] and FEWEST <= point["runs"] <= MOST
        assert point["images"] == point["batch"] * (point["draft_length"] + 1)
    assert found["notes"] == ["torch.compile and CUDA graphs are left out: this device is cpu, not cuda."]
    assert {"torch", "device", "commit"} <= set(found["provenance"])
    assert len(found["speedups"]) == 2 * 2 * 2 * 2 * len(ALPHAS) and found["largest"]
    out = capsys.readouterr().out
    assert "tiny drafter" in out and "bench-decode-cpu" in out
    again = run(tmp_path, "--seconds", "0.01", "--batch", "1", "4", "2")
    assert again["points"][: len(wanted)] == found["points"]
    assert {point["batch"] for point in again["points"][len(wanted) :]} == {2}


def counting(limit: int, error: BaseException) -> Callable[..., Timing]:
    left = [limit]

    def timed(*arguments: Any) -> Timing:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return Timing(1.0, 1.0, 1.0, 5)

    return timed


def test_what_was_measured_is_kept_when_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "timed", counting(7, KeyboardInterrupt()))
    assert main(["bench", "decode", "--output", str(tmp_path)]) == 130
    (path,) = tmp_path.iterdir()  # and nothing half written beside it
    kept = json.loads(path.read_text())["points"]
    assert len(kept) == 7
    monkeypatch.setattr(decode, "timed", counting(41, AssertionError("measured again")))
    assert run(tmp_path)["points"][:7] == kept


def test_what_was_measured_otherwise_is_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "timed", counting(1000, AssertionError()))
    assert len(run(tmp_path)["points"]) == 48
    assert len(run(tmp_path, "--steps", "5", "--dtype", "float32")["points"]) == 24


def test_no_memory_stops_at_the_larger_ones() -> None:
    def small(run: Any, *others: Any) -> Timing:
        if len(run.args[1]) > 4:
            raise OutOfMemory("no room")
        return Timing(1.0, 1.0, 1.0, 5)

    notes: list[str] = []
    setting = Setting(("tiny drafter",), ("float32",), (1, 2, 4, 8), (1, 3), steps=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "timed", small)
        found = list(measure(setting, CPU, [], notes))
    wanted = {(batch, drafted) for batch in (1, 2, 4, 8) for drafted in (0, 1, 3) if batch * (drafted + 1) <= 4}
    assert {(point["batch"], point["draft_length"]) for point in found} == wanted
    assert [note for note in notes if "no memory" in note] == [
        f"tiny drafter float32 eager {part}: no memory for 8 images; larger ones are left out." for part in PARTS
    ]
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
    for error in (RuntimeError("CUDA error: out of memory"), torch.OutOfMemoryError("x"), cpu):
        assert isinstance(refused(error), OutOfMemory)
    other = RuntimeError("shapes differ")
    assert refused(other) is other


def test_what_is_timed_is_the_model() -> None:
    """The pass is ``Mar.forward`` on half-filled images, one more token visible in each prefix; the head runs ``steps``
    times on one token of each image.
    """
    model = draw(network(TINY, CPU, torch.float64), GeneratorTape(3), spread=1.0)
    made = backbone(model, 2, 3)
    tokens, label, seen, present = made.args[1:]
    assert tokens.shape == (8, 16, 16) and present is not None
    assert (present.sum(1) - TINY.buffer).tolist() == [8, 9, 10, 11, 8, 9, 10, 11]
    masked = torch.ones(8, TINY.buffer + 16, dtype=torch.bool)
    for row in range(8):
        masked[row, seen[row][present[row]]] = False
    assert (made() - model(tokens, masked[:, TINY.buffer :], label)).abs().max() < 1e-12
    calls: list[Any] = []
    with torch.no_grad():
        hook = model.head.register_forward_hook(lambda module, given, out: calls.append(given[0].shape))
        assert head(model, 2, 3, 7)().shape == (8, 16)
        hook.remove()
    assert calls == [(8, 16)] * 7


def test_the_published_sizes_are_the_published_sizes() -> None:
    assert [decode.SIZES[name] for name in ("base", "large", "huge")] == [BASE, LARGE, HUGE]
    with torch.device("meta"):
        assert sum(part.numel() for part in Mar(decode.SIZES["huge"]).parameters()) == 942_403_104
    assert masking.masked(torch.arange(4)[None], 2).tolist() == [[True, True, False, False]]


def points(step: float, verification: float, draft: float | None, length: int = 4) -> list[dict[str, Any]]:
    """Half of each cost in either part."""
    rows = [("huge", 0, step), ("huge", length, verification)] + ([("base", 0, draft)] if draft is not None else [])
    return [
        {"size": size, "dtype": "float32", "way": "eager", "batch": 1, "draft_length": drafted, "part": part,
         "median": seconds / 2}
        for size, drafted, seconds in rows for part in PARTS
    ]  # fmt: skip


def test_speedups_are_those_of_the_formulas() -> None:
    """v = 1 and c = 0 are theory's; with every draft kept S = (g + 1) / (g c + v); and where g + 1 prefixes cost g + 1
    steps, nothing lossless wins.
    """
    for row in speedups(points(1.0, 1.0, None)):
        assert row["drafter"] == "none"
        assert row["rule"] == pytest.approx(tokens_per_call(row["acceptance"], 4), rel=1e-12)
        assert row["most"] == pytest.approx(tokens_at_most(row["acceptance"], 4), rel=1e-12)
    for row in speedups(points(2.0, 3.0, 0.4)):
        cost = 0.0 if row["drafter"] == "none" else 0.2
        assert row["v"] == pytest.approx(1.5) and row["c"] == pytest.approx(cost)
        assert row["rule"] == pytest.approx(tokens_per_call(row["acceptance"], 4) / (4 * cost + 1.5), rel=1e-12)
        assert row["rule"] <= row["most"] + 1e-12
        if row["acceptance"] == 1.0:
            assert row["rule"] == pytest.approx(5 / (4 * cost + 1.5))
    assert {row["drafter"] for row in speedups(points(2.0, 3.0, 0.4))} == {"none", "base"}
    assert all(row["most"] <= 1 + 1e-12 for row in speedups(points(1.0, 5.0, 0.1)))
    assert speedups(points(1.0, 1.0, 0.2))[-1]["rule"] == pytest.approx(speedup(5.0, 4, 0.2))


def test_incomplete_measurements_derive_nothing() -> None:
    found = points(1.0, 2.0, None)
    assert len(costs(found)) == 2 and len(costs(found[:-1])) == 1 and speedups(found[:-1]) == []
    assert speedups(found[2:]) == []  # no step without drafts to compare with


def test_the_best_draft_length() -> None:
    """Verification that costs 1 + g / 4 steps: worth a long draft only where nearly all of it is kept."""
    rows = points(1.0, 1.5, None, 2) + points(1.0, 3.0, None, 8)[2:4]
    best = {row["acceptance"]: row["draft_length"] for row in largest(speedups(rows))}
    for alpha, length in best.items():
        worth = {g: tokens_per_call(alpha, g) / (1 + g / 4) for g in (2, 8)}
        assert worth[length] == max(worth.values())
    assert set(best.values()) == {2, 8}


def test_timing_waits_and_repeats() -> None:
    ran: list[int] = []
    found = timed(partial(ran.append, 1), CPU, 0.0)
    assert found.runs == FEWEST and len(ran) > FEWEST
    slow = timed(partial(time.sleep, 0.002), CPU, 0.05)
    assert slow.median >= 0.002 and FEWEST <= slow.runs <= 25
    assert ways(CPU)[0] == ("eager",) and ways(torch.device("cuda"))[0] == ("eager", "compiled", "graph")
    with pytest.raises(ValueError, match="no way 'quick'"):
        prepared(partial(torch.zeros, 1), "quick")


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="above 0"):
        run(tmp_path, "--batch", "-1")
    with pytest.raises(SubjectError, match="no device"):
        run(tmp_path, "--device", "nonsense")

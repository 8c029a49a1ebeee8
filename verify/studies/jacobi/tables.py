"""The study's tables."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from scipy.stats import norm

from distributions import pixels
from verify.studies.jacobi.cells import FALSE_ALARM, SWEPT, WINDOWS, Cells, Swept, at, names, of
from verify.studies.jacobi.latency import passes
from verify.study import Row
from verify.work import Work

PUBLISHED = Path(__file__).with_name("published.csv")


def plus_minus(work: Work) -> str:
    """The speed-up and the half-width of its interval."""
    middle, low, high = work.speedup
    return f"{middle:.2f} ± {(high - low) / 2:.2f}"


def speedups(cells: Cells) -> Iterator[Row]:
    """A row for each model and rule, a column for each window."""
    for name, works in cells.items():
        for rule in names(cells):
            yield {"model": name, "rule": rule} | {f"window {x.window}": plus_minus(x) for x in of(works, rule)}


def waiting(cells: Cells) -> Iterator[Row]:
    """How much the drafts of a window change from round to round."""
    for name, works in cells.items():
        for rule in names(cells):
            near, far = at(works, rule, SWEPT).distance
            yield {"model": name, "rule": rule, "same token": 1 - near, "one-step Hamming": near, "three-step": far}


def gates(cells: Cells) -> Iterator[Row]:
    """For each rule the worst of all its cells, and whether it passes at the stated rate of false alarms."""
    for rule in ("ancestral", *names(cells)):
        works = [work for each in cells.values() for work in of(each, rule)]
        worst = max(works, key=lambda work: abs(work.z))
        chance = min(1.0, len(works) * 2 * float(norm.sf(abs(worst.z))))
        verdict = "fails" if chance < FALSE_ALARM else "passes"
        found: Row = {"rule": rule, "cells": len(works), "nats a token": worst.nats, "z": worst.z, "p-value": chance}
        yield {**found, "gate": verdict}


def processed(swept: Swept) -> Iterator[Row]:
    """A row for each value of each setting, a column for each rule."""
    for setting, found in swept.items():
        for value in dict.fromkeys(value for value, _ in found):
            works = [work for each, work in found if each == value]
            row: Row = {"setting": f"{setting} {value:g}", "entropy": works[0].entropy}
            yield {**row, **{work.rule: plus_minus(work) for work in works}}


def strengths(strength: Swept) -> Iterator[Row]:
    """A row for each model and strength."""
    for name, found in strength.items():
        for value, work in found:
            near, far = work.distance
            row: Row = {"model": name, "strength": value, "speed-up": plus_minus(work)}
            yield {**row, "one-step Hamming": near, "three-step": far}


def times(works: Sequence[Work]) -> Iterator[Row]:
    """What is left of a speed-up where a pass costs t(L) = a + b L: evaluations saved times t(1) / t(L)."""
    line = passes(pixels.trained(torch.float32), (1, *WINDOWS[:-1]))
    for window in WINDOWS:
        measured = dict(zip(line.lengths, line.seconds, strict=True)).get(window)
        yield {
            "window": window,
            "a + b L (ms)": 1e3 * line(window),
            "measured (ms)": "longer than half an image" if measured is None else 1e3 * measured,
            **{
                f"implied speed-up, {x}": at(works, x, window).speedup[0] * line(1) / line(window)
                for x in ("sjd", "scd")
            },
        }


def published(cells: Cells) -> Iterator[Row]:
    """Ratios to ancestral sampling as published (SCD, 2510.24211, quoted from secondary sources), and found here."""
    with PUBLISHED.open() as file:
        lines = list(csv.DictReader(file))
    ancestors = {line["model"]: line for line in lines if line["method"] == "AR"}
    for line in lines:
        base, window = ancestors[line["model"]], int(line["window"])
        if line is base:
            continue
        here = {
            f"here, {name}": next((plus_minus(x) for x in of(works, line["rule"]) if x.window == window), "")
            for name, works in cells.items()
        }
        seconds = float(base["seconds"]) / float(line["seconds"]) if base["seconds"] else None
        yield {
            "published": f"{line['model']}, {line['method']}",
            "window": window,
            "evaluations saved": f"{float(base['evaluations']) / float(line['evaluations']):.2f}",
            "seconds saved": "no figure" if seconds is None else f"{seconds:.2f}",
            **here,
        }


def every(cells: Cells) -> Iterator[Row]:
    """All that was measured."""
    for name, works in cells.items():
        for work in works:
            near, far = work.distance
            row: Row = {"model": name, "rule": work.rule, "window": work.window, "chains": work.chains}
            row = {**row, "evaluations": work.evaluations, "±": work.half_width, "speed-up": work.speedup[0]}
            row = {**row, "one-step Hamming": near, "three-step": far, "entropy": work.entropy}
            yield {**row, "nats a token": work.nats, "z": work.z}

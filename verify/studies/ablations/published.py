"""The published figures, Wang et al. 2411.11925 v1, tables 1, 3 and 4: MAR heads on ImageNet 256 x 256, 256 tokens."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from scipy.optimize import brentq

FILE = Path(__file__).with_name("published.csv")


@cache
def lines() -> tuple[dict[str, str], ...]:
    """Columns ``table``, ``target``, ``drafter``, ``draft_length``, ``setting`` and ``alpha``, kept among drafted."""
    with FILE.open() as file:
        return tuple(csv.DictReader(file))


def alphas(table: int, setting: str, nodes: int | None = None) -> dict[tuple[str, str, int], float]:
    """Alpha by target, drafter and draft length."""
    return {
        (line["target"], line["drafter"], int(line["draft_length"])): float(line["alpha"])
        for line in lines()
        if (line["table"], line["setting"]) == (str(table), setting) and nodes in (None, int(line["draft_length"]))
    }


def span(table: int, setting: str, nodes: int) -> str:
    """The least and the most of the three pairs of models; nothing where nothing is published."""
    found = sorted(alphas(table, setting, nodes).values())
    return f"{found[0]:.2f} to {found[-1]:.2f}" if found else ""


def dropped(passes: float, nodes: int) -> float:
    """Kept among drafted where every test is passed with one probability and what follows a rejection is dropped.

    Formula: sum over k = 1..N of a^k / N.
    """
    return sum(passes**node for node in range(1, nodes + 1)) / nodes


def needed(alpha: float, nodes: int) -> float:
    """The probability of passing one test that ``alpha`` takes if what follows a rejection is dropped."""
    return float(brentq(lambda passes: dropped(passes, nodes) - alpha, 0.0, 1.0))

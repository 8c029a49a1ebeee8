"""Synthetic logs with known truth: contexts with laws of their own, drafts, coins and a switch for every fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verify.logs.records import Records

VOCAB, CONTEXTS, NODES = 24, 64, 4
Coin = Callable[[np.ndarray], np.ndarray]


def honest(ratio: np.ndarray) -> np.ndarray:
    """The token rule."""
    return np.minimum(1.0, ratio)


@dataclass(frozen=True, eq=False)
class World:
    """Laws (contexts, V): ``target``, ``drawn`` that drafts come from, ``claimed`` that the log names; the ``coin``:
    the probability of acceptance given target / claimed. ``dropped``: the share of rejections that is not logged.
    """

    target: np.ndarray
    drawn: np.ndarray
    claimed: np.ndarray
    coin: Coin = honest
    dropped: float = 0.0

    @property
    def overlap(self) -> np.ndarray:
        """Of the target and the claimed law, context by context: what a log would hold."""
        return np.minimum(self.target, self.claimed).sum(1)

    def mean(self, value: Coin) -> float:
        """The mean over a context, and a draft in it, of a function of target / claimed. Every node has it, the later
        ones too, as their contexts are drawn afresh.
        """
        ratio = np.divide(self.target, self.claimed, out=np.zeros_like(self.target), where=self.claimed > 0)
        return float((self.drawn * value(ratio)).sum(1).mean())

    def columns(self, blocks: int, seed: int) -> dict[str, np.ndarray]:
        """The columns of a log of that many blocks, records of a block together, up to its first rejection."""
        random = np.random.default_rng(seed)
        context = random.integers(CONTEXTS, size=(blocks, NODES))
        cumulative = self.drawn.cumsum(1)
        cumulative /= cumulative[:, -1:]
        token = (random.random((blocks, NODES, 1)) >= cumulative[context]).sum(-1)
        claimed, target = self.claimed[context, token], self.target[context, token]
        ratio = np.divide(target, claimed, out=np.full(claimed.shape, np.inf), where=claimed > 0)
        accepted = random.random((blocks, NODES)) < self.coin(ratio)
        examined = np.cumprod(np.concatenate((np.ones((blocks, 1), bool), accepted[:, :-1]), 1), 1).astype(bool)
        kept = examined & (accepted | (random.random((blocks, NODES)) >= self.dropped))
        every = {
            "draft": np.broadcast_to(np.arange(blocks)[:, None], kept.shape),
            "position": np.broadcast_to(np.arange(NODES), kept.shape),
            "claimed": claimed,
            "target": target,
            "accepted": accepted,
            "overlap": self.overlap[context],
            "context": context,
            "token": token,
        }
        return {name: column[kept] for name, column in every.items()}


def laws(seed: int = 0, noise: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Logits (contexts, V) of a target and a drafter that resembles it."""
    random = np.random.default_rng(seed)
    target = 1.5 * random.standard_normal((CONTEXTS, VOCAB))
    return target, target + noise * random.standard_normal((CONTEXTS, VOCAB))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (contexts, V)."""
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def top(probs: np.ndarray, count: int) -> np.ndarray:
    """The law of its ``count`` likeliest tokens."""
    cut = np.where(probs >= np.sort(probs, 1)[:, -count][:, None], probs, 0.0)
    return cut / cut.sum(1, keepdims=True)


def world(coin: Coin = honest, **changes: Any) -> World:
    """A world in which all is well but for the coin and the changes."""
    target, draft = (softmax(item) for item in laws())
    return World(**{"target": target, "drawn": draft, "claimed": draft, "coin": coin, **changes})


def records(columns: dict[str, np.ndarray], without: tuple[str, ...] = ()) -> Records:
    """The same as a reader of the file would hold it."""
    numbers = {
        key: columns[key].astype(float)
        if key in columns and key not in without
        else np.full(len(columns["draft"]), np.nan)
        for key in ("claimed", "target", "accepted", "position", "overlap", "time")
    }
    names = {key: columns[key] for key in ("draft", "context", "token") if key in columns and key not in without}
    return Records(numbers, names)


def lines(columns: dict[str, np.ndarray], without: tuple[str, ...] = ()) -> list[str]:
    """JSON lines of the columns."""
    names = [name for name in columns if name not in without]
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [json.dumps(dict(zip(names, row, strict=True))) for row in rows]


def write(path: Path, columns: dict[str, np.ndarray], without: tuple[str, ...] = ()) -> Path:
    """A file of JSON lines."""
    path.write_text("\n".join(lines(columns, without)) + "\n")
    return path

"""Pairs of models for a decoder: tables over prefixes of any length, for the function and for the catalogue's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from verify.errors import SubjectError
from verify.spaces.problem_law import tokens_of

FACTOR, MODULUS = 1_000_003, 2_147_483_647  # of the hash that names a prefix


@dataclass(frozen=True, eq=False)
class Tables:
    """A model over prefixes of any length: a hash of the whole prefix chooses the row, so that no token can be lost.

    ``rows`` (R, V). Called with a prefix it returns a fresh Tensor (V,). Raises SubjectError for what is no prefix.
    """

    rows: Tensor
    vocab: int = field(init=False)
    _each: tuple[Tensor, ...] = field(
        init=False, repr=False
    )  # rows made beforehand: called at every draft of every leaf

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocab", self.rows.shape[-1])
        object.__setattr__(self, "_each", tuple(row.clone() for row in self.rows))

    def __call__(self, prefix: Any) -> Tensor:
        return self.law(self._tokens(prefix)).clone()

    def _tokens(self, prefix: Any) -> tuple[int, ...]:
        vocab = self.vocab
        try:
            tokens = tuple(int(token) for token in prefix)
        except (TypeError, ValueError):
            raise SubjectError(
                f"the model was called with {type(prefix).__name__}; call it with a tuple of token ids"
            ) from None
        if any(not 0 <= token < vocab for token in tokens):
            raise SubjectError(
                f"the model was called with the prefix {tokens}, whose ids pass 0..{vocab - 1}; mend the prefix"
            )
        return tokens

    def law(self, prefix: tuple[int, ...]) -> Tensor:
        code = 0
        for token in prefix:
            code = (code * FACTOR + token + 1) % MODULUS
        return self._each[code % len(self._each)]

    def sequences(self, length: int) -> dict[tuple[int, ...], float]:
        """The exact law of sequences of this length."""
        found: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(length):
            found = {
                (*prefix, token): mass * float(chance)
                for prefix, mass in found.items()
                for token, chance in enumerate(self.law(prefix))
                if chance > 0
            }
        return found


@dataclass(frozen=True, eq=False)
class Heard(Tables):
    """Tables that note the lengths of the prefixes that they are called with, as numbers of a common ``log``."""

    log: list[tuple[str, int]] = field(default_factory=list)
    name: str = ""

    def __call__(self, prefix: Any) -> Tensor:
        law = super().__call__(prefix)
        self.log.append((self.name, len(tuple(prefix))))
        return law


@dataclass(frozen=True)
class TableModel:
    """Tables of one size as a model, whose condition says which of them: the state (rows, 2) is that number, and the
    hash of the prefix, which holds all that tables look at.
    """

    tables: tuple[Tables, ...]

    def start(self, rows: int, condition: Any = None) -> Tensor:
        """Empty prefixes, of the tables numbered in ``condition`` (rows,)."""
        which = torch.zeros(rows, dtype=torch.long) if condition is None else condition
        return torch.stack([which, torch.zeros_like(which)], 1)

    def law(self, state: Tensor, value: Tensor | None = None, parent: Tensor | None = None) -> Categorical:
        """Batch (rows, N + 1), as in ``Model.law``."""
        which, code = state.unbind(1)
        codes = [code]
        if value is not None:
            above = range(-1, value.shape[1] - 1) if parent is None else parent.tolist()
            for node, place in enumerate(above):
                codes.append(_longer(codes[place + 1], value[:, node]))
        rows = torch.stack([tables.rows for tables in self.tables])
        return Categorical(rows[which.unsqueeze(1), torch.stack(codes, 1) % rows.shape[1]])

    def extend(self, state: Tensor, value: Tensor, length: Tensor) -> Tensor:
        """The prefixes with the first ``length`` (rows,) tokens of ``value`` (rows, L) after them."""
        which, code = state.unbind(1)
        for place, token in enumerate(value.unbind(1)):
            code = torch.where(place < length, _longer(code, token), code)
        return torch.stack([which, code], 1)

    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        """The prefixes of the selected rows."""
        return state[rows]


def _longer(code: Tensor, token: Tensor) -> Tensor:
    return (code * FACTOR + token + 1) % MODULUS


@dataclass(frozen=True, eq=False)
class Pair:
    """A drafter and a target to decode with."""

    drafter: Tables
    target: Tables
    name: str
    length: int

    @property
    def vocab(self) -> int:
        return self.target.vocab

    def vector(self, law: Mapping[tuple[int, ...], float]) -> Tensor:
        """A law of sequences as a vector (V**length,), the first token most significant."""
        masses = torch.zeros((self.vocab,) * self.length, dtype=torch.float64)
        for tokens, mass in law.items():
            masses[tokens] += mass
        return masses.flatten()

    def call(self, fn: Callable[..., Any]) -> tuple[int, ...]:
        return tokens_of(fn(self.target, self.drafter, self.length), self.vocab, self.length, self.length)


def drafts_at_once(fn: Callable[..., Any], pair: Pair) -> int:
    """How many tokens the function drafts in one go, as far as can be heard: the longest run of calls to the drafter,
    with no call to the target in between, of which each has one token more than the last. 0 if it is never called.
    """
    log: list[tuple[str, int]] = []
    drafter, target = Heard(pair.drafter.rows, log, "drafter"), Heard(pair.target.rows, log, "target")
    replace(pair, drafter=drafter, target=target).call(fn)
    longest = run = 0
    last = ("", -1)
    for name, length in log:
        run = 0 if name == "target" else run + 1 if last == (name, length - 1) else 1
        longest, last = max(longest, run), (name, length)
    return longest


def pairs(vocab: int, length: int, seed: int = 0) -> list[Pair]:
    """Pairs of one size, from harmless to hostile."""
    tape = GeneratorTape(seed)
    count = 2 * (vocab + 1) ** 2

    def rows(power: float, zeros: float = 0.0) -> Tensor:
        table = tape.race("rows", (count, vocab)) ** power * (tape.uniform("zero", (count, vocab)) >= zeros)
        table[table.sum(-1) == 0, 0] = 1.0
        return table / table.sum(-1, keepdim=True)

    equal = rows(1.0)
    kinds = {
        "random": (rows(1.0), rows(1.0)),
        "peaked": (rows(3.0), rows(3.0)),
        "zeros": (rows(1.0, 0.4), rows(1.0, 0.4)),
        "equal laws": (equal, equal),
        "reversed": (equal.flip(-1), equal),
        "point masses": (rows(1.0, 0.95), rows(1.0, 0.95)),
        "ties": (torch.full((count, vocab), 1.0 / vocab, dtype=torch.float64), rows(0.0, 0.3)),
    }
    return [Pair(Tables(drafter), Tables(target), name, length) for name, (drafter, target) in kinds.items()]

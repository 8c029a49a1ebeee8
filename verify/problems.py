"""Problems for a discrete verifier: a drafter and a target over a small vocabulary, as tables over every prefix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distributions.tape import GeneratorTape


@dataclass(frozen=True, eq=False)
class Problem:
    """A drafter and a target, context by context.

    ``draft[d]`` (V**d, V) for d < gamma and ``target[d]`` (V**d, V) for d <= gamma: the laws after each prefix of d
    tokens, the prefix read as a base-V number. ``len(draft)`` is the draft length gamma. Rows are normalised here.
    Raises ValueError for wrong shapes and for rows that are negative, non-finite or without mass.
    """

    draft: tuple[Tensor, ...]
    target: tuple[Tensor, ...]
    name: str = ""
    dtype: torch.dtype = torch.float64
    recipe: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "draft", tuple(self._rows(t, d, "draft") for d, t in enumerate(self.draft)))
        object.__setattr__(self, "target", tuple(self._rows(t, d, "target") for d, t in enumerate(self.target)))
        if len(self.target) != len(self.draft) + 1 or not self.draft:
            raise ValueError(
                "a problem needs one table per drafted position and one target table more; add the bonus row"
            )

    def _rows(self, table: Any, depth: int, name: str) -> Tensor:
        rows = torch.as_tensor(table, dtype=torch.float64)
        vocab = torch.as_tensor(self.target[0]).shape[-1]
        if tuple(rows.shape) != (vocab**depth, vocab):
            raise ValueError(f"{name}[{depth}] must have shape {(vocab**depth, vocab)}, and has {tuple(rows.shape)}")
        if not bool(torch.isfinite(rows).all()) or bool((rows < 0).any()) or bool((rows.sum(-1) <= 0).any()):
            raise ValueError(f"{name}[{depth}] must be finite and non-negative with mass in every row; mend the table")
        rows = rows / rows.sum(-1, keepdim=True)
        return rows.to(self.dtype).double() if self.dtype != torch.float64 else rows

    @property
    def vocab(self) -> int:
        return self.target[0].shape[-1]

    @property
    def length(self) -> int:
        """The draft length."""
        return len(self.draft)

    def index(self, prefix: tuple[int, ...]) -> int:
        """The row of a prefix."""
        code = 0
        for token in prefix:
            code = code * self.vocab + token
        return code

    def drafts(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Every drafted block of positive probability, and that probability."""
        for block in itertools.product(range(self.vocab), repeat=self.length):
            mass = math.prod(float(self.draft[d][self.index(block[:d]), token]) for d, token in enumerate(block))
            if mass > 0:
                yield block, mass

    def rows(self, block: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The drafter's laws (gamma, V) and the target's (gamma + 1, V) along a drafted block."""
        draft = torch.stack([self.draft[d][self.index(block[:d])] for d in range(self.length)])
        target = torch.stack([self.target[d][self.index(block[:d])] for d in range(self.length + 1)])
        return draft, target

    def call(self, fn: Callable[..., Any], block: tuple[int, ...]) -> Callable[[], Any]:
        """``fn`` on one drafted block, on fresh copies of its arguments at each call."""
        tokens = torch.tensor(block)
        draft, target = (rows.to(self.dtype) for rows in self.rows(block))
        return lambda: fn(tokens.clone(), draft.clone(), target.clone())

    @cached_property
    def truth(self) -> Tensor:
        """The target's law (V**(gamma+1),) of gamma + 1 tokens."""
        law = self.target[0][0]
        for table in self.target[1:]:
            law = (law.unsqueeze(-1) * table).flatten()
        return law / law.sum()

    def complete(self, emitted: Mapping[tuple[int, ...], float]) -> Tensor:
        """The law (V**(gamma+1),) of gamma + 1 tokens, those not emitted being drawn from the target (lemma L5)."""
        law = torch.zeros(self.vocab ** (self.length + 1), dtype=torch.float64)
        for tokens, mass in emitted.items():
            tail = torch.full((1,), mass, dtype=torch.float64)
            base = self.index(tokens)
            for depth in range(len(tokens), self.length + 1):
                rows = torch.arange(len(tail)) + base * self.vocab ** (depth - len(tokens))
                tail = (tail.unsqueeze(-1) * self.target[depth][rows]).flatten()
            law[base * len(tail) : (base + 1) * len(tail)] += tail
        return law

    @property
    def overlap(self) -> float:
        """The most that a lossless rule may keep of the first drafted token."""
        return float(torch.minimum(self.draft[0], self.target[0]).sum())

    def snippet(self) -> str:
        """Python that rebuilds the problem: its ``recipe`` if it has one, its tables otherwise."""
        if self.recipe:
            return self.recipe

        def rows(tables: tuple[Tensor, ...]) -> str:
            shown = ", ".join(repr(_shown(table)) for table in tables)
            return f"[{shown}]"

        kind = "" if self.dtype == torch.float64 else f", dtype={self.dtype}"
        return f"Problem(draft={rows(self.draft)},\n        target={rows(self.target)}{kind})"

    @property
    def pasted(self) -> str:
        """Lines that make ``problem`` in a file of one's own."""
        made = self.snippet()
        return f"from verify.problems import {made.partition('(')[0]}\nproblem = {made}"

    def to(self, dtype: torch.dtype) -> Problem:
        """The same problem with its tables rounded to ``dtype``, in which the function receives them."""
        return replace(self, dtype=dtype)


def _shown(table: Tensor) -> list[list[float]]:
    """Rows as short numbers where they are the same numbers: small whole weights if there are any."""
    for scale in range(1, 33):
        weights = table * scale
        if bool(((weights - weights.round()).abs() < 1e-13).all()):
            return [[int(v) for v in row] for row in weights.round().tolist()]
    return [[float(v) for v in row] for row in table.tolist()]


# --- the pool --------------------------------------------------------------------------------------------------
Maker = Callable[[int, int, GeneratorTape], Tensor]


def _random(power: float) -> Maker:
    """Random rows, the more peaked the higher the power of the exponentials they are made of."""
    return lambda rows, vocab, tape: tape.race("table", (rows, vocab)) ** power + 1e-12


def _sparse(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    table = tape.race("table", (rows, vocab)) * (tape.uniform("zero", (rows, vocab)) < 0.5)
    empty = table.sum(-1) == 0
    table[empty, 0] = 1.0
    return table


def _point(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    return torch.nn.functional.one_hot(tape.race("table", (rows, vocab)).argmax(-1), vocab).double()


def _tied(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    return (tape.uniform("table", (rows, vocab)) * 3).floor() + 1.0


def _subnormal(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    table = tape.race("table", (rows, vocab))
    table[:, 0] = 5e-324 * (1 + torch.arange(rows) % 3)
    return table


def _uniform(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    return torch.ones(rows, vocab, dtype=torch.float64)


def _lower(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    table = tape.race("table", (rows, vocab))
    table[:, (vocab + 1) // 2 :] = 0.0
    return table


def _upper(rows: int, vocab: int, tape: GeneratorTape) -> Tensor:
    table = tape.race("table", (rows, vocab))
    table[:, : (vocab + 1) // 2] = 0.0
    return table


PAIRS: dict[str, tuple[Maker, Maker]] = {
    "random": (_random(1.0), _random(1.0)),
    "peaked": (_random(4.0), _random(4.0)),
    "flat against peaked": (_uniform, _random(4.0)),
    "peaked against flat": (_random(4.0), _uniform),
    "zeros": (_sparse, _sparse),
    "zeros at the target": (_random(1.0), _sparse),
    "zeros at the drafter": (_sparse, _random(1.0)),
    "ties": (_tied, _tied),
    "point masses": (_point, _point),
    "point-mass drafter": (_point, _random(1.0)),
    "point-mass target": (_random(1.0), _point),
    "disjoint supports": (_lower, _upper),
    "nested supports": (_lower, _random(1.0)),
    "subnormals": (_subnormal, _subnormal),
}


def pool(vocab: int, length: int, seed: int = 0, copies: int = 1) -> list[Problem]:
    """Problems of one size, from harmless to hostile, ``copies`` of each random kind."""
    tape = GeneratorTape(seed)
    found: list[Problem] = []

    def tables(maker: Maker, depths: int) -> tuple[Tensor, ...]:
        return tuple(maker(vocab**d, vocab, tape) for d in range(depths))

    for copy in range(copies):
        for name, (drafter, target) in PAIRS.items():
            label = name if copies == 1 else f"{name} {copy + 1}"
            found.append(Problem(tables(drafter, length), tables(target, length + 1), label))
        equal = tables(_random(1.0), length + 1)
        found.append(Problem(equal[:-1], equal, "equal laws"))
        near = tuple(t / t.sum(-1, keepdim=True) for t in equal)
        found.append(
            Problem(tuple(t * (1 + 1e-15 * torch.arange(vocab)) for t in near[:-1]), near, "equal but for rounding")
        )
        found.append(Problem(tuple(t.flip(-1) for t in equal[:-1]), equal, "reversed"))
        # Thresholds, clamps and isclose() hide where the laws are close but not equal.
        sign = 1.0 - 2.0 * (torch.arange(vocab) % 2)
        for gap in (1e-3, 1e-5, 1e-7):
            found.append(Problem(tuple(t * (1 + gap * sign) for t in near[:-1]), near, f"equal to {gap:g}"))
    return found


def wide(vocab: int, seed: int = 0) -> Problem:
    """One drafted token over a large vocabulary: a flat target, and a drafter on four tokens, to enumerate it."""
    tape = GeneratorTape(seed)
    target = 0.5 + tape.uniform("target", (vocab + 1, vocab))
    draft = torch.zeros(1, vocab, dtype=torch.float64)
    places = torch.arange(4) * (vocab - 1) // 3
    draft[0, places] = 0.1 + tape.race("draft", (4,))
    return Problem((draft,), (target[:1], target[1:]), f"wide, V = {vocab}", recipe=f"wide({vocab}, {seed})")

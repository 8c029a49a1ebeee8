"""A sequence of continuous tokens: the next token's law is a head's, under a condition that encodes the last tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from distributions.autoregressive import _Windowed, windows
from distributions.datasets import CONDITION, on_circles
from distributions.law import Law
from distributions.tape import GeneratorTape


@dataclass(frozen=True, eq=False)
class TokenSequence(_Windowed):
    """An autoregression over tokens of ``dim`` numbers with the last ``order`` of them, zeros at first, as its state.

    ``given`` makes the next token's law, batch (rows, N + 1), from conditions (rows, N + 1, c): a PathLaw of a trained
    head, a flow, or the law of the data itself, which is what the heads imitate; models that differ in ``given`` alone
    are a drafter, a target and the truth. A value may be more than its token, as a path is: what is kept of it is
    ``law.token(value)``, so that paths are drafted and tokens remembered.

        TokenSequence(lambda condition: PathLaw(Denoiser(head, schedule, condition)), dim)
    """

    given: Callable[[Tensor], Law]
    dim: int
    order: int = 2
    device: str = "cpu"

    def start(self, rows: int, condition: Any = None) -> Tensor:
        """Empty sequences: windows of zeros. The model has no condition of its own and ignores it."""
        return torch.zeros(rows, self.order, self.dim, dtype=torch.float64, device=self.device)

    def law(self, state: Tensor, value: Tensor | None = None, parent: Tensor | None = None) -> Law:
        """Batch (rows, N + 1), as in ``Model.law``; only the tokens of ``value`` are looked at."""
        tokens = None if value is None else self._tokens(state, value)
        return self.given(encoded(windows(state, tokens, parent)))

    def extend(self, state: Tensor, value: Tensor, length: Tensor) -> Tensor:
        """The window after the first ``length`` (rows,) values."""
        return super().extend(state, self._tokens(state, value), length)

    def _tokens(self, state: Tensor, value: Tensor) -> Tensor:
        return self.given(encoded(state.unsqueeze(1))).token(value)


def encoded(window: Tensor) -> Tensor:
    """The condition (*, c) after the last tokens (*, order, d): both angles are linear in the tokens.

    Token j back counts 2^-j; for tokens of N(0, I) each angle is N(phase, 1.5^2), most of the circle, and moves by
    1.5 / sqrt(d) or so with one unit of one coordinate: smooth, and never the condition that stands for none.
    """
    order, dim = window.shape[-2:]
    share = 0.5 ** torch.arange(order - 1, -1, -1, dtype=torch.float64, device=window.device)
    angle = torch.einsum("...od,o,da->...a", window.double(), share / share.norm(), _mixing(dim).to(window.device))
    return on_circles(angle + torch.tensor([0.5, 2.0], dtype=torch.float64, device=window.device))


@cache
def _mixing(dim: int) -> Tensor:
    """Fixed directions (d, c / 2), orthogonal, each of length 1.5."""
    drawn = GeneratorTape(dim).normal("sequence.mixing", (dim, CONDITION // 2))
    turn: Tensor = torch.linalg.qr(drawn).Q
    return 1.5 * turn

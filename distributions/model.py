"""The protocol of a sequence model: from a state to the law of the next token, or of several at once."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from distributions.law import Law

State = TypeVar("State")


@runtime_checkable
class Model(Protocol[State]):
    """Drafter and target alike. A state is a value: it is never changed, so rollback is keeping the old one."""

    def start(self, rows: int, condition: Any = None) -> State:
        """The state of ``rows`` empty sequences."""
        ...

    def law(self, state: State, value: Tensor | None = None, parent: Tensor | None = None) -> Law:
        """The laws after the state and after each drafted node: batch (rows, N + 1), in one parallel evaluation.

        Column 0 is the law of the next token; column n + 1 follows node n of ``value`` (rows, N, *event), whose
        ``parent`` (N,) is -1 for the state itself. Without ``value`` the batch is (rows, 1); without ``parent`` the
        draft is a chain.
        """
        ...

    def extend(self, state: State, value: Tensor, length: Tensor) -> State:
        """The state after the first ``length`` (rows,) tokens of ``value`` (rows, L, *event)."""
        ...

    def select(self, state: State, rows: Tensor) -> State:
        """The states of the selected rows."""
        ...

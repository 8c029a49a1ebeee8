"""Images token by token: models of a fixed number of tokens, whose state is all of them so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from distributions.categorical import Categorical


@dataclass(frozen=True, eq=False)
class Canvas:
    """Images begun: ``tokens`` (rows, T), of which the first ``count`` (rows,) are there, and the ``label`` (rows,)."""

    tokens: Tensor
    count: Tensor
    label: Tensor


class Painter:
    """A ``Model`` of images of ``size`` tokens of ``vocab`` values, from its ``scores``; subclasses give these three.

    Every law is softmax of ``logits``, in float64, and depends on earlier tokens only: on none of the window it is
    asked in. The laws of places beyond the image are the last place's, which nobody needs.
    """

    size: int
    vocab: int

    def scores(self, tokens: Tensor, place: Tensor, label: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, K, V) of the tokens at ``place`` (B, K), given those of ``tokens`` (B, T)
        that come before it, and ``label`` (B,).
        """
        raise NotImplementedError

    def labels(self, rows: int, condition: Any) -> Tensor:
        """The label of each row for a condition, which this model does not have."""
        return torch.zeros(rows, dtype=torch.long)

    def start(self, rows: int, condition: Any = None) -> Canvas:
        """Empty images."""
        blank = torch.zeros(rows, dtype=torch.long)
        return Canvas(blank.unsqueeze(1).repeat(1, self.size), blank, self.labels(rows, condition))

    def logits(self, state: Canvas, value: Tensor | None = None, parent: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities (rows, N + 1, V): of the next token, and after each drafted node.

        ``value`` (rows, N), ``parent`` (N,) as in ``Model.law``. A chain is written into the image and costs one image
        a row; any other tree costs one image a node.
        """
        rows, nodes = len(state.count), 0 if value is None else value.shape[1]
        if value is None or parent is None or torch.equal(parent.cpu(), torch.arange(nodes) - 1):
            place = state.count.unsqueeze(1) + torch.arange(nodes + 1)
            tokens = state.tokens if value is None else _written(state.tokens, place[:, :-1], value)
            return self.scores(tokens, place.clamp(max=self.size - 1), state.label)
        images, depth = [state.tokens], [0]
        for node, above in enumerate(parent.tolist()):
            if not -1 <= above < node:
                raise ValueError(f"node {node} has parent {above}; a parent is -1 or an earlier node")
            place = (state.count + depth[above + 1]).unsqueeze(1)
            images.append(_written(images[above + 1], place, value[:, node : node + 1]))
            depth.append(depth[above + 1] + 1)
        place = (state.count.unsqueeze(1) + torch.tensor(depth)).clamp(max=self.size - 1)
        tokens, label = torch.stack(images, 1).flatten(0, 1), state.label.repeat_interleave(nodes + 1)
        return self.scores(tokens, place.reshape(-1, 1), label).reshape(rows, nodes + 1, self.vocab)

    def law(self, state: Canvas, value: Tensor | None = None, parent: Tensor | None = None) -> Categorical:
        """Batch (rows, N + 1), as in ``Model.law``."""
        return Categorical(self.logits(state, value, parent).double().softmax(-1))

    def extend(self, state: Canvas, value: Tensor, length: Tensor) -> Canvas:
        """The images after the first ``length`` (rows,) tokens of ``value``; what goes beyond their end is dropped."""
        step = torch.arange(value.shape[1])
        place = torch.where(step < length.unsqueeze(1), state.count.unsqueeze(1) + step, self.size)
        count = (state.count + length).clamp(max=self.size)
        return Canvas(_written(state.tokens, place, value), count, state.label)

    def select(self, state: Canvas, rows: Tensor) -> Canvas:
        """The images of the selected rows."""
        return Canvas(state.tokens[rows], state.count[rows], state.label[rows])


class Logits(Protocol):
    """A model that can also say its unnormalised log-probabilities: a ``Painter``, or any other."""

    def logits(self, state: Any, value: Tensor | None = None, parent: Tensor | None = None) -> Tensor:
        """(rows, N + 1, V), as in ``Model.law``."""
        ...

    def start(self, rows: int, condition: Any = None) -> Any:
        """As in ``Model.start``; ``condition`` None is the unconditional model."""
        ...

    def extend(self, state: Any, value: Tensor, length: Tensor) -> Any:
        """As in ``Model.extend``."""
        ...

    def select(self, state: Any, rows: Tensor) -> Any:
        """As in ``Model.select``."""
        ...


def _written(tokens: Tensor, place: Tensor, value: Tensor) -> Tensor:
    """``tokens`` (B, T) with ``value`` (B, K) at ``place`` (B, K); places from T on are written nowhere."""
    size = tokens.shape[1]
    wide = torch.nn.functional.pad(tokens, (0, 1))
    return wide.scatter(1, place.clamp(max=size), value)[:, :size]

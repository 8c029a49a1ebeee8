"""MAR with one token a step as a ``Model``: every prefix of a draft is a mask of its own, and a pass of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributions.mar import masking
from distributions.mar.backbone import Mar
from distributions.mar.diffusion import Sampler
from distributions.mar.sampling import told
from distributions.mar.tree import ancestry, labels, tokens_of
from distributions.path import PathLaw
from distributions.tape import Tape


@dataclass(frozen=True, eq=False)
class Image:
    """Images begun: ``tokens`` (rows, N, d) in raster order, ``count`` (rows,) of them there; ``order`` (rows, N) is
    filled from its end; ``label`` (rows,).
    """

    tokens: Tensor
    count: Tensor
    order: Tensor
    label: Tensor


@dataclass(frozen=True, eq=False)
class Start:
    """What an image starts from: its ``order`` (rows, N), and its class, as in ``CausalSequence``.

    Drafter and target must have the same order, or their tokens are of different places.
    """

    order: Tensor
    condition: Any = None

    @staticmethod
    def random(tape: Tape, rows: int, tokens: int, condition: Any = None) -> Start:
        """Random orders."""
        return Start(masking.orders(tape, rows, tokens), condition)


@dataclass(frozen=True, eq=False)
class MaskedSequence:
    """A ``Model`` whose token i is that of place ``order[N - 1 - i]``: MAR's sampling loop with N iterations.

    The encoder reads all visible tokens at once, so the N + 1 laws after a draft are as many images side by side, each
    with its own mask (exact, and no cheaper than one after another but for the latency). A value is a path.
    ``start`` takes a ``Start``. Laws beyond the image are the last place's, which nobody needs.
    """

    network: Mar
    sampler: Sampler = field(default_factory=Sampler)

    def start(self, rows: int, condition: Start) -> Image:
        """Empty images. Raises ValueError for orders of another size, or a class that there is not."""
        shape, order = self.network.shape, condition.order
        if tuple(order.shape) != (rows, shape.tokens):
            raise ValueError(f"order {tuple(order.shape)} must be {(rows, shape.tokens)}; draw it with Start.random")
        label = labels(rows, condition.condition, shape.classes, order.device)
        blank = torch.zeros(rows, shape.tokens, shape.dim, dtype=torch.float64, device=order.device)
        return Image(blank, torch.zeros_like(label), order, label)

    def law(self, state: Image, value: Tensor | None = None, parent: Tensor | None = None) -> PathLaw:
        """Batch (rows, N + 1), event (T + 1, d), as in ``Model.law``."""
        drafted = state.tokens[:, :0] if value is None else tokens_of(value)
        above, depth = (part.to(state.count.device) for part in ancestry(drafted.shape[1], parent))
        images, nodes = state.tokens.unsqueeze(1), drafted.shape[1] + 1
        images = images.expand(-1, nodes, -1, -1)
        for node in range(1, nodes):
            place = self._place(state, depth[node] - 1)
            written = images.scatter(
                2, place.expand_as(images[:, :, :1]), drafted[:, None, node - 1, None].expand(-1, nodes, -1, -1)
            )
            images = torch.where(above[:, node, None, None], written, images)
        size = self.network.shape.tokens
        left = (size - state.count.unsqueeze(1) - depth).clamp(min=1)
        order = state.order.repeat_interleave(nodes, 0)
        masked, label = masking.masked(order, left.flatten()), state.label.repeat_interleave(nodes)
        both = told(self.network, self.sampler, images.flatten(0, 1), masked, label)
        here = order.gather(1, left.reshape(-1, 1) - 1).unsqueeze(-1)
        some, none = (
            None if part is None else part.gather(1, here.expand(-1, -1, part.shape[-1])).reshape(*left.shape, -1)
            for part in both
        )
        assert some is not None
        # The loop's last step counts one token as left, for guidance.
        return self.sampler.law(self.network.head, some, none, self.sampler.scale((left - 1).clamp(min=1), size))

    def extend(self, state: Image, value: Tensor, length: Tensor) -> Image:
        """The images after the first ``length`` (rows,) of ``value``; what goes beyond their end is dropped."""
        tokens, drafted = state.tokens, tokens_of(value)
        size, length = tokens.shape[1], length.to(state.count.device)
        for step in range(int(length.max()) if len(length) else 0):
            new = tokens.scatter(
                1, self._place(state, step)[:, 0].expand(-1, -1, tokens.shape[-1]), drafted[:, step, None]
            )
            tokens = torch.where(((step < length) & (state.count + step < size))[:, None, None], new, tokens)
        return Image(tokens, (state.count + length).clamp(max=size), state.order, state.label)

    def select(self, state: Image, rows: Tensor) -> Image:
        """The images of the selected rows."""
        rows = rows.to(state.count.device)
        return Image(state.tokens[rows], state.count[rows], state.order[rows], state.label[rows])

    def _place(self, state: Image, step: Tensor | int) -> Tensor:
        """Where token ``count + step`` goes, (rows, 1, 1, 1); the last place where it is beyond the image."""
        rank = (state.tokens.shape[1] - 1 - state.count - step).clamp(min=0)
        return state.order.gather(1, rank.unsqueeze(1))[..., None, None]

"""The causal model as a ``Model``: a key-value cache that is never changed, so that a rejected draft is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributions.mar.backbone import NOBODY
from distributions.mar.causal_network import CausalMar
from distributions.mar.diffusion import Sampler
from distributions.mar.tree import ancestry, labels, tokens_of
from distributions.path import PathLaw


@dataclass(frozen=True, eq=False)
class Seen:
    """What one evaluation computed for drafted ``tokens`` (rows, N, d): the ``keys`` of the last token and of these."""

    tokens: Tensor
    keys: Tensor


@dataclass(frozen=True, eq=False)
class CausalState:
    """Images begun: ``count`` (rows,) tokens each, of which the last one is in ``last`` (rows, d), not read yet.

    ``keys`` (rows, branches, layers, 2, heads, L, D / heads): keys and values of what was read, by place; row r has
    ``count[r]`` of them and whatever lies beyond is not looked at, so that cropping the cache is keeping the old count.
    ``label`` (rows, branches): the class, and under guidance NOBODY beside it. ``seen``: the last evaluation, if there
    was one, so that what it computed of an accepted draft need not be computed again; it changes no result.
    """

    keys: Tensor
    count: Tensor
    last: Tensor
    label: Tensor
    seen: list[Seen] = field(default_factory=list, repr=False)


@dataclass(frozen=True, eq=False)
class CausalSequence:
    """A ``Model`` of images token by token in raster order; a value is a path, of which its token is remembered.

    A draft of N nodes, chain or tree, is one pass over N + 1 places, the last token's among them. ``sampler``: how a
    token is drawn; where guidance grows, it does with the number of tokens that come after. The condition is a class
    (rows,), one for all, or None for the unconditional model. Laws beyond the image are finite, and nobody needs them.
    """

    network: CausalMar
    sampler: Sampler = field(default_factory=Sampler)

    def start(self, rows: int, condition: Any = None) -> CausalState:
        """Empty images, on the network's device. Raises ValueError for a class that there is not."""
        network, device = self.network, self.network.z_proj.weight.device
        shape = network.shape
        label = labels(rows, condition, shape.classes, device)
        pair = (label, torch.full_like(label, NOBODY)) if self.sampler.guided else (label,)
        size = (rows, len(pair), shape.depth, 2, shape.heads, 0, shape.width // shape.heads)
        keys = network.z_proj.weight.new_zeros(size)
        last = torch.zeros(rows, shape.dim, dtype=torch.float64, device=device)
        return CausalState(keys, torch.zeros_like(label), last, torch.stack(pair, 1))

    def law(self, state: CausalState, value: Tensor | None = None, parent: Tensor | None = None) -> PathLaw:
        """Batch (rows, N + 1), event (T + 1, d), as in ``Model.law``."""
        tokens = state.last.new_zeros(len(state.last), 0, state.last.shape[1]) if value is None else tokens_of(value)
        above, depth = ancestry(tokens.shape[1], parent)
        told, keys = self._read(state, tokens, above, depth)
        if parent is None or torch.equal(parent.cpu(), torch.arange(tokens.shape[1]) - 1):
            state.seen[:] = [Seen(tokens, keys)]
        size = self.network.shape.tokens
        left = (size - 1 - state.count.unsqueeze(1) - depth.to(state.count.device)).clamp(min=0)
        untold = told[:, 1] if self.sampler.guided else None
        return self.sampler.law(self.network.head, told[:, 0], untold, self.sampler.scale(left, size))

    def extend(self, state: CausalState, value: Tensor, length: Tensor) -> CausalState:
        """The state after the first ``length`` (rows,) of ``value`` (rows, L, *event); later ones are not looked at."""
        tokens, length = tokens_of(value), length.to(state.count.device)
        most = int(length.max()) if len(length) else 0
        if most == 0:
            return state
        keys = self._known(state, tokens, length, most)
        if keys is None:
            read = tokens[:, : most - 1]
            keys = self._read(state, read, *ancestry(most - 1, None))[1]
        keys, count = keys[..., :most, :], state.count + length
        wide = torch.nn.functional.pad(state.keys, (0, 0, 0, int(state.count.max()) + most - state.keys.shape[-2]))
        place = state.count.unsqueeze(1) + torch.arange(most, device=length.device)
        place = place.reshape(len(place), *(1,) * (keys.dim() - 3), most, 1).expand_as(keys)
        kept = wide.scatter(-2, place, keys)[..., : int(count.max()), :]
        both = torch.cat((state.last.unsqueeze(1), tokens.to(state.last)), 1)
        last = both[torch.arange(len(both), device=length.device), length]
        return CausalState(kept, count, last, state.label)

    def select(self, state: CausalState, rows: Tensor) -> CausalState:
        """The images of the selected rows."""
        rows = rows.to(state.count.device)
        return CausalState(state.keys[rows], state.count[rows], state.last[rows], state.label[rows])

    def _read(self, state: CausalState, tokens: Tensor, above: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Conditions (rows, branches, N + 1, D) and keys (rows, branches, layers, 2, heads, N + 1, D / heads) of the
        last token and of ``tokens`` (rows, N, d), with their ``ancestry``.
        """
        rows, branches = state.label.shape
        device, length = state.count.device, state.keys.shape[-2]
        read = torch.cat((state.last.unsqueeze(1), tokens.to(state.last)), 1)
        place = state.count.unsqueeze(1) + depth.to(device)
        old = torch.arange(length, device=device) < state.count.unsqueeze(1)
        old = old.unsqueeze(1).expand(-1, place.shape[1], -1)
        mask = torch.cat((old, above.to(device).expand(rows, -1, -1)), -1).unsqueeze(1)
        each = (part.repeat_interleave(branches, 0) for part in (read, place))
        told, keys = self.network(
            *each, state.label.flatten(), mask.repeat_interleave(branches, 0), state.keys.flatten(0, 1)
        )
        return told.unflatten(0, (rows, branches)), keys.unflatten(0, (rows, branches))

    @staticmethod
    def _known(state: CausalState, tokens: Tensor, length: Tensor, most: int) -> Tensor | None:
        """The keys of the last evaluation, if it read all that every row is extended by but its last token."""
        if not state.seen or state.seen[0].tokens.shape[1] < most - 1:
            return None
        drafted, read = state.seen[0].tokens[:, : most - 1], tokens[:, : most - 1]
        beyond = torch.arange(most - 1, device=length.device) >= length.unsqueeze(1) - 1
        return state.seen[0].keys if bool(((drafted == read).all(-1) | beyond).all()) else None

"""A Hugging Face causal language model as a ``Model``: the cache is a value, so a rejected draft is forgotten.

Temperature, top-k and top-p are ``distributions.processing.Processed`` around it, the same for drafter and target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.mar.tree import ancestry
from distributions.tape import Tape

Parts = tuple[Tensor, ...]
"""Keys, then values, of every layer in turn: (rows, heads, L, width) each."""


@dataclass(frozen=True, eq=False)
class Read:
    """What one evaluation computed for drafted ``tokens`` (rows, N): the ``parts`` of the last token and of these."""

    tokens: Tensor
    parts: Parts


@dataclass(frozen=True, eq=False)
class Text:
    """Sequences begun: ``count`` (rows,) tokens were read, and ``last`` (rows,) comes next, not read yet.

    ``parts``: the cache by place. Row r has ``count[r]`` places of it and whatever lies beyond is not looked at, so
    that cropping the cache is keeping the old state. ``seen``: the last evaluation, if there was one, so that what it
    computed of an accepted draft need not be computed again; it changes no result.
    """

    parts: Parts
    count: Tensor
    last: Tensor
    seen: list[Read] = field(default_factory=list, repr=False)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """The ``Model`` of a transformers causal language model with full attention, in its own dtype and on its device.

    A draft of N nodes, chain or tree, is one forward pass over N + 1 places, the last token's among them; rows may
    have any numbers of tokens, for each place has its own position and its own mask. The condition is the prompt: ids
    (L,), or (rows, L); None is the configuration's first token alone. For prompts of unequal lengths start with their
    first tokens and ``extend`` by the others. Raises ValueError for a model whose layers see a window only, since the
    cache kept here has no window.
    """

    network: Any

    def __post_init__(self) -> None:
        config = self.network.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        if kinds - {"full_attention"} or (not kinds and getattr(config, "sliding_window", None) is not None):
            seen = ", ".join(sorted(kinds - {"full_attention"})) or "sliding_window"
            raise ValueError(f"this model has layers of another kind ({seen}); give one with full attention in each")

    def start(self, rows: int, condition: Any = None) -> Text:
        """``rows`` sequences after their prompt. Raises ValueError without a prompt and a first token, or for an empty
        one.
        """
        device, config = self.network.device, self.network.config.get_text_config()
        if condition is None and getattr(config, "bos_token_id", None) is None:
            raise ValueError("the configuration has no bos_token_id; give the prompt as the condition")
        prompt = torch.as_tensor([config.bos_token_id] if condition is None else condition, device=device).long()
        if prompt.dim() not in (1, 2) or prompt.shape[-1] < 1 or (prompt.dim() == 2 and len(prompt) != rows):
            raise ValueError(f"a prompt is ids (L,) or ({rows}, L) with L of 1 or more, and is {tuple(prompt.shape)}")
        prompt = prompt.expand(rows, -1)
        zero = torch.zeros(rows, dtype=torch.long, device=device)
        state = Text((), zero, prompt[:, 0])
        return self.extend(state, prompt[:, 1:], zero + prompt.shape[1] - 1) if prompt.shape[1] > 1 else state

    def logits(self, state: Text, value: Tensor | None = None, parent: Tensor | None = None) -> Tensor:
        """(rows, N + 1, V), as in ``Model.law``, in the model's dtype."""
        drafted = state.last[:, None][:, :0] if value is None else value.to(state.last.device)
        above, depth = ancestry(drafted.shape[1], parent)
        found, parts = self._read(state, drafted, above, depth)
        if parent is None or torch.equal(parent.cpu(), torch.arange(drafted.shape[1]) - 1):
            state.seen[:] = [Read(drafted, parts)]
        return found

    def law(self, state: Text, value: Tensor | None = None, parent: Tensor | None = None) -> Categorical:
        """Batch (rows, N + 1), as in ``Model.law``: the softmax of ``logits`` in float64."""
        return Categorical(self.logits(state, value, parent).double().softmax(-1))

    def extend(self, state: Text, value: Tensor, length: Tensor) -> Text:
        """The state after the first ``length`` (rows,) of ``value`` (rows, L); later ones are not looked at."""
        value, length = value.to(state.last.device), length.to(state.last.device)
        most = int(length.max()) if len(length) else 0
        if most == 0:
            return state
        new = self._known(state, value, length, most)
        if new is None:
            new = self._read(state, value[:, : most - 1], *ancestry(most - 1, None))[1]
        count = state.count + length
        place = state.count.unsqueeze(1) + torch.arange(most, device=length.device)
        size, longest = int(state.count.max()) + most, int(count.max())
        old = state.parts or tuple(part[:, :, :0] for part in new)
        parts = tuple(
            _written(kept, part[:, :, :most], place, size)[:, :, :longest] for kept, part in zip(old, new, strict=True)
        )
        both = torch.cat((state.last.unsqueeze(1), value), 1)
        return Text(parts, count, both.gather(1, length.unsqueeze(1)).squeeze(1))

    def select(self, state: Text, rows: Tensor) -> Text:
        """The sequences of the selected rows."""
        rows = rows.to(state.last.device)
        return Text(tuple(part[rows] for part in state.parts), state.count[rows], state.last[rows])

    @torch.no_grad()
    def _read(self, state: Text, tokens: Tensor, above: Tensor, depth: Tensor) -> tuple[Tensor, Parts]:
        """The logits (rows, N + 1, V) after the last token and after ``tokens`` (rows, N), and the parts of these."""
        from transformers import DynamicCache

        read = torch.cat((state.last.unsqueeze(1), tokens), 1)
        rows, nodes = read.shape
        length = state.parts[0].shape[2] if state.parts else 0
        old = torch.arange(length, device=read.device) < state.count.unsqueeze(1)
        old = old.unsqueeze(1).expand(-1, nodes, -1)
        mask = torch.cat((old, above.to(read.device).expand(rows, -1, -1)), -1).unsqueeze(1)
        never = torch.finfo(self.network.dtype).min
        cache: Any = DynamicCache()
        for layer in range(len(state.parts) // 2):
            cache.update(state.parts[2 * layer], state.parts[2 * layer + 1], layer)
        out = self.network(
            input_ids=read,
            attention_mask=torch.zeros_like(mask, dtype=self.network.dtype).masked_fill(~mask, never),
            position_ids=state.count.unsqueeze(1) + depth.to(read.device),
            past_key_values=cache,
            use_cache=True,
        )
        parts = tuple(part[:, :, length:] for layer in cache.layers for part in (layer.keys, layer.values))
        return out.logits, parts

    @staticmethod
    def _known(state: Text, value: Tensor, length: Tensor, most: int) -> Parts | None:
        """The parts of the last evaluation, if it read all that every row is extended by but its last token."""
        if not state.seen or state.seen[0].tokens.shape[1] < most - 1:
            return None
        beyond = torch.arange(most - 1, device=length.device) >= length.unsqueeze(1) - 1
        same = (state.seen[0].tokens[:, : most - 1] == value[:, : most - 1]) | beyond
        return state.seen[0].parts if bool(same.all()) else None


def _written(old: Tensor, new: Tensor, place: Tensor, size: int) -> Tensor:
    """``old`` (rows, heads, L, width), made ``size`` long, with ``new`` at ``place`` (rows, M) of every row."""
    wide = torch.nn.functional.pad(old, (0, 0, 0, max(0, size - old.shape[2])))
    return wide.scatter(2, place[:, None, :, None].expand_as(new), new)


@torch.no_grad()
def untrained(network: Any, tape: Tape, spread: float = 1.0) -> Any:
    """The network, in place, with norms at one and every other weight N(0, ``spread`` ^ 2), drawn from the tape."""
    for name, part in network.named_parameters():
        norm = "norm" in name.rpartition(".")[0].rpartition(".")[2]
        part.copy_(torch.ones_like(part) if norm else spread * tape.normal(f"initial.{name}", part.shape))
    return network.eval()

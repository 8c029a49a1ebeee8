"""Drawing at chosen places of wide tables, which are read where they lie, once, and never copied."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.logits import Logits
from distributions.scratch import scratch
from distributions.tape import Tape

Vocabulary = Categorical | Logits
BLOCK = 256  # entries
WIDE = 4096  # the size of vocabulary from which on this is the faster way


def wide(law: Law) -> TypeGuard[Vocabulary]:
    """Whether ``drawn`` is the faster way: tables (rows, nodes, V) on the host, of at least 4096 tokens."""
    return isinstance(law, Vocabulary) and law.size >= WIDE and len(law.batch_shape) == 2 and law.device.type == "cpu"


def drawn(target: Vocabulary, draft: Vocabulary | None, row: Tensor, node: Tensor, tape: Tape, site: str) -> Tensor:
    """A token (n,) of (target - draft)+ at each place (row, node), both (n,); of the target itself without a draft.

    The mass of each block of 256 tokens is summed, a block is drawn, then a token of the block: x has probability

        (b / sum of b) (w_x / sum of w in its block),    b the sums as computed,

    so what is wide is read once, in the dtype of the tables, and float64 begins with the sums. Rounding of b in float32
    moves a token's probability by a share of at most (1 + log2 256) 2**-24, less than that of the difference w itself.
    A row without mass, by rounding of two rows that agree, is answered with the target, as in
    ``verify.residual.residual_law``. An index of many rows would copy them before they are read; hence a view of each
    place, in the one loop over rows there is, every turn of which reads two whole rows.
    """
    size, kind = target.size, target.entries(0, 0, slice(0)).dtype
    sums = torch.empty(len(row), -(-size // BLOCK), dtype=torch.promote_types(kind, torch.float32))
    padded, *spare = scratch(3 * sums.shape[1] * BLOCK, kind).view(3, -1)
    padded[size:] = 0
    weights, blocks, (one, two) = padded[:size], padded.view(-1, BLOCK), (part[:size] for part in spare)
    places = list(zip(row.tolist(), node.tolist(), strict=True))
    for place, out in zip(places, sums, strict=True):
        if draft is None:
            weights.copy_(target.entries(*place, out=one))
        else:
            torch.sub(target.entries(*place, out=one), draft.entries(*place, out=two), out=weights).clamp_(min=0)
        torch.sum(blocks, -1, dtype=sums.dtype, out=out)
    empty = torch.nonzero(sums.amax(-1) <= 0).flatten() if float(sums.amax(-1).amin()) <= 0 else row[:0]
    for at in empty.tolist():
        weights.copy_(target.entries(*places[at]))
        torch.sum(blocks, -1, dtype=sums.dtype, out=sums[at])
    tape = tape[row]
    start = tape.categorical(f"{site}.block", sums) * BLOCK
    token = start.unsqueeze(-1) + torch.arange(BLOCK)
    index = (row.unsqueeze(-1), node.unsqueeze(-1), token if size % BLOCK == 0 else token.clamp(max=size - 1))
    inside = own = target.entries(*index)
    if draft is not None:
        inside = (own - draft.entries(*index)).clamp_(min=0)
        inside[empty] = own[empty]
    if size % BLOCK:
        own, inside = own.masked_fill(token >= size, 0), inside.masked_fill(token >= size, 0)
    if isinstance(target, Logits):  # exp may round otherwise here than it did in the loop, and leave nothing
        inside = torch.where(inside.amax(-1, keepdim=True) > 0, inside, own)
    return start + tape.categorical(site, inside)

"""Drawing at chosen places of wide tables, which are read where they lie, once, and never copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.logits import Logits, scale
from distributions.scratch import scratch
from distributions.tape import Tape

Vocabulary = Categorical | Logits
BLOCK = 256  # entries
NOTHING = np.zeros((), np.float32)
Read = Callable[[int, int, slice], np.ndarray]
WIDE = 4096  # the size of vocabulary from which on this is the faster way


def wide(law: Law) -> TypeGuard[Vocabulary]:
    """Whether ``drawn`` is the faster way: tables (rows, nodes, V) on the host, of at least 4096 tokens."""
    return isinstance(law, Vocabulary) and law.size >= WIDE and len(law.batch_shape) == 2 and law.device.type == "cpu"


def drawn(target: Vocabulary, draft: Vocabulary | None, row: Tensor, node: Tensor, tape: Tape, site: str) -> Tensor:
    """A token (n,) of (target - draft)+ at each place (row, node), both (n,); of the target itself without a draft.

    The mass of each block of 256 tokens is summed, a block is drawn, then a token of the block: x has probability

        (b / sum of b) (w_x / sum of w in its block),    b the sums as computed,

    so what is wide is read once, in the dtype of the tables, or in float32 where that is narrower, and float64 begins
    with the sums. Rounding of b in float32 moves a token's probability by a share of at most (1 + log2 256) 2**-24,
    less than that of the difference w itself. A row without mass, by rounding of two rows that agree, is answered with
    the target, as in ``verify.residual.residual_law``. An index of many rows would copy them before they are read;
    hence a view of each place, in the one loop over rows there is, every turn of which reads two whole rows.
    """
    size, count = target.size, -(-target.size // BLOCK)
    padded, *spare = scratch(3 * count * BLOCK, torch.promote_types(target.dtype, torch.float32)).reshape(3, -1)
    padded[size:] = 0
    weights, blocks, whole = padded[:size], torch.from_numpy(padded.reshape(count, BLOCK)), slice(size)
    sums, inside = np.empty((len(row), count), padded.dtype), np.zeros((len(row), BLOCK), padded.dtype)
    above, below = (_reader(law, room) for law, room in zip((target, draft), spare, strict=True))
    places = list(zip(row.tolist(), node.tolist(), strict=True))
    # By numpy where it can be: in one row, a call of torch's costs as much as the arithmetic.
    for place, out in zip(places, sums, strict=True):
        np.subtract(above(*place, whole), below(*place, whole), out=weights)
        torch.sum(blocks.relu_(), -1, out=torch.from_numpy(out))
        if not out.any():  # a row without mass
            weights[:] = above(*place, whole)
            torch.sum(blocks, -1, out=torch.from_numpy(out))
    tape = tape[row]
    block = tape.categorical(f"{site}.block", torch.from_numpy(sums))
    start = block * BLOCK
    for place, begin, out in zip(places, start.tolist(), inside, strict=True):
        part = slice(begin, begin + BLOCK)
        own = above(*place, part)
        out = out[: len(own)]
        np.subtract(own, below(*place, part), out=out)
        np.maximum(out, 0, out=out)
        if not out.any():  # of a row without mass, since no other block is drawn empty
            out[:] = own
    return start + tape.categorical(site, torch.from_numpy(inside))


def _reader(law: Vocabulary | None, room: np.ndarray) -> Read:
    """The probabilities of some tokens at a place: a view, or written into ``room`` (V or more,); 0 of no law."""
    if law is None:
        return lambda row, node, part: NOTHING
    if isinstance(law, Categorical):
        return _host(law.probs)
    scores, total = _host(law.scores), law.log_total.numpy()

    def read(row: int, node: int, part: slice) -> np.ndarray:
        given = scores(row, node, part)
        near, factor = scale(total[row, node], room.dtype)
        out = room[: len(given)]
        np.subtract(given, near, out=out)
        np.exp(out, out=out)
        np.multiply(out, factor, out=out)
        return out

    return read


def _host(table: Tensor) -> Read:
    """What is at a place, seen by numpy; converted to float32, entry by entry, where it does not know the dtype."""
    table = table.detach()
    if table.dtype.itemsize >= 4:
        seen: np.ndarray = table.numpy()
        return lambda row, node, part: seen[row, node, part]
    return lambda row, node, part: table[row, node, part].float().numpy()

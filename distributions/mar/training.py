"""The loss of a whole MAR model on a batch of images."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.mar import masking
from distributions.mar.backbone import NOBODY, Mar
from distributions.mar.layers import Dropped
from distributions.mar.loss import diffusion_loss
from distributions.tape import Tape

NAMELESS = 0.1
DROPOUT = 0.1


def dropout(tape: Tape, rate: float) -> Dropped | None:
    """Dropout whose coins are the tape's; None at rate 0."""
    if rate == 0:
        return None

    def dropped(value: Tensor, site: str) -> Tensor:
        keep = tape.coin(f"dropout.{site}", torch.full(value.shape, 1 - rate, device=value.device))
        return value * keep / (1 - rate)

    return dropped


def nameless(tape: Tape, label: Tensor, rate: float = NAMELESS) -> Tensor:
    """Labels (rows,), each NOBODY with probability ``rate``."""
    return torch.where(tape.coin("nameless", torch.full(label.shape, rate, device=label.device)), NOBODY, label)


def loss(
    model: Mar,
    tokens: Tensor,
    label: Tensor,
    tape: Tape,
    repeats: int = 4,
    rate: float = DROPOUT,
    masked: int | None = None,
    reader: Tensor | None = None,
) -> Tensor:
    """MAR's loss () on images ``tokens`` (rows, N, d) of classes ``label`` (rows,): the mean over their masked tokens.

    Li et al. 2406.11838, appendix B, and LTH14/mar: one mask rate for the batch, an order for every image, a tenth of
    the classes hidden, dropout at ``rate`` in both transformers, ``repeats`` levels of noise for every token.
    ``masked``: how many tokens of each image, where MAR's own rate, never below .7, is not wanted. ``reader`` (D, d)
    adds the mean square of what condition @ reader misses of the token: it teaches the transformers to look around
    long before the head, whose noise drowns what context is worth, would.
    """
    order = masking.orders(tape, *tokens.shape[:2])
    places = order[:, : masking.training_count(tape, tokens.shape[1]) if masked is None else masked]
    hidden = masking.masked(order, places.shape[1])
    told = model(tokens, hidden, nameless(tape, label), dropout(tape, rate))
    condition, clean = (
        part.gather(1, places.unsqueeze(-1).expand(-1, -1, part.shape[-1])).flatten(0, 1) for part in (told, tokens)
    )
    missed = 0.0 if reader is None else (condition @ reader - clean).square().mean()
    return diffusion_loss(model.head, condition, clean, tape, repeats) + missed

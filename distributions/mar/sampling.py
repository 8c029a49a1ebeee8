"""MAR's sampling loop: mask step by mask step, each a law of all the tokens that it fills."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.mar import masking
from distributions.mar.backbone import NOBODY, Mar
from distributions.mar.diffusion import Sampler
from distributions.path import PathLaw
from distributions.tape import Tape

Follow = Callable[[range], Iterable[int]]


@dataclass(frozen=True, eq=False)
class MaskStep:
    """One step: the ``places`` (rows, M) that it fills, and the ``law`` of their tokens, batch (rows, M).

    Given the tokens before, the places of a step are independent.
    """

    places: Tensor
    law: PathLaw


def told(model: Mar, how: Sampler, tokens: Tensor, masked: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
    """The conditions (rows, N, D) of every place, and under guidance those of no class; in one pass of both."""
    if not how.guided:
        return model(tokens, masked, label), None
    names = torch.cat((label, torch.full_like(label, NOBODY)))
    both = model(tokens.repeat(2, 1, 1), masked.repeat(2, 1), names)
    return both[: len(label)], both[len(label) :]


def mask_step(
    model: Mar, how: Sampler, tokens: Tensor, order: Tensor, label: Tensor, left: int, after: int, last: bool = False
) -> MaskStep:
    """The step that leaves ``after`` of ``left`` masked tokens, or none if it is the ``last``.

    ``tokens`` (rows, N, d), ``order`` (rows, N) as ``masking.orders`` has it, ``label`` (rows,). Guidance counts
    ``after`` in the last step as well.
    """
    conditions = told(model, how, tokens, masking.masked(order, left), label)
    places = order[:, 0 if last else after : left].sort(1).values
    some, none = (
        None if part is None else part.gather(1, places.unsqueeze(-1).expand(-1, -1, part.shape[-1]))
        for part in conditions
    )
    assert some is not None
    return MaskStep(places, how.law(model.head, some, none, how.scale(after, model.shape.tokens)))


@torch.no_grad()
def sample(
    model: Mar,
    how: Sampler,
    tape: Tape,
    rows: int,
    label: Tensor | None = None,
    iterations: int = 64,
    order: Tensor | None = None,
    follow: Follow = iter,
) -> Tensor:
    """Images, as tokens (rows, N, d), float64, in raster order (Li et al. 2406.11838; LTH14/mar, ``sample_tokens``).

    ``label`` (rows,), None for the unconditional model. ``order``, where it is not to be drawn. All draws are the
    tape's: sites ``order`` and ``mask.STEP.LEVEL``. ``follow`` counts the steps. Raises ValueError as
    ``masking.remaining`` does. The released settings: 256 iterations, linear guidance, and no ``last_noise``.
    """
    size, left = model.shape.tokens, model.shape.tokens
    after = masking.remaining(size, iterations)
    order = masking.orders(tape, rows, size) if order is None else order
    label = torch.full((rows,), NOBODY, device=order.device) if label is None else label
    tokens = torch.zeros(rows, size, model.shape.dim, dtype=torch.float64, device=order.device)
    for number in follow(range(iterations)):
        step = mask_step(model, how, tokens, order, label, left, after[number], number == iterations - 1)
        drawn = step.law.token(step.law.sample(tape, f"mask.{number}"))
        tokens = tokens.scatter(1, step.places.unsqueeze(-1).expand_as(drawn), drawn)
        left = after[number]
    return tokens

"""In which order MAR fills an image, how much of it in a step, and how guidance grows with it."""

from __future__ import annotations

import math

import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from distributions.tape import Tape

GROWTHS = ("constant", "linear")
LEAST, SPREAD = 0.7, 0.25


def orders(tape: Tape, rows: int, tokens: int, site: str = "order") -> Tensor:
    """A random permutation of the places for every image (rows, N): the order of uniforms.

    An image is filled from the END of its order: what is masked is always the beginning.
    """
    return tape.uniform(site, (rows, tokens)).argsort(-1)


def masked(order: Tensor, left: int | Tensor) -> Tensor:
    """Which places (rows, N) are masked when the first ``left`` of ``order`` (rows, N) are; ``left`` () or (rows,)."""
    rank = torch.arange(order.shape[1], device=order.device)
    hidden = rank < torch.as_tensor(left, device=order.device).unsqueeze(-1)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, hidden.expand_as(order))


def remaining(tokens: int, iterations: int) -> list[int]:
    """How many tokens are masked after each mask step; at least one less in every step, and one after the last but one.

    m_s = max(1, min(m_{s-1} - 1, floor(N cos(pi/2 (s + 1) / K)))), s = 0..K-1 (MaskGIT's cosine, Chang et al.
    2202.04200, eq. 3, as MAR has it). The last step fills whatever is masked, and its 1 counts for guidance only. With
    K = N every step fills one token. Raises ValueError unless 1 <= K <= N.
    """
    if not 1 <= iterations <= tokens:
        raise ValueError(f"iterations is {iterations}; give 1 to {tokens}, the number of tokens")
    found, left = [], tokens
    for step in range(iterations):
        left = max(1, min(left - 1, math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / iterations))))
        found.append(left)
    return found


def scale(guidance: float, growth: str, left: Tensor | int, tokens: int) -> Tensor:
    """The scale of classifier-free guidance, float64, when ``left`` of the tokens stay masked after this step.

    ``constant``: guidance; ``linear``: 1 + (guidance - 1) (N - left) / N (Muse, Chang et al. 2301.00704, as in MAR).
    Raises ValueError for another ``growth``.
    """
    left = torch.as_tensor(left, dtype=torch.float64)
    if growth == "constant":
        return torch.full_like(left, guidance)
    if growth == "linear":
        return 1 + (guidance - 1) * (tokens - left) / tokens
    raise ValueError(f"growth is {growth!r}; choose one of {', '.join(GROWTHS)}")


def training_count(tape: Tape, tokens: int, site: str = "rate") -> int:
    """How many tokens are masked in a training batch: ceil(N rate), rate ~ N(1, .25^2) truncated to [.7, 1].

    One draw for the batch; the mean rate is .867 (Li et al. 2406.11838, appendix B).
    """
    below = ndtr((LEAST - 1) / SPREAD)
    quantile = below + (0.5 - below) * float(tape.uniform(site, (1,))[0])
    return math.ceil(tokens * (1 + SPREAD * float(ndtri(quantile))))

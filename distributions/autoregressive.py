"""Sequence models whose whole law is known: finite Markov models and linear-Gaussian autoregressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.special import gammaincinv
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.tape import GeneratorTape


def windows(state: Tensor, value: Tensor | None, parent: Tensor | None) -> Tensor:
    """The last ``order`` tokens before each law asked for: (rows, N + 1, order, *event), oldest first.

    ``state`` (rows, order, *event); ``value`` (rows, N, *event) and ``parent`` (N,) as in ``Model.law``. Raises
    ValueError where a node does not come after its parent.
    """
    if value is None:
        return state.unsqueeze(1)
    parents = list(range(-1, value.shape[1] - 1)) if parent is None else [int(node) for node in parent.tolist()]
    if len(parents) != value.shape[1] or any(not -1 <= above < node for node, above in enumerate(parents)):
        raise ValueError(f"parent must name an earlier node, or -1, for each of {value.shape[1]} nodes; got {parents}")
    found = [state]
    for node, above in enumerate(parents):
        found.append(torch.cat((found[above + 1], value[:, node : node + 1].to(state.dtype)), 1)[:, 1:])
    return torch.stack(found, 1)


class _Windowed:
    """A model whose state is the window of its last ``order`` tokens, oldest first: (rows, order, *event)."""

    def extend(self, state: Tensor, value: Tensor, length: Tensor) -> Tensor:
        """The window after the first ``length`` (rows,) tokens of ``value``; tokens beyond them are not looked at."""
        tokens = torch.cat((state, value.to(state.dtype)), 1)
        place = length.unsqueeze(-1) + torch.arange(state.shape[1], device=state.device)
        place = place.reshape(*place.shape, *(1,) * (state.dim() - 2)).expand(-1, -1, *state.shape[2:])
        return tokens.gather(1, place)

    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        """The windows of the rows selected by an index or a mask."""
        return state[rows]


@dataclass(frozen=True, eq=False)
class Markov(_Windowed):
    """A finite Markov model: the next token's probabilities are the row of ``table`` named by the last tokens.

    ``table`` ((V + 1)**order, V), normalised on construction. Its row number is the last ``order`` tokens read in base
    V + 1, the most recent least significant; V stands for a place before the first token, so the last row opens a
    sequence. Raises ValueError for a table of another shape, or with an entry that is no probability.
    """

    table: Tensor
    order: int
    rows: Categorical = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.table.dim() != 2 or self.table.shape[0] != (self.table.shape[1] + 1) ** self.order:
            raise ValueError(
                f"table must be ((V + 1)**order, V) and is {tuple(self.table.shape)} at order {self.order}; "
                "give one row for every context, start padding included"
            )
        object.__setattr__(self, "rows", Categorical(self.table))
        object.__setattr__(self, "table", self.rows.probs)

    @staticmethod
    def random(vocab: int, order: int, seed: int, concentration: float = 1.0) -> Markov:
        """A model with every row drawn from the symmetric Dirichlet law of ``concentration``, the same for one seed.

        Each row is normalised gamma draws, themselves the gamma quantiles of the tape's uniforms.
        """
        uniform = GeneratorTape(seed).uniform("markov.table", ((vocab + 1) ** order, vocab))
        return Markov(torch.as_tensor(gammaincinv(concentration, uniform.numpy())), order)

    @property
    def vocab(self) -> int:
        return self.table.shape[1]

    def start(self, rows: int, condition: Any = None) -> Tensor:
        """Empty sequences: windows of padding. The model has no condition and ignores it."""
        return torch.full((rows, self.order), self.vocab, device=self.table.device)

    def law(self, state: Tensor, value: Tensor | None = None, parent: Tensor | None = None) -> Categorical:
        """Batch (rows, N + 1), as in ``Model.law``. Raises ValueError for a drafted token outside the vocabulary."""
        if value is not None and not bool(((value >= 0) & (value < self.vocab)).all()):
            raise ValueError(f"value must hold tokens 0..{self.vocab - 1}; it has one outside")
        return self.rows[self._context(windows(state, value, parent))]

    def _context(self, window: Tensor) -> Tensor:
        """The row number of a window (..., order)."""
        place = (self.vocab + 1) ** torch.arange(self.order - 1, -1, -1, device=window.device)
        return (window * place).sum(-1)

    def prefix_probs(self, prefix: Sequence[int]) -> Tensor:
        """The probabilities (V,) of the token that follows ``prefix``."""
        state = self.start(1)
        tokens = torch.tensor([list(prefix)], dtype=torch.long, device=state.device)
        if bool(((tokens < 0) | (tokens >= self.vocab)).any()):
            raise ValueError(f"prefix must hold tokens 0..{self.vocab - 1}; got {tuple(prefix)}")
        return self.law(self.extend(state, tokens, torch.full((1,), tokens.shape[1]))).probs[0, 0]

    def sequence_probs(self, length: int) -> Tensor:
        """The probability of every sequence of ``length`` tokens: (V**length,), the first token most significant."""
        probs = self.table.new_ones(1)
        context = self._context(self.start(1))
        token = torch.arange(self.vocab, device=self.table.device)
        for _ in range(length):
            probs = (probs.unsqueeze(-1) * self.table[context]).flatten()
            context = (context.unsqueeze(-1) * (self.vocab + 1) + token).flatten() % self.table.shape[0]
        return probs


@dataclass(frozen=True, eq=False)
class LinearGaussianAR(_Windowed):
    """x_t ~ N(sum_k A_k x_{t-k} + b, diag(scale^2)), with zeros before the first token.

    ``coefficients`` (order, d, d): A_1 first; ``bias`` (d,); ``scale`` (d,) standard deviations. Raises ValueError for
    shapes that disagree, and for what Gaussian refuses.
    """

    coefficients: Tensor
    bias: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.coefficients.shape)
        dim = self.bias.shape[-1] if self.bias.dim() == 1 else -1
        if len(shape) != 3 or shape[1:] != (dim, dim) or tuple(self.scale.shape) != (dim,):
            raise ValueError(
                f"coefficients {shape}, bias {tuple(self.bias.shape)} and scale {tuple(self.scale.shape)} disagree; "
                "give (order, d, d), (d,) and (d,)"
            )
        for name in ("coefficients", "bias", "scale"):
            object.__setattr__(self, name, getattr(self, name).double())
        if not bool(torch.isfinite(self.coefficients).all()):
            raise ValueError("coefficients must be finite; replace the infinite or missing entries")
        Gaussian(self.bias, self.scale)  # refuses what no step could have

    @property
    def order(self) -> int:
        return self.coefficients.shape[0]

    def start(self, rows: int, condition: Any = None) -> Tensor:
        """Empty sequences: windows of zeros. The model has no condition and ignores it."""
        return self.bias.new_zeros(rows, self.order, self.bias.shape[0])

    def law(self, state: Tensor, value: Tensor | None = None, parent: Tensor | None = None) -> Gaussian:
        """Batch (rows, N + 1), event (d,), as in ``Model.law``."""
        mean = torch.einsum("kij,rnkj->rni", self.coefficients.flip(0), windows(state, value, parent)) + self.bias
        return Gaussian(mean, self.scale)

    def sequence_law(self, length: int) -> FullGaussian:
        """The law of (x_1, ..., x_length) laid end to end: event (length * d,).

        With S the block matrix of A_k on its k-th lower diagonal, x = S x + b + scale * noise, so the mean is
        (I - S)^{-1} b and (I - S)^{-1} diag(scale) is a lower Cholesky factor of the covariance.
        """
        dim = self.bias.shape[0]
        system = torch.eye(length * dim, dtype=torch.float64, device=self.bias.device)
        for lag, block in enumerate(self.coefficients[: length - 1], start=1):
            system -= torch.kron(torch.diag(self.bias.new_ones(length - lag), -lag), block)
        inverse = torch.linalg.solve_triangular(system, torch.eye(length * dim).to(system), upper=False)
        return FullGaussian(inverse @ self.bias.repeat(length), (inverse * self.scale.repeat(length)).tril())

    def sequence_mean_cov(self, length: int) -> tuple[Tensor, Tensor]:
        """The mean (length * d,) and the covariance (length * d, length * d) of ``sequence_law``."""
        law = self.sequence_law(length)
        return law.mean, law.scale_tril @ law.scale_tril.mT

"""Draws over a whole vocabulary answered in O(V): the weights are written down, and the code is given a token of ours.

A branch for every token of a vocabulary is too many, and one is enough: what is emitted is the token that was drawn, so
the vector of its weights is the law of the output. A multinomial states its weights. An exponential (Gumbel) race is
run on noise that we choose, and its scores there give the weights away, see ``weights_of``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from verify.foreign.leaf import Leaf, NotUnderstood
from verify.foreign.shadows import HALF

GOLDEN = (math.sqrt(5) - 1) / 2
_FACTS = frozenset(
    "__get__ size dim numel stride is_floating_point is_contiguous element_size data_ptr __len__".split()
)


def noise(run: int, size: int) -> Tensor:
    """What the exponentials of a race are in the three runs: all 1, all 2, and different, between 1/2 and 3/2."""
    return torch.full((size,), run + 1.0).double() if run < 2 else 0.5 + (torch.arange(size).double() * GOLDEN) % 1


class Wide(TorchFunctionMode):
    """Inside a room's run: answers multinomials and races over ``vocab`` tokens; their row vectors are in ``contests``.

    A contest is a pair: its vector (weights, or scores on the noise of this ``run``) and what it is, ``multinomial``,
    ``largest`` or ``smallest``. Contest i of run j is answered by the token ``answers[i]``, never the one drafted if
    another has weight, and different ones in different runs. Everything narrower is left to the room. Raises
    NotUnderstood where the noise of a race is used other than element by element and in a contest.
    """

    def __init__(self, leaf: Leaf, vocab: int, drafted: int, run: int) -> None:
        super().__init__()
        self.leaf, self.vocab, self.drafted, self.run = leaf, vocab, drafted, run
        self.contests: list[tuple[Tensor, str]] = []
        self.answers: list[int] = []
        self._noisy: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        answer: Callable[..., Any] | None = getattr(self, f"_{name.rstrip('_')}", None) if name[:1] != "_" else None
        if answer is not None:
            found = answer(*args, **kwargs)
            if found is not NotImplemented:
                return found
        operands = [item for item in (*args, *kwargs.values()) if isinstance(item, Tensor)]
        noisy = sum(map(self._is_noisy, operands))
        result = func(*args, **kwargs)
        if not noisy or name in _FACTS:
            return result
        if (
            noisy == 1
            and isinstance(result, Tensor)
            and result.is_floating_point()
            and result.shape[-1:] == (self.vocab,)
        ):
            return self._mark(result)
        raise self.leaf.misunderstand(f"torch.{name} of the noise of a race over the vocabulary")

    def _is_noisy(self, tensor: Tensor) -> bool:
        return bool(self._noisy) and tensor.untyped_storage().data_ptr() in self._noisy

    def _mark(self, tensor: Tensor) -> Tensor:
        self._noisy[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    # --- noise ---------------------------------------------------------------------------------------------------
    def _fill(self, tensor: Tensor, uniform: bool) -> Tensor:
        if tensor.dtype in HALF:
            raise self.leaf.misunderstand(f"a race in {tensor.dtype}, whose grid is not modelled")
        values = noise(self.run, self.vocab)
        return self._mark(tensor.copy_((-values).exp() if uniform else values))

    def _exponential(self, tensor: Tensor, lambd: float = 1.0, **kwargs: Any) -> Any:
        return self._fill(tensor, False).div_(lambd) if self._is_wide(tensor) else NotImplemented

    def _uniform(self, tensor: Tensor, *ends: float, **kwargs: Any) -> Any:
        return self._fill(tensor, True) if self._is_wide(tensor) and not ends and not kwargs else NotImplemented

    def _rand(self, *size: Any, **kwargs: Any) -> Any:
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        if tuple(shape)[-1:] != (self.vocab,):
            return NotImplemented
        return self._fill(torch.empty(shape, **{k: v for k, v in kwargs.items() if k != "generator"}), True)

    def _rand_like(self, tensor: Tensor, **kwargs: Any) -> Any:
        return self._fill(torch.empty_like(tensor, **kwargs), True) if self._is_wide(tensor) else NotImplemented

    def _is_wide(self, tensor: Tensor) -> bool:
        return tensor.shape[-1:] == (self.vocab,)

    # --- contests ------------------------------------------------------------------------------------------------
    def _multinomial(self, weights: Tensor, num_samples: int = 1, *args: Any, **kwargs: Any) -> Any:
        if not self._is_wide(weights) or num_samples != 1:
            return NotImplemented
        if not bool(((weights >= 0) & (weights < math.inf)).all()):
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        if not bool((weights.sum(-1) > 0).all()):
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        return self._decide(weights, "multinomial").unsqueeze(-1)

    def _contest(self, scores: Tensor, dim: Any, keepdim: bool, kind: str) -> Any:
        if not isinstance(scores, Tensor) or not self._is_noisy(scores) or not self._is_wide(scores):
            return NotImplemented
        if dim not in (-1, scores.dim() - 1) and not (dim is None and scores.numel() == self.vocab):
            raise self.leaf.misunderstand("a race that does not run along the vocabulary")
        index = self._decide(scores, kind)
        return index.reshape(()) if dim is None else index.unsqueeze(-1) if keepdim else index

    def _argmax(self, scores: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return self._contest(scores, dim, keepdim, "largest")

    def _argmin(self, scores: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return self._contest(scores, dim, keepdim, "smallest")

    def _max(self, scores: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return self._extreme(scores, dim, keepdim, "largest", torch.return_types.max)

    def _min(self, scores: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return self._extreme(scores, dim, keepdim, "smallest", torch.return_types.min)

    def _extreme(self, scores: Tensor, dim: Any, keepdim: bool, kind: str, pair: Any) -> Any:
        index = self._contest(scores, dim, keepdim, kind) if isinstance(dim, int) else NotImplemented
        if index is NotImplemented:
            return index
        return pair((scores.gather(-1, index if keepdim else index.unsqueeze(-1)).reshape(index.shape), index))

    def _decide(self, vectors: Tensor, kind: str) -> Tensor:
        rows = vectors.detach().reshape(-1, self.vocab).double()
        for row in rows:
            able = (row > 0) if kind == "multinomial" else torch.isfinite(row) & (row != 0)
            for token in (self.drafted, *self.answers):
                able[token] &= bool(able.sum() == 1)
            places = able.nonzero().squeeze(-1)
            chosen = int(places[(self.run * len(places)) // 3]) if len(places) else int(row.argmax())
            self.contests.append((row.clone(), kind))
            self.answers.append(chosen)
        return torch.tensor(self.answers[-len(rows) :]).reshape(vectors.shape[:-1])


def weights_of(runs: list[tuple[Tensor, str]]) -> Tensor:
    """The weights w (V,) of one contest, given its vectors in three runs; not normalised.

    Of a multinomial they are the vector itself. A race is won by the least E_i / w_i for standard exponentials E_i,
    and its scores are one map of these: c_i E_i**k with w_i = c_i**(-1/k), or a ln E_i + b_i with w_i = exp(-b_i / a).
    Scores at E = 1 are the c_i or b_i, those at E = 2 give k or a, and those at the third, uneven noise must agree.
    Raises NotUnderstood where they do not.
    """
    (ones, kind), (twos, _), (uneven, _) = runs
    if kind == "multinomial":
        if not (torch.equal(ones, twos) and torch.equal(ones, uneven)):
            raise NotUnderstood("the weights of a draw over the vocabulary depend on another such draw")
        return ones
    values = noise(2, len(ones))
    alive = torch.isfinite(ones) & torch.isfinite(uneven) & ((ones != 0) | (twos != 0))
    first, second, third, drawn = (item[alive] for item in (ones, twos, uneven, values))
    weights = torch.zeros_like(ones)
    power = float((second / first).abs().log2().median()) if len(first) else math.nan
    if (power < 0) == (kind == "largest") and torch.allclose(third, first * drawn**power, rtol=1e-5, atol=0):
        weights[alive] = first if power == -1 else first.abs() ** (-1 / power)
        weights[alive] *= first > 0
        return weights
    rate = float((second - first).median()) / math.log(2) if len(first) else math.nan
    if (rate < 0) == (kind == "largest") and torch.allclose(third, first + rate * drawn.log(), rtol=1e-5, atol=1e-5):
        logs = -first / rate
        weights[alive] = (logs - logs.max()).exp()
        return weights
    raise NotUnderstood("a largest or smallest over the vocabulary that is no exponential race")

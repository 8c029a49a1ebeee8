"""Two samples compared through random Fourier features, calibrated by exchanging blocks of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.checks import Check, Tally
from verify.checks.fourier_witness import features, median_distance
from verify.records import CheckClaim, Finding
from verify.statistics.held_out import CHUNK
from verify.statistics.learned import Learner
from verify.statistics.pairs import pairs, pilot


@dataclass(frozen=True, eq=False)
class BlockSums(Tally):
    """``sums`` (blocks, 2 D): of the differences of features over the pairs of each block."""

    sums: Tensor


@dataclass(frozen=True)
class FeatureDifferences:
    """Sums of phi(x) - phi(y) in blocks, phi the cosines and sines of D ``frequencies`` over sqrt D: |phi| is one.

    The block of a pair is a symmetric function of its two rows: it depends neither on which of them is the sample's
    nor on the pair's place in a shard.
    """

    frequencies: int
    blocks: int
    bandwidth: float
    seed: int

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> BlockSums:
        first, second = pairs(sample, truth, tape)
        waves = _waves(first.shape[1], self.frequencies, self.seed) / self.bandwidth
        order, counts = _blocks(first, second, self.blocks)
        sums = torch.zeros(self.blocks, 2 * self.frequencies, dtype=torch.float64)
        for block, part in enumerate(torch.split(order, counts)):
            for rows in torch.split(part, CHUNK):
                sums[block] += (features(first[rows] @ waves) - features(second[rows] @ waves)).sum(0)
        return BlockSums(len(first), sums / math.sqrt(self.frequencies))


@dataclass(frozen=True)
class MaximumMeanDiscrepancy(Check):
    """The distance of mean Fourier features of the sample and of as many draws of the truth (Gretton et al., JMLR 13,
    2012; features of Rahimi and Recht, 2007), for laws that can be drawn from and of which nothing else is known.

    Pairs (x_i, y_i) may be exchanged under equality, and with them whole ``blocks`` of pairs, whatever their sizes: the
    sum over blocks of +-sums of phi(x) - phi(y), with B draws of the signs from ``seed``, gives the exact p-value
    (1 + #{drawn >= observed}) / (B + 1), never below 1 / (B + 1). B is 10 / alpha within 99 .. ``permutations``; **at
    levels below 1 / (permutations + 1) the check cannot reject**, which its note says: confirm on fresh samples and
    multiply the levels instead. ``bandwidth`` is in units of the sample; ``MedianBandwidth`` takes the median distance
    of a pilot. ``bound``: for this kernel, the statistic plus sqrt(4 ln(1/delta) / n), by Hoeffding's inequality at the
    witness of the true laws, which is fixed beforehand and has values in [-1, 1]. Raises ValueError for fewer than two
    pairs a block.
    """

    frequencies: int = 128
    blocks: int = 64
    permutations: int = 9_999
    delta: float = 1e-6
    bandwidth: float = 1.0
    seed: int = 0
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="changes of the law at the scale of the bandwidth, in few dimensions",
        blind_to="small local changes in many dimensions; levels below 1 / (permutations + 1); a few values repeated",
    )

    @property
    def statistic(self) -> FeatureDifferences:
        return FeatureDifferences(self.frequencies, self.blocks, self.bandwidth, self.seed)

    def judge(self, tally: BlockSums, alpha: float) -> Finding:
        n = tally.n
        if n < 2 * self.blocks:
            raise ValueError(f"{n} rows make no {self.blocks} blocks of two; give more rows or ask for fewer blocks")
        gram = tally.sums @ tally.sums.T / n**2  # the signs enter through it alone
        count = min(self.permutations, max(99, math.ceil(10 / alpha)))
        # A slack for rounding: signs that are all equal give the observed value again.
        observed, drawn = float(gram.sum()), _drawn(gram, count, self.seed)
        hits = int((drawn >= observed - 1e-9 * float(gram.diagonal().sum())).sum())
        level = 1 / (count + 1)
        size = math.sqrt(max(0.0, observed))
        return Finding(
            verifier="",
            scenario="",
            check="mmd",
            statistic=size,
            p_value=(1 + hits) * level,
            alpha=alpha,
            n=n,
            seed=0,
            note=f"{count} permutations" + (f": cannot reject below {level:.1e}" if alpha < level else ""),
            metric="mmd",
            bound=size + math.sqrt(4 * math.log(1 / self.delta) / n),
            smallest=_smallest(gram, drawn, alpha) if alpha >= level else None,
        )


@dataclass(frozen=True)
class MedianBandwidth(Learner):
    """The check with the median distance of the pooled pilot for its bandwidth (Gretton et al. 2012, section 8)."""

    check: MaximumMeanDiscrepancy = MaximumMeanDiscrepancy()

    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> MaximumMeanDiscrepancy:
        pooled = torch.cat([rows[:512] for rows in pilot(sample, truth, tape, 16)])
        return replace(self.check, bandwidth=median_distance(pooled))


@cache
def _waves(dim: int, frequencies: int, seed: int) -> Tensor:
    return GeneratorTape(seed).normal("mmd.frequencies", (dim, frequencies))


@cache
def _signs(count: int, blocks: int, seed: int) -> Tensor:
    return torch.where(GeneratorTape(seed).uniform("mmd.permutation", (count, blocks)) < 0.5, 1.0, -1.0).double()


def _drawn(gram: Tensor, count: int, seed: int) -> Tensor:
    """The statistic squared (count,) under random signs of the blocks."""
    signs = _signs(count, len(gram), seed)
    return ((signs @ gram) * signs).sum(-1)


def _blocks(first: Tensor, second: Tensor, blocks: int) -> tuple[Tensor, list[int]]:
    """The pairs (n,) ordered by block, and how many are in each."""
    mixed = _digest(_digest(first) + _digest(second))
    block = (mixed >> 20) % blocks  # Python's remainder: never negative
    return block.argsort(stable=True), torch.bincount(block, minlength=blocks).tolist()


def _digest(rows: Tensor) -> Tensor:
    """A pseudo-random 64-bit number (n,) of the bits of each row, by steps of splitmix64 (Steele, Lea and Flood 2014).
    ``rows`` (n, d) in double precision, or (n,) integers.
    """
    columns = (rows + 0.0).view(torch.int64).T if rows.is_floating_point() else rows.unsqueeze(0)  # -0.0 becomes 0.0
    state = torch.zeros(columns.shape[1], dtype=torch.int64)
    for column in columns:
        state = (state ^ column) + -0x61C8864680B583EB
        state = (state ^ ((state >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        state = (state ^ ((state >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        state = state ^ ((state >> 31) & 0x1FFFFFFFF)
    return state


def _smallest(gram: Tensor, drawn: Tensor, alpha: float) -> float:
    """The distance s seen nine times in ten: with noise e of the drawn law, |mu + e|^2 = s^2 + 2 mu.e + |e|^2 must pass
    the critical value c; mu.e has a deviation of at most s times that of the widest direction of e.
    """
    critical, mean, spread = float(drawn.quantile(1 - alpha)), float(drawn.mean()), float(drawn.std())
    widest = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))
    # s^2 - 1.28 (2 s widest + spread) + mean = c
    shift = 1.2816 * widest
    return shift + math.sqrt(shift**2 + max(0.0, critical - mean + 1.2816 * spread))

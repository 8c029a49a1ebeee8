"""Two samples compared through random Fourier features, calibrated by permuting blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.records import CheckClaim, Finding


@dataclass(frozen=True)
class MaximumMeanDiscrepancy:
    """The distance of mean Fourier features of the sample and of as many draws of the truth (Gretton et al., JMLR 13,
    2012; features of Rahimi and Recht, 2007), for laws that can be drawn from and of which nothing else is known.

    Each sample is cut into ``blocks`` blocks whose mean features are exchangeable under equality, so permuting their
    labels B times gives the exact p-value (1 + #{permuted >= observed}) / (B + 1), never below 1 / (B + 1). B is
    10 / alpha within 99 .. ``permutations``; **at levels below 1 / (permutations + 1) the check cannot reject**, which
    its note says: confirm on fresh samples and multiply the levels instead. The bandwidth is the median distance of the
    pooled sample, which no permutation changes. ``bound``: for this kernel, the statistic plus
    sqrt(4 ln(1/delta) / n), by Hoeffding's inequality at the witness of the true laws, which is fixed beforehand.
    """

    frequencies: int = 256
    blocks: int = 64
    permutations: int = 9_999
    delta: float = 1e-6
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="changes of the law at the scale of the median distance, in few dimensions",
        blind_to="small local changes in many dimensions; levels below 1 / (permutations + 1)",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        n = len(sample)
        if n < 2 * self.blocks:
            raise ValueError(f"{n} rows make no {self.blocks} blocks of two; give more rows or ask for fewer blocks")
        each = truth if truth.batch_shape == (n,) else truth[None][torch.zeros(n, dtype=torch.long)]
        used = n - n % self.blocks  # blocks of one size, or they would not be exchangeable
        both = (sample, each.sample(tape, "mmd.truth"))
        pooled = torch.cat([half[:used].double().reshape(self.blocks, used // self.blocks, -1) for half in both])
        # As many rows of every block, so that the bandwidth is the same whatever the labels are.
        distance = torch.pdist(pooled[:, :8].flatten(0, 1))
        bandwidth = float(distance[distance > 0].median()) if bool((distance > 0).any()) else 1.0
        waves = tape.normal("mmd.frequencies", (pooled.shape[-1], self.frequencies)) / bandwidth
        means = torch.stack([_features(block @ waves) for block in pooled])
        observed = float((means[: self.blocks].mean(0) - means[self.blocks :].mean(0)).square().sum())
        count = min(self.permutations, max(99, math.ceil(10 / alpha)))
        order = tape.uniform("mmd.permutation", (count, 2 * self.blocks)).argsort(-1)
        labels = torch.where(order < self.blocks, 1.0, -1.0).double() / self.blocks
        permuted = torch.cat([(part @ means).square().sum(-1) for part in torch.split(labels, 500)])
        level = 1 / (count + 1)
        size = math.sqrt(observed)
        roots = permuted.sqrt()
        return Finding(
            verifier="",
            scenario="",
            check="mmd",
            statistic=size,
            p_value=(1 + int((permuted >= observed * (1 - 1e-12)).sum())) * level,
            alpha=alpha,
            n=used,
            seed=0,
            note=f"{count} permutations" + (f": cannot reject below {level:.1e}" if alpha < level else ""),
            metric="mmd",
            bound=size + math.sqrt(4 * math.log(1 / self.delta) / used),
            smallest=float(roots.quantile(1 - alpha)) + 1.2816 * float(roots.std()) if alpha >= level else None,
        )


def _features(phases: Tensor) -> Tensor:
    """The mean cosine and sine features (2 D,) of a block, scaled so that a point has norm one."""
    return torch.cat((phases.cos().mean(0), phases.sin().mean(0))) / math.sqrt(phases.shape[-1])

"""Accepted drafts that a slower row keeps from being committed keep their old label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import trusted
from distributions.tape import Tape
from verify.jacobi import categorical, drawn
from verify.records import Claim, Defect, Draft
from verify.residual import residual_law
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdBatchMinimum(Sjd):
    """Commit as many columns as the slowest row of the batch; accepted drafts beyond them stay, labelled as before.

    The slowest row is a coin here, so that one row can be enumerated: with probability ``share`` another one is refused
    at once, and one token is committed. A draft that has passed its test, or taken the place of one that has not, has
    the law p and not q.
    """

    share: float = 0.5
    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="tyshiwo1/Accelerating-T2I-AR-with-SJD at b389cfb, the sampler's lines 289-290, in batches",
        note="the commit is the minimum over the batch, the label that of the first draw",
    )
    defect: ClassVar[Defect] = Defect(
        bug="accepted drafts that a slower row keeps from being committed keep their old label",
        bias_a=0.03315005587818533,
        bias_b=0.04061673919934314,
        caught_by=("record", "sequence"),
    )

    def most(self, accept: Tensor, tape: Tape) -> Tensor:
        """One token, or all columns."""
        others = tape.coin("others", self.share * accept[:, 0].double())
        return torch.where(others, 1, accept.shape[1] + 1)

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        nodes, prior = accept.shape[1], categorical(draft.law)
        stays = accept.long().cumprod(1).bool()
        first = (torch.arange(nodes) == stays.sum(1, keepdim=True)).unsqueeze(-1)
        law, label = target.probs.clone(), target.probs.clone()
        law[:, :nodes] = torch.where(first, residual_law(target[:, :nodes], prior).probs, law[:, :nodes])
        label[:, :nodes] = torch.where(stays.unsqueeze(-1), prior.probs, label[:, :nodes])
        stays = torch.nn.functional.pad(stays, (0, 1)) & wanted
        value = drawn(trusted(Categorical, probs=law), wanted & ~stays, tape, "redraft")
        value = torch.where(stays, torch.nn.functional.pad(draft.value, (0, 1)), value)
        return Draft(value, trusted(Categorical, probs=label), draft.parent)

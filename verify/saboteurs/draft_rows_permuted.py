"""The drafter's rows of one request are read for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection, filled
from verify.policies import finite
from verify.records import Claim, Defect, Draft
from verify.residual import excess, log_ratio


@dataclass(frozen=True)
class DraftRowsPermuted(PlantedRejection):
    """Each row of the batch is held against the draft's law of the row before it: a batch of one shows nothing, and the
    acceptance looks normal.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        level="batch",
        reference="1CatAI/1Cat-vLLM #656",
        note="a buffer's row is not the request's",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "probabilistic drafts corrupt the text once more than two sequences run together (#656); the same "
            "risk in vllm #40269"
        ),
        bias_a=0.23067560202289686,
        bias_b=0.17192628032330814,
        caught_by=("law", "first_token", "excess_acceptance", "independence"),
        draft_length=1,
    )

    def rows(self, draft: Draft, target: Categorical) -> tuple[Draft, Categorical]:
        """The draft laws of the batch, rolled by one."""
        law = finite(draft.law)[torch.arange(len(draft.value)).roll(1)]
        return Draft(draft.value, law, draft.parent), target

    def token_law(self, target: Categorical, draft: Categorical) -> Tensor:
        """The law (rows, V) of a batch's first tokens when one node is drafted."""
        value = torch.arange(target.probs.shape[-1]).expand(target.probs.shape)
        read = draft[torch.arange(len(value)).roll(1)]
        accept = log_ratio(value, target[:, None], read[:, None]).clamp(max=0).exp()
        kept = draft.probs * accept
        left = filled(excess(target, read), target)
        return kept + (1 - kept.sum(-1, keepdim=True)) * left.probs

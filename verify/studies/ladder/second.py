"""The second token of a block: what a switch of the released rule does that one token cannot show."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.path import PathLaw
from distributions.sequence import TokenSequence
from distributions.tape import GeneratorTape
from verify.decode import parents, policy, propose
from verify.studies.ladder.bounds import innovations
from verify.studies.ladder.measure import Job, heads_for
from verify.verifier import Verifier


def second(rule: Verifier, job: Job) -> Tensor:
    """Statistics (n, 5) of the second token's path given the first one that was emitted, in rows that have a second.

    Tokens are a sequence whose next condition is a function of the last ones. Given its prefix, and given that the
    round got there, which only the prefix may decide, the second path must have the target's law.
    """
    heads = heads_for(job, [rule])
    dim = heads.target.dim
    target, drafter = (
        TokenSequence(lambda condition, head=head: job.definition.paths(head, condition), dim, device=job.device)  # type: ignore[misc]
        for head in (heads.target, heads.drafter)
    )
    drawing, judging = (GeneratorTape(4 * job.seed + place, job.device) for place in (1, 2))
    start = drawing.normal("window", (job.rows, target.order, dim))
    draft = propose(drafter, start, parents(rule, 2), drawing, policy(rule))
    outcome = rule.verify(draft, target.law(start, draft.value, draft.parent), judging)
    long = torch.nonzero(outcome.length >= 2).squeeze(1)
    if not len(long):
        return draft.value.new_zeros(0, 5).cpu()
    first, parent = outcome.value[long, :1], torch.tensor([-1])
    laws = [model.law(start[long], first, parent)[:, 1] for model in (target, drafter)]
    assert isinstance(laws[0], PathLaw) and isinstance(laws[1], PathLaw)
    return innovations(outcome.value[long, 1], laws[0], laws[1]).cpu()

"""K-SEQ: every sibling is kept with one and the same reduced probability, so that the first kept one has no bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio, residual_law
from verify.siblings import keep_first, laws_of_siblings, siblings


@dataclass(frozen=True)
class KSeq:
    """Keep each of K independent siblings with probability min(1, p / (rho q)), p = target, q = draft; where all are
    refused, draw (p - rho q)+ (SpecTr, Sun et al. 2310.15141; lemma A7).

    With beta = sum min(q, p / rho) a sibling is kept, and one of K with 1 - (1 - beta)^K; the kept one has the law
    min(q, p / rho) / beta. So the kept mass of a token is min(q, p / rho) (1 - (1 - beta)^K) / beta, which must not
    exceed p. The paper's residual is what p has beyond it, and rho is the root of 1 - (1 - beta)^K = rho beta: then the
    kept mass is min(rho q, p), and the residual (p - rho q)+ has mass 1 - rho beta = (1 - beta)^K, just what is needed.
    All siblings must have one law. Raises TypeError on laws that are not Categorical and ValueError for a draft that
    is not all siblings.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="SpecTr, Sun et al. 2310.15141", laws="categorical")

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        after, prior = laws_of_siblings("k_seq", draft, target)
        log_rho = division(after[:, 0], prior[:, 0], draft.value.shape[1]).log()
        ratio = log_ratio(draft.value, after[:, :1], prior[:, :1])
        log_accept = (ratio - log_rho.unsqueeze(-1)).clamp(max=0)
        rest = residual_law(after[:, 0], prior[:, 0], -log_rho)
        return keep_first(draft, after, tape.coin("accept", log_accept.exp()), log_accept, rest, tape)

    def acceptance(self, target: Categorical, draft: Categorical, count: int) -> Tensor:
        """The probability that one of ``count`` siblings is kept, batch-wise: 1 - (1 - beta)^count."""
        rho = division(target, draft, count).unsqueeze(-1)
        return 1 - (1 - torch.minimum(draft.probs, target.probs / rho).sum(-1)).clamp(min=0) ** count


def division(target: Categorical, draft: Categorical, count: int) -> Tensor:
    """The root rho in [1, K] of 1 - (1 - beta)^K = rho beta with beta = sum min(q, p / rho), batch-wise, by bisection.

    The left side falls with rho and the right one, sum min(rho q, p), rises; at 1 the left one is at least beta, at K
    at most K beta. Only disjoint laws have more than one root: there nothing is kept whatever rho is. Equal laws: 1.
    """
    low = target.probs.new_ones(target.batch_shape)
    high = torch.full_like(low, count)
    for _ in range(60):
        rho = (low + high) / 2
        kept = torch.minimum(draft.probs, target.probs / rho.unsqueeze(-1)).sum(-1)
        more = -torch.expm1(count * torch.log1p(-kept.clamp(max=1))) > rho * kept
        low, high = torch.where(more, rho, low), torch.where(more, high, rho)
    return high

"""Jacobi decoding of continuous tokens: every drafted path is refreshed by the coalescing coupling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.maximal import Coupling, maximal
from verify.paths import Cost, follow, path_laws
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio


@dataclass(frozen=True)
class CoalescingJacobi:
    """Couple every drafted path y_j ~ Q_j with a path y'_j of the target's new law P_j; commit the first columns whose
    tokens stay what they were, and one more; the others, y'_j ~ P_j, are the next window.

    P_j is the target's law after the drafted tokens before column j. Given all randomness of the columns before j, y_j
    has the law Q_j that it is labelled with, so that y'_j has the law P_j (lemma L7, ``follow``): its next label.
    If the tokens before j stayed what they were, P_j is the target's law after what is committed, and y'_j is committed
    whatever it is; that the column is reached was decided by earlier columns alone. So every committed token has the
    target's law given those before it, and the sequence has the target's law (the condition of ``verify.jacobi``): this
    is speculative coupled decoding (SCD 2510.24211) with the coalescing coupling of paths in place of the maximal
    coupling of tokens. Once the contexts agree P_j = Q_j, and a path is kept as a whole.

    A column enters the window as a fresh path of the last column's law, with that law for its label.

    ``log_accept``: log min(1, p / q) of the last step, each law given its own x_1, as in ``coalescing``. ``coupling``:
    of one step; any is exact. ``coupled``: whether the columns that are not committed are refreshed by the coupling;
    else they are drawn anew, as speculative Jacobi decoding does. Raises as ``coalescing``.
    """

    coupling: Coupling = maximal
    coupled: bool = True
    carries: ClassVar[bool] = True
    claim: ClassVar[Claim] = Claim(
        exact=True, reference="SCD 2510.24211 with the coalescing coupling of paths", laws="path"
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """Commit a prefix and one token more; ``carry`` is the next window. ``target`` has batch (rows, N + 1)."""
        prior, after = path_laws("coalescing_jacobi", draft, target)
        beside, end = follow(draft.value, prior, after, self.coupling, tape), draft.value[..., -1, :]
        ours = beside.path
        ours[..., -1, :] = self.coupling(end, beside.target, beside.draft, tape, "follow.0")
        same = (ours[..., -1, :] == end).all(-1)
        rows, nodes = same.shape
        kept = same.long().cumprod(1).bool()
        length = (kept.sum(1) + 1).clamp(max=nodes + 1)
        bonus = target[:, nodes:].sample(tape, "bonus")
        value = torch.cat([ours, bonus], 1)
        log_accept = log_ratio(end, beside.target, beside.draft).clamp(max=0)
        return Outcome(value, length, kept, log_accept, self._slide(value, length, target, draft, tape))

    def cost(self, steps: int, nodes: int) -> Cost:
        """A chain of the target beside each drafted one; the columns that enter are chains of the target too."""
        return Cost(steps * nodes, steps, steps * nodes, (0, steps * nodes))

    def _slide(self, value: Tensor, length: Tensor, target: Law, draft: Draft, tape: Tape) -> Draft:
        """The window after ``length`` (rows,) columns have left, each path with the law that it has."""
        rows, nodes = draft.value.shape[:2]
        place = length.unsqueeze(1) + torch.arange(nodes, device=length.device)
        row = torch.arange(rows, device=length.device).unsqueeze(1).expand_as(place)
        law = target[row, place.clamp(max=nodes)]
        path = value[row, place.clamp(max=nodes)]
        fresh = place > nodes if self.coupled else torch.ones_like(place, dtype=torch.bool)
        at = torch.nonzero(fresh, as_tuple=True)
        if len(at[0]):
            path[at] = law[at].sample(tape[at[0]], "entry")
        return Draft.chain(path, law)

"""What one round did, row by row, whoever did it: the sample of every check that looks inside a verifier."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from distributions.law import Law, trusted
from distributions.model import Model
from distributions.tape import GeneratorTape
from verify.decode import Round
from verify.records import Draft, Finding, Outcome
from verify.residual import log_ratio
from verify.verifier import Verifier

AnyLaw = TypeVar("AnyLaw", bound=Law)


def same(emitted: Tensor, drafted: Tensor) -> Tensor:
    """Rows (n,) whose output is the drafted value, up to the rounding of going through other coordinates and back.

    An independent draw lands within that tolerance with probability below 1e-6 a row in single precision, 1e-14 in
    double, which a count of acceptances does not notice.
    """
    if not emitted.is_floating_point():
        return (emitted == drafted).reshape(len(emitted), -1).all(-1)
    drafted = drafted.to(emitted.dtype)
    room = 8 * torch.finfo(emitted.dtype).eps * (1 + drafted.abs())
    return ((emitted - drafted).abs() <= room).reshape(len(emitted), -1).all(-1)


@dataclass(frozen=True, eq=False)
class Trace:
    """Rounds of any verifier, one a row.

    ``drafted`` (rows, N, *event); ``draft``, the law that the drafts are said to come from, batch (rows, N);
    ``target``, batch (rows, N + 1): the root, then after each node; ``kept`` (rows, N); ``emitted`` (rows, N + 1,
    *event), of which the first ``length`` (rows,) count; ``parent`` (N,). ``log_accept`` (rows, N): the verifier's own
    account of its coins, given that each was tossed; None where there is none. ``call`` (rows,), in order from 0: which
    rows passed through the verifier together. A law that all rows share may have batch (1, N), or (1, N + 1).

    Statistics add over traces of whole calls.
    """

    drafted: Tensor
    draft: Law
    target: Law
    kept: Tensor
    emitted: Tensor
    length: Tensor
    parent: Tensor
    call: Tensor
    log_accept: Tensor | None = None

    @staticmethod
    def of(draft: Draft, target: Law, outcome: Outcome) -> Trace:
        """One call of a verifier."""
        call = torch.zeros(len(outcome.length), dtype=torch.long)
        made = (outcome.kept, outcome.value, outcome.length, draft.parent, call, outcome.log_accept)
        return Trace(draft.value, draft.law, target, *made)

    @staticmethod
    def single(drafted: Tensor, emitted: Tensor, draft: Law, target: Law, call: Tensor | None = None) -> Trace:
        """One draft and one token a row, (n, *event) both: kept if they are the same. Laws of batch () or (n,)."""
        n = len(emitted)
        laws = [_columns(law, nodes) for law, nodes in ((draft, 1), (target, 2))]
        value = torch.stack((emitted, emitted), 1)
        kept, one = same(emitted, drafted).unsqueeze(1), torch.ones(n, dtype=torch.long)
        return Trace(
            drafted.unsqueeze(1),
            laws[0],
            laws[1],
            kept,
            value,
            one,
            -one[:1],
            torch.zeros_like(one) if call is None else call,
        )

    def __len__(self) -> int:
        return len(self.length)

    @property
    def nodes(self) -> int:
        return self.drafted.shape[1]

    @property
    def chain(self) -> bool:
        return torch.equal(self.parent, torch.arange(self.nodes) - 1)

    @property
    def node_target(self) -> Law:
        """The target's law (rows, N) of the token that each node is a guess at."""
        return self.target[:, self.parent + 1]

    @cached_property
    def tossed(self) -> Tensor:
        """Which coins (rows, N) were needed: the node's parent was kept, and no earlier sibling."""
        above = torch.where(self.parent < 0, True, self.kept[:, self.parent.clamp(min=0)])
        if self.chain:
            return above
        elder = ((self.parent.unsqueeze(0) == self.parent.unsqueeze(1)).tril(-1)).double()
        return above & (self.kept.double() @ elder.T == 0)

    @cached_property
    def log_ratio(self) -> Tensor:
        """log target - log draft (rows, N) at every node."""
        return log_ratio(self.drafted, self.node_target, self.draft)

    def acceptance(self, token_rule: bool) -> Tensor | None:
        """The probability (rows, N) of keeping each node, its coin being tossed: min(1, target / draft) by the token
        rule, which is known for chains; or what was recorded. None where this is not known.
        """
        if token_rule:
            return self.log_ratio.clamp(max=0).exp() if self.chain else None
        return None if self.log_accept is None else self.log_accept.double().exp()

    @cached_property
    def refused(self) -> tuple[Tensor, Tensor]:
        """The rows of a chain in which a node was refused, and that node: there a replacement was drawn."""
        count = self.kept.long().cumprod(1).sum(1)
        rows = torch.nonzero((count < self.nodes) & (self.length > count)).squeeze(1)
        return rows, count[rows]

    @cached_property
    def context(self) -> Tensor:
        """Which of the target's laws (rows, N + 1) is that of each emitted token: 0, the root's, for the first, n + 1
        after node n; -1 beyond the length, and where the tokens before it are no drafted ones.
        """
        columns = [torch.zeros_like(self.length)]
        for position in range(self.nodes):
            found = torch.full_like(self.length, -1)
            for node in range(self.nodes - 1, -1, -1):
                equal = (self.emitted[:, position] == self.drafted[:, node]).reshape(len(self), -1).all(-1)
                found[equal & (columns[-1] == self.parent[node] + 1)] = node + 1
            columns.append(found)
        inside = torch.arange(self.nodes + 1) < self.length.unsqueeze(1)
        return torch.where(inside, torch.stack(columns, 1), -1)

    def __getitem__(self, rows: Any) -> Trace:
        """Some of the rows, their calls numbered again."""
        parts = [part[rows] for part in (self.kept, self.emitted, self.length)]
        call = torch.unique(self.call[rows], return_inverse=True)[1]
        draft, target = by_row(self.draft, rows), by_row(self.target, rows)
        accept = None if self.log_accept is None else self.log_accept[rows]
        return Trace(self.drafted[rows], draft, target, parts[0], parts[1], parts[2], self.parent, call, accept)

    def then(self, other: Trace) -> Trace:
        """The rows of both, in two sets of calls. Raises ValueError for drafts of another shape."""
        if not torch.equal(self.parent, other.parent):
            raise ValueError("the drafts of the two traces have different shapes; join traces of one shape")
        start = int(self.call.max()) + 1 if len(self) else 0
        accept = None
        if self.log_accept is not None and other.log_accept is not None:
            accept = torch.cat((self.log_accept, other.log_accept))
        return Trace(
            drafted=torch.cat((self.drafted, other.drafted)),
            draft=_both(self.draft, other.draft, len(self), len(other)),
            target=_both(self.target, other.target, len(self), len(other)),
            kept=torch.cat((self.kept, other.kept)),
            emitted=torch.cat((self.emitted, other.emitted)),
            length=torch.cat((self.length, other.length)),
            parent=self.parent,
            call=torch.cat((self.call, other.call + start)),
            log_accept=accept,
        )


def _columns(law: Law, nodes: int) -> Law:
    """The law of batch () or (n,) at each of ``nodes``: batch (1, nodes) or (n, nodes)."""
    index = torch.arange(*law.batch_shape) if law.batch_shape else torch.zeros(1, dtype=torch.long)
    return (law if law.batch_shape else law[None])[index.unsqueeze(1).expand(-1, nodes)]


def by_row(law: AnyLaw, rows: Any, *nodes: Tensor) -> AnyLaw:
    """``law[rows]`` or ``law[rows, nodes]``, also where all rows share one."""
    if law.batch_shape[0] > 1:
        return law[(rows, *nodes)]
    return law[(torch.zeros_like(rows), *nodes)] if nodes else law


def _both(first: Law, second: Law, rows: int, others: int) -> Law:
    sizes = ((first, rows), (second, others))
    many = [law if law.batch_shape[0] == n else law[torch.zeros(n, dtype=torch.long)] for law, n in sizes]
    parts = {item.name: torch.cat([getattr(law, item.name) for law in many]) for item in fields(type(first))}  # type: ignore[arg-type]
    return trusted(type(first), **parts)


def nothing(check: str, why: str, alpha: float) -> Finding:
    """The finding of a check that has nothing to look at."""
    return Finding("", "", check, 0.0, None, alpha, 0, 0, note=why)


@dataclass(frozen=True)
class Traced:
    """A source for ``verify.engine``: each shard is one round of ``rows`` sequences, seeded with its number.

    Shard k looks at round k mod ``rounds`` after the beginning, so that what passes from one round to the next shows.
    """

    verifier: Verifier
    target: Model[Any]
    drafter: Model[Any]
    draft_length: int = 2
    rows: int = 4096
    rounds: int = 1

    def __call__(self, shard: int) -> tuple[Trace, None]:
        tape, step = GeneratorTape(shard), Round(self.target, self.drafter, self.verifier, self.draft_length)
        state = step.start(self.rows)
        for _ in range(shard % self.rounds):
            state, _ = step(state, tape)
        turn = step(state, tape)[1]
        value, parent = turn.draft.value, turn.draft.parent
        # Both laws anew: a verifier may have written into those it was given.
        target = self.target.law(state.target, value, parent)
        label = turn.draft.law if state.carry is not None else self.drafter.law(state.drafter, value, parent)
        draft = replace(turn.draft, law=label if state.carry is not None else label[:, parent + 1])
        return Trace.of(draft, target, turn.outcome), None

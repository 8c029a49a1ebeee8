"""What passes between the parts: Draft, Outcome, Claim, Finding, Verdict. All frozen."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributions.law import Law
from distributions.noise import Noise


@dataclass(frozen=True, eq=False)
class Draft:
    """A drafted block, never without the law it was drawn from.

    ``value`` (rows, N, *event); ``law`` with batch (rows, N); ``parent`` (N,): -1, 0, 1, ... for a chain, all -1 for
    siblings, anything for a tree. ``noise`` (rows, N): the exponentials that a Gumbel coupling keeps for each node.
    ``memory``: the last outcome's, (rows, *any). ``left`` (rows,): how many tokens the sequence still lacks, so that a
    carry need not be drawn beyond its end; 0 where this round is all that is asked for.
    """

    value: Tensor
    law: Law
    parent: Tensor
    noise: Noise | None = None
    memory: Tensor | None = None
    left: Tensor | None = None

    @staticmethod
    def chain(value: Tensor, law: Law) -> Draft:
        return Draft(value, law, torch.arange(value.shape[1]) - 1)

    def __getitem__(self, rows: Tensor) -> Draft:
        """The drafts of the selected rows."""
        noise = None if self.noise is None else self.noise[rows]
        memory, left = (None if part is None else part[rows] for part in (self.memory, self.left))
        return Draft(self.value[rows], self.law[rows], self.parent, noise, memory, left)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a verifier made of a draft.

    ``value`` (rows, N + 1, *event): the emitted tokens, of which the first ``length`` (rows,) count, 1 <= length <=
    N + 1. ``kept`` (rows, N): which drafted nodes were accepted. ``log_accept`` (rows, N): the log-probability with
    which each node was accepted given that it was examined. ``carry``: the draft of the next round, for Jacobi
    decoding. ``memory`` (rows, *any): numbers that the verifier wants to find in the next round's draft, by rules that
    are exact across rounds only.
    """

    value: Tensor
    length: Tensor
    kept: Tensor
    log_accept: Tensor
    carry: Draft | None = None
    memory: Tensor | None = None


@dataclass(frozen=True)
class Claim:
    """What a verifier says of itself: ``exact`` or not, at which ``level`` (``round`` or ``sequence``; a defect that
    one row alone cannot show, ``batch``), what it ``needs`` of the draft (``sampled``: drawn from its law, ``any``:
    any source) and on which ``laws``, its ``reference``; for a lossy one, how it is lossy.
    """

    exact: bool
    reference: str
    level: str = "round"
    needs: str = "sampled"
    laws: str = "any"
    note: str = ""


@dataclass(frozen=True)
class Defect:
    """What a planted defect is known for, beside its claim: the public ``bug``, in words.

    ``bias_a`` and ``bias_b``: its exact bias on the reference pairs A and B (``verify.references.bias``, total
    variation of one round, or of a decoded sequence where the claim is about sequences), with drafts of
    ``draft_length`` nodes. ``caught_by``: the checks of ``verify.exact_checks`` that see it, all of them.

    On continuous laws: the bias of the first token on the pairs of ``verify.continuous_references``, of ``equal`` or
    ``unequal`` ``covariance``; and the checks of ``verify.spaces.gaussian_checks`` that must see it.
    """

    bug: str
    bias_a: float
    bias_b: float
    caught_by: tuple[str, ...]
    draft_length: int = 2
    covariance: str = "equal"


@dataclass(frozen=True)
class CheckClaim:
    """What a check says of itself: its ``level`` (``exact``: false alarms bounded at every n; ``asymptotic``) and
    what it has power ``against``.
    """

    level: str
    against: str
    blind_to: str = ""


@dataclass(frozen=True)
class Finding:
    """One check's answer on one verifier and scenario. ``p_value`` is None where equality was decided exactly.

    ``bound``: a certified upper bound on ``metric`` at ``confidence``, where the check has one; ``smallest``: the
    smallest defect, in ``metric``, that the check would see nine times in ten.
    """

    verifier: str
    scenario: str
    check: str
    statistic: float
    p_value: float | None
    alpha: float
    n: int
    seed: int
    note: str = ""
    metric: str = ""
    bound: float | None = None
    smallest: float | None = None

    @property
    def rejects(self) -> bool:
        return self.p_value is not None and self.p_value <= self.alpha


@dataclass(frozen=True)
class Counterexample:
    """The smallest problem found on which the law is wrong: its ``bias``, a paste-able ``snippet`` that shows it, the
    ``where`` of the first departure, and the laws found and wanted, token by token.
    """

    bias: float
    snippet: str
    where: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The answer on one function.

    ``status``: ``lossless``, ``lossy`` or ``inconclusive``. ``bias_lower`` and ``bias_upper`` bound the distance from
    the target's law in ``metric`` at ``confidence``; they are equal, with confidence 1, when ``evidence`` is
    ``exact``. ``acceptance`` and ``overlap``: probability that the first emitted token is the drafted one, and the most
    that a lossless rule may reach, both averaged over the problems. ``needs``: what would decide an inconclusive case.
    ``scope``: the sizes, dtypes and problems that the verdict speaks of. ``notes``: what a reader must know besides.
    ``expected``: the status that the subject's own claim, or an earlier reading of its code, leads one to expect.
    """

    status: str
    bias_lower: float
    bias_upper: float
    metric: str
    evidence: str
    confidence: float
    acceptance: float | None = None
    overlap: float | None = None
    counterexample: Counterexample | None = None
    diagnosis: str = ""
    needs: str = ""
    findings: tuple[Finding, ...] = ()
    subject: str = ""
    scope: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    expected: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether the status is the one expected; True where nothing was said."""
        return self.expected in ("", self.status)

    @property
    def lossless(self) -> bool:
        return self.status == "lossless"

    def to_json(self, **options: Any) -> str:
        """The verdict as one JSON object; non-finite numbers become null."""
        return json.dumps(_finite(dataclasses.asdict(self)), **options)

    def headline(self) -> str:
        """The verdict in one line."""
        if self.evidence == "exact":
            size = f"bias {self.bias_upper:.3g} ({self.metric})"
        elif self.evidence == "log" and not self.bias_lower:
            size = f"no bias is shown (confidence {self.confidence:.7g})"
        else:
            size = f"{self.bias_lower:.3g} <= bias <= {self.bias_upper:.3g} "
            size += f"({self.metric}, confidence {self.confidence:.7g})"
        return f"{self.status} [{self.evidence}] {self.subject or 'function'}: {size}"

    def __str__(self) -> str:
        lines = [self.headline()]
        if self.acceptance is not None and self.overlap is not None:
            lines.append(f"  acceptance {self.acceptance:.4f}, at most {self.overlap:.4f} for a lossless rule")
        if self.counterexample is not None:
            case = self.counterexample
            lines.append(f"  smallest counterexample, bias {case.bias:.6g}" + (f": {case.where}" if case.where else ""))
            lines += ["    " + line for line in case.snippet.splitlines()]
        if self.diagnosis:
            lines.append(f"  diagnosis: {self.diagnosis}")
        if self.needs:
            lines.append(f"  to decide: {self.needs}")
        if self.scope:
            lines.append(f"  scope: {self.scope}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

"""Rounds of one draft: every rule on the same drafts, in chunks of rows, and what a round costs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from distributions.datasets import conditions
from distributions.law import Law
from distributions.path import PathLaw
from distributions.tape import GeneratorTape
from distributions.training import pretrained
from verify.progress import track
from verify.records import Draft, Outcome
from verify.studies.ladder.bounds import Scores, innovations, score
from verify.studies.ladder.chains import Counted, Definition, Heads, Remembered, costly, drafted
from verify.studies.robustness.evidence import own_path
from verify.verifier import Verifier
from verify.verifiers.cspd import Cspd, aligned
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.pooled_noise import PooledNoiseRule
from verify.workers import Processes


@dataclass(frozen=True, eq=False)
class Job:
    """A chunk: ``rows`` conditions, one draft each, judged by all ``rules``; of the first ``checked`` rows the output
    is looked at too. ``draws``: of the score. ``heads``: others than the trained pair of ``data``.
    """

    data: str
    definition: Definition
    rules: Mapping[str, Verifier]
    rows: int
    seed: int
    checked: int = 0
    draws: int = 4
    device: str = "cpu"
    heads: Heads | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """One rule on some rows: how many it ``kept``, the tokens that are ``zeros``, and of those checked the
    ``innovations`` (n, 5) of paths and the scores. ``reach``: the sum over ``rows`` of a bound on the total variation
    given both chains down to x_1, in [0, 2]; None where there is none.
    """

    rows: int
    kept: int
    zeros: int
    innovations: Tensor
    scores: Scores
    reach: float | None = None

    @staticmethod
    def joined(parts: Sequence[Part]) -> Part:
        """Of all rows."""
        reach = [part.reach for part in parts if part.reach is not None]
        return Part(
            sum(part.rows for part in parts),
            sum(part.kept for part in parts),
            sum(part.zeros for part in parts),
            torch.cat([part.innovations for part in parts]),
            Scores.joined([part.scores for part in parts]),
            sum(reach) if len(reach) == len(parts) else None,
        )


@cache
def trained(name: str, kind: torch.dtype, device: str) -> Heads:
    """The pair that ships, in a precision of its own, on a device."""
    pair = pretrained(name, dtype=kind)
    moved = [type(head)({key: part.to(device) for key, part in head.weights.items()}, head.predicts)
             for head in (pair.target, pair.drafter)]  # fmt: skip
    return Heads(*moved)


def heads_for(job: Job, rules: Iterable[Verifier]) -> Heads:
    """In double precision where a rule differentiates them or inverts a flow, else in single."""
    kind = torch.float64 if any(costly(rule) for rule in rules) else torch.float32
    return job.heads or trained(job.data, kind, job.device)


def chunk(job: Job) -> dict[str, Part]:
    """The rules on one chunk, on the same drafts: what one has asked of a head is remembered for the next, unless it
    differentiates it.
    """
    torch.set_num_threads(1)
    heads = heads_for(job, job.rules.values())
    told = heads  # what is differentiated must be evaluated: a remembered answer has no slope
    if not any(costly(rule) for rule in job.rules.values()):
        told = Heads(Remembered(heads.target, job.rows), Remembered(heads.drafter, job.rows))
    condition = conditions(GeneratorTape(4 * job.seed, job.device), job.rows)
    look = Look(job, heads, condition[: job.checked], GeneratorTape(4 * job.seed + 3, job.device))
    return {name: _one(rule, job, told, condition, look) for name, rule in job.rules.items()}


@dataclass(frozen=True, eq=False)
class Look:
    """The scores of a chunk's tokens; those of tokens that many rules share are computed once."""

    job: Job
    heads: Heads
    condition: Tensor
    tape: GeneratorTape
    known: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    own: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, token: Tensor) -> Tensor:
        """Of tokens (n, d)."""
        for place, found in self.known:
            if torch.equal(place, token):
                return found
        self.known.append((token, score(token, self.condition, self.heads, self.job.draws, self.tape).cpu()))
        return self.known[-1][1]

    def fresh(self, kind: str) -> Tensor:
        """Tokens of the target that no rule has seen."""
        if kind not in self.own:
            law = self.job.definition.law(self.heads.target, self.condition, kind)
            self.own[kind] = law.token(law.sample(self.tape, "own"))
        return self.own[kind]


def _one(rule: Verifier, job: Job, heads: Heads, condition: Tensor, look: Look) -> Part:
    drawing, judging = (GeneratorTape(4 * job.seed + place, job.device) for place in (1, 2))
    draft, target = drafted(rule, job.definition, heads, condition, drawing)
    outcome = rule.verify(draft, target, judging)
    token, some = target.token(outcome.value)[:, 0], slice(0, job.checked)
    law, prior = target[some, 0], draft.law[some, 0]
    columns = token.new_zeros(0, 5)
    if job.checked and isinstance(law, PathLaw) and isinstance(prior, PathLaw):
        columns = innovations(_path(rule, draft, outcome, target, some), law, prior)
    scores = (look(each) for each in (look.fresh(rule.claim.laws), target.token(draft.value)[some, 0], token[some]))
    return Part(
        len(token),
        int(outcome.kept.sum()),
        int((token == 0).all(-1).sum()),
        columns.cpu(),
        Scores(*scores),
        reach(rule, draft, target, outcome, look.tape),
    )


def _path(rule: Verifier, draft: Draft, outcome: Outcome, target: Law, some: slice) -> Tensor:
    """The target's paths to the first tokens emitted; ``pooled_noise`` keeps a token, and not the path it came by."""
    path = outcome.value[some, 0]
    if not isinstance(rule, PooledNoiseRule):
        return path
    assert isinstance(draft.law, PathLaw) and isinstance(target, PathLaw)
    return own_path(rule, path, outcome.kept[some, 0], draft.law[some, 0], target[some, 0])


def reach(rule: Verifier, draft: Draft, target: Law, outcome: Outcome, tape: GeneratorTape) -> float | None:
    """The sum over rows of A + B + Z, an estimate of an upper bound on TV(token, target) for the rules of an alignment.

    Given both chains down to x_1, which are the target's and the draft's own, the token is kept with probability A and
    else has the density r = p k / E_p[k], k = (1 - q / (Sigma p))+, or is zero with probability Z. Since min(p, r) >=
    p k, TV(r, p) <= 1 - E_p[k] =: B = E_p[min(1, q / (Sigma p))]. So TV <= A + B + Z: what is redrawn is nearly right.
    """
    if not isinstance(rule, (Cspd, CspdReleased)):
        return None
    assert isinstance(draft.law, PathLaw) and isinstance(target, PathLaw)
    beside, log_sigma = aligned(draft, draft.law, target[:, :1], tape)
    log_sigma = -log_sigma if getattr(rule, "inverted", False) else log_sigma
    drawn = beside.target.sample(tape, "reach")
    back = (beside.draft.log_prob(drawn) - beside.target.log_prob(drawn) - log_sigma).clamp(max=0).exp()
    zeros = (target.token(outcome.value)[:, :1] == 0).all(-1)
    return float((outcome.log_accept.exp() + back + zeros).sum())


def joined(jobs: Sequence[Job], workers: int = 1, label: str = "ladder") -> dict[str, Part]:
    """What came out of all jobs, rule by rule, by so many processes, with a progress bar."""
    with contextlib.nullcontext() if workers == 1 else Processes(workers) as pool:
        done = list(track((pool.map if pool else map)(chunk, jobs), len(jobs), label))
    names = dict.fromkeys(name for parts in done for name in parts)
    return {name: Part.joined([parts[name] for parts in done if name in parts]) for name in names}


def jobs_of(
    data: str, definition: Definition, rules: Mapping[str, Verifier], rows: int, checked: int, seed: Iterator[int],
    *, size: int = 2048, draws: int = 4, device: str = "cpu",
) -> list[Job]:  # fmt: skip
    """``rows`` in chunks of at most ``size``, the first ``checked`` of them looked at."""
    found = []
    for first in range(0, rows, size):
        here = min(size, rows - first)
        look = min(here, max(0, checked - first))
        found.append(Job(data, definition, rules, here, next(seed), look, draws, device))
    return found


def cores() -> int:
    """Processes to use."""
    return max(1, len(os.sched_getaffinity(0)))


# --- cost ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Spent:
    """What an emitted token cost, the round's draft included: evaluations of either head, and processor ``seconds``."""

    target: float
    drafter: float
    seconds: float


def spent(rule: Verifier, job: Job) -> Spent:
    """Measured on one chunk by itself, with heads that remember nothing; a Jacobian's products are not counted."""
    torch.set_num_threads(1)
    heads = heads_for(job, [rule])
    counted = Heads(Counted(heads.target), Counted(heads.drafter))
    condition = conditions(GeneratorTape(4 * job.seed, job.device), job.rows)
    start = time.process_time()
    tapes = [GeneratorTape(4 * job.seed + place, job.device) for place in (1, 2)]
    draft, target = drafted(rule, job.definition, counted, condition, tapes[0])
    emitted = int(rule.verify(draft, target, tapes[1]).length.sum())
    seconds = time.process_time() - start
    assert isinstance(counted.target, Counted) and isinstance(counted.drafter, Counted)
    return Spent(counted.target.count / emitted, counted.drafter.count / emitted, seconds / emitted)

"""What decoding costs: evaluations and seconds, measured, and what acceptance and the cost of a round predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.images import patches
from distributions.tape import GeneratorTape
from verify.decode import Round, State, parents, policy, propose
from verify.imaging.figures import counted
from verify.imaging.run import Decoded
from verify.imaging.setting import begun
from verify.studies.images.subjects import Job, Subject, batches
from verify.studies.jacobi.latency import timed


@dataclass(frozen=True, eq=False)
class Speed:
    """One job on ``images``: ``acceptance`` of drafts that were examined; the ``kept`` share of all tokens; target
    ``calls`` and ``seconds`` a token; the seconds of a round's ``parts``; and what the target ``alone`` takes a token.
    """

    subject: str
    job: Job
    images: int
    acceptance: float
    kept: float
    calls: float
    seconds: float
    alone: float
    parts: Mapping[str, float]
    decoded: Decoded

    @property
    def measured(self) -> float:
        """Speed-up over the target alone, in the same batches."""
        return self.alone / self.seconds

    @property
    def predicted(self) -> float:
        """From acceptance a and the cost of a round, without a look at how rounds went: with the share f prefilled, a
        token takes f of the target's time and 1 - f of a round's over its 1 + a + ... + a^N tokens (Leviathan et al.
        2211.17192, eq. 1); a rule without rollback makes N tokens a round.
        """
        job, rate = self.job, self.acceptance
        full = sum(rate**place for place in range(job.draft_length + 1))
        rounds = 1 / (full if rolls_back(job) else job.draft_length)
        return 1 / (job.prefill + (1 - job.prefill) * rounds * sum(self.parts.values()) / self.alone)


def rolls_back(job: Job) -> bool:
    """Whether a round ends with the first refusal."""
    return bool(getattr(job.verifier, "rollback", True))


def speed(subject: Subject, job: Job, images: int, seed: int, alone: float) -> Speed:
    """Decode and time; ``alone``: seconds a token of the target alone in batches of the same size."""
    found = [part.decoded for part in batches(subject, job, images, seed)]
    length = subject.images.length
    drafted, kept = (sum(counted(part)[which] for part in found) for which in (0, 1))
    return Speed(
        subject.name, job, images,
        acceptance=kept / drafted if drafted else 0.0,
        kept=sum(float(part.kept.sum()) for part in found) / (images * length),
        calls=sum(float(part.trace.rounds.sum()) for part in found) / (images * length),
        seconds=sum(part.seconds for part in found) / (images * length),
        alone=alone,
        parts={} if job.verifier is None else pieces(subject, job, min(job.batch, images), seed),
        decoded=found[0],
    )  # fmt: skip


def alone(subject: Subject, batch: int, images: int, seed: int) -> float:
    """Seconds a token of the target by itself."""
    found = [part.decoded.seconds for part in batches(subject, Job("ancestral", None, batch=batch), images, seed)]
    return sum(found) / (images * subject.images.length)


@torch.no_grad()
def pieces(subject: Subject, job: Job, rows: int, seed: int, turns: int = 3) -> dict[str, float]:
    """Seconds an image of the two halves of a round, at images half of which are there: medians of ``turns``."""
    assert job.verifier is not None
    rule, tape = job.verifier, GeneratorTape(seed)
    step = Round(subject.target, subject.drafters[job.drafter], rule, job.draft_length)
    state, parent = half_way(step, subject, rows, tape), parents(rule, job.draft_length)

    def draft() -> Any:
        return propose(step.drafter, state.drafter, parent, tape, policy(rule))

    mine = draft()

    def verify() -> None:
        outcome = rule.verify(mine, step.target.law(state.target, mine.value, mine.parent), tape)
        step.extend(state, outcome.value, outcome.length)

    drafting = 0.0 if getattr(rule, "carries", False) else timed(draft, turns)
    return {"draft": drafting / rows, "verify": timed(verify, turns) / rows}


def half_way(step: Round, subject: Subject, rows: int, tape: GeneratorTape) -> State:
    """States of images whose first half is that of the data's."""
    images, half = subject.images, subject.images.length // 2
    condition, place, _ = begun(subject.target, rows, 0, images.length, tape)
    some = patches(images.pixels[torch.arange(rows) % len(images)], images.patch)
    value: Tensor = some.gather(1, place[:, :half].unsqueeze(-1).expand(-1, -1, images.dim))
    return step.extend(step.start(rows, condition), value, torch.full((rows,), half))

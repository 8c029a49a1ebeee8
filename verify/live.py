"""A real ``generate()`` of transformers, recorded while it runs and audited: no line of its arithmetic is touched.

What each mode drafts comes from a candidate generator, and what became of the drafts goes back to it. Both are looked
at as they pass: ``get_candidates`` (the drafts, and the logits they are said to come from),
``update_candidate_strategy`` (the target's logits after all processors, and the tokens), and the result of
``_speculative_sampling``, which is what was decided before anything was cut at an end token.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from verify.checks import Check
from verify.checks.accepted_length import AcceptedLength
from verify.checks.coin import Coin
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.proposal import Proposal
from verify.checks.residual_law import ResidualLaw
from verify.checks.violations import Violations
from verify.records import Finding, Verdict
from verify.statistics.trace import Trace
from verify.upstream.transformers import speculative_sampling

CHECKS: tuple[Check, ...] = (Violations(), Proposal(), Coin(), AcceptedLength(), ResidualLaw(), ExcessAcceptance())


@dataclass(frozen=True, eq=False)
class LiveRound:
    """One round: after ``prefix`` (L,) the tokens ``drafted`` (N,), of which ``kept`` were kept, then ``emitted`` (M,).

    ``draft`` (N, V): the logits that the drafts are said to come from, None where there are none; ``target``
    (N + 1, V): the target's, after all processors. ``whole``: whether what was decided is known; it is not where
    drafts that come without logits may have been cut at the end of the sequence. ``sampled``: False if greedy.
    """

    prefix: Tensor
    drafted: Tensor
    draft: Tensor | None
    target: Tensor
    kept: int
    emitted: Tensor
    whole: bool
    sampled: bool


@dataclass(eq=False)
class Recording:
    """What was recorded: the ``rounds``, and the candidate generators that drafted, by the names of their classes.

    It holds 2 N + 1 rows of the vocabulary a round, in single precision, on the CPU.
    """

    rounds: list[LiveRound] = field(default_factory=list)
    generators: set[str] = field(default_factory=set)

    def traces(self) -> dict[int, Trace]:
        """The rounds that can be judged, by the number N of their drafts, each a row and a call of its own.

        Drafts without logits are held against the rule of a point mass (lemma L3), which drawing the target's token
        and comparing also obeys: the draft is kept with the probability that the target gives it, and given that it is
        not, what is emitted has the target's law without it.
        """
        sizes: dict[int, list[LiveRound]] = {}
        for turn in self.rounds:
            if turn.whole and turn.sampled and len(turn.drafted):
                sizes.setdefault(len(turn.drafted), []).append(turn)
        return {size: _trace(turns) for size, turns in sorted(sizes.items())}


def _trace(turns: list[LiveRound]) -> Trace:
    drafted = torch.stack([turn.drafted for turn in turns])
    nodes, vocab = drafted.shape[1], turns[0].target.shape[-1]
    claimed = [
        torch.nn.functional.one_hot(turn.drafted, vocab).double()
        if turn.draft is None
        else turn.draft.double().softmax(-1)
        for turn in turns
    ]
    count = torch.tensor([turn.kept for turn in turns])
    emitted = [torch.nn.functional.pad(turn.emitted, (0, nodes + 1 - len(turn.emitted))) for turn in turns]
    return Trace(
        drafted=drafted,
        draft=Categorical(torch.stack(claimed)),
        target=Categorical(torch.stack([turn.target for turn in turns]).double().softmax(-1)),
        kept=torch.arange(nodes) < count.unsqueeze(1),
        emitted=torch.stack(emitted),
        length=torch.tensor([len(turn.emitted) for turn in turns]),
        parent=torch.arange(nodes) - 1,
        call=torch.arange(len(turns)),
    )


class _Observer:
    """Stands at both doors of one candidate generator."""

    def __init__(self, generator: Any, config: Any, recording: Recording) -> None:
        self.recording, self.config = recording, config
        self.get, self.update = generator.get_candidates, generator.update_candidate_strategy
        self.open: tuple[Tensor, Tensor, Tensor | None] | None = None
        self.decided: tuple[Tensor, int] | None = None
        generator.get_candidates, generator.update_candidate_strategy = self.candidates, self.updated
        recording.generators.add(type(generator).__name__)

    def candidates(self, input_ids: Tensor, *args: Any, **options: Any) -> Any:
        ids, logits = self.get(input_ids, *args, **options)
        claimed = None if logits is None else logits[0].detach().cpu().float().clone()
        self.open, self.decided = (input_ids[0].cpu(), ids[0, input_ids.shape[1] :].cpu(), claimed), None
        return ids, logits

    def updated(self, input_ids: Tensor, scores: Tensor, num_matches: int) -> Any:
        assert self.open is not None  # a round begins with candidates
        (prefix, drafted, claimed), after = self.open, input_ids[0].cpu()
        emitted, kept, whole = after[len(prefix) :], int(num_matches), True
        if self.decided is not None:
            emitted, kept = self.decided
        else:  # what is known before the outcome decides, so that leaving a round out favours no outcome
            ends = self.config._eos_token_tensor
            ended = ends is not None and bool(torch.isin(drafted, ends.cpu()).any())
            whole = not ended and len(prefix) + len(drafted) < self.config.max_length
        target = scores[0].detach().cpu().float().clone()
        turn = (prefix, drafted, claimed, target, kept, emitted, whole, bool(self.config.do_sample))
        self.recording.rounds.append(LiveRound(*turn))
        return self.update(input_ids, scores, num_matches)


@contextmanager
def recorded() -> Iterator[Recording]:
    """Records every assisted ``generate`` inside, of the installed transformers; one at a time.

    Raises ImportError where transformers is missing, or is not laid out as it is known here.
    """
    decide = speculative_sampling()
    utils: Any = importlib.import_module("transformers.generation.utils")
    mixin = utils.GenerationMixin
    make: Callable[..., Any] | None = getattr(mixin, "_get_candidate_generator", None)
    if make is None:
        raise ImportError("this transformers has no _get_candidate_generator to look at; try another release")
    recording, observers = Recording(), list[_Observer]()

    def made(model: Any, *args: Any, **options: Any) -> Any:
        generator = make(model, *args, **options)
        observers[:] = [_Observer(generator, options["generation_config"], recording)]
        return generator

    def decided(*args: Any, **options: Any) -> Any:
        tokens, kept = decide(*args, **options)
        observers[0].decided = (tokens[0].cpu(), int(kept))
        return tokens, kept

    mixin._get_candidate_generator = made
    utils._speculative_sampling = decided
    try:
        yield recording
    finally:
        mixin._get_candidate_generator = make
        utils._speculative_sampling = decide


def audit(recording: Recording, alpha: float = 1e-6) -> Verdict:
    """``lossy`` where a check rejects, else ``inconclusive``: a record can convict, and never proves.

    Every check runs on the rounds of each draft length at ``alpha`` over their number, so that a correct sampler is
    accused with probability ``alpha`` at most, up to the tails of normal laws where the checks are asymptotic. The
    rounds of one sequence are not independent, and need not be: given what came before, each has the law it is held
    against. ``bias_lower`` is the certificate of excess acceptance (lemma L2).
    """
    traces = recording.traces()
    level = alpha / max(1, len(CHECKS) * len(traces))
    findings: list[Finding] = []
    for size, trace in traces.items():
        found = [check(trace, None, level, GeneratorTape(0)) for check in CHECKS]
        findings += [replace(each, verifier="generate", scenario=f"{size} drafted") for each in found]
    rounds = sum(len(trace) for trace in traces.values())
    bad = [each for each in findings if each.rejects]
    excess = [each.statistic for each in bad if each.check == "excess_acceptance"]
    return Verdict(
        status="lossy" if bad else "inconclusive",
        bias_lower=max(excess, default=0.0),
        bias_upper=1.0,
        metric="tv",
        evidence="sampled",
        confidence=1 - alpha,
        subject=", ".join(sorted(recording.generators)),
        scope=f"{rounds} rounds judged of {len(recording.rounds)} recorded",
        needs="" if bad else "enumerate the call on a tiny vocabulary; a record alone proves nothing",
        notes=tuple(f"{each.check}, {each.scenario}: {each.note}" for each in bad),
        findings=tuple(findings),
    )

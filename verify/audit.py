"""The catalogue against every finite scenario, by enumeration: one verdict a verifier, without a single random draw."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.enumeration import EnumerationExploded, NotEnumerable, RowsDependent
from verify.exact import ChainLaw, RoundLaw, conditionals, digits, exact_batch, exact_chain, exact_rows
from verify.records import Claim, Counterexample, Finding, Verdict
from verify.scenarios import Scenario
from verify.scenarios import scenarios as all_scenarios
from verify.verifier import Verifier, catalog

TOLERANCE = 1e-12
"""Total variation below which an enumerated law is the target's: rounding leaves some 1e-16 a node."""
SEQUENCES = 125
"""A whole decoded sequence is enumerated as long as there are at most so many of them."""
BATCH_VOCAB, BATCH_LEAVES = 2, 400
"""The vocabulary and the runs that a verifier is worth whose rows depend on one another: two contexts run together."""


@dataclass(frozen=True)
class Case:
    """One verifier on one scenario: its finding and what the verdict is put together from."""

    finding: Finding
    acceptance: float = math.nan
    overlap: float = math.nan
    example: Counterexample | None = None
    formula_error: float | None = None
    seconds: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the enumeration came to an end."""
        return self.finding.metric == "tv"


def examine(name: str, verifier: Verifier, scenario: Scenario) -> Case:
    """Enumerate one round in every context, and whole decoded sequences, of one scenario.

    The statistic is the total variation found: of a round, or of the decoded sequence where the claim is about
    sequences or every round is exact. What cannot be enumerated is a finding without a metric that says why.
    """
    begun = time.perf_counter()
    length = max(1, int(math.log(SEQUENCES) / math.log(scenario.vocab)))
    pair, nodes = (scenario.target, scenario.drafter), scenario.draft_length
    chain: ChainLaw | None = None
    found: RoundLaw | ChainLaw
    check, contexts = "enumeration", scenario.contexts
    try:
        try:
            rows = exact_rows(verifier, *pair, contexts, nodes)
            chain = exact_chain(*pair, verifier, nodes, length)
        except RowsDependent:
            if scenario.vocab > BATCH_VOCAB:
                raise EnumerationExploded("rows depend on one another; a batch is run at vocabulary 2") from None
            check, contexts = "enumeration of a batch", contexts[[0, -1]]
            rows = exact_batch(verifier, *pair, contexts, nodes, max_leaves=BATCH_LEAVES)
    except (NotEnumerable, EnumerationExploded) as error:
        return Case(Finding(name, scenario.name, check, math.nan, None, 0.0, 0, 0, note=str(error)))
    bias, found = float(rows.tv.max()), rows
    if chain is not None and (verifier.claim.level == "sequence" or bias < TOLERANCE and bias < chain.tv):
        bias, found = chain.tv, chain
    finding = Finding(
        name, scenario.name, check, bias, None, 0.0, rows.leaves, 0, metric="tv", bound=bias, smallest=TOLERANCE
    )
    return Case(
        finding,
        float(rows.acceptance.mean()),
        float(rows.overlap.mean()),
        _example(verifier, scenario, contexts, found, together=chain is None) if bias >= TOLERANCE else None,
        _formula_error(verifier, scenario, contexts, rows),
        time.perf_counter() - begun,
    )


def _formula_error(verifier: Verifier, scenario: Scenario, contexts: Tensor, rows: RoundLaw) -> float | None:
    """How far the enumerated departures are from the verifier's own closed form ``bias``, where it has one."""
    formula = getattr(verifier, "bias", None)
    if formula is None:
        return None
    count, length = contexts.shape
    state = scenario.drafter.extend(scenario.drafter.start(count), contexts, torch.full((count,), length))
    drafted = conditionals(scenario.drafter, state, count, scenario.draft_length)
    return max(
        float((rows.reach[i] * formula(Categorical(rows.wanted[i]), Categorical(law)) - rows.departure[i]).abs().max())
        for i, law in enumerate(drafted)
    )


def _example(
    verifier: Verifier, scenario: Scenario, contexts: Tensor, found: RoundLaw | ChainLaw, together: bool
) -> Counterexample:
    """The scenario as a counterexample: the worst conditional law of a round, or the law of whole sequences."""
    kind, vocab = type(verifier), scenario.vocab
    head = f"from {kind.__module__} import {kind.__qualname__}\nfrom verify.scenarios import scenarios\n"
    case = f"case = scenarios([{vocab}])[{scenario.name!r}]\n"
    if isinstance(found, ChainLaw):
        bias, length = found.tv, round(math.log(len(found.law), vocab))
        call = f"exact_chain(case.target, case.drafter, {verifier!r}, case.draft_length, {length}).tv"
        where = f"{scenario.name}, law of {length} decoded tokens"
        names = [" ".join(map(str, row)) for row in digits(torch.arange(vocab**length), length, vocab).tolist()]
        laws = found.law, found.truth
    else:
        how, which = ("exact_batch", "[[0, -1]]") if together else ("exact_rows", "")
        call = f"{how}({verifier!r}, case.target, case.drafter, case.contexts{which}, case.draft_length).tv.max()"
        bias = float(found.tv.max())
        position, row, prefix = found.worst()
        before = contexts[row].tolist() + digits(torch.tensor(prefix), position, vocab).tolist()
        where = f"{scenario.name}, token {position + 1} of a round after {before}"
        names = [str(token) for token in range(vocab)]
        joint = found.joint[position][row, prefix]
        laws = joint / joint.sum(), found.wanted[position][row, prefix]
    snippet = f"from verify.exact import {call.split('(')[0]}\n{head}{case}print({call})"
    sizes = {"vocab": vocab, "draft_length": scenario.draft_length}
    law, truth = (dict(zip(names, part.tolist(), strict=True)) for part in laws)
    return Counterexample(bias, snippet, where, sizes, law, truth)


def finite(claim: Claim) -> bool:
    """Whether a claim speaks of laws on a finite vocabulary."""
    return claim.laws in {"any", "categorical"}


def conforms(verdict: Verdict, claim: Claim) -> bool:
    """Whether a verdict bears its claim out: lossless everywhere if exact, and lossy somewhere if not."""
    return verdict.status == ("lossless" if claim.exact else "lossy")


def audit(
    verifiers: Mapping[str, Verifier] | None = None,
    scenarios: Mapping[str, Scenario] | None = None,
    *,
    executor: Executor | None = None,
    findings: str | Path | None = None,
) -> list[Verdict]:
    """One verdict for each verifier, in order; by default the catalogue's entries for a finite vocabulary.

    ``executor``: any concurrent.futures.Executor, given one case at a time. ``findings``: a file to which each Finding
    is appended as a line of JSON, in order, as soon as it is known, so that an interrupt loses nothing.
    """
    if verifiers is None:
        verifiers = {name: kind() for name, kind in catalog().items() if finite(kind.claim)}
    if scenarios is None:
        scenarios = all_scenarios()
    jobs = [(name, verifier, scenario) for name, verifier in verifiers.items() for scenario in scenarios.values()]
    cases: dict[tuple[str, str], Case] = {}
    for case in _run(jobs, executor):
        cases[case.finding.verifier, case.finding.scenario] = case
        if findings is not None:
            with Path(findings).open("a", encoding="utf-8") as file:
                file.write(json.dumps(_plain(case.finding)) + "\n")
    return [
        _verdict(name, verifier, [cases[name, scenario.name] for scenario in scenarios.values()])
        for name, verifier in verifiers.items()
    ]


def _run(jobs: list[tuple[str, Verifier, Scenario]], executor: Executor | None) -> Iterator[Case]:
    if executor is None:
        yield from (examine(*job) for job in jobs)
        return
    futures = [executor.submit(examine, *job) for job in jobs]
    try:
        for future in futures:  # in order, so that the findings of two runs are the same file
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _plain(finding: Finding) -> dict[str, object]:
    """A finding as JSON values: a statistic that is not a number becomes null."""
    row = dataclasses.asdict(finding)
    return {key: None if isinstance(item, float) and not math.isfinite(item) else item for key, item in row.items()}


def _verdict(name: str, verifier: Verifier, cases: list[Case]) -> Verdict:
    known = [case for case in cases if case.known]
    findings = tuple(case.finding for case in cases)
    seconds = sum(case.seconds for case in cases)
    lossy = [case for case in known if case.example is not None]
    notes = _unknown([case.finding for case in cases if not case.known])
    errors = [case.formula_error for case in known if case.formula_error is not None]
    if errors:
        notes.append(f"the closed form of the bias agrees with the enumeration to {max(errors):.1e} in every context")
    bias = max((case.finding.statistic for case in known), default=0.0)
    decided = bool(lossy) or len(known) == len(cases) > 0
    return Verdict(
        status="lossy" if lossy else "lossless" if decided else "inconclusive",
        bias_lower=bias,
        bias_upper=bias if decided else 1.0,
        metric="tv",
        evidence="exact" if decided else "none",
        confidence=1.0,
        acceptance=_mean([case.acceptance for case in known]),
        overlap=_mean([case.overlap for case in known]),
        counterexample=_smallest(lossy),
        needs="" if decided else "draws with finitely many values, or a check by sampling",
        findings=findings,
        subject=name,
        scope=f"{len(known)} finite scenarios: one round in every context, and whole decoded sequences ({verifier!r})",
        notes=tuple(notes),
        seconds=seconds,
    )


def _unknown(findings: list[Finding]) -> list[str]:
    """Why some scenarios are not known, each reason once."""
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        reasons.setdefault(finding.note, []).append(finding.scenario)
    return [f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: {note}" for note, names in reasons.items()]


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _smallest(cases: list[Case]) -> Counterexample | None:
    """The counterexample on the smallest vocabulary and the shortest draft, the most biased of those."""
    examples = [case.example for case in cases if case.example is not None]
    return min(examples, key=lambda item: (*item.sizes.values(), -item.bias), default=None)

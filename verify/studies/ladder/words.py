"""What the ladder says in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from verify.estimates import plus_minus
from verify.studies.ladder.bounds import DELTA
from verify.studies.ladder.chains import LIMIT, Definition
from verify.studies.ladder.meeting import Meeting
from verify.studies.ladder.tables import Entry, ahead, cells


def text(
    entries: Sequence[Entry],
    walked: Mapping[str, Mapping[str, Meeting]],
    took: Mapping[tuple[str, Definition], float],
    checked: int,
    workers: int,
) -> Iterator[str]:
    """The paragraphs above the figures; every number is computed. ``took``: seconds of each sampler's cell; on at most
    ``checked`` tokens a cell paths were looked at, by so many ``workers``.
    """
    lossy = [x for x in entries if not x.rule.claim.exact]
    exact = [x for x in entries if x.rule.claim.exact]
    caught, alarms = (sum(x.flagged for x in group) for group in (lossy, exact))
    yield (
        f"**Exact or not.** Of {len(lossy)} cells of rules that do not claim exactness {caught} are certified lossy; "
        f"of {len(exact)} cells of rules that do, {alarms}. " + _published([x for x in lossy if x.name == "cspd"])
    )
    yield "**What is accepted.** " + _accepted(cells(entries))
    yield "**Where the coalescing coupling loses.** " + _lost(walked)
    yield (
        "**How it is measured.** One draft a round, under conditions of its own; target and drafter are the trained "
        "pairs of the package. 1 - TV of the tokens' marginals has no closed form for a chain with noise: it lies "
        "between the best acceptance of an exact rule, an estimate, and one minus a certified bound on TV. That bound "
        "and `event` count an event of a score, how much likelier the target's paths are than the drafter's when the "
        "token is noised again; the event is chosen on half of the tokens and counted on the others. For flow_exact it "
        "is the range of the two estimates of its own 1 - TV, one standard error out. `excess` is acceptance - (1 - "
        "TV), `atom` the share of tokens that are exactly zero. `path departs by`: the Kolmogorov distance of five "
        "statistics of the target's own innovations, recovered from the emitted path, from their known laws, with the "
        f"bound of Dvoretzky, Kiefer, Wolfowitz and Massart on at most {checked} tokens a cell. A path may depart "
        "where its token hardly does. Where a rule is aligned, TV is at most E[A + B + Z] by a coupling with "
        "last_gaussian: what is kept, what the residual loses of the target's law, and zeros. Every bound has "
        f"confidence 1 - {DELTA:g}. A residual that has no limit of its own has {LIMIT} tries here."
    )
    slowest = max(took, key=lambda key: took[key])
    rows = max(x.part.rows for x in entries if (x.data, x.definition) == slowest)
    yield (
        f"**Time.** The longest cell, {slowest[0]} with {slowest[1]}, {rows} tokens of each rule on "
        f"paths, took {took[slowest]:.0f} s on {workers} process{'es' if workers > 1 else ''}; answers of a "
        "head to questions that more than one rule asks are computed once. The costs in the table are those of a "
        "rule by itself, draft included, and evaluations do not count the products of a Jacobian."
    )


def _published(entries: Sequence[Entry]) -> str:
    """The published rule: where it is last_gaussian, and what is seen of it elsewhere."""
    fixed = [x for x in entries if x.most[1] == "Sigma = 1" and not x.flagged]
    told = [
        f"On {len(fixed)} of {len(entries)} samplers, whose variances are fixed, the published rule is last_gaussian, "
        "and exact."
    ]
    for entry in (x for x in entries if x not in fixed):
        (low, how), (high, _) = entry.least, entry.most
        seen = f", its paths depart by at most {entry.departs.most:.2g}" if entry.departs else ""
        none = f"no bias is seen, it is at most {high:.2g}{seen}"
        bias = f"its bias is {low:.2g}{f' ({how})' if how else ''} to {high:.2g}" if entry.flagged else none
        told.append(
            f"On {entry.data}, {entry.definition}, it keeps {plus_minus(entry.acceptance)} of its drafts; {bias}."
        )
    return " ".join(told)


def _accepted(cells: Sequence[Sequence[Entry]]) -> str:
    """Which exact rule on paths keeps the most, and what the coalescing coupling makes of what can be had."""
    first: dict[str, int] = {}
    shares: list[float] = []
    for cell in cells:
        paths = list(ahead([x for x in cell if x.rule.claim.laws == "path"]))
        first[paths[0].name] = first.get(paths[0].name, 0) + 1
        shares += [x.acceptance[0] / x.overlap[1] for x in paths if x.name == "coalescing"]
    best = ", ".join(f"{name} in {number}" for name, number in sorted(first.items(), key=lambda item: -item[1]))
    return (
        f"Of the exact rules on paths, the one that keeps the most drafts is {best} of {len(cells)} cells. The "
        f"coalescing coupling keeps {min(shares):.0%} to {max(shares):.0%} of the most that 1 - TV may be."
    )


def _lost(walked: Mapping[str, Mapping[str, Meeting]]) -> str:
    """When paths part and whether they meet again, of all walks."""
    walks = [walk for group in walked.values() for walk in group.values()]
    late, healed = [walk.late for walk in walks], [walk.again for walk in walks]
    return (
        f"Of all partings {min(late):.0%} to {max(late):.0%} are in the last five steps, where {min(healed):.1%} to "
        f"{max(healed):.1%} of the parted meet again in a step; the others part while there is more noise."
    )

"""The ladder's tables: every rule on every sampler, the published rule switch by switch, and what helps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distributions.path import VARIANCES
from distributions.tape import GeneratorTape
from verify.estimates import plus_minus
from verify.studies.ladder.bounds import DELTA, Departure, apart, departure, gap, least_bias, mean_at_most
from verify.studies.ladder.chains import Definition, Heads
from verify.studies.ladder.measure import Part, Spent
from verify.studies.ladder.meeting import Meeting, meeting
from verify.study import Row
from verify.verifier import Verifier
from verify.verifiers.cspd import Cspd


@dataclass(frozen=True, eq=False)
class Entry:
    """A rule on a sampler of a pair: what was found, and ``overlap``, bounds of 1 - TV of the tokens it is about."""

    data: str
    definition: Definition
    name: str
    rule: Verifier
    part: Part
    overlap: tuple[float, float]
    spent: Spent | None = None

    @property
    def acceptance(self) -> tuple[float, float]:
        """With its standard error."""
        share = self.part.kept / self.part.rows
        return share, math.sqrt(share * (1 - share) / self.part.rows)

    @property
    def departs(self) -> Departure | None:
        """Of the emitted paths, from the target's law; None for tokens that have none."""
        return departure(self.part.innovations) if len(self.part.innovations) else None

    @property
    def least(self) -> tuple[float, str]:
        """Of the token's bias, and by which certificate."""
        return least_bias(self.part.kept, self.part.rows, self.part.scores, self.part.zeros)

    @property
    def most(self) -> tuple[float, str]:
        """Of the token's bias: 0 by its proof for a rule that is exact, else by a coupling where there is one, or 1."""
        if self.rule.claim.exact:
            return 0.0, "proof"
        if isinstance(self.rule, Cspd) and VARIANCES[self.definition.variance] is not None:
            # Then it is last_gaussian, but for its tries: P(refused) (1 - TV)^n <= 1 / (e n), whatever TV is.
            return 1 / (math.e * (self.rule.tries or math.inf)), "Sigma = 1"
        if self.part.reach is None:
            return 1.0, ""
        found = mean_at_most(self.part.reach / self.part.rows, self.part.rows, 3.0)
        return (found, "coupling") if found < 1 else (1.0, "")

    @property
    def flagged(self) -> bool:
        """Whether a certificate finds the token, or the path emitted with it, to have another law than the target's."""
        return self.least[0] > 0 or (self.departs is not None and self.departs.least > 0)

    def row(self) -> Row:
        departs, (low, how), (high, why) = self.departs, self.least, self.most
        found: dict[str, object] = {
            "data": self.data,
            "sampler": str(self.definition),
            "rule": self.name,
            "tokens": self.part.rows,
            "acceptance": plus_minus(self.acceptance),
            "1 - TV": f"{self.overlap[0]:.3f} to {self.overlap[1]:.3f}",
            "verdict": "lossy" if self.flagged else "no bias seen",
            "bias at least": f"{low:.2g} ({how})" if low else "0",
            "bias at most": f"{high:.2g} ({why})" if why else "1",
            "path departs by": f"{departs.least:.3f} to {departs.most:.3f}" if departs else "",
        }
        cost = self.rule.cost(self.definition.schedule().steps, 1) if hasattr(self.rule, "cost") else None
        found["depth"] = cost.depth if cost else ""
        if self.spent:
            found |= {
                "target evaluations": round(self.spent.target, 1),
                "drafter evaluations": round(self.spent.drafter, 1),
                "CPU s per 10,000": round(1e4 * self.spent.seconds, 1),
            }
        return found


def overlap(rules: Mapping[str, Verifier], parts: Mapping[str, Part]) -> tuple[float, float]:
    """Bounds of 1 - TV of the tokens' marginals: the best acceptance of a rule that is exact, as estimated, and one
    minus what an event of the score certifies of TV.
    """
    best = max((parts[name].kept / parts[name].rows for name in parts if rules[name].claim.exact), default=0.0)
    scores = max((part.scores for name, part in parts.items() if not hasattr(rules[name], "drafts")), key=_size)
    return best, 1 - apart(scores.own, scores.drafted, DELTA)


def _size(scores: object) -> int:
    return len(scores.own)  # type: ignore[attr-defined]


def cells(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The rules on each sampler of each pair, in order."""
    found: dict[tuple[str, Definition], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.data, entry.definition), []).append(entry)
    return list(found.values())


def accepted_row(cell: Sequence[Entry]) -> Row:
    """Of every exact rule on one sampler what it accepts, and the most that 1 - TV of its tokens may be."""
    kept = {x.name: plus_minus(x.acceptance) for x in sorted(cell, key=lambda x: x.name) if x.rule.claim.exact}
    most = max(x.overlap[1] for x in cell if x.rule.claim.laws == "path")
    return {"data": cell[0].data, "sampler": str(cell[0].definition), "1 - TV at most": round(most, 3), **kept}


def walk_row(data: str, sampler: str, walk: Meeting) -> Row:
    """When a coalescing walk parts, whether the parted meet again, and the step that loses the most paths."""
    return {
        "data": data,
        "sampler": sampler,
        "together at the end": round(float(walk.together[-1]), 2),
        "of all partings in the last five steps": f"{walk.late:.0%}",
        "of the parted meet again there, a step": f"{walk.again:.1%}",
        **worst_step(walk),
    }


def worst_step(walk: Meeting) -> Row:
    """The step that loses the most paths, how many, and how far apart the means are there, in standard deviations."""
    loss = walk.loss.nan_to_num(0.0)
    worst = int(loss.argmax())
    return {
        "worst step t": len(loss) - worst,
        "paths lost there": round(float(loss[worst]), 3),
        "median delta there": round(float(walk.distance[1, worst]), 2),
    }


def switch_row(entry: Entry, after: Departure | None) -> Row:
    """One switch of the published rule: the first token's bias, and the second token's departure given the first."""
    row = entry.row()
    kept = ("data", "sampler", "tokens", "acceptance", "bias at least", "bias at most", "path departs by")
    found: dict[str, object] = {"switch": entry.name, **{name: row[name] for name in kept}}
    found["1 - TV at most"] = round(entry.overlap[1], 3)
    found["second token's path departs by"] = f"{after.least:.3f} to {after.most:.3f}" if after else "none came"
    return found


def remedy_row(data: str, heads: Heads, definition: Definition, parts: Mapping[str, Part], tape: GeneratorTape) -> Row:
    """What the exact rules make of a sampler, beside an estimate of what 1 - TV is at most; and the step of the
    coalescing walk that loses the most paths.
    """
    walk = meeting(heads, definition, min(1000, max(part.rows for part in parts.values())), tape)
    scores = max((part.scores for part in parts.values()), key=_size)
    most = 1 - gap(scores.own, scores.drafted)
    found: dict[str, object] = {"data": data, "sampler": str(definition), "1 - TV at most, estimated": round(most, 3)}
    for name, part in parts.items():
        share = part.kept / part.rows
        found[name] = plus_minus((share, math.sqrt(share * (1 - share) / part.rows)))
        found[f"{name} / (1 - TV)"] = round(share / most, 2)
    return found | dict(worst_step(walk))


def ahead(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The exact rules by acceptance, best first."""
    yield from sorted((x for x in entries if x.rule.claim.exact), key=lambda x: -x.acceptance[0])

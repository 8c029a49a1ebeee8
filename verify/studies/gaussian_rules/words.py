"""What the tables show, in words: every number and every judgement is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from scipy.stats import norm

from verify.studies.gaussian_rules.subjects import ALPHA, EXACT, Found

TEXT = """**Exactness.** {exact} cases of rules that claim to be exact, on pairs of one covariance; {wrong}. On the line
through the means the law of the first token is integrated through the rule itself, for {lined} of them: the largest
total variation from the target is {worst:.1e}. Its coins are read from the rule and integrated. Its replacement of
a refused draft is inverted, as a function of the one number on which it depends: the draft (moved), a uniform
(inverted), a draw of the target and its coin (thinned), or the uniform of the decision and one more (raced). The total
variation is half the variation of the difference of the distribution functions.

**Whole vectors.** Each round in d dimensions ({rows}) is repeated on the line with the same draws, and must be the
lifted one: the same decisions, the same place, and across the line the noise of one draw that decisions do not see.
Then the total variation in d dimensions is at most the line's, plus the probability of a round that is not lifted
(coupling; Clopper and Pearson, each bound at confidence 1 - {alpha:g}): at most {bound:.1e} here.

**Without quadrature**, {sampled}, there are samples: every whitened coordinate, the first along the mean difference,
and the radii, whole and across, against their laws by the inequality of Dvoretzky, Kiefer and Wolfowitz at level
{alpha:g}. Such a bound speaks of these distribution functions and not of the total variation.

**Acceptance.** {scores} comparisons with a closed form or with quadrature, over all dimensions: the largest departure
is {most:.2f} standard errors, and one beyond 3 among so many has probability {chance:.2f} if nothing is wrong. Closed
forms and quadrature agree to {gap:.1e}. Of the exact rules, the one highest above its cap is {excess:.2f} standard
errors above it. By their closed forms, these rules for siblings attain min over t of 1 + Phi(t - delta) - Phi(t)^K
(lemmas A8 and A17): {at_cap}. No published rule is known to attain it.

**Cost.** Thinning draws once a round in the mean, whatever the laws; its variance grows without bound as they approach
each other, with a mean square of (2 - TV) / TV (lemma L8), against at most (1 + c) / (1 - c) under Thorisson's share c.

**Lossy rules.** {lossy} cases: {unseen}. Quadrature finds the bias on the line to {digits:.1e} of its formula, where
there are both.{planted} Pairs of one covariance do not show every defect."""


def text(found: Sequence[Found], planted: Sequence[Found]) -> str:
    """The paragraphs above the tables."""
    exact = [item for item in found if item.subject.rule.claim.exact]
    lossy = [item for item in found if not item.subject.rule.claim.exact]
    lined = [(item, item.line) for item in exact if item.line is not None]
    scores = [abs(item.z) for item in found if item.z is not None]
    wrong, unseen = [item for item in exact if item.biased], [item for item in lossy if not item.biased]
    missed = [item.subject.name for item in planted if not item.biased]
    seen = f" Of {len(planted)} planted defects, not found biased: {', '.join(missed) or 'none'}."
    paragraphs = TEXT.format(
        exact=len(exact),
        wrong=f"found biased: {_names(wrong)}" if wrong else "none is found biased",
        lined=len(lined),
        worst=_most(line.tv for _, line in lined),
        rows=_rows(found),
        alpha=ALPHA,
        bound=_most(item.bound(dim) for item, _ in lined for dim in item.rows),
        sampled=_sampled([item for item in exact if item.line is None]),
        scores=len(scores),
        most=_most(scores),
        chance=1 - (1 - 2 * float(norm.sf(3))) ** len(scores),
        gap=_most(abs(line.kept - item.expected) for item, line in lined if item.expected is not None),
        excess=_most(item.excess for item in exact),
        at_cap=", ".join(_at_cap(exact)) or "none",
        lossy=len(lossy),
        unseen=f"not seen at this size: {_names(unseen)}" if unseen else "each is found biased",
        digits=_most(abs(item.line.tv - item.formula) for item in lossy if item.line and item.formula is not None),
        planted=seen if planted else "",
    )
    return "\n\n".join(part.replace("\n", " ") for part in paragraphs.split("\n\n"))


def _most(values: Iterable[float]) -> float:
    return max(values, default=math.nan)


def _names(found: Iterable[Found]) -> str:
    return ", ".join(f"{item.subject.name} at {item.distance:g}" for item in found)


def _rows(found: Sequence[Found]) -> str:
    counts = {item.rows[dim] for item in found if item.line is not None for dim in item.rows}
    return " or ".join(f"{count:,}" for count in sorted(counts)) + " rounds for each rule, distance and d"


def _sampled(found: Sequence[Found]) -> str:
    cases = sorted({f"{item.subject.name} with {item.subject.drafts} drafts ({item.reason})" for item in found})
    counts = sorted({count for item in found for count in item.rows.values()})
    rows = " to ".join(f"{count:,}" for count in dict.fromkeys([*counts[:1], *counts[-1:]]))
    return f"{'; '.join(cases)}, {rows} rounds for each distance and d" if cases else "no exact rule"


def _at_cap(found: Sequence[Found]) -> list[str]:
    """The rules for siblings whose closed form is the cap at every distance and number of drafts."""
    gaps: dict[str, float] = {}
    for item in found:
        if item.subject.siblings and item.expected is not None:
            gap = abs(item.expected - item.cap)
            gaps[item.subject.name] = max(gaps.get(item.subject.name, 0.0), gap)
    return sorted(name for name, gap in gaps.items() if gap < EXACT)

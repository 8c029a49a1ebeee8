"""The law of a rule's first token on the line through the means, by quadrature through the rule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distributions.normal import normal_cdf
from verify.studies.gaussian_rules.cells import REACH, cumulative, variation
from verify.studies.gaussian_rules.decisions import decisions
from verify.studies.gaussian_rules.refusals import refused_below
from verify.verifier import Verifier


@dataclass(frozen=True)
class LineLaw:
    """``tv`` from the target; ``kept``, the probability that the first token was drafted; ``taken``, that of a draw for
    a refused one to be taken; ``how`` refused ones are replaced.
    """

    tv: float
    kept: float
    taken: float
    how: str


def line_law(rule: Verifier, nodes: int, distance: float) -> LineLaw:
    """The law of the first token where drafts are N(0, 1) and the target is N(distance, 1).

    Its distribution function is that of what is kept, an integral of the rule's own coins, and of what is refused, an
    inversion of the rule's own replacement. Raises NotOnTheLine for rules whose law is no such integral.
    """
    decided = decisions(rule, nodes, distance)
    density = decided.density()
    kept = decided.kept()
    how, below, taken = refused_below(decided, 1 - kept)

    def gap(place: Tensor) -> Tensor:
        return cumulative(density, place, -REACH, decided.error) + below(place) - normal_cdf(place - distance)

    width = 0.5 if decided.alone else 1.0
    return LineLaw(variation(gap, -REACH, distance + REACH, width), kept, taken, how)

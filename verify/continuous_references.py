"""Reference pairs of Gaussian laws: continuous defects state their bias there, and checks see or miss them there."""

from __future__ import annotations

import torch

from distributions.gaussian import Gaussian
from verify.records import Defect, Finding
from verify.spaces.gaussian_checks import pair_checks
from verify.spaces.gaussian_pairs import Pair
from verify.spaces.gaussian_rows import SMALL_CALLS
from verify.spaces.gaussian_rules import rows_of, single
from verify.verifier import Verifier


def continuous_references(covariance: str = "equal") -> dict[str, Pair]:
    """The pairs by letter: of one covariance, or, for defects that such pairs do not show, with ``unequal`` ones.

    Equal: A, in 2 dimensions, the means 1 standard deviation apart, total variation 2 Phi(1/2) - 1 = 0.383; B, in 4,
    0.1 apart, total variation 0.040: a good drafter. Unequal, both means 0: A, in 16 dimensions, the target narrower by
    0.95, total variation 0.114; B, in 2, the draft narrower by 0.8, total variation 0.163. Raises ValueError otherwise.
    """
    if covariance == "equal":
        return {"A": apart("A, means 1 sigma apart", 2, 1.0), "B": apart("B, means 0.1 sigma apart", 4, 0.1)}
    if covariance == "unequal":
        return {
            "A": scaled("A, target narrower, 0.95", 16, 1.0, 0.95),
            "B": scaled("B, draft narrower, 0.8", 2, 0.8, 1.0),
        }
    raise ValueError(f"covariance is {covariance!r}; choose 'equal' or 'unequal'")


def apart(name: str, dim: int, distance: float) -> Pair:
    """Unit variances, the means ``distance`` apart along the diagonal."""
    start, one = torch.full((dim,), 0.5).double(), torch.ones(dim).double()
    return Pair.of(name, Gaussian(start, one), Gaussian(start + distance / dim**0.5, one))


def scaled(name: str, dim: int, draft: float, target: float) -> Pair:
    """Both means 0; the deviations of draft and target, the same in all coordinates."""
    zero, one = torch.zeros(dim).double(), torch.ones(dim).double()
    return Pair.of(name, Gaussian(zero, draft * one), Gaussian(zero, target * one))


def continuous_panel(verifier: Verifier, rows: int, seed: int = 1) -> dict[str, list[Finding]]:
    """What each check of the rows of a pair finds: ``rows`` on A, on B, and half as many on C, whose laws hardly meet.

    C is on the line, the means 6 standard deviations apart: what is kept that should not be is plain there.
    """
    defect: Defect | None = getattr(verifier, "defect", None)
    pairs = continuous_references(defect.covariance if defect else "equal")
    nodes = defect.draft_length if defect else 1 if single(verifier) else 2
    pairs["C"] = apart("C, means 6 sigma apart", 1, 6.0)
    found: dict[str, list[Finding]] = {}
    for letter, pair in pairs.items():
        count = rows // 2 if letter == "C" else rows
        sizes = [*SMALL_CALLS, *[count // 8] * 8]  # rules treat rows alone: a few small calls will do
        for item in pair_checks(rows_of(verifier, pair, sizes, seed, nodes)):
            found.setdefault(item.check, []).append(item)
    return found


def seen_by(found: dict[str, list[Finding]], alpha: float) -> tuple[str, ...]:
    """The checks that reject on one of the pairs, each at level ``alpha`` over all of its pairs."""
    return tuple(
        name for name, items in found.items() if min(item.p_value or 0.0 for item in items) <= alpha / len(items)
    )

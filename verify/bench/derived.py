"""How fast lossless decoding can be, given what its parts cost."""

from __future__ import annotations

from typing import Any

from verify.claims.bounds import speedup, tokens_at_most, tokens_per_call

DRAFTERS = {"large": "base", "huge": "base", "tiny": "tiny drafter"}
ALPHAS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
PARTS = ("backbone", "head")
KEYS = ("size", "dtype", "way", "batch", "draft_length", "part")
Points = list[dict[str, Any]]


def key_of(point: dict[str, Any]) -> tuple[Any, ...]:
    """What a point is a measurement of."""
    return tuple(point[name] for name in KEYS)


def costs(points: Points) -> dict[tuple[Any, ...], float]:
    """Seconds of a pass and its head together, by size, number type, way, batch and draft length."""
    medians = {key_of(point): point["median"] for point in points}
    whole = {key[:5] for key in medians if all((*key[:5], part) in medians for part in PARTS)}
    return {key: sum(medians[(*key, part)] for part in PARTS) for key in sorted(whole)}


def speedups(points: Points) -> Points:
    """The largest lossless speed-up for each acceptance and draft length: tokens per call over the time of a call.

    With c a step of the drafter and v the verification of a draft, both in steps of the target, S = tokens / (g c + v);
    Leviathan et al. 2211.17192, theorem 3.8, is v = 1. ``rule``: the tokens of the token rule, whose tests are passed
    independently; ``most``: of any lossless rule with one draft a position, 1 + g a. ``drafter`` none: drafts that cost
    nothing, as those of Jacobi decoding do.
    """
    cost, found = costs(points), []
    for (size, dtype, way, batch, drafted), verification in cost.items():
        step = cost.get((size, dtype, way, batch, 0))
        if not drafted or step is None or size == "tiny drafter":
            continue
        for drafter in dict.fromkeys(("none", DRAFTERS.get(size, "none"))):
            draft = 0.0 if drafter == "none" else cost.get((drafter, dtype, way, batch, 0))
            if draft is None:
                continue
            longer, part = verification / step, draft / step
            for alpha in ALPHAS:
                tokens = {"rule": tokens_per_call(alpha, drafted), "most": tokens_at_most(alpha, drafted)}
                # tokens / (g c + v) is the formula with v = 1 of tokens / v and c / v.
                fast = {name: speedup(count / longer, drafted, part / longer) for name, count in tokens.items()}
                found.append(
                    {
                        "size": size, "dtype": dtype, "way": way, "batch": batch, "draft_length": drafted,
                        "drafter": drafter, "v": longer, "c": part, "acceptance": alpha, **fast,
                    }
                )  # fmt: skip
    return found


def largest(rows: Points) -> Points:
    """Of ``speedups``, the draft length that is best by the token rule, for each of the other settings."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("size", "dtype", "way", "batch", "drafter", "acceptance"))
        if key not in best or row["rule"] > best[key]["rule"]:
            best[key] = row
    return list(best.values())

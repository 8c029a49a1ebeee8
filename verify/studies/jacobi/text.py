"""What the study says of its own figures; every number is computed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from verify.studies.jacobi.cells import FALSE_ALARM, SWEPT, WINDOWS, Cells, Swept, at, names, of, planted
from verify.study import Row


def text(cells: Cells, gates: Sequence[Row], strength: Swept, times: Sequence[Row]) -> str:
    """The paragraphs above the figures."""
    parts = [
        _how(cells),
        _shape(cells),
        _waiting(cells),
        _coupling(strength),
        _gate(gates),
        _slower(cells),
        _clock(times),
    ]
    return "\n\n".join(part for part in parts if part)


def _how(cells: Cells) -> str:
    chains = next(iter(cells.values()))[0].chains
    return (
        f"Every cell decodes {chains} images. The grid has 16 x 16 tokens of 64 values with logits sharpness * "
        "f(left, above, above left), f a fixed random table; the trained model is a transformer over digits of 8 x 8 "
        "pixels. A window of L is L model inputs, so L - 1 drafts and the last token; the speed-up counts target "
        "evaluations only, one for each token of ancestral sampling. All rules run in one loop, at one window, from a "
        "uniform first draft."
    )


def _shape(cells: Cells) -> str:
    last, middle = WINDOWS[-1], WINDOWS[3]
    flat, rises = [], []
    for works in cells.values():
        jacobi, coupled = ([work.speedup[0] for work in of(works, rule)] for rule in ("sjd", "scd"))
        flat.append(jacobi[-1] / jacobi[3])
        rises.append(coupled[-1] / jacobi[-1])
    grown = sum(all(b > a for a, b in pairwise(w.speedup[0] for w in of(works, "scd"))) for works in cells.values())
    found = ", ".join(f"{ratio:.2f}" for ratio in flat)
    times = ", ".join(f"{ratio:.1f}" for ratio in rises)
    return (
        f"From a window of {middle} to one of {last} the speed-up of redrawn drafts (sjd) grows by a factor of {found} "
        f"on the {len(cells)} models. Maximally coupled drafts (scd) gain with every doubling of the window on "
        f"{grown} of {len(cells)}; at {last} they save {times} times as much as redrawn ones."
    )


def _waiting(cells: Cells) -> str:
    found = {rule: [at(works, rule, SWEPT) for works in cells.values()] for rule in ("sjd", "scd", "scd_gumbel")}
    same = {rule: ", ".join(f"{1 - work.distance[0]:.2f}" for work in works) for rule, works in found.items()}
    pairs = list(zip(found["scd"], found["scd_gumbel"], strict=True))
    one = sum(maximal.distance[0] < gumbel.distance[0] for maximal, gumbel in pairs)
    three = sum(gumbel.distance[1] < maximal.distance[1] for maximal, gumbel in pairs)
    return (
        f"The reason is how often a round leaves a waiting draft as it was, at window {SWEPT}: {same['sjd']} of the "
        f"time under sjd, {same['scd']} under scd, {same['scd_gumbel']} under scd_gumbel. Where redrawn drafts agree "
        "by chance, on sharp laws, there is less to gain. Over one round the maximal coupling changes fewer drafts "
        f"than kept noise on {one} of {len(pairs)} models, and over three rounds kept noise changes fewer on {three}: "
        "two races of one column agree whichever rounds they are from."
    )


def _coupling(strength: Swept) -> str:
    ends = ", ".join(f"{found[0][1].speedup[0]:.2f} to {found[-1][1].speedup[0]:.2f}" for found in strength.values())
    return (
        f"Coupling a column with probability 0 to 1, and drawing it afresh otherwise, takes the speed-up from {ends}."
    )


def _gate(gates: Sequence[Row]) -> str:
    passed = [str(row["rule"]) for row in gates if row["gate"] == "passes"]
    failed = [
        f"{row['rule']} ({row['nats a token']:+.3f} nats a token, z {row['z']:+.1f})"
        for row in gates
        if row["gate"] == "fails"
    ]
    return (
        "The scale gate is a necessary condition at full size, beside the enumerations at small ones: under the target "
        "the sum of -log p - H(p) over an image is a martingale. At a false-alarm rate of "
        f"{FALSE_ALARM:g} for all cells of a rule it passes {', '.join(passed) or 'none'}, and fails "
        f"{', '.join(failed) or 'none'}."
    )


def _slower(cells: Cells) -> str:
    stale = next((name for name in names(cells) if planted(name) and "stale" in name), None)
    if stale is None:
        return ""
    last = WINDOWS[-1]
    ratio = ", ".join(
        f"{at(works, stale, last).speedup[0] / at(works, 'scd', last).speedup[0]:.2f}" for works in cells.values()
    )
    return (
        f"Keeping a draft under its old label ({stale}) is no short cut: at window {last} it has {ratio} of the exact "
        "rule's speed-up."
    )


def _clock(times: Sequence[Row]) -> str:
    best = {rule: max(times, key=lambda row: float(str(row[f"implied speed-up, {rule}"]))) for rule in ("sjd", "scd")}
    return (
        "Evaluations are not seconds. On this machine, in this run, a pass of the trained model over 64 tokens costs "
        f"{float(str(times[-1]['a + b L (ms)'])) / float(str(times[0]['a + b L (ms)'])):.1f} times one over "
        f"{times[0]['window']}; what is left of the speed-up is at most "
        + " and ".join(
            f"{best[rule][f'implied speed-up, {rule}']:.2f} for {rule} (window {best[rule]['window']})" for rule in best
        )
        + ". Where a pass is bound by memory, as on an accelerator, its time hardly depends on the window."
    )

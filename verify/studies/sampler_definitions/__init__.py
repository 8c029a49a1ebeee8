"""Sampler definitions: what each costs in the quality of its tokens, and what it gains in acceptance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from distributions.tape import GeneratorTape
from distributions.training import pretrained
from verify.estimates import Estimate, plus_minus
from verify.studies.sampler_definitions import drawings
from verify.studies.sampler_definitions.cells import (
    FLOW,
    RULES,
    SIZES,
    STARTS,
    STEPS,
    Cell,
    Definition,
    accepted,
    exact,
    floors,
    flows,
    measured,
)
from verify.studies.sampler_definitions.choice import (
    as_good,
    best,
    eligible,
    noise_costs,
    of,
    pooled,
    recommended,
    rivals,
    share,
)
from verify.study import Row, Study

FRESH = 4
"""How many times the drafts of a cell the recommended definition is measured with again."""


def run(budget: str = "quick") -> Study:
    """Measure, tabulate and draw; ``budget`` says how many samples and drafts a definition has (``cells.SIZES``)."""
    sizes, seed = SIZES[budget], count()
    found: list[Cell] = []
    for name, size in sizes.items():
        found += [*measured(name, size, seed), *flows(name, size, seed)]
    first = next(iter(sizes))
    found += exact(first, sizes[first], seed)
    fresh: dict[str, dict[str, Estimate]] = {}
    for rule in RULES:
        chosen = recommended(found, list(sizes), rule)
        if chosen is None:
            continue
        for name, size in sizes.items():
            again = accepted(pretrained(name), chosen, FRESH * size.drafts, GeneratorTape(next(seed)))
            fresh.setdefault(rule, {})[name] = again[rule]
    return present(found, floors(sizes, seed), fresh)


def present(cells: Sequence[Cell], floor: Mapping[str, Estimate], fresh: Mapping[str, Mapping[str, Estimate]]) -> Study:
    """The study of what was measured; ``floor`` has the data sets with trained heads, and their exact samples, and
    ``fresh`` by rule and data set the acceptance of the recommended definition on drafts that did not choose it.
    """
    return Study(
        title="Sampler definitions: quality against acceptance",
        text="\n\n".join(text(cells, floor, fresh)),
        tables={
            "The definition to choose, by rule": list(choices(cells, list(floor))),
            "Every definition, with standard errors": [row(cell) for cell in cells],
        },
        figures={
            "Acceptance against the sliced Wasserstein distance to the data, one step in, with 95 % intervals of the "
            "acceptance; the numbers are steps. The band holds exact samples of the same size.": (
                drawings.trade(cells, floor)
            ),
            "Distance to the data by steps: one step in (full lines) and from full noise (dotted); trained heads, and "
            "a head that is never wrong.": drawings.quality(cells, floor),
        },
    )


def row(cell: Cell) -> Row:
    """A cell as a row."""
    what = cell.definition
    found: Row = {"data": cell.data, "steps": what.steps, "start": what.start, "variance": what.variance}
    found = {**found, "noise last": "yes" if what.last_noise else "no", "distance": plus_minus(cell.distance)}
    return {**found, **{rule: plus_minus(value) for rule, value in cell.accepted.items()}}


def choices(cells: Sequence[Cell], names: Sequence[str]) -> Iterator[Row]:
    """For each rule on paths the most accepted definition of the best ones, on each data set and on all."""
    for rule in RULES:
        for name in names:
            mine = [cell for cell in as_good(of(cells, name)) if rule in cell.accepted]
            if mine:
                yield _choice(rule, name, max(mine, key=lambda cell: cell.accepted[rule][0]), len(mine))
        every = recommended(cells, names, rule)
        for name in names if every else ():
            yield _choice(rule, f"{name}, as on all", of(cells, name, every)[0], None)


def _choice(rule: str, data: str, cell: Cell, among: int | None) -> Row:
    found: Row = {"rule": rule, "data": data, "definition": str(cell.definition)}
    found = {**found, "distance": plus_minus(cell.distance), "acceptance": plus_minus(cell.accepted[rule])}
    return {**found, "as good": "" if among is None else among}


def text(
    cells: Sequence[Cell], floor: Mapping[str, Estimate], fresh: Mapping[str, Mapping[str, Estimate]]
) -> Iterator[str]:
    """The paragraphs above the figures; every number is computed."""
    names = list(floor)
    yield (
        "**What to choose.** Of the definitions whose tokens are no further from the data than those of the best one, "
        "within two standard errors and on every data set, the one that is accepted most. "
        + " ".join(_chosen(cells, names, rule, fresh.get(rule, {})) for rule in RULES)
    )
    yield (
        "**How it is measured.** A definition is a number of steps of MAR's cosine chain, the level at which it "
        "starts, the variance of its kernels, and whether the last one adds noise. Its target and drafter are the "
        "trained pairs of the package. Quality is the sliced Wasserstein distance of the target's tokens to the known "
        "law of the data, under four conditions; exact samples of the same size have "
        + ", ".join(f"{plus_minus(value)} ({name})" for name, value in floor.items())
        + ". Acceptance is E[min(1, P / Q)] of whole paths, and that of the coalescing coupling."
    )
    costs, error = noise_costs(cells)
    seen = "That cannot be seen" if abs(costs) < error else "That is more than the error"
    yield (
        f"**The last step.** Its noise changes the distance by at most {abs(costs):.4f}, where a distance has a "
        f"standard error of {error:.4f}. {seen}; and without it two paths are mutually singular, so that every "
        "lossless rule on paths accepts nothing."
    )
    factors = ", ".join(f"{amplified(steps, 0):.0f} and {amplified(steps, 1):.1f} ({steps} steps)" for steps in STEPS)
    yield (
        "**The first step.** It multiplies an error of the predicted noise, from full noise and one step in, by "
        f"{factors}. "
        + " ".join(_starts(cells, name) for name in dict.fromkeys(cell.data for cell in cells))
        + " A head that is never wrong has nothing to multiply."
    )
    yield "**Variance and steps.** " + " ".join(_variances(cells, name) for name in names)
    flowing = [cell for cell in cells if cell.definition.variance == FLOW and cell.definition.start == STARTS[1]]
    if flowing:
        told = "; ".join(
            f"{x.data}, {x.definition.steps} steps: {plus_minus(x.accepted['flow_exact'])} at a distance of "
            f"{plus_minus(x.distance)}"
            for x in flowing
        )
        yield (
            "**No noise at all.** A deterministic sampler is another target, with an exact density of its tokens; "
            f"flow_exact accepts 1 - TV of these, one step in: {told}."
        )


def _chosen(cells: Sequence[Cell], names: Sequence[str], rule: str, fresh: Mapping[str, Estimate]) -> str:
    """The choice for one rule, how many it was made among, and what is left of its acceptance on fresh drafts."""
    chosen = recommended(cells, names, rule)
    if chosen is None:
        return f"For {rule} none is as good as the best on every data set."
    among, others = len(eligible(cells, names, rule)), rivals(cells, names, rule, chosen)
    told = f"For {rule}: {chosen}, of {among} such; {plus_minus(share(cells, names, rule, chosen))} in the mean"
    if fresh:
        told += f", which favours the winner, and {plus_minus(pooled(list(fresh.values())))} on fresh drafts"
    if others:
        named = "; ".join(map(str, others))
        return (
            f"{told}. {len(others)} more cannot be told from it by acceptance, so the choice is not decided: {named}."
        )
    return f"{told}. No other of them is within two standard errors."


def amplified(steps: int, inside: int) -> float:
    """By how much the first step multiplies an error of the predicted noise: clean_T noise_T / signal_T."""
    schedule = Definition(steps, STARTS[inside], FLOW).schedule
    time = schedule.steps
    return float(schedule.posterior(time)[0] * schedule.noise[time] / schedule.signal[time])


def _starts(cells: Sequence[Cell], name: str) -> str:
    noisy = [cell for cell in of(cells, name) if cell.definition.last_noise]
    full, short = (best([x for x in noisy if x.definition.start == start]) for start in STARTS)
    most = {
        start: max(
            (x.accepted["coalescing"][0] for x in noisy if x.definition.start == start and x.accepted), default=None
        )
        for start in STARTS
    }
    told = (
        f"{name}: the best from full noise is {full.distance[0]:.3f} from the data, one step in {short.distance[0]:.3f}"
    )
    if most[STARTS[0]] is None or most[STARTS[1]] is None:
        return told + "."
    return told + f"; coalescing accepts at most {most[STARTS[0]]:.3f} and {most[STARTS[1]]:.3f}."


def _variances(cells: Sequence[Cell], name: str) -> str:
    mine = [x for x in of(cells, name) if x.definition.last_noise and x.definition.start == STARTS[1]]
    parts = []
    for rule in RULES:
        most = max(mine, key=lambda cell: cell.accepted[rule][0])
        least = min(mine, key=lambda cell: cell.accepted[rule][0])
        parts.append(
            f"{rule} accepts from {least.accepted[rule][0]:.3f} ({_short(least.definition)}) to "
            f"{most.accepted[rule][0]:.3f} ({_short(most.definition)}, distance {plus_minus(most.distance)})"
        )
    nearest = best(mine)
    best_is = f"{_short(nearest.definition)} at {plus_minus(nearest.distance)}"
    return f"{name}: nearest to the data is {best_is}; {', '.join(parts)}."


def _short(what: Definition) -> str:
    return f"{what.steps} steps, {what.variance}"

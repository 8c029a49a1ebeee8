"""The engine's own trial: how often it is wrong about what is exact, and what it needs to see what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from verify.engine.escalation import FALSE_ALARM
from verify.parts import NOTHING, parts
from verify.studies.engine_trial import calibration, drawings, kills, powers
from verify.studies.engine_trial.calibration import CHANCE, Measured, nulls
from verify.studies.engine_trial.kills import Killed
from verify.studies.engine_trial.ladder import ALL, needed
from verify.studies.engine_trial.powers import Curves, Mutated
from verify.study import Row, Study

TEXT = """Three questions to the engine itself. **Is it calm?** {nulls} exact samplers, most of them refactorings of one
another: rejection, reflection, Thorisson's rule, blocks, siblings; {suites:,} suites of draws each, or a part of them
where another goes through the same checks. Every check of the gate gives a p-value on every suite, and a p-value must
be at most t with probability at most t. The intervals are of Clopper and Pearson, 95 %. The band allows for all
checks and all {levels} levels t from {least:.0e} to {most:.2g} at once: an engine without a fault leaves it anywhere
with probability {chance:g}. Checks that bound a probability, instead of computing it, lie below the line. *All
together* is Holm's procedure over the suite; the e-process is looked at eight times, and its smallest p-value counts.
{calm} {stages} Coupling raises no alarm, so it has no rate.

**Is it sharp?** The share of {runs} runs that reject at level 0.001, against the rows, for three alternatives: N(0.02,
1) for N(0, 1); one row in a hundred of sixteen dimensions from a blob three deviations away; chains with coefficient
0.48 for 0.50. What learns has a pilot of {pilot:,} pairs that are not counted. n90: from there on nine runs in ten.
{sharp}

Then rules on the line that are slightly wrong, drafts N(0, 1) and target N(0.5, 1), at every level of evidence. Their
total variation is a quadrature. *Coupling* rejects at the first run that emits otherwise than the exact rule on the
same noise, which is certain where the two draw alike; *white box* where the acceptance certifies a bias at confidence
0.999; the others under Holm's procedure at level 0.001, the two-sample level with its three cheapest checks.
Enumeration needs no rows: the column beside it is the bias that it finds for the same acceptance on tokens. {gain}

**Does it see what is planted?** Every saboteur that states a bias, on the reference pair where that is largest, at
level 1e-6, {kill_runs} runs: the rows, of {start}, four times that, and so on, from which on nine in ten are seen. For
tokens the first column is enumeration. Coupling is asked of chains whose draws follow rejection's or reflection's; a
mismatch withholds the certificate, and is no accusation by itself, as an exact rule may draw otherwise. {killed}"""


@dataclass(frozen=True)
class Budget:
    """Suites of each null; runs and sizes of the power curves; runs and largest sizes of the mutants and saboteurs."""

    suites: int
    runs: int
    sizes: Mapping[str, Sequence[int]]
    mutant_runs: int
    mutants: Mapping[str, int]
    kill_runs: int
    kills: Mapping[str, int]
    slow: bool = False


def doubling(first: int, last: int) -> tuple[int, ...]:
    """Powers of two from 2^first to 2^last, every other."""
    return tuple(1 << bits for bits in range(first, last + 1, 2))


BUDGETS = {
    "quick": Budget(
        suites=200,
        runs=2,
        sizes={"mean shift": doubling(10, 16), "contamination": doubling(10, 14), "dependence": doubling(10, 14)},
        mutant_runs=3,
        mutants=dict(zip(powers.LEVELS, (1 << 13, 1 << 13, 1 << 14, 1 << 15, 1 << 14), strict=True)),
        kill_runs=1,
        kills=dict.fromkeys(kills.LEVELS, 1 << 10),
    ),
    "thorough": Budget(
        suites=10_000,
        runs=10,
        sizes={"mean shift": doubling(10, 18), "contamination": doubling(10, 18), "dependence": doubling(10, 18)},
        mutant_runs=10,
        mutants=dict(zip(powers.LEVELS, (1 << 16, 1 << 16, 1 << 19, 1 << 20, 1 << 19), strict=True)),
        kill_runs=5,
        kills=dict.fromkeys(kills.LEVELS, 1 << 16),
        slow=True,
    ),
}


def run(budget: str = "quick") -> Study:
    """All three parts, each a list of its own; of the long run what is finished is kept, and found again."""
    torch.set_num_threads(1)
    size = BUDGETS[budget]
    kept = parts("engine_trial", size) if size.slow else NOTHING
    power = {
        case: kept.of(f"power: {case}", partial(powers.alternative, case, sizes, size.runs, size.slow))
        for case, sizes in size.sizes.items()
    }
    rules = {
        name: kept.of(f"rule: {name}", partial(powers.experiment, name, size.mutants, size.mutant_runs))
        for name in powers.mutants()
    }
    dead = {
        name: kept.of(f"planted: {name}", partial(kills.killed, name, size.kills, size.kill_runs))
        for name in kills.planted()
    }
    measured = [
        kept.of(f"exact: {null.name}", partial(calibration.measure, null, size.suites)) for null in nulls(size.slow)
    ]
    return told(size, measured, power, rules, dead)


def told(
    size: Budget,
    measured: Sequence[Measured],
    power: Mapping[str, Mapping[str, Curves]],
    rules: Mapping[str, Mutated],
    dead: Mapping[str, Killed],
) -> Study:
    """The study of what was found."""
    rates = calibration.table(measured)
    text = TEXT.format(
        nulls=len(measured),
        suites=size.suites,
        levels=len(calibration.GRID),
        least=calibration.GRID[-1],
        most=calibration.GRID[0],
        chance=CHANCE,
        calm=_calm(rates),
        stages=_stages(measured),
        runs=size.runs,
        pilot=powers.PILOT,
        sharp=_sharp(power, size),
        gain=_gain(rules),
        kill_runs=size.kill_runs,
        start=256,
        killed=_killed(dead),
    )
    tables: dict[str, Sequence[Row]] = {
        "False alarms of every check": rates,
        "False alarms of the whole suite, with escalation": calibration.escalations(measured),
        **{f"Power against {case}": powers.power_table(found, size.sizes[case]) for case, found in power.items()},
        "Slightly wrong acceptances and residuals: rows for power 0.9": powers.mutant_table(rules, size.mutants),
        "Planted defects: rows that each level needs": kills.table(dead, size.kills),
    }
    figures = {
        "Share of exact suites that each check rejects, and the band that all must stay in": drawings.calibration(
            measured
        ),
        "Power against rows: against a known law in full lines, between two samples in broken ones": drawings.power(
            power, size.sizes
        ),
        "What a slightly wrong rule costs to see, by level of evidence; an open arrow: more than that": (
            drawings.evidence(rules, size.mutants)
        ),
    }
    return Study("The engine on trial", text, tables, figures)


def _calm(rates: Sequence[Row]) -> str:
    """Which checks leave the band."""
    bad = [
        f"{row['check']} ({row['null']}: {row['beyond the band']})" for row in rates if row["beyond the band"] != "-"
    ]
    if bad:
        return f"**Too many false alarms: {'; '.join(bad)}.**"
    return f"All {len(rates)} stay in the band."


def _stages(measured: Sequence[Measured]) -> str:
    """What escalation confirmed at the engine's own level."""
    asked = [item for item in measured if item.null.looks == 1]
    hits, suites = sum(item.confirmed for item in asked), sum(item.suites for item in asked)
    return f"With escalation at {FALSE_ALARM:g}, the gate's own level, {hits or 'none'} of {suites:,} suites accuse."


def _sharp(power: Mapping[str, Mapping[str, Curves]], size: Budget) -> str:
    """The best check of each alternative and level, and the checks that see none of them."""
    words = []
    for case, found in power.items():
        best = []
        for level, checks in found.items():
            rows = {name: needed(size.sizes[case], line) for name, line in checks.items()}
            able = {name: n for name, n in rows.items() if n is not None and name != ALL}
            name = min(able, key=lambda key: able[key], default="")
            best.append(f"{name} with {able[name]:,} rows ({level})" if name else f"no check ({level})")
        words.append(f"{case}: {', '.join(best)}")
    blind = [f"{name} ({level})" for level, names in powers.blind(power).items() for name in names]
    last = f" Nothing here is seen by {', '.join(blind)}." if blind else ""
    return f"First to power 0.9. {'; '.join(words).capitalize()}.{last}"


def _gain(rules: Mapping[str, Mutated]) -> str:
    """By what factor coupling is ahead of samples."""
    ratios = {
        name: weak / strong
        for name, item in rules.items()
        if (weak := item.rows.get("known law")) and (strong := item.rows.get("coupling"))
    }
    only = [name for name, item in rules.items() if item.rows.get("coupling") and not item.rows.get("known law")]
    accused = [level for level, rows in rules["exact"].rows.items() if rows]
    found = [f"**The exact rule is rejected by: {', '.join(accused)}.**"] if accused else []
    if ratios:
        low, high = min(ratios.values()), max(ratios.values())
        found.append(f"Coupling needs {low:,.0f} to {high:,.0f} times fewer rows than a known law does.")
    if only:
        found.append(f"It alone, or the white box, sees within these sizes: {', '.join(only)}.")
    return " ".join(found)


def _killed(dead: Mapping[str, Killed]) -> str:
    """How many are seen at each level, and what escapes."""
    counts = {level: sum(item.rows.get(level) is not None for item in dead.values()) for level in kills.LEVELS}
    escaped = [name for name, item in dead.items() if item.first == "none"]
    words = ", ".join(f"{level} {count}" for level, count in counts.items())
    last = f" Unseen at these sizes: {', '.join(escaped)}." if escaped else " Nothing escapes."
    alone: dict[str, list[str]] = {}
    for name, item in dead.items():
        if len(able := [level for level in kills.LEVELS if item.rows.get(level) is not None]) == 1:
            alone.setdefault(able[0], []).append(f"{name} ({item.bias:.2g})")
    only = "".join(f" Seen by {level} alone, with the bias: {', '.join(names)}." for level, names in alone.items())
    return f"Of {len(dead)} saboteurs, seen by level: {words}.{last}{only}"

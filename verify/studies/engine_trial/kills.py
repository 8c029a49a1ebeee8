"""Every planted defect, from the strongest evidence to the weakest: what sees it, and with how many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verify.audit import finite
from verify.certificate import OfLaws, OfModels
from verify.checks import Check
from verify.continuous_references import continuous_references
from verify.decode import parents
from verify.engine.batteries import known_law
from verify.exact_checks import TOLERANCE
from verify.jacobi import Jacobi
from verify.planted_gaussian import PlantedReflection
from verify.records import Defect
from verify.references import bias, references
from verify.spaces.gaussian_rules import continuous
from verify.statistics.learned import Learner
from verify.studies.engine_trial.batteries import (
    Against,
    Coupled,
    Decoded,
    Emitted,
    FirstMismatch,
    Rounds,
    Turns,
    few_samples,
    sequence_checks,
    trace_checks,
)
from verify.studies.engine_trial.ladder import ALL, Draw, climb, fitted, needed, shares
from verify.study import Row
from verify.verifier import Verifier, catalog
from verify.verifiers.gaussian_recursive_rejection import GaussianRecursiveRejection
from verify.verifiers.reflection import Reflection
from verify.verifiers.rejection import Rejection

ALPHA = 1e-6
LEVELS = ("enumeration", "coupling", "trace", "known law", "two samples")
Levels = dict[str, tuple[Draw, Sequence[Check | Learner]]]


@dataclass(frozen=True, eq=False)
class Killed:
    """A planted defect: its exact bias on reference pair ``letter``, and the rows that each level needs (or None)."""

    kind: str
    letter: str
    bias: float
    rows: Mapping[str, int | None]

    @property
    def first(self) -> str:
        """The strongest level that sees it."""
        return next((level for level in LEVELS if self.rows.get(level) is not None), "none")


def chained(rule: Verifier) -> bool:
    """Whether a rule reads a chain of drafts."""
    return bool((parents(rule, 2)[1:] >= 0).all())


def on_tokens(name: str, rule: Verifier) -> tuple[str, float, Levels]:
    """The reference pair on which a rule of a vocabulary is most biased, that bias by enumeration, and the levels."""
    defect: Defect = rule.defect  # type: ignore[attr-defined]
    biases = {letter: bias(rule, pair, defect.draft_length) for letter, pair in references().items()}
    letter = max(biases, key=lambda key: biases[key])
    pair = replace(references()[letter], draft_length=defect.draft_length)
    token_rule = chained(rule) and not name.startswith("block")
    found: Levels = {
        "trace": (Turns(rule, pair), trace_checks(token_rule)),
        "known law": (Decoded(rule, pair), sequence_checks()),
        "two samples": (Decoded(rule, pair, sampled=True), few_samples()),
    }
    if token_rule and rule.claim.level == "round" and not hasattr(rule, "drafts") and not isinstance(rule, Jacobi):
        problem = OfModels(pair.drafter, pair.target, defect.draft_length)
        found["coupling"] = Coupled(rule, problem), [FirstMismatch()]
    return letter, biases[letter], found


def on_gaussians(rule: Verifier) -> tuple[str, float, Levels]:
    """The same for a rule of Gaussians, with the bias by quadrature that it states and that its tests compute."""
    defect: Defect = rule.defect  # type: ignore[attr-defined]
    letter = "A" if defect.bias_a >= defect.bias_b else "B"
    pair = continuous_references(defect.covariance)[letter]
    problem = OfLaws(pair.draft, pair.target, defect.draft_length)
    chain = chained(rule)
    exact: Any = Reflection() if isinstance(rule, PlantedReflection) else Rejection()
    found: Levels = {
        "trace": (Rounds(rule, problem), trace_checks(chain, fresh=not isinstance(rule, PlantedReflection))),
        "known law": (Emitted(rule, problem), known_law(pair.target)),
        "two samples": (
            Against(rule, problem, exact if chain else GaussianRecursiveRejection()),
            few_samples(),
        ),
    }
    if chain:
        found["coupling"] = Coupled(rule, problem, exact), [FirstMismatch()]
    return letter, max(defect.bias_a, defect.bias_b), found


def planted() -> list[str]:
    """Every planted defect that states a bias, of tokens or of Gaussians."""
    found = {name: kind for name, kind in catalog("saboteurs").items() if hasattr(kind, "defect")}
    return [name for name, kind in found.items() if continuous(kind.claim) or finite(kind.claim)]


def killed(name: str, most: Mapping[str, int], runs: int) -> Killed:
    """What sees one of them."""
    kind = catalog("saboteurs")[name]
    rows: dict[str, int | None] = {}
    if continuous(kind.claim):
        letter, size, levels = on_gaussians(kind())
    else:
        letter, size, levels = on_tokens(name, kind())
        rows["enumeration"] = 0 if size > TOLERANCE else None
    for level, (draw, checks) in levels.items():
        rows[level] = least(draw, checks, most[level], runs)
    return Killed("Gaussian" if continuous(kind.claim) else "tokens", letter, size, rows)


def least(draw: Draw, checks: Sequence[Check | Learner], most: int, runs: int) -> int | None:
    """Rows from which on nine runs in ten are seen at level 1e-6."""
    start = 256
    sizes = [start << place for place in range(0, (most // start).bit_length(), 2)]
    found = []
    for run in range(runs):
        found.append(climb(draw, fitted(checks, draw, run, 2048), sizes, run, ALPHA, stop=True))
    return needed(sizes, shares(found, ALPHA)[ALL])


def table(found: Mapping[str, Killed], most: Mapping[str, int]) -> list[Row]:
    """Rows by saboteur and level."""
    return [
        {
            "saboteur": name,
            "laws": item.kind,
            "bias": float(f"{item.bias:.3g}"),
            "on": item.letter,
            **{level: _cell(item, level, most) for level in LEVELS},
            "first": item.first,
            "with rows": item.rows[item.first] if item.first != "none" else "-",
        }
        for name, item in found.items()
    ]


def _cell(item: Killed, level: str, most: Mapping[str, int]) -> object:
    if level not in item.rows:
        return "-"
    rows = item.rows[level]
    if level == "enumeration":
        return "no" if rows is None else "sees it"
    return rows if rows is not None else f"> {most[level]}"

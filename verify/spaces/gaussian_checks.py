"""The checks that a continuous sampler's rows go through, and their joint error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distributions.tape import GeneratorTape
from verify.checks import Check
from verify.checks.battery import holm, stamp
from verify.checks.branches import Branches
from verify.checks.chi_square import ChiSquare
from verify.checks.dependence import RowDependence
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.products import Products
from verify.checks.support import Support
from verify.records import Finding
from verify.spaces.gaussian_rows import Rows
from verify.spaces.gaussian_witnesses import Pools
from verify.statistics.transform import Uniform

LEVEL = 1e-5
"""The level at which each check reports the smallest defect it sees; about what Holm leaves to one of a hundred."""


def pair_checks(rows: Rows) -> list[Finding]:
    """Every check on the rows of one pair; where some are not finite, that alone."""
    pair, tape = rows.pair, GeneratorTape()
    found = [Support()(rows.emitted, pair.target, LEVEL, tape)]
    if rows.finite:
        along, uniform = rows.columns[:, : pair.dim], Uniform(rows.columns.shape[-1])
        looks: list[Check] = [ExcessAcceptance(), RowDependence(), *([Branches()] if pair.start else [])]
        found += [check(rows.trace, None, LEVEL, tape) for check in looks]
        known: list[Check] = [KolmogorovSmirnov(), ChiSquare(32), ChiSquare(512)]
        found += [check(rows.columns, uniform, LEVEL, tape) for check in known]
        if pair.dim > 1:
            found.append(Products()(along, Uniform(pair.dim), LEVEL, tape))
    return [replace(item, scenario=pair.name) for item in found]


def edge_checks(together: Pools) -> list[Finding]:
    """The law of the rows at the edges of the calls, all pairs together."""
    known: list[Check] = [KolmogorovSmirnov(), ChiSquare(16)]
    return [
        replace(check(columns, Uniform(columns.shape[-1]), LEVEL, GeneratorTape()), scenario=name)
        for name, columns in together.columns.items()
        for check in known
    ]


def family(groups: Sequence[Sequence[Finding]], alpha: float, verifier: str, seed: int) -> list[Finding]:
    """All findings under Holm's procedure at ``alpha``."""
    return [
        stamp(item, verifier=verifier, scenario=item.scenario, seed=seed)
        for item in holm([item for group in groups for item in group], alpha)
    ]

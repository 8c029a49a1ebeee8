"""Several checks under one family-wise error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from statsmodels.stats.multitest import multipletests

from verify.records import Finding


def stamp(finding: Finding, *, verifier: str, scenario: str, seed: int) -> Finding:
    """The finding with the names of what was checked, which a check does not know."""
    return replace(finding, verifier=verifier, scenario=scenario, seed=seed)


def holm(findings: Sequence[Finding], alpha: float) -> tuple[Finding, ...]:
    """The findings with ``alpha`` set to the level that Holm's procedure applied to each, so that ``rejects`` is its
    decision; the probability that any true hypothesis is rejected is at most ``alpha``, however they depend.

    Holm (Scandinavian Journal of Statistics 6, 1979). Findings without a p-value pass through unchanged.
    """
    tested = [index for index, item in enumerate(findings) if item.p_value is not None]
    if not tested:
        return tuple(findings)
    rejected = multipletests([findings[index].p_value for index in tested], alpha, method="holm")[0]
    hits = int(rejected.sum())
    result = list(findings)
    for index, hit in zip(tested, rejected, strict=True):
        # The last level passed, for those rejected; the level at which the procedure stopped, for the others.
        result[index] = replace(findings[index], alpha=alpha / (len(tested) - hits + (1 if hit else 0)))
    return tuple(result)


def rejections(findings: Sequence[Finding], alpha: float) -> tuple[Finding, ...]:
    """Those of the findings that Holm's procedure rejects at family-wise level ``alpha``."""
    return tuple(item for item in holm(findings, alpha) if item.rejects)

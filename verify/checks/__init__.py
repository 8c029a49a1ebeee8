"""Checks of a sample against a law: one file, one check; ``battery`` holds several to one family-wise level."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from distributions.law import Law
from distributions.tape import Tape
from verify.records import CheckClaim, Finding


@runtime_checkable
class Check(Protocol):
    """A frozen dataclass whose fields are its settings, and what it conditions on (the drafts, the calls)."""

    claim: ClassVar[CheckClaim]

    def __call__(self, sample: Any, truth: Law, alpha: float, tape: Tape) -> Finding:
        """Test that the rows of ``sample`` (n, *event) were drawn from ``truth``, batch shape () or (n,), at ``alpha``.

        Randomised checks draw from ``tape``. The finding leaves verifier, scenario and seed to ``battery.stamp``.
        """
        ...

"""The pytest plugin, loaded wherever the package is installed: it imports nothing until it is used.

``assert_lossless`` is a fixture (and ``verify.assert_lossless`` the same function); ``parametrize_with_verifiers`` a
decorator that runs a test once for every built-in verifier whose claim fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def assert_lossless() -> Callable[..., Any]:
    """``assert_lossless(fn, space="discrete", **options)`` of ``verify``, ``space="sampler", target=...`` included:
    fails with the verdict as its message.
    """
    from verify.judge import assert_lossless as judge

    def check(fn: Callable[..., Any], space: str = "discrete", **options: Any) -> Any:
        __tracebackhide__ = True
        try:
            return judge(fn, space, **options)
        except AssertionError as error:
            # Raised again from here, so that the failure is shown at the line of the test.
            raise AssertionError(str(error)) from None

    return check


def parametrize_with_verifiers(*, folder: str = "verifiers", **claim: object) -> pytest.MarkDecorator:
    """``@parametrize_with_verifiers(exact=True)`` gives a test the argument ``verifier``, once for each fitting entry.

    ``claim``: fields of ``verify.records.Claim`` and the values wanted; ``folder="saboteurs"`` for the planted defects.
    The test's ids are the entries' names. Raises ValueError where a field does not exist or no entry fits.
    """
    import dataclasses

    from verify.records import Claim
    from verify.verifier import catalog

    fields = {item.name for item in dataclasses.fields(Claim)}
    if unknown := set(claim) - fields:
        raise ValueError(f"a claim has no {', '.join(sorted(unknown))}; filter by {', '.join(sorted(fields))}")
    chosen = [
        pytest.param(kind(), id=name)
        for name, kind in catalog(folder).items()
        if all(getattr(kind.claim, field) == value for field, value in claim.items())
    ]
    if not chosen:
        # pytest would skip the test, and a typing error would read as success.
        raise ValueError(f"nothing in {folder} claims {claim}; see specproof list")
    return pytest.mark.parametrize("verifier", chosen)

"""The pytest plugin, as somebody else's test file sees it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

SAMPLER = """
import torch

def sampler(draft_tokens, draft_probs, target_probs):
    token = int(draft_tokens[0])
    if torch.rand(()) < target_probs[0, token] / draft_probs[0, token]:
        return [token]
    return [int(torch.multinomial({law}, 1))]
"""
RIGHT = SAMPLER.format(law="(target_probs[0] - draft_probs[0]).clamp(min=0)")
WRONG = SAMPLER.format(law="target_probs[0]")


def test_the_plugin_imports_nothing_heavy() -> None:
    """Every pytest run pays for it, whether or not it has anything to verify."""
    code = "import sys, pytest; before = set(sys.modules); import verify.plugin; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["verify", "verify.plugin"]


def test_the_fixture_passes_what_is_lossless_and_fails_with_the_counterexample(pytester: Any) -> None:
    pytester.makepyfile(
        right=RIGHT,
        wrong=WRONG,
        test_it="""
        import right, wrong

        def test_right(assert_lossless):
            assert assert_lossless(right.sampler, vocab=2, draft_length=1).status == "lossless"

        def test_wrong(assert_lossless):
            assert_lossless(wrong.sampler, vocab=2, draft_length=1)
        """,
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert_lossless(wrong.sampler, vocab=2, draft_length=1)",
            "E*AssertionError: lossy*sampler: bias *",
            "E*smallest counterexample, bias *",
            "E*problem = Problem(*",
            "*1 failed, 1 passed*",
        ]
    )
    assert "judge.py" not in result.stdout.str()  # the failure is shown at the test's own line


def test_parametrize_runs_once_for_every_verifier_that_fits(pytester: Any) -> None:
    from verify.verifier import catalog

    pytester.makepyfile(
        """
        from verify.plugin import parametrize_with_verifiers

        @parametrize_with_verifiers()
        def test_all(verifier):
            assert hasattr(verifier, "verify")

        @parametrize_with_verifiers(exact=True)
        def test_exact(verifier):
            assert verifier.claim.exact
        """
    )
    result = pytester.runpytest_subprocess("-v", "-p", "no:cacheprovider")
    exact = [name for name, kind in catalog().items() if kind.claim.exact]
    assert 0 < len(exact) < len(catalog())
    result.assert_outcomes(passed=len(catalog()) + len(exact))
    for name in exact:
        result.stdout.fnmatch_lines([f"*::test_exact[[]{name}] PASSED*"])


@pytest.mark.parametrize(
    ("filters", "says"),
    [({"exakt": True}, "a claim has no exakt"), ({"level": "galaxy"}, "nothing in verifiers claims")],
)
def test_a_filter_that_fits_nothing_is_an_error_and_no_silent_skip(filters: dict[str, Any], says: str) -> None:
    from verify.plugin import parametrize_with_verifiers

    with pytest.raises(ValueError, match=says):
        parametrize_with_verifiers(**filters)

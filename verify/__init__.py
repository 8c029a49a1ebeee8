"""Decide whether a speculative sampler outputs exactly its target's distribution."""

from __future__ import annotations

from typing import Any

from verify.records import Verdict

__version__ = "0.1.0"
__all__ = ["Verdict", "assert_lossless", "check_decoder", "check_verifier"]


def __getattr__(name: str) -> Any:
    # The judge imports torch and the enumeration engine; `specproof --help` must not wait for them.
    if name in {"assert_lossless", "check_decoder", "check_verifier"}:
        from verify import judge

        return getattr(judge, name)
    raise AttributeError(f"module 'verify' has no attribute {name!r}")

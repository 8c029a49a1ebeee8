"""Decide whether a speculative sampler outputs exactly its target's distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verify.judge import assert_lossless, check_decoder, check_sampler, check_verifier
    from verify.records import Verdict
    from verify.vocabulary.identity import check_identity

__version__ = "0.1.0"
__all__ = ["Verdict", "assert_lossless", "check_decoder", "check_identity", "check_sampler", "check_verifier"]


def __getattr__(name: str) -> Any:
    # Both modules import torch; `specproof --help` and every pytest run that loads the plugin must not wait for it.
    if name == "Verdict":
        from verify.records import Verdict

        return Verdict
    if name in {"assert_lossless", "check_decoder", "check_sampler", "check_verifier"}:
        from verify import judge

        return getattr(judge, name)
    if name == "check_identity":
        from verify.vocabulary.identity import check_identity

        return check_identity
    raise AttributeError(f"module 'verify' has no attribute {name!r}")

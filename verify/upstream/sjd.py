"""Speculative Jacobi decoding (Teng et al., 2410.01699): ``SpeculativeSampler`` and the two functions around it.

A pass draws a token from every law (``sampling_logits2tokens``), verifies the window's drafts in turn and stops at the
first rejection (``SpeculativeSampler.__call__``), and cuts what it committed from what it drafted anew
(``prefix_matching_next_tokens``). ``discrete``: the verification of one window, whose drafts come from the laws they
are labelled with. ``decoder``: whole sequences with a window of 3, where every carried label counts. Expected: both
lossless at batch 1. To avoid: a logits processor that is not idempotent (temperature, top-p), because the residual is
processed once more; here it leaves the logits alone.
"""

from verify.upstream.loops import one_round, whole_loop

PROJECT = "tyshiwo1/Accelerating-T2I-AR-with-SJD"
READ = "b389cfb (2025-04-21)"
NEEDS = {
    "scheduler/jacobi_iteration_lumina_mgpt.py": (
        "SpeculativeSampler",
        "sampling_logits2tokens",
        "prefix_matching_next_tokens",
    )
}

discrete = one_round
decoder = whole_loop

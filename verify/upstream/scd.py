"""Speculative coupled decoding (2510.24211), the released sampler by maximal coupling for Lumina-mGPT.

The code of SJD with the break after the first rejection taken out: later drafts are coupled with their new laws, kept
or redrawn. ``discrete``: the verification of one window. ``decoder``: whole sequences with a window of 3. Expected: the
window lossless, whole sequences lossy, because a kept draft carries the label of the pass before (line 293,
``resampled_target_scores[...] = draft_prob[...]``), though its law given the columns before it is the new one; in SJD
the line does no harm, what is kept there being committed. To avoid: judging the sampler by one window alone.
"""

from verify.upstream.loops import one_round, whole_loop

PROJECT = "junhyukso/SCD"
READ = "7322379 (2026-07-06)"
NEEDS = {
    "lumina1/scheduler/jacobi_iteration_lumina_mgpt_SCDMC.py": (
        "SpeculativeSampler",
        "sampling_logits2tokens",
        "prefix_matching_next_tokens",
    )
}

discrete = one_round
decoder = whole_loop

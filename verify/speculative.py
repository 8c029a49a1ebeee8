"""Speculative sampling of tokens for production: the catalogue's rejection rule on the tables an engine has."""

from __future__ import annotations

from torch import Tensor

from distributions.categorical import Categorical
from distributions.logits import Logits
from distributions.tape import Tape
from verify.records import Draft
from verify.verifiers.rejection import Rejection


def speculative_sampling(
    drafted: Tensor, draft: Tensor, target: Tensor, tape: Tape, *, logits: bool = False
) -> tuple[Tensor, Tensor]:
    """What to emit for a batch of drafts, and how much of it: ids (rows, g + 1) and lengths (rows,), 1 to g + 1.

    ``drafted`` (rows, g) ids, drawn from ``draft`` (rows, g, V); ``target`` (rows, g + 1, V) the target's laws at the
    root and after each drafted token; both probabilities, or ``logits``, in any floating dtype. It is
    ``verify.verifiers.rejection`` on these tables as they are. Of probabilities only the drafted entries are read, and
    then the two rows of a rejection or the last row of the target; logits are read once besides, for the sums of their
    exponentials. Ratios and coins are float64; rows are subtracted and summed in the tables' dtype, so that tables in
    float32 are obeyed up to its rounding (``verify.vocabulary.identity`` says how much that is). Entries must be
    non-negative and rows sum to 1 up to rounding, which is not looked at. Raises ValueError where shapes do not fit, or
    for logits that are no law.
    """
    rows, nodes = drafted.shape
    if draft.shape[:2] != (rows, nodes) or target.shape != (rows, nodes + 1, draft.shape[-1]):
        raise ValueError(
            f"drafted {tuple(drafted.shape)}, draft {tuple(draft.shape)} and target {tuple(target.shape)} do not fit; "
            "give (rows, g), (rows, g, V) and (rows, g + 1, V)"
        )
    law = Logits if logits else Categorical.stored
    outcome = Rejection().verify(Draft.chain(drafted, law(draft)), law(target), tape)
    return outcome.value, outcome.length

"""Is a one-draft rule lossless in this context? The identity q a + (1 - sum q a) r = p on production-size tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.records import Counterexample, Verdict
from verify.vocabulary.precision import Budget, misfit, normalisation, over_accepted, relative, slack, spacing, unit
from verify.vocabulary.tables import Rule, applied, contexts, replacement, rows_of

TOLERANCE = 1e-12  # what sums of float64 leave
WORST = 8


@dataclass(frozen=True, eq=False)
class Identity:
    """What the identity says in each of C contexts: tensors (C,), float64, unless noted.

    ``bias``: TV of the output law from the target; ``lower``: what of it rounding cannot explain; ``upper``: the bias
    and the grid of the coin. ``acceptance`` against ``overlap``: their difference, if positive, certifies bias, since
    TV(o, p) >= acceptance - overlap for every one-draft rule. ``leaked_accepted``, ``leaked_replaced``: output mass
    where the target has none. ``acceptance_error``: sum q |a - min(1, p/q)|; ``replacement_error``: rejection times TV
    of the replacement law from (p - q)+; ``label_error``: TV of the law drafted from and the one claimed; each beyond
    rounding, and 0 where all contexts are lossless. ``law`` (C, V): the output law; ``departure`` (C, V): its
    difference from the target; ``tokens`` (C, k): where that is largest.
    """

    bias: Tensor
    lower: Tensor
    upper: Tensor
    acceptance: Tensor
    overlap: Tensor
    leaked_accepted: Tensor
    leaked_replaced: Tensor
    acceptance_error: Tensor
    replacement_error: Tensor
    label_error: Tensor
    budget: Budget
    law: Tensor
    departure: Tensor
    tokens: Tensor

    @property
    def lossless(self) -> bool:
        """Whether rounding explains every departure, in every context."""
        return not bool((self.lower > TOLERANCE).any())

    @property
    def worst(self) -> int:
        """The context with the largest unexplained bias."""
        return int((self.lower + 1e-9 * self.bias).argmax())

    def component(self, context: int | None = None) -> str:
        """What is wrong: ``acceptance``, ``replacement``, ``draft law`` or several of them; empty if lossless."""
        at = self.worst if context is None else context
        if not bool(self.lower[at] > TOLERANCE):
            return ""
        parts = {
            "acceptance": self.acceptance_error,
            "replacement": self.replacement_error,
            "draft law": self.label_error,
        }
        wrong = [name for name, size in parts.items() if bool(size[at] > TOLERANCE)]
        return " and ".join(wrong) or "acceptance and replacement do not fit each other"

    def verdict(self, subject: str = "") -> Verdict:
        """The worst context as a Verdict: ``lossless`` means up to the rounding of the tables and of the arithmetic."""
        at, wrong = self.worst, self.component()
        budget = self.budget.row(at)
        parts = ", ".join(f"{name} {size:.2g}" for name, size in budget.items() if name != "storage")
        notes = [f"rounding explains a bias of {float(self.budget.total[at]):.2g} here: {parts}"]
        notes.append(f"the stored target may differ from the law before storage by {budget['storage']:.2g}, unchecked")
        leak = float(self.leaked_accepted[at] + self.leaked_replaced[at])
        if leak > 0:
            share = float(self.leaked_accepted[at])
            notes.append(f"mass {leak:.3g} lies outside the target's support, {share:.3g} of it by acceptance")
        ids, found = self.tokens[at].tolist(), self.law[at, self.tokens[at]].tolist()
        wanted = (self.law - self.departure)[at, self.tokens[at]].tolist()
        case = Counterexample(
            float(self.bias[at]),
            "",
            f"context {at}, tokens {ids[:3]}: law {[float(f'{v:.4g}') for v in found[:3]]}, "
            f"target {[float(f'{v:.4g}') for v in wanted[:3]]}",
            {"vocab": self.law.shape[-1]},
            dict(zip(map(str, ids), found, strict=True)),
            dict(zip(map(str, ids), wanted, strict=True)),
        )
        return Verdict(
            status="lossy" if wrong else "lossless",
            bias_lower=float(self.lower[at]),
            bias_upper=float(self.upper[at]),
            metric="tv",
            evidence="identity",
            confidence=1.0,
            acceptance=float(self.acceptance[at]),
            overlap=float(self.overlap[at]),
            counterexample=case if wrong else None,
            diagnosis=f"wrong: {wrong}" if wrong else "",
            subject=subject,
            scope=f"{len(self.bias)} contexts, V = {self.law.shape[-1]}, one drafted token",
            notes=tuple(notes),
        )


def check_identity(
    accept: Rule,
    replace: Rule,
    draft: Tensor,
    target: Tensor,
    *,
    drawn: Tensor | None = None,
    arithmetic: tuple[torch.dtype, torch.dtype] | None = None,
) -> Identity:
    """Whether accepting x with probability a(x), and drawing from r otherwise, outputs the target: O(V) a context.

    A token x ~ q that is kept with probability a(x), or else replaced by a draw of r, has the output law

        o = q a + (1 - sum q a) r,    lossless iff o = p;

    for Leviathan et al. (2211.17192) min(p, q) + (1 - overlap) (p - q)+ / TV = p. ``draft`` and ``target`` (V,) or
    (C, V) are the tables in the dtype that the code receives; the target is ``target`` divided by its sum, and q is
    ``drawn``, the law that drafts are really drawn from (``draft`` unless given), divided by its. ``accept(draft,
    target)`` and ``replace(draft, target)`` receive one row of each and return (V,) probabilities (or ratios: they are
    clamped to [0, 1], NaN is never accepted) and weights; tensors of these values may be given instead. Their dtype is
    taken for the code's ``arithmetic``, of acceptance and of replacement, unless that is stated.

    ``lower`` is the bias that rounding does not explain, as follows. A table's sum is 1 only up to its dtype. A correct
    code reads them as they are or normalises one or both, so what it takes for q is kappa q, with kappa one of 1, S/T,
    S and 1/T for sums S, T of draft and target. In one of these readings (1) kappa q a <= p at every token up to the
    relative error of a, because no replacement takes mass away; (2) r lies between (e - d)+ / (D + sum d) and (e + d)
    / (D - sum d), where e = (p - kappa q a)+, D = sum e and d the rounding of e; a reading in which nothing is left to
    replace, D <= sum d, wants p as replacement; (3) TV(o, p) is at most the arithmetic's budget and |1 - kappa| sum
    q a, the mass that moves between acceptance and replacement. With kappa = 1 and no rounding each of (1) sum (q a -
    p)+, (2) (1 - sum q a) TV(r, e/D) and (3) is at most TV(o, p), and they vanish together exactly where o = p. So
    ``lower`` is the largest violation in the most favourable reading. Constants: ``verify.vocabulary.precision``.

    Raises ValueError for tables or replacements that are no laws.
    """
    draft, target = contexts(draft, "draft"), contexts(target, "target")
    stored, label = rows_of(target, "target"), rows_of(draft, "draft")
    source = label if drawn is None else rows_of(drawn.expand_as(draft), "drawn")
    if draft.shape != target.shape:
        raise ValueError(f"draft {tuple(draft.shape)} and target {tuple(target.shape)} must have one shape, (C, V)")
    ratio, accept_type = applied(accept, draft, target)
    weights, replace_type = applied(replace, draft, target)
    types = arithmetic or (accept_type, replace_type)
    draft_sum, target_sum = label.sum(-1, keepdim=True), stored.sum(-1, keepdim=True)
    wanted, label = stored / target_sum, label / draft_sum
    source = source / source.sum(-1, keepdim=True) if drawn is not None else label
    chance = torch.nan_to_num(ratio, nan=0.0, posinf=1.0).clamp_(0, 1)
    kept = source * chance
    acceptance = kept.sum(-1)
    rejection = (1 - acceptance).clamp(min=0)
    replaced = replacement(weights, rejection, wanted, max(map(unit, types)))
    law = torch.addcmul(kept, rejection.unsqueeze(-1), replaced)
    departure = law - wanted
    bias = departure.abs().sum(-1) / 2

    loose = relative(label, wanted, types[0])
    blur = torch.where(chance < 1, kept * loose, 0.0)  # where p/q > 1 the acceptance is 1 without rounding
    ratio_budget = blur.sum(-1)
    residual_budget = torch.minimum(rejection, slack(wanted, (wanted - label).clamp(min=0), types[1]).sum(-1))
    budget = Budget(
        ratio_budget,
        residual_budget,
        torch.full_like(bias, spacing(types[0])),
        normalisation(label * draft_sum, stored),
        torch.full_like(bias, unit(target.dtype)),
    )
    readings = [draft_sum / target_sum, torch.ones_like(draft_sum), draft_sum, 1 / target_sum]
    lower = torch.full_like(bias, torch.inf)
    for kappa in readings:
        violation = torch.maximum(
            over_accepted(kappa * kept, wanted, loose),
            misfit(replaced, rejection, kappa * kept, wanted, blur, types[1]),
        )
        gap = bias - budget.arithmetic - ((1 - kappa).squeeze(-1) * acceptance).abs()
        violation = torch.maximum(violation, gap).clamp_(min=0)
        lower = torch.minimum(lower, violation)
        if not bool((lower > TOLERANCE).any()):
            break
    tokens = departure.abs().topk(min(WORST, law.shape[-1])).indices
    outside = wanted == 0
    errors = [torch.zeros_like(bias)] * 3
    if bool((lower > TOLERANCE).any()):  # whose fault it is interests only then
        faults = []
        for kappa in readings:
            right = (wanted / (kappa * label)).nan_to_num_(nan=0.0, posinf=1.0).clamp_(max=1)
            ideal = kappa * label * right
            missed = (source * ((chance - right).abs_() - loose * right).clamp_(min=0)).sum(-1)
            faults.append((missed, misfit(replaced, rejection, ideal, wanted, ideal * loose, types[1])))
            if bool((torch.minimum(*faults[-1]) <= TOLERANCE).all()):
                break  # in this reading at most one of the two is wrong, everywhere
        errors[:2] = [torch.stack(fault).amin(0) for fault in zip(*faults, strict=True)]
        errors[2] = ((source - label).abs_().sum(-1) / 2 - 4 * unit(types[0])).clamp_(min=0)
    return Identity(
        bias=bias,
        lower=lower,
        upper=(bias + budget.coin).clamp_(max=1),
        acceptance=acceptance,
        overlap=torch.minimum(source, wanted).sum(-1),
        leaked_accepted=(kept * outside).sum(-1),
        leaked_replaced=rejection * (replaced * outside).sum(-1),
        acceptance_error=errors[0],
        replacement_error=errors[1],
        label_error=errors[2],
        budget=budget,
        law=law,
        departure=departure,
        tokens=tokens,
    )

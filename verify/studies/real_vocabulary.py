"""Real vocabularies: the published bugs at V = 32,000 to 151,936, and what rounding alone explains there."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from scipy import stats

from verify.study import Row, Study
from verify.vocabulary.identity import Identity
from verify.vocabulary.production import CASES, logits

SIZES = {"quick": (32_000, 151_936), "thorough": (32_000, 50_257, 128_256, 151_936)}
CONTEXTS = {"quick": 3, "thorough": 20}
DRAWS = 40_960  # of the sampled tests that the bugs are held against


def chi_square_power(found: Identity, context: int, draws: int = DRAWS) -> float:
    """How often a chi-square test with the threshold df + 10 sqrt(2 df) on so many draws sees this law.

    Tokens expected less than five times are one bin. This is the threshold of vLLM's test of its rejection sampler at a
    vocabulary of 4,096; noncentrality draws * sum (o - p)^2 / p over the bins.
    """
    law = found.law[context]
    wanted = (law - found.departure[context]).clamp(min=0)
    own = wanted * draws >= 5
    groups = [torch.cat((item[own], item[~own].sum().reshape(1))) for item in (law, wanted)]
    keep = groups[1] > 0
    size = draws * float(((groups[0] - groups[1])[keep] ** 2 / groups[1][keep]).sum())
    freedom = max(1, int(keep.sum()) - 1)
    return float(stats.ncx2.sf(freedom + 10 * math.sqrt(2 * freedom), freedom, max(size, 1e-9)))


def seen_by(found: Identity, context: int, draws: int = DRAWS) -> dict[str, str]:
    """Whether sampled tests on so many draws see it, nine times in ten: chi-square; accepting more than the overlap,
    three standard errors; a token outside the target's support.
    """
    kept, overlap = float(found.acceptance[context]), float(found.overlap[context])
    error = math.sqrt(overlap * (1 - overlap) / draws)
    leak = float(found.leaked_accepted[context] + found.leaked_replaced[context])
    return {
        "chi-square": _yes(chi_square_power(found, context, draws) >= 0.9),
        "excess": _yes(kept - overlap >= 4.3 * error > 0),
        "support": _yes(1 - math.exp(-leak * draws) >= 0.9),
    }


def _yes(seen: bool) -> str:
    return "yes" if seen else "no"


def run(budget: str = "quick") -> Study:
    """Every bug on tables of production size, the rounding beside it, and the two additive ones against V."""
    rows: list[Row] = []
    for vocab in SIZES[budget]:
        draft, target = logits(CONTEXTS[budget], vocab)
        for dtype in (torch.float32, torch.bfloat16):
            for name, case in CASES.items():
                found = case.check(draft, target, dtype)
                at = found.worst
                rows.append(
                    {
                        "rule": name,
                        "V": vocab,
                        "tables": str(dtype).removeprefix("torch."),
                        "bias": float(found.bias[at]),
                        "beyond rounding": float(found.lower[at]),
                        "rounding explains": float(found.budget.total[at]),
                        "verdict": "lossless" if found.lossless else "lossy",
                        "wrong": found.component(),
                        **(seen_by(found, at) if not found.lossless else {}),
                    }
                )
    sources = [{"rule": name, "after": case.source} for name, case in CASES.items()]
    return Study(
        "Real vocabularies",
        TEXT.format(draws=DRAWS, contexts=CONTEXTS[budget]),
        {"What the identity finds": rows, "Where each comes from": sources},
        {CAPTION: _figure(budget)},
    )


TEXT = """
One drafted token, tables as engines store them: softmax of N(0, 5²) logits with a few dominating tokens, the drafter's
logits off by N(0, 0.5²), {contexts} contexts, of which the worst is shown. The identity q a + (1 − Σ q a) r = p is
computed in O(V). *Bias* is the total variation between the output's law and the target table divided by its sum;
*beyond rounding* is the part that neither the sums of the tables nor the code's arithmetic explains, in the most
favourable reading; a rule is lossy where it is positive. *Rounding explains* is the budget of a correct rule on these
tables. A bias below the budget can still be beyond rounding, because rounding cannot put mass on just any token. The
last three columns say whether sampled tests on {draws:,} draws see the defect nine times in ten: a chi-square test with
the threshold df + 10√(2 df); acceptance above the overlap; a token outside the target's support.

A draft claimed one step of its dtype above the target leaves no residual where it rejects: in float32 that is rounding
(3e-8), in bfloat16 an index 0 leaks with the probability of a step.
"""
CAPTION = (
    "Bias of a residual floor of 1e-5 and of an additive 1e-10 against the vocabulary, with what rounding explains on "
    "float32 and bfloat16 tables (medians over the contexts; bands: their quartiles). A wrong replacement costs at "
    "most TV(p, q)."
)


def _figure(budget: str) -> Figure:
    sizes = [round(10 ** (2 + step / 4)) for step in range(13)] + [151_936]
    lines: dict[str, list[list[float]]] = {}
    for vocab in sizes:
        draft, target = logits(25 if vocab < 10_000 else 5 + CONTEXTS[budget], vocab, seed=1)
        for name in ("residual floor 1e-5", "residual + 1e-10"):
            lines.setdefault(name, []).append(CASES[name].check(draft, target, torch.float32).bias.tolist())
        for dtype in (torch.float32, torch.bfloat16):
            found = CASES["correct, float32 arithmetic"].check(draft, target, dtype)
            lines.setdefault(str(dtype), []).append(found.budget.total.tolist())
        lines.setdefault("TV(p, q)", []).append((1 - found.overlap).tolist())
    figure = Figure(figsize=(7.0, 4.4))
    axes = figure.subplots()
    looks = {
        "TV(p, q)": ("#8a8a8a", ":", "TV(p, q)", 9),
        "residual floor 1e-5": ("#dd4a48", "-", "floor 1e-5", -5),
        "residual + 1e-10": ("#d08a1d", "-", "additive 1e-10", 3),
        str(torch.bfloat16): ("#2f80d0", "--", "rounding, bfloat16 tables", 0),
        str(torch.float32): ("#2e9e8f", "--", "rounding, float32 tables", -3),
    }
    for name, (colour, style, label, shift) in looks.items():
        low, middle, high = torch.stack(
            [torch.tensor(part).quantile(torch.tensor([0.25, 0.5, 0.75])) for part in lines[name]], -1
        ).tolist()
        axes.plot(sizes, middle, style, color=colour, linewidth=1.6)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.18 if style != ":" else 0.0, linewidth=0)
        place = (sizes[-1], middle[-1])
        axes.annotate(label, place, (6, shift), textcoords="offset points", color=colour, va="center")
    axes.set(xscale="log", yscale="log", xlabel="vocabulary V", ylabel="total variation", xlim=(90, 1.7e5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", alpha=0.25)
    return figure

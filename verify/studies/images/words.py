"""The paragraphs above the tables; every number is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from verify.studies.images.evidence import Known
from verify.studies.images.scores import Score
from verify.studies.images.speed import Speed
from verify.studies.images.windows import Window


def text(
    cells: Sequence[Known], fast: Sequence[Speed], wide: Sequence[Window], scored: Mapping[str, Sequence[Score]]
) -> Iterator[str]:
    """One paragraph a subject."""
    exact, lossy = [c for c in cells if c.job.exact], [c for c in cells if not c.job.exact]
    alarms, caught = sum(c.flagged for c in exact), sum(c.flagged for c in lossy)
    tested = sum(c.gap.n for c in exact)
    yield (
        f"**Lossless as sequences.** Given the tokens before it, the path of every token has known conditionals, so a "
        f"whole decoding becomes independent normals and needs no second sample. Of {len(exact)} cells of decoders "
        f"that claim exactness, by draft length, prefill, batch and drafter, {tested} tokens in all, {alarms} are "
        f"flagged; of {len(lossy)} cells that are known not to be, {caught}. A cell is flagged by chance twice in a "
        f"million. What is tested is the law of paths, and so that of tokens; a rule that is flagged has paths of "
        f"another law, and the two samples below say what is seen of its images."
    )
    yield "**Bias by draft length.** " + " ".join(_by_length(lossy))
    yield "**What it costs.** " + " ".join(_cost(fast))
    yield "**Jacobi decoding.** " + " ".join(_jacobi(wide))
    yield "**How good the images are.** " + " ".join(_quality(scored))


def _by_length(cells: Sequence[Known]) -> Iterator[str]:
    for model, rule in dict.fromkeys((c.subject, c.job.rule) for c in cells):
        mine = [c for c in cells if (c.subject, c.job.rule) == (model, rule)]
        found = ", ".join(f"{c.gap.found:.3f} at {c.job.draft_length}" for c in mine)
        yield f"{model}, {rule}: distance {found}; chance reaches {mine[0].gap.room:.3f}."


def _cost(cells: Sequence[Speed]) -> Iterator[str]:
    exact = [c for c in cells if c.job.exact]
    best = max(exact, key=lambda c: (round(c.measured, 2), c.acceptance))
    yield (
        f"The largest speed-up of an exact rule with a drafter is {best.measured:.2f} measured and "
        f"{best.predicted:.2f} predicted ({best.subject}, draft length {best.job.draft_length}, batch "
        f"{best.job.batch}), at acceptance {best.acceptance:.3f}."
    )
    quickest = max(cells, key=lambda c: c.measured)
    if not quickest.job.exact:
        yield f"Of all rules it is {quickest.measured:.2f} ({quickest.job.rule}, which is lossy)."
    draft, verify = (best.parts[name] / best.alone for name in ("draft", "verify"))
    yield (
        f"A round of it takes the time of {draft:.1f} tokens of the target alone to draft and of {verify:.1f} to "
        f"verify, since a path that is verified runs through the chains of both models; what is saved is passes of "
        f"the backbone, of which it takes {best.calls:.2f} a token."
    )


def _jacobi(cells: Sequence[Window]) -> Iterator[str]:
    for model in dict.fromkeys(c.model for c in cells):
        mine = [c for c in cells if c.model == model]
        for rule in dict.fromkeys(c.rule for c in mine):
            best = max((c for c in mine if c.rule == rule), key=lambda c: c.saved[0])
            yield (
                f"{model}, {rule}: {best.calls:.1f} evaluations in place of {best.length} at window {best.window}, "
                f"{best.saved[0]:.2f} times fewer."
            )


def _quality(found: Mapping[str, Sequence[Score]]) -> Iterator[str]:
    for model, cells in found.items():
        floor = cells[0]
        yield f"{model}: a second sample of the target is at {floor.target:.3f} from the first."
        worst = max(cells, key=lambda c: c.target)
        if worst is not floor:
            yield f"Farthest is {worst.method}, at {worst.target:.3f}."
        seen = [c.method for c in cells if c.apart.p_value < 1e-3]
        yield f"Two samples tell apart: {', '.join(seen) or 'none'}."

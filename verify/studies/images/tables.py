"""What was measured, as rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from verify.studies.images.evidence import Known
from verify.studies.images.scores import Score
from verify.studies.images.speed import Speed
from verify.studies.images.windows import Window
from verify.study import Row


def lossless(cells: Iterable[Known]) -> Iterator[Row]:
    """Every decoder against the known law of its sequences."""
    for cell in cells:
        job = cell.job
        share = f"{cell.kept / cell.drafted:.3f}" if cell.drafted else ""
        yield {
            "model": cell.subject, "rule": job.rule, "claims": "exact" if job.exact else "lossy",
            "draft length": job.draft_length if job.verifier else "", "prefill": f"{job.prefill:.0%}",
            "batch": job.batch, "drafter": job.drafter, "images": cell.images, "acceptance": share,
            "evaluations an image": round(cell.calls, 2), "largest distance": round(cell.gap.found, 4),
            "chance reaches": round(cell.gap.room, 4), "of": cell.gap.name,
            "dependence, p": f"{cell.dependence:.2g}", "verdict": "lossy" if cell.flagged else "no bias seen",
        }  # fmt: skip


def biased(cells: Iterable[Known]) -> Iterator[Row]:
    """The bias of what is not exact by draft length: the distance found, and what it is at least."""
    for cell in cells:
        if not cell.job.exact:
            yield {
                "model": cell.subject, "rule": cell.job.rule, "draft length": cell.job.draft_length,
                "distance of paths": round(cell.gap.found, 4), "at least": round(cell.gap.least, 4),
                "of": cell.gap.name, "tokens": cell.gap.n,
            }  # fmt: skip


def speeds(cells: Iterable[Speed]) -> Iterator[Row]:
    """Acceptance, evaluations and time of every job."""
    for cell in cells:
        job = cell.job
        yield {
            "model": cell.subject, "rule": job.rule, "exact": "yes" if job.exact else "no",
            "draft length": job.draft_length, "batch": job.batch, "prefill": f"{job.prefill:.0%}",
            "images": cell.images, "acceptance": round(cell.acceptance, 3), "kept share": round(cell.kept, 3),
            "evaluations a token": round(cell.calls, 3), "ms a token": round(1e3 * cell.seconds, 2),
            "target alone, ms": round(1e3 * cell.alone, 2), "speed-up": round(cell.measured, 2),
            "predicted": round(cell.predicted, 2),
        }  # fmt: skip


def windows(cells: Iterable[Window]) -> Iterator[Row]:
    """Evaluations by window."""
    for cell in cells:
        middle, low, high = cell.saved
        yield {
            "model": cell.model, "rule": cell.rule, "window": cell.window, "images": cell.images,
            "evaluations an image": f"{cell.calls:.2f} ± {cell.half_width:.2f}",
            "alone": cell.length, "speed-up in evaluations": f"{middle:.2f} ({low:.2f} to {high:.2f})",
        }  # fmt: skip


def qualities(found: Mapping[str, Sequence[Score]]) -> Iterator[Row]:
    """Scores of every method, model by model."""
    for model, cells in found.items():
        for cell in cells:
            yield {
                "model": model, "method": cell.method, "exact": "yes" if cell.exact else "no",
                "evaluations a token": round(cell.calls, 3), "ms a token": round(1e3 * cell.seconds, 2),
                "Frechet, from the target": round(cell.target, 3), "Frechet, from the data": round(cell.data, 3),
                "inception-style score": round(cell.inception, 3),
                "two samples, p": f"{cell.apart.p_value:.2g} ({cell.apart.check})",
                "TV at least": round(cell.apart.least, 3),
            }  # fmt: skip

"""The audit of published speed-ups, as a part of the report: every shipped table that has speed-ups in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verify.claims.audit import IMPLIES, Audit, Row, audit
from verify.claims.table import figures, shipped
from verify.report.curves import panels
from verify.report.figures import COLOURS, FAINT, MARKERS, MUTED, drawing


def audits() -> Mapping[str, Audit]:
    """The audit of each shipped table with speed-ups, by the table's name."""
    found = {name: audit(path.name, figures(path)) for name, path in shipped().items()}
    return {name: item for name, item in found.items() if item.checked}


def verdict(item: Audit) -> str:
    """What the audit found, in sentences."""
    fitted = item.without_rollback
    model = f" A model that keeps all it drafted fits all within {100 * fitted.worst:.1f} %." if fitted else ""
    farthest = max(item.checked, key=_beyond)
    return (
        f"{item.beyond_rollback} of {len(item.checked)} speed-ups exceed what their acceptance and draft length allow "
        f"a sampler that drops what follows a rejection, were the drafter free; farthest is {_named(farthest)}, "
        f"{farthest.figure.speedup:.2f} where {farthest.tokens:.2f} is the most. {item.beyond_any} exceed what any "
        f"lossless scheme with one draft a position may reach.{model}"
    )


def implies() -> str:
    """What that implies, and what it does not."""
    return " ".join(IMPLIES.split())


def claims_figure(name: str, item: Audit) -> str:
    """Speed-up against the tokens of one call: what lies above the diagonal needs more tokens than a call emits."""
    figure, (axes,) = panels([""], width=5.6, height=3.9)
    most = 1.06 * max(max(row.tokens, row.figure.speedup or 0.0) for row in item.checked)
    least = 0.95 * min(min(row.tokens, row.figure.speedup or 1.0) for row in item.checked)
    right = 1.02 * max(row.tokens for row in item.checked)
    axes.fill_between([least, right], [least, right], most, color=FAINT, linewidth=0)
    axes.plot([least, right], [least, right], color=MUTED, linewidth=1)
    for status, over in (("lossless", False), ("lossy", True)):
        rows = [row for row in item.checked if row.exceeds(row.tokens) == over]
        across, up = [row.tokens for row in rows], [row.figure.speedup or 0.0 for row in rows]
        axes.plot(across, up, MARKERS[status], color=COLOURS[status], markersize=6, alpha=0.75, markeredgewidth=0)
    axes.text(least + 0.01, most * 0.985, "more than a call emits", color=MUTED, fontsize=8.5, va="top")
    axes.set(xlim=(least, right), ylim=(least, most))
    axes.set_xlabel("tokens of one target call, by the published acceptance and draft length")
    axes.set_ylabel("published speed-up")
    return drawing(figure, f"claims-{name}", f"Published speed-up against the tokens of one call: {name}.")


def table(item: Audit) -> list[Mapping[str, Any]]:
    """The rows of the audit, as the page shows them."""
    return [
        {
            "setting": _named(row),
            "acceptance": row.figure.alpha,
            "draft length": row.figure.gamma,
            "speed-up": row.figure.speedup,
            "tokens of a call": round(row.tokens, 3),
            "1 + g a": round(row.most, 2),
            "exceeds": "tokens of a call" if row.exceeds(row.tokens) else "",
            "needs acceptance": round(row.needed() or 0.0, 2) if row.exceeds(row.tokens) else "",
        }
        for row in item.checked
    ]


def _beyond(row: Row) -> float:
    return (row.figure.speedup or 0.0) - row.tokens


def _named(row: Row) -> str:
    return " ".join(filter(None, (row.figure.label, row.figure.setting)))

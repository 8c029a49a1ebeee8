"""The theorem, measured: when the ratio of two path densities is the ratio of the densities of x_0, and when not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from verify.studies.path_ratio import cells, drawings
from verify.studies.path_ratio.cells import ERROR, EXACT, FIXED, PATHS, STEPS, Gap, Swept
from verify.study import Row, Study


def run(budget: str = "quick") -> Study:
    """Measure, tabulate and draw; ``budget`` says how many paths a cell has and at how many steps there is one."""
    steps, rows, seed = STEPS[budget], PATHS[budget], count()
    identity = list(cells.identity(rows, seed))
    variances = cells.gaussian_by_steps(steps), cells.line_by_steps(steps, rows, seed)
    gaussian, line = cells.gaussian_errors(steps), cells.line_errors(steps, rows, seed)
    return present(identity, variances, ({**gaussian[0], **line[0]}, {**gaussian[1], **line[1]}), rows)


def present(identity: Sequence[Row], variances: tuple[Swept, Swept], errors: tuple[Swept, Swept], rows: int) -> Study:
    """The study of what was measured."""
    return Study(
        title="The joint in place of the marginal: when a path ratio is the ratio of its ends",
        text="\n\n".join(text(identity, variances, errors, rows)),
        tables={
            "Exact reversals: path ratio and data ratio on every drafted path, with 95 % intervals": identity,
            "Two data laws, by the variance of the kernels: TV of paths, TV of x_0": list(
                _rows({"Gaussian, d = 2": variances[0], "mixture on the line": variances[1]}, "steps")
            ),
            f"One data law, a drafter with an error, {FIXED} steps": list(_rows({"": errors[0]}, "error")),
            f"One data law, a drafter with an error of {ERROR}": list(_rows({"": errors[1]}, "steps")),
        },
        figures={
            "Total variation of paths (full lines) and of x_0 (dotted), for two data laws. With the exact posterior "
            "covariance the two are one line; any other variance opens a gap that closes with the steps.": (
                drawings.variances(*variances)
            ),
            "The same for one data law and a drafter that is wrong: in its predicted noise, in its clean value (a "
            "tenth as much), or in its variance (a fraction of the learned range). Here more steps do not close the "
            "gap, or hardly.": (drawings.errors(*errors)),
        },
    )


def _rows(found: Mapping[str, Swept], across: str) -> Iterator[Row]:
    for data, swept in found.items():
        for name, gaps in swept.items():
            for place, gap in gaps.items():
                row: Row = {"data": data} if data else {}
                middle, low, high = gap.paths
                row = {**row, "kernels" if data else "wrong in": name, across: place, "TV of paths": middle}
                yield {**row, "±": (high - low) / 2, "TV of x_0": gap.end, "gap": gap.size[0]}


def text(
    identity: Sequence[Row], variances: tuple[Swept, Swept], errors: tuple[Swept, Swept], rows: int
) -> Iterator[str]:
    """The paragraphs above the figures; every number is computed."""
    worst = max(float(str(row["largest difference of log-ratios"])) for row in identity)
    inside = [
        abs(float(str(row["paths accepted"])) - 1 + float(str(row["TV of the data"]))) / float(str(row["±"])) * 1.96
        for row in identity
    ]
    yield (
        "Speculative decoding of diffusion heads weighs a draft by the joint density of its whole trajectory, and a "
        "published review objected that the rule asks for the marginal density of the token. **The answer.** If both "
        "chains are time reversals of one forward process, p(x_0..x_T) is p(x_0) times the forward kernels, these are "
        "the same for both and cancel, and the joint ratio is the marginal one. Otherwise a test of whole paths is "
        "still exact, since x_0 is a function of the path; it accepts less than the marginal rule, and never more: TV "
        "of paths is at least TV of x_0. So the objection is about acceptance, not about bias, and what it costs is "
        "measured here. (A ratio evaluated on two different paths is another matter: it is neither.)"
    )
    closed = [row for row in identity if "TV of paths" in row]
    apart = max(abs(float(str(row["TV of paths"])) - float(str(row["TV of the data"]))) for row in closed)
    yield (
        f"**Exact reversals.** Over {len(identity)} pairs of data and schedule and {rows} drafted paths of each, "
        f"mixtures included, the two log-ratios differ by at most {worst:.1e}, on chains whose densities reach far "
        f"beyond the range of floats. In closed form TV of paths and TV of the data differ by at most {apart:.1e} on "
        f"{len(closed)} Gaussian pairs; the sampled acceptance lies at most {max(inside):.1f} standard errors from the "
        "overlap of the data."
    )
    exact = variances[0][EXACT]
    names = [name for name in variances[0] if name != EXACT]
    first, last = min(exact), max(exact)
    falls = ", ".join(f"T^-{cells.slope(variances[0][name]):.1f} ({name})" for name in names)
    line = "; ".join(f"{name} {_both(variances[1][name], 10)} at 10 steps" for name in names)
    yield (
        f"**The variance.** Exact scores, but the variance that a schedule offers in place of the posterior's: with "
        f"the posterior's the gap is at most {max(abs(gap.size[0]) for gap in exact.values()):.0e} from {first} to "
        f"{last} steps. The others' falls as {falls} on Gaussian data. TV of paths and of x_0 on the mixture: {line}. "
        "The best of the three is the large one where the data are about as wide as N(0, I), for which it is exact."
    )
    noise, clean = errors[0]["noise"], errors[0]["clean value"]
    smooth, spread = errors[0]["noise, smooth random"], errors[0]["variance"]
    yield (
        f"**The score.** Data and schedule are the same, the drafter's predicted noise is off by a constant: TV of "
        f"paths and of x_0 is {_both(noise, 0.02)} at an error of .02, and {_both(noise, 0.1)} at .1; off by a smooth "
        f"random function {_both(smooth, 0.02)} and {_both(smooth, 0.1)}. At {ERROR} more steps leave a gap of "
        f"{_last(errors[1]['noise'])} and {_last(errors[1]['noise, smooth random'])} at {last}: path divergence is the "
        "integral of the squared error over the chain (Girsanov), to which errors that cancel in x_0 contribute in "
        f"full. A clean value off by {ERROR / 10:g} costs {_both(clean, ERROR)}: the last steps, whose noise is small, "
        "weigh it most."
    )
    yield (
        f"**Two variances.** A drafter whose learned variance is off by {ERROR} of the range has TV of paths "
        f"{_both(spread, ERROR)} of x_0; a fraction of .2 has {_both(spread, 0.2)}. This is lost for nothing: a "
        "drafter may copy the target's variance, since its law is ours to choose."
    )


def _both(found: Mapping[float, Gap], place: float) -> str:
    return f"{found[place].paths[0]:.3f} against {found[place].end:.3f}"


def _last(found: Mapping[float, Gap]) -> str:
    return f"{found[max(found)].size[0]:.3f}"

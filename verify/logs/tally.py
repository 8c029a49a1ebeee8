"""What is counted of a log: sums that have mean zero if the sampler and its drafter do what the log says they do."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from verify.checks import Tally
from verify.logs.records import Records

CELLS = 16
"""Bins of the acceptance, positions in a block (the last takes all beyond), and slices of the file."""
WEIGHTS = ("every coin", "scale of the ratio", "exponent of the ratio", "position", "drift")
GROUPS = ("bins", "positions", "slices")
STAKES = np.array((0.003, 0.01, 0.03, 0.1, 0.3))
LARGEST = 1e9
"""Ratios are cut at this in their mean, which stays below 1 where it was."""
STEEP = 0.9
"""Coins with an acceptance below this tell how the ratio is bent."""
VIOLATIONS = (
    "accepted a token of target probability 0",
    "drafted a token of claimed probability 0",
    "rejected a token whose target probability is at least the claimed one",
    "examined a token after a rejection in the same draft",
)


@dataclass(frozen=True)
class Settings:
    """``token_rule``: a token should be accepted with probability min(1, target / claimed). ``tolerance``: the relative
    precision of logged probabilities. ``vocab``: the size of the vocabulary, or 0 where it is not known.
    """

    token_rule: bool = True
    tolerance: float = 1e-5
    vocab: int = 0


@dataclass(frozen=True)
class Examples:
    """The first line of each kind that a reader will want to see; adds by keeping the earlier."""

    lines: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: Examples) -> Examples:
        return Examples(tuple({**dict(other.lines), **dict(self.lines)}.items()))


@dataclass(frozen=True, eq=False)
class LogTally(Tally):
    """Sums over the ``n`` examined records of a log.

    ``coins`` (5 + 3 * 16, 3): of w (A - a), w^2 a (1 - a) and its third cumulant, for five weights, then w = 1 in bins
    of a, positions and slices; A accepted, a = min(1, target / claimed), over the coins with a < 1. ``cross``: of
    a log a / (1 - a) where a < 0.9. ``cells`` (3, 16, 3): records, acceptances and sum of a of each cell.
    ``overlaps`` (1 + 2 * 16, 4): records, sums of d, d^2 and o, d = a - overlap; ``excess``: sum of A - overlap.
    ``wealth`` (1 + 16 + 1, 5): of log(1 + s (r - 1)) for five stakes s, r = target / claimed of all drafts, then by
    position, then r = 1 / (vocab claimed). ``ratios`` (3,): drafts, sum of r and of r^2. ``repeats`` (4,): pairs, sum
    of match - claimed, variance and third cumulant. ``times`` (16, 2). ``violations`` (4,).
    """

    malformed: int = 0
    unexamined: int = 0
    blocks: int = 0
    coins: np.ndarray = field(default_factory=lambda: np.zeros((len(WEIGHTS) + 3 * CELLS, 3)))
    cross: float = 0.0
    cells: np.ndarray = field(default_factory=lambda: np.zeros((3, CELLS, 3)))
    overlaps: np.ndarray = field(default_factory=lambda: np.zeros((1 + 2 * CELLS, 4)))
    excess: float = 0.0
    wealth: np.ndarray = field(default_factory=lambda: np.zeros((2 + CELLS, len(STAKES))))
    ratios: np.ndarray = field(default_factory=lambda: np.zeros(3))
    repeats: np.ndarray = field(default_factory=lambda: np.zeros(4))
    times: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, 2)))
    violations: np.ndarray = field(default_factory=lambda: np.zeros(len(VIOLATIONS), dtype=np.int64))
    examples: Examples = Examples()


def count(records: Records, span: tuple[float, float] = (0.0, 1.0), settings: Settings | None = None) -> LogTally:
    """The tally of one batch, which lies between the shares ``span`` of the file."""
    settings = settings or Settings()
    column, size = records.numbers, len(records)
    examples = Examples((("malformed", records.example),) if records.malformed else ())
    answer, claimed, target = column["accepted"], column["claimed"], column["target"]
    examined = ~np.isnan(answer)
    place = np.minimum(column["position"], CELLS - 1).astype(np.int64)
    when = span[0] + (span[1] - span[0]) * (np.arange(size) + 0.5) / max(size, 1)
    ratio = np.divide(target, claimed, out=np.full(size, np.inf), where=claimed > 0)
    after = _after_rejection(records)
    certain = settings.token_rule & (ratio >= 1 + settings.tolerance)
    wrong = ((answer == 1) & (target == 0), claimed == 0, certain & (answer == 0), after & examined)
    for name, rows in zip(VIOLATIONS, wrong, strict=True):
        if rows.any():
            first = int(rows.argmax())
            where = (
                f"claimed {claimed[first]:.6g}, target {target[first]:.6g}, position {column['position'][first]:.0f}"
            )
            examples += Examples(((name, where),))
    possible = claimed > 0
    wealth, ratios = _wealth(ratio[possible], place[possible], claimed[possible], settings.vocab)
    keep = examined & possible
    part = (np.minimum(ratio, 1.0)[keep], answer[keep], place[keep], when[keep])
    coins, cross, cells = _coins(*part)
    overlaps, excess = _overlaps(*part, column["overlap"][keep])
    return LogTally(
        n=int(examined.sum()),
        malformed=records.malformed,
        unexamined=size - int(examined.sum()),
        blocks=int((column["position"] == 0).sum()),
        coins=coins,
        cross=cross,
        cells=cells,
        overlaps=overlaps,
        excess=excess,
        wealth=wealth,
        ratios=ratios,
        repeats=_repeats(records),
        times=_times(column["time"], when),
        violations=np.array([rows.sum() for rows in wrong]),
        examples=examples,
    )


def _slice(when: np.ndarray) -> np.ndarray:
    return np.minimum((when * CELLS).astype(np.int64), CELLS - 1)


def _sums(group: np.ndarray, *values: np.ndarray, cells: int = CELLS) -> np.ndarray:
    """Sums (cells, values) of each value by group."""
    return np.stack([np.bincount(group, value, minlength=cells) for value in values], 1)


def _after_rejection(records: Records) -> np.ndarray:
    """Whether the record before is of the same draft, earlier in it, and rejected: then this one is of no use."""
    found = np.zeros(len(records), dtype=bool)
    if "draft" in records.names and len(records):
        draft, place, answer = records.names["draft"], records.numbers["position"], records.numbers["accepted"]
        found[1:] = (draft[1:] == draft[:-1]) & (place[1:] > place[:-1]) & (answer[:-1] == 0)
    return found


def _wealth(ratio: np.ndarray, place: np.ndarray, claimed: np.ndarray, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    grown = np.stack([np.log1p(stake * (ratio - 1)) for stake in STAKES], 1)
    by_place = _sums(place, *grown.T)
    inverse = np.zeros(len(STAKES))
    if vocab:
        inverse = np.array([np.log1p(stake * (1 / (vocab * claimed) - 1)).sum() for stake in STAKES])
    ratio = np.minimum(ratio, LARGEST)
    return np.vstack((grown.sum(0), by_place, inverse)), np.array((len(ratio), ratio.sum(), (ratio**2).sum()))


def _coins(
    chance: np.ndarray, answer: np.ndarray, place: np.ndarray, when: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    slices, bins = _slice(when), np.minimum((chance * CELLS).astype(np.int64), CELLS - 1)
    cells = np.stack([_sums(group, np.ones_like(chance), answer, chance) for group in (bins, place, slices)])
    tossed = chance < 1
    chance, bins, place, slices, when = (item[tossed] for item in (chance, bins, place, slices, when))
    excess = answer[tossed] - chance
    variance = chance * (1 - chance)
    skew = variance * (1 - 2 * chance)
    steep = (chance < STEEP) / (1 - chance)
    bend = np.log(np.maximum(chance, np.exp(-8.0)))
    weights = (1.0, steep, steep * bend, (place + 1.0) / CELLS, when - 0.5)
    rows = [[(w * excess).sum(), (w**2 * variance).sum(), (w**3 * skew).sum()] for w in weights]
    grouped = [_sums(group, excess, variance, skew) for group in (bins, place, slices)]
    return np.vstack((rows, *grouped)), float((chance * steep * bend).sum()), cells


def _overlaps(
    chance: np.ndarray, answer: np.ndarray, place: np.ndarray, when: np.ndarray, overlap: np.ndarray
) -> tuple[np.ndarray, float]:
    known = ~np.isnan(overlap)
    overlap = np.minimum(overlap[known], 1.0)
    gap = chance[known] - overlap
    values = (np.ones_like(gap), gap, gap**2, overlap)
    grouped = [_sums(group[known], *values) for group in (place, _slice(when))]
    return np.vstack((grouped[0].sum(0), *grouped)), float((answer[known] - overlap).sum())


def _repeats(records: Records) -> np.ndarray:
    """Records whose context was last met in another draft: the same token again, as often as was claimed of it?

    Given the past, the second of two draws from one law equals the first with the probability that the law gives the
    first, which is logged: so the sum of match - claimed has mean zero, whatever else the law contains.
    """
    if not {"draft", "context", "token"} <= records.names.keys() or len(records) < 2:
        return np.zeros(4)
    order = np.argsort(records.names["context"], kind="stable")
    context, token, draft = (records.names[key][order] for key in ("context", "token", "draft"))
    pair = (context[1:] == context[:-1]) & (draft[1:] != draft[:-1])
    claimed = np.minimum(records.numbers["claimed"][order][:-1][pair], 1.0)
    match = (token[1:] == token[:-1])[pair]
    variance = claimed * (1 - claimed)
    return np.array((len(claimed), (match - claimed).sum(), variance.sum(), (variance * (1 - 2 * claimed)).sum()))


def _times(time: np.ndarray, when: np.ndarray) -> np.ndarray:
    known = ~np.isnan(time)
    return _sums(_slice(when[known]), np.ones(int(known.sum())), time[known])

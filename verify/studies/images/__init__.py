"""Images: which decoders are lossless as sequences, what they cost, and how good images are; the papers' tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from verify.parts import NOTHING, Parts, parts
from verify.progress import track
from verify.studies.images import drawings, tables
from verify.studies.images.evidence import Known, known
from verify.studies.images.rules import COMPARED, EXACT, LOSSY
from verify.studies.images.scores import Method, Score, fewer, method, scores
from verify.studies.images.speed import Speed, alone, speed
from verify.studies.images.subjects import Job, Source, Subject, batches, shipped, tokens
from verify.studies.images.windows import Window, coded, continuous, discrete
from verify.studies.images.words import text
from verify.study import Study
from verify.verifier import Verifier

LENGTHS = (4, 8, 16)
SHARES = (0.0, 0.05, 0.15)
CHANGES: Sequence[Mapping[str, Any]] = (
    *({"draft_length": length} for length in LENGTHS[1:]),
    {"prefill": 0.15},
    {"batch": 8},
    {"drafter": "untrained"},
    {"drafter": "another class"},
)
"""What an exact decoder's law must not depend on."""


@dataclass(frozen=True)
class Size:
    """How much is run. Lossless: ``models``, their chains' ``steps``, images a cell of exact rules and of others, by
    model the exact rules that are run with every change, and the ``lossy`` ones. Speed: models, images, batches, shares
    prefilled and rules. ``windows``, with images and the model of paths. Scores: by model the decoders that are
    compared, ``iterations`` of a masked one, and images.
    """

    models: tuple[str, ...]
    steps: int
    images: tuple[int, int]
    changed: Mapping[str, tuple[str, ...]]
    lossy: Mapping[str, tuple[str, ...]]
    timed: tuple[str, ...]
    timed_images: int
    batches: tuple[int, ...]
    shares: tuple[float, ...]
    compared: tuple[str, ...]
    windows: tuple[int, ...]
    window_images: int
    window_model: str
    scored: Mapping[str, tuple[str, ...]]
    iterations: tuple[int, ...]
    score_images: int


SIZES: Mapping[str, Size] = {
    "quick": Size(
        ("digits.causal", "digits.mar"), 6, (24, 48), {"digits.causal": ("coalescing", "coalescing_jacobi")},
        {"digits.causal": tuple(LOSSY), "digits.mar": ("released", "no rollback")},
        ("digits.causal",), 8, (4, 8), (0.0, 0.15), ("coalescing", "released"), (2, 4, 8, 16), 8, "digits.causal",
        {"mnist.causal": ("released",), "mnist.mar": ()}, (8, 49), 32,
    ),
    "thorough": Size(
        ("digits.causal", "digits.mar"), 6, (2000, 2000), {"digits.causal": ("coalescing", "coalescing_jacobi")},
        {"digits.causal": tuple(LOSSY), "digits.mar": ("released", "no rollback")},
        ("mnist.causal",), 64, (1, 8, 64), SHARES, tuple(COMPARED), (2, 4, 8, 16, 32), 48, "mnist.causal",
        {"mnist.causal": ("coalescing", "coalescing_jacobi", "released"), "mnist.mar": ()}, (8, 16, 32, 49), 200,
    ),
}  # fmt: skip


def run(budget: str = "quick") -> Study:
    """Measure, tabulate and draw; ``budget`` says on how many images (``SIZES``). Of a long run what is finished is
    kept, and found again.
    """
    size = SIZES[budget]
    return study(size, kept=parts("images", size) if budget == "thorough" else NOTHING)


def study(size: Size, source: Source = shipped, codes: Callable[[int], Any] = coded, kept: Parts = NOTHING) -> Study:
    """The study at a size, of models from a ``source``, part by part."""
    torch.set_num_threads(1)
    source, images = cache(source), size.window_images
    cells = []
    for seed, (name, job) in enumerate(track(list(lossless_jobs(size)), label="lossless")):
        measure = partial(known, source(name, size.steps), job, size.images[not job.exact], seed)
        cells.append(kept.of(f"{name}: {job.told}", measure))
    fast = []
    for name in size.timed:
        fast += kept.of(f"speed of {name}", partial(speeds, source(name, 25), size, count(1000)))
    pair = source(size.window_model, 25)
    there = [window for window in size.windows if window <= pair.images.length]
    wide = [
        *kept.of("windows of paths", lambda: list(continuous(pair, there, images, count(2000)))),
        *kept.of("windows of codes", lambda: list(discrete(codes(images), size.windows, images, count(3000)))),
    ]
    scored = {
        name: kept.of(f"scores of {name}", partial(quality, source(name, 25), rules, size, count(4000)))
        for name, rules in size.scored.items()
    }
    shown = source(size.timed[0], 25)
    return present(cells, fast, wide, scored, shown, pictures(shown, 5000))


# --- what is measured ------------------------------------------------------------------------------------------------
def lossless_jobs(size: Size) -> Iterator[tuple[str, Job]]:
    """The target alone, every exact decoder, and what is not exact by draft length, on every model."""
    for model in size.models:
        start = Job("target alone", None, batch=min(max(size.images), 256))
        yield model, start
        for name, rule in EXACT.items():
            yield model, (mine := replace(start, rule=name, verifier=rule))
            if name in size.changed.get(model, ()):
                yield from ((model, replace(mine, **change)) for change in CHANGES)
        for name in size.lossy.get(model, ()):
            yield from ((model, replace(start, rule=name, verifier=LOSSY[name], draft_length=n)) for n in LENGTHS)


def speeds(subject: Subject, size: Size, seed: Iterator[int]) -> list[Speed]:
    """By draft length, batch and prefill, one thing at a time."""
    most, images, found = max(size.batches), size.timed_images, []
    base = {batch: alone(subject, batch, min(images, 4 * batch), next(seed)) for batch in size.batches}
    for name in size.compared:
        start = Job(name, COMPARED[name], batch=most)
        changed = [replace(start, draft_length=length) for length in LENGTHS]
        changed += [replace(start, prefill=share) for share in size.shares if share]
        changed += [replace(start, batch=batch) for batch in size.batches if batch != most]
        for job in changed:
            found.append(speed(subject, job, min(images, 4 * job.batch), next(seed), base[job.batch]))
    return found


def quality(subject: Subject, rules: Sequence[str], size: Size, seed: Iterator[int]) -> list[Score]:
    """The target's own images a second time, every decoder, and fewer iterations of a masked model."""
    images, start = size.score_images, Job("target alone", None, batch=64)
    own = tokens(subject, start, images, next(seed))
    made: list[Method] = [method(subject, "target alone, again", start, images, next(seed))]
    catalogue: Mapping[str, Verifier] = {**EXACT, **LOSSY}
    for name in rules:
        lengths = LENGTHS if name in LOSSY else LENGTHS[:1]
        for length in lengths:
            job = Job(name, catalogue[name], length, batch=64)
            made.append(method(subject, f"{name}, {length}", job, images, next(seed)))
    if subject.name.endswith("mar"):
        made += [fewer(subject, iterations, images, next(seed)) for iterations in size.iterations]
    return list(scores(subject.images, own, made))


def pictures(subject: Subject, seed: int, rows: int = 20) -> dict[str, Tensor]:
    """Images by both models alone, by an exact decoder with its kept tokens alone, and by draft length as released."""
    coalescing, released = COMPARED["coalescing"], COMPARED["released"]
    made = {"target alone": tokens(subject, Job("target alone", None), rows, seed)}
    small = replace(subject, target=subject.small)
    made["drafter alone"] = tokens(small, Job("drafter alone", None), rows, seed)
    (part,) = batches(subject, Job("coalescing", coalescing, batch=rows), rows, seed)
    made["verified"] = part.decoded.tokens
    kept = torch.zeros(part.decoded.kept.shape, dtype=torch.bool).scatter(1, part.decoded.place, part.decoded.kept)
    paper = -subject.images.centre / subject.images.spread
    made["of these, kept drafts"] = torch.where(kept.unsqueeze(-1), made["verified"], paper)
    for length in LENGTHS:
        made[f"released, {length}"] = tokens(subject, Job("released", released, length, batch=rows), rows, seed)
    return made


def present(
    cells: Sequence[Known],
    fast: Sequence[Speed],
    wide: Sequence[Window],
    scored: Mapping[str, Sequence[Score]],
    shown: Subject,
    made: Mapping[str, Tensor],
) -> Study:
    """The study of what was measured."""
    mine = {item.job.rule: item.decoded for item in reversed(fast) if item.subject == shown.name}
    return Study(
        title="Images: lossless decoders, what they cost, and how good their images are",
        text="\n\n".join(text(cells, fast, wide, scored)),
        tables={
            "Every decoder against the known law of its sequences": list(tables.lossless(cells)),
            "Bias by draft length": list(tables.biased(cells)),
            "Acceptance, evaluations, time and speed-up": list(tables.speeds(fast)),
            "Jacobi decoding by window": list(tables.windows(wide)),
            "Scores of every method, and of a masked model with fewer iterations": list(tables.qualities(scored)),
        },
        figures={
            "Distance of the paths' statistics from their law by draft length, with certified intervals; the dotted "
            "line is what chance reaches once in a million.": drawings.bias(cells),
            "Evaluations saved by Jacobi decoding, with 95 % intervals over images.": drawings.saved(wide),
            "Kept drafts along the image, and speed-up measured against predicted from acceptance and the cost of a "
            "round.": drawings.along(fast),
            "How often the token of each place is a kept draft.": drawings.heat(shown.images, mine),
            "Images of both models, of an exact decoder, and of the released procedure by draft length.": (
                drawings.samples(shown.images, made)
            ),
        },
    )

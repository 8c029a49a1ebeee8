"""Everything that is trained and ships with the package, by the name that ``specproof train`` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from distributions import classifier, codes, pixels, training
from distributions.datasets import datasets
from distributions.fitting import Follow
from distributions.mar import digits

Labelled = Callable[[str], Follow]
"""From what is being trained to what its steps are counted through."""


def names() -> tuple[str, ...]:
    """Data sets of heads; images as pixels, as codes, and their classifier; DATA.KIND of the image models."""
    pairs = (f"{data}.{kind}" for data in digits.DATA for kind in digits.KINDS)
    return (*datasets(), "pixels", "codes", "classifier", *pairs)


def made(name: str, seed: int, folder: Path, follow: Labelled, predicts: str = "noise") -> Iterator[Path]:
    """The files of one name, each as it is written. ``predicts`` is for heads. Raises ValueError for another name."""
    if name in datasets():
        for role in training.ROLES:
            yield training.make(name, role, predicts, seed, folder, follow(f"{name} {role}"))
    elif name == "pixels":
        yield pixels.make(seed, folder / pixels.WEIGHTS.name, follow(name))
    elif name == "classifier":
        yield classifier.make(seed, folder / classifier.WEIGHTS.name, follow(name))
    elif name == "codes":
        for role in codes.ROLES:
            yield codes.make(role, seed, folder, follow(f"{name} {role}"))
    elif name in names():
        data, _, kind = name.partition(".")
        for role in digits.ROLES:
            yield digits.make(kind, data, role, seed, folder, follow(f"{name} {role}"))
    else:
        raise ValueError(f"nothing that ships is called {name!r}; there are {', '.join(names())}")

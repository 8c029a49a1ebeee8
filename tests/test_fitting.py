"""Fitting: it finds the least squares, and a run that was killed ends with the bits of one that was not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distributions import fitting
from distributions.fitting import Fit, fit
from distributions.tape import GeneratorTape

HOW = Fit(120, 5e-2, average=0.9, decay=1e-3)
SLOPE = torch.tensor([[1.0], [-2.0]])


def line() -> dict[str, Tensor]:
    return {"slope": torch.zeros(2, 1), "level": torch.zeros(1)}


def squares(weights: dict[str, Tensor]) -> fitting.Loss:
    """Of y = x SLOPE + 3, at fresh places."""

    def loss(tape: GeneratorTape) -> Tensor:
        place = tape.normal("place", (64, 2)).float()
        return (place @ (weights["slope"] - SLOPE) + weights["level"] - 3).square().mean()

    return loss


class Killed(Exception):
    pass


def killed_at(last: int) -> fitting.Follow:
    def follow(steps: range) -> Iterable[int]:
        for step in steps:
            if step == last:
                raise Killed
            yield step

    return follow


def test_finds_the_least_squares() -> None:
    weights = line()
    found = fit(weights, squares(weights), Fit(600, 5e-2, average=0.9), GeneratorTape(0))
    assert torch.allclose(found["slope"], SLOPE, atol=1e-2) and torch.allclose(
        found["level"], torch.tensor([3.0]), atol=1e-2
    )


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed twice: at step 50, and at step 90 of what went on. Checkpoints after every step, then after every 20."""
    weights = line()
    whole = fit(weights, squares(weights), HOW, GeneratorTape(7))
    file = tmp_path / "sub" / "line.checkpoint"
    for last, seconds in ((50, 0.0), (90, 1e9)):
        monkeypatch.setattr(fitting, "SECONDS", seconds)
        weights = line()
        with pytest.raises(Killed):
            fit(weights, squares(weights), HOW, GeneratorTape(7), killed_at(last), file)
    assert torch.load(file, weights_only=True)["step"] == 50  # the second run was killed before it saved anything
    weights = line()
    again = fit(weights, squares(weights), HOW, GeneratorTape(7), checkpoint=file)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert not file.exists() and not list(tmp_path.rglob("*.part"))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SECONDS", 0.0)
    file, weights = tmp_path / "line.checkpoint", line()
    with pytest.raises(Killed):
        fit(weights, squares(weights), HOW, GeneratorTape(7), killed_at(5), file)
    with pytest.raises(ValueError, match="another training"):
        fit(weights, squares(weights), Fit(50, 5e-2), GeneratorTape(7), checkpoint=file)

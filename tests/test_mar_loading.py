"""Loading is strict and safe, and what does not fit is named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distributions.mar import Mar, WrongWeights, draw, kl16, load, mar_base, mar_tiny
from distributions.tape import GeneratorTape


def weights() -> dict[str, torch.Tensor]:
    return {name: part.clone() for name, part in draw(mar_tiny(), GeneratorTape(1), spread=1.0).state_dict().items()}


def same(model: Mar, wanted: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(part, wanted[name]) for name, part in model.state_dict().items())


def test_the_averaged_weights_of_a_checkpoint_are_taken(tmp_path: Path) -> None:
    kept = weights()
    other = {name: part + 1 for name, part in kept.items()}
    file = tmp_path / "checkpoint-last.pth"
    torch.save({"model": other, "model_ema": kept, "epoch": 3, "args": argparse.Namespace(lr=1e-4)}, file)
    assert same(load(mar_tiny(), file), kept)
    assert same(load(mar_tiny(), file, key="model"), other)


def test_bare_weights_and_safetensors(tmp_path: Path) -> None:
    kept = weights()
    torch.save(kept, tmp_path / "bare.pth")
    torch.save(kept, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(kept, tmp_path / "mar.safetensors")
    for name in ("bare.pth", "legacy.pth", "mar.safetensors"):
        assert same(load(mar_tiny(), tmp_path / name), kept)


def test_a_model_on_the_meta_device_takes_the_tensors_of_the_file(tmp_path: Path) -> None:
    kept = weights()
    save_file(kept, tmp_path / "mar.safetensors")
    with torch.device("meta"):
        model = mar_tiny()
    assert same(load(model, tmp_path / "mar.safetensors"), kept)
    assert not any(part.requires_grad for part in model.parameters())
    double = load(mar_tiny().double(), tmp_path / "mar.safetensors")
    assert double.z_proj.weight.dtype == torch.float64 and double.z_proj.weight.equal(kept["z_proj.weight"].double())


def test_what_does_not_fit_is_listed_in_one_sentence(tmp_path: Path) -> None:
    wrong = weights()
    del wrong["encoder_norm.bias"], wrong["mask_token"]
    wrong |= {"module.z_proj.bias": torch.zeros(3), "class_emb.weight": torch.zeros(7, 32)}
    save_file(wrong, tmp_path / "mar.safetensors")
    model = mar_tiny()
    with pytest.raises(WrongWeights) as caught:
        load(model, tmp_path / "mar.safetensors")
    assert caught.value.missing == ["mask_token", "encoder_norm.bias"]
    assert caught.value.unexpected == ["module.z_proj.bias"]
    assert caught.value.shapes == ["class_emb.weight (7, 32), not (10, 32)"]
    said = str(caught.value)
    assert "\n" not in said
    for part in (
        "2 missing: mask_token, encoder_norm.bias",
        "1 unexpected: module.z_proj.bias",
        "(7, 32), not (10, 32)",
    ):
        assert part in said
    assert not any(
        bool(part.any()) for name, part in model.state_dict().items() if "norm" not in name and "ln" not in name
    )


def test_a_wrong_shape_alone_is_enough(tmp_path: Path) -> None:
    """One that torch would broadcast, or copy, is refused too."""
    save_file(weights() | {"mask_token": torch.zeros(1, 32)}, tmp_path / "mar.safetensors")
    with pytest.raises(WrongWeights, match=r"1 of another shape: mask_token \(1, 32\), not \(1, 1, 32\)"):
        load(mar_tiny(), tmp_path / "mar.safetensors")


def test_another_configuration_and_another_model_are_wrong_files(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "mar.safetensors")
    for maker in (mar_base, kl16):
        with torch.device("meta"):
            model = maker()
        with pytest.raises(WrongWeights, match="and .* more"):
            load(model, tmp_path / "mar.safetensors")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch trapped",)


def test_files_that_are_no_weights_are_refused_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_ema": Trap()}, "trap.pth")
    Path("text.pth").write_text("no weights")
    Path("text.safetensors").write_text("no weights")
    torch.save({"state": {"epoch": 3}}, "nothing.pth")
    for name, told in (
        ("trap.pth", "more than weights"),
        ("text.pth", "damaged"),
        ("text.safetensors", "no safetensors"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            load(mar_tiny(), name)
        assert "\n" not in str(caught.value)
    assert not Path("trapped").exists()
    with pytest.raises(ValueError, match="holds state and no weights at 'model_ema'"):
        load(mar_tiny(), "nothing.pth")
    with pytest.raises(FileNotFoundError, match="no file absent"):
        load(mar_tiny(), "absent.pth")

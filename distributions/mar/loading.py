"""Loading weights, strictly: every tensor that a model has, no other, and each of its shape."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

AVERAGED = "model_ema"
SHOWN = 20
Module = TypeVar("Module", bound=nn.Module)


class WrongWeights(ValueError):
    """A file's tensors are not the model's: names that are ``missing`` or ``unexpected``, and wrong ``shapes``."""

    def __init__(self, file: Path, missing: list[str], unexpected: list[str], shapes: list[str]) -> None:
        self.missing, self.unexpected, self.shapes = missing, unexpected, shapes
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        told = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in parts.items() if names)
        super().__init__(f"{file} does not fit this model, {told}; give the weights of the same configuration")


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def load(model: Module, file: str | Path, key: str | None = AVERAGED) -> Module:
    """The model with the weights of a file, in place.

    ``file``: safetensors, or what torch.save wrote, read without running any code of it (``weights_only``). Of such a
    file that holds several sets of weights, as ``checkpoint-last.pth`` does, that at ``key`` is taken; ``model`` for
    the autoencoder's ``kl16.ckpt``. A model on the meta device takes the file's own tensors, dtype included; any other
    keeps its own and its device. Raises WrongWeights, with the full lists, for tensors that do not fit, ValueError for
    a file that is no such thing, and FileNotFoundError.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; give the path of the weights")
    found = _tensors(file, key)
    wanted = model.state_dict()
    missing, unexpected = (
        [name for name in one if name not in other] for one, other in ((wanted, found), (found, wanted))
    )
    shapes = [
        f"{name} {tuple(found[name].shape)}, not {tuple(part.shape)}"
        for name, part in wanted.items()
        if name in found and found[name].shape != part.shape
    ]
    if missing or unexpected or shapes:
        raise WrongWeights(file, missing, unexpected, shapes)
    model.load_state_dict(found, assign=any(part.is_meta for part in wanted.values()))
    return model.requires_grad_(False)


def _tensors(file: Path, key: str | None) -> Mapping[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is no safetensors file ({error}); download it again") from None
    try:
        # A checkpoint of a training that goes on also holds its arguments.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} holds more than weights, or is damaged, and was not opened ({str(error).splitlines()[0]}); give "
            "a checkpoint of tensors or a safetensors file"
        ) from None
    if isinstance(found, Mapping) and key is not None and key in found:
        found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(part, Tensor) for part in found.values()):
        names = _listed([str(name) for name in found]) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{file} holds {names} and no weights at {key!r}; name the entry that holds them as key")
    return found

"""Digits as 49 codes of a vocabulary of 256: patches of 4 x 4 pixels, each the nearest of a codebook; and two causal
transformers over them, a target and a smaller drafter, that ship with the package.

The codebook is k-means of the patches of the training images (a vector quantiser without an encoder): a code is drawn
as its mean patch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from distributions.fitting import Fit, Follow, write
from distributions.images import Images, held_out, mnist, patches
from distributions.tape import GeneratorTape
from distributions.transformer import Shape, TokenTransformer, nats, train

FOLDER = Path(__file__).with_name("weights")
CODES = 256
ROLES = ("target", "drafter")


@dataclass(frozen=True)
class Recipe:
    """The size of a network, and the steps it is trained for."""

    width: int
    layers: int
    steps: int


RECIPES = {"target": Recipe(128, 4, 2000), "drafter": Recipe(48, 2, 1000)}


@dataclass(frozen=True, eq=False)
class Codebook:
    """``means`` (V, d): what each code stands for, a patch of standardised pixels."""

    means: Tensor

    def encode(self, tokens: Tensor) -> Tensor:
        """The nearest code (*) of tokens (*, d)."""
        flat = tokens.reshape(-1, tokens.shape[-1]).double()
        apart = self.means.square().sum(-1) - 2 * flat @ self.means.T
        return apart.argmin(-1).reshape(tokens.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """The patches (*, d) of codes (*)."""
        return self.means[codes]

    @staticmethod
    def fitted(images: Images, codes: int = CODES, seed: int = 0) -> Codebook:
        """k-means of the patches of ``images``, by mini-batches (Sculley, WWW 2010)."""
        from sklearn.cluster import MiniBatchKMeans

        flat = patches(images.pixels, images.patch).reshape(-1, images.dim).numpy()
        found = MiniBatchKMeans(codes, random_state=seed, n_init=1, batch_size=4096, max_iter=50).fit(flat)
        return Codebook(torch.from_numpy(found.cluster_centers_).double())


@dataclass(frozen=True, eq=False)
class Coded:
    """A pair of models over codes, and the codebook that both speak."""

    target: TokenTransformer
    drafter: TokenTransformer
    codebook: Codebook


@cache
def trained(dtype: torch.dtype = torch.float64) -> Coded:
    """What ships."""
    from safetensors.torch import load_file

    found = [load_file(file_of(role)) for role in ROLES]
    book = Codebook(found[0].pop("codebook").double())
    found[1].pop("codebook")
    models = [TokenTransformer({name: part.to(dtype) for name, part in weights.items()}) for weights in found]
    return Coded(models[0], models[1], book)


def file_of(role: str, folder: Path = FOLDER) -> Path:
    """The weights of one model."""
    return folder / f"codes.{role}.safetensors"


def make(role: str, seed: int = 0, folder: Path = FOLDER, follow: Follow = iter) -> Path:
    """Train one model by its recipe and write it, with how it was made and what it reached on images held out."""
    how, file = RECIPES[role], file_of(role, folder)
    seen, unseen = held_out(mnist())
    book = Codebook(Codebook.fitted(seen, seed=seed).means.half().double())
    tokens, rest = (book.encode(patches(part.pixels, part.patch)) for part in (seen, unseen))
    shape = Shape(round(seen.length**0.5), CODES, 10, how.width, how.layers)
    fit, checkpoint = Fit(how.steps, 2e-3, 0.99, decay=0.1), file.with_suffix(".checkpoint")
    weights = train(tokens, seen.label, shape, fit, GeneratorTape(seed), follow=follow, checkpoint=checkpoint)
    kept = {name: part.half() for name, part in weights.items()}
    reached = float(nats({name: part.float() for name, part in kept.items()}, rest, unseen.label).mean())
    about = {"command": f"specproof train codes --seed {seed}", **asdict(how), "seed": seed}
    about["held_out_nats"] = f"{reached:.4f}"
    return write({"codebook": book.means.half(), **kept}, file, about)

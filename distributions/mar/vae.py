"""The autoencoder that makes tokens of images and images of tokens: KL-16, with the weights' published names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from distributions.mar.layers import Convolution
from distributions.mar.vae_layers import Down, Level, Middle, Up, closed, norm
from distributions.tape import Tape

SCALE = 0.2325
"""Latents times this are tokens: of variance one, nearly."""
LEAST, MOST = -30.0, 20.0


@dataclass(frozen=True)
class VaeShape:
    """``width`` channels times ``multipliers``, one for each level; ``blocks`` a level, one more in the decoder;
    ``latent`` channels. Every level but the deepest halves the image; the encoder attends at the deepest.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    latent: int = 16


class Encoder(nn.Module):
    """Image (rows, 3, H, W) to mean and log-variance (rows, 2 latent, H / 16, W / 16)."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        sizes = [shape.width * each for each in (1, *shape.multipliers)]
        self.conv_in = Convolution(3, sizes[0], 3, padding=1)
        self.down = nn.ModuleList()
        for number, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
            deepest = number == len(sizes) - 2
            level = Level(before, after, shape.blocks, deepest)
            level.downsample = None if deepest else Down(after)
            self.down.append(level)
        self.mid = Middle(sizes[-1])
        self.norm_out = norm(sizes[-1])
        self.conv_out = Convolution(sizes[-1], 2 * shape.latent, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """As the class says."""
        value = self.conv_in(image)
        for level in self.down:
            value = level(value)
        return closed(self.mid(value), self.norm_out, self.conv_out)


class Decoder(nn.Module):
    """Latent (rows, latent, h, w) to image (rows, 3, 16 h, 16 w)."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        sizes = [shape.width * each for each in shape.multipliers]
        self.conv_in = Convolution(shape.latent, sizes[-1], 3, padding=1)
        self.mid = Middle(sizes[-1])
        self.up = nn.ModuleList()
        for number, after in enumerate(sizes):
            level = Level(sizes[min(number + 1, len(sizes) - 1)], after, shape.blocks + 1, False)
            level.upsample = Up(after) if number else None
            self.up.append(level)
        self.norm_out = norm(sizes[0])
        self.conv_out = Convolution(sizes[0], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """As the class says."""
        value = self.mid(self.conv_in(latent))
        for level in reversed(list(self.up)):
            value = level(value)
        return closed(value, self.norm_out, self.conv_out)


class Vae(nn.Module):
    """The autoencoder with a Gaussian bottleneck of MAR (KL-16: stride 16, 16 channels; 66,456,019 parameters).

    Images are in [-1, 1]. Tokens (rows, N, latent) are latents in raster order, times SCALE. The weights are zero until
    they are loaded or drawn.
    """

    def __init__(self, shape: VaeShape | None = None) -> None:
        super().__init__()
        self.shape = shape = VaeShape() if shape is None else shape
        self.encoder, self.decoder = Encoder(shape), Decoder(shape)
        self.quant_conv = Convolution(2 * shape.latent, 2 * shape.latent, 1)
        self.post_quant_conv = Convolution(shape.latent, shape.latent, 1)
        self.requires_grad_(False)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (rows, latent, h, w) of the latent; the log-variance is clamped to [-30, 20]."""
        mean, log_variance = self.quant_conv(self.encoder(image)).chunk(2, 1)
        return mean, (0.5 * log_variance.clamp(LEAST, MOST)).exp()

    def decode(self, latent: Tensor) -> Tensor:
        """Image (rows, 3, 16 h, 16 w) of a latent (rows, latent, h, w); not clamped."""
        image: Tensor = self.decoder(self.post_quant_conv(latent))
        return image

    def tokens(self, image: Tensor, tape: Tape, site: str = "latent") -> Tensor:
        """Tokens (rows, N, latent) of images, drawn from the posterior: what MAR is trained on."""
        mean, spread = self.encode(image)
        drawn = mean + spread * tape.normal(site, mean.shape).to(mean)
        return SCALE * drawn.flatten(2).mT

    def image(self, tokens: Tensor) -> Tensor:
        """Images of tokens (rows, N, latent), N = side^2. Raises ValueError for an N that is no square."""
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens are no square image; give all tokens of each")
        kind = self.post_quant_conv.weight.dtype
        return self.decode((tokens / SCALE).mT.reshape(len(tokens), -1, side, side).to(kind))


def kl16() -> Vae:
    """The published autoencoder."""
    return Vae(VaeShape())

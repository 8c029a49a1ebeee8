"""MAR: masked autoregressive images with a diffusion head, its autoencoder, and its causal sibling."""

from distributions.mar.backbone import (
    NOBODY,
    Mar,
    mar_base,
    mar_digits,
    mar_huge,
    mar_large,
    mar_small_digits,
    mar_tiny,
)
from distributions.mar.causal import CausalSequence
from distributions.mar.causal_network import CausalMar
from distributions.mar.diffusion import DiffusionHead, Sampler
from distributions.mar.initial import draw
from distributions.mar.loading import WrongWeights, load
from distributions.mar.sampling import mask_step, sample
from distributions.mar.sequence import MaskedSequence
from distributions.mar.shapes import Shape
from distributions.mar.vae import Vae, kl16

__all__ = [
    "NOBODY",
    "CausalMar",
    "CausalSequence",
    "DiffusionHead",
    "Mar",
    "MaskedSequence",
    "Sampler",
    "Shape",
    "Vae",
    "WrongWeights",
    "draw",
    "kl16",
    "load",
    "mar_base",
    "mar_digits",
    "mar_huge",
    "mar_large",
    "mar_small_digits",
    "mar_tiny",
    "mask_step",
    "sample",
]

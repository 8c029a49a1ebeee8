"""MAR's arithmetic written out plainly from its specification, with none of the package's modules: a second opinion.

Loops over rows and places on purpose; weights are a dictionary by the published names, all float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def norm(x: Tensor, w: dict[str, Tensor], name: str | None) -> Tensor:
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    return y if name is None else y * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def block(x: Tensor, w: dict[str, Tensor], name: str, heads: int, causal: bool = False) -> Tensor:
    """One sequence (L, D)."""
    length, width = x.shape
    size = width // heads
    qkv = linear(norm(x, w, f"{name}.norm1"), w, f"{name}.attn.qkv").reshape(length, 3, heads, size)
    mixed = torch.zeros(length, heads, size, dtype=torch.float64)
    for head in range(heads):
        score = qkv[:, 0, head] @ qkv[:, 1, head].T / math.sqrt(size)
        if causal:
            score = score + torch.triu(torch.full((length, length), -torch.inf, dtype=torch.float64), 1)
        mixed[:, head] = score.softmax(-1) @ qkv[:, 2, head]
    x = x + linear(mixed.reshape(length, width), w, f"{name}.attn.proj")
    return x + linear(gelu(linear(norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1")), w, f"{name}.mlp.fc2")


def name_of(w: dict[str, Tensor], label: int) -> Tensor:
    return w["fake_latent"][0] if label < 0 else w["class_emb.weight"][label]


def backbone(
    w: dict[str, Tensor], heads: int, depth: int, buffer: int, tokens: Tensor, masked: Tensor, label: int
) -> Tensor:
    """z (N, D) of one image: tokens (N, d), masked (N,)."""
    h = torch.cat((name_of(w, label).expand(buffer, -1), linear(tokens, w, "z_proj")))
    h = norm(h + w["encoder_pos_embed_learned"][0], w, "z_proj_ln")
    keep = [i for i in range(len(h)) if i < buffer or not bool(masked[i - buffer])]
    h = h[keep]
    for i in range(depth):
        h = block(h, w, f"encoder_blocks.{i}", heads)
    h = linear(norm(h, w, "encoder_norm"), w, "decoder_embed")
    full = w["mask_token"][0, 0].repeat(buffer + len(tokens), 1)
    full[keep] = h
    full = full + w["decoder_pos_embed_learned"][0]
    for i in range(depth):
        full = block(full, w, f"decoder_blocks.{i}", heads)
    return norm(full, w, "decoder_norm")[buffer:] + w["diffusion_pos_embed_learned"][0]


def causal(w: dict[str, Tensor], heads: int, depth: int, tokens: Tensor, label: int) -> Tensor:
    """z (L + 1, D) of one image begun with tokens (L, d), L < N."""
    h = torch.cat((name_of(w, label)[None], linear(tokens, w, "z_proj")))
    h = norm(h + w["pos_embed_learned"][0, : len(h)], w, "z_proj_ln")
    for i in range(depth):
        h = block(h, w, f"blocks.{i}", heads, causal=True)
    return norm(h, w, "norm") + w["diffusion_pos_embed_learned"][0, : len(h)]


def head(w: dict[str, Tensor], x: Tensor, time: float, z: Tensor) -> tuple[Tensor, Tensor]:
    """eps and v (n, d) of x (n, d) under z (n, D) at the original index ``time``."""
    n = "diffloss.net"
    frequency = torch.tensor([math.exp(-math.log(10000) * k / 128) for k in range(128)], dtype=torch.float64)
    embedded = torch.cat((torch.cos(time * frequency), torch.sin(time * frequency)))
    embedded = linear(silu(linear(embedded, w, f"{n}.time_embed.mlp.0")), w, f"{n}.time_embed.mlp.2")
    y = embedded + linear(z, w, f"{n}.cond_embed")
    x = linear(x, w, f"{n}.input_proj")
    width, j = x.shape[-1], 0
    while f"{n}.res_blocks.{j}.in_ln.weight" in w:
        b = f"{n}.res_blocks.{j}"
        told = linear(silu(y), w, f"{b}.adaLN_modulation.1")
        shift, scale, gate = told[:, :width], told[:, width : 2 * width], told[:, 2 * width :]
        inner = norm(x, w, f"{b}.in_ln") * (1 + scale) + shift
        x = x + gate * linear(silu(linear(inner, w, f"{b}.mlp.0")), w, f"{b}.mlp.2")
        j += 1
    told = linear(silu(y), w, f"{n}.final_layer.adaLN_modulation.1")
    out = linear(norm(x, w, None) * (1 + told[:, width:]) + told[:, :width], w, f"{n}.final_layer.linear")
    return out[:, : out.shape[1] // 2], out[:, out.shape[1] // 2 :]


def chain() -> np.ndarray:
    """Cumulative products of the cosine chain of 1000."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


class Spaced:
    """The chain respaced to ``steps``, with betas from the ratios of the cumulative products kept."""

    def __init__(self, steps: int) -> None:
        whole = chain()
        self.index = [round(k * 999 / (steps - 1)) for k in range(steps)]
        self.bar = whole[self.index]
        self.before = np.append(1.0, self.bar[:-1])
        self.beta = 1 - self.bar / self.before
        posterior = self.beta * (1 - self.before) / (1 - self.bar)
        self.small = np.log(np.append(posterior[1], posterior[1:]))
        self.large = np.log(self.beta)
        self.coef1 = self.beta * np.sqrt(self.before) / (1 - self.bar)
        self.coef2 = (1 - self.before) * np.sqrt(1 - self.beta) / (1 - self.bar)

    def moments(self, i: int, x: Tensor, eps: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of step i."""
        clean = x / math.sqrt(self.bar[i]) - math.sqrt(1 / self.bar[i] - 1) * eps
        share = (v + 1) / 2
        return self.coef1[i] * clean + self.coef2[i] * x, share * self.large[i] + (1 - share) * self.small[i]


def draw_tokens(
    w: dict[str, Tensor],
    spaced: Spaced,
    z: Tensor,
    none: Tensor,
    scale: float,
    temperature: float,
    noises: list[Tensor],
) -> Tensor:
    """Tokens (n, d): ``noises``: x_T, then that of steps i = T - 1..1; the last adds none."""
    x = noises[0]
    for i in reversed(range(len(spaced.index))):
        eps, v = head(w, x, float(spaced.index[i]), z)
        if scale != 1:
            untold, _ = head(w, x, float(spaced.index[i]), none)
            eps = untold + scale * (eps - untold)
        mean, log_variance = spaced.moments(i, x, eps, v)
        x = mean if i == 0 else mean + torch.exp(log_variance / 2) * noises[len(spaced.index) - i] * temperature
    return x


def losses(eps: Tensor, v: Tensor, clean: Tensor, noise: Tensor, time: int) -> Tensor:
    """The training loss of tokens (n, d), all at one time of the whole chain, given what the head says."""
    spaced = Spaced(1000)
    x = math.sqrt(spaced.bar[time]) * clean + math.sqrt(1 - spaced.bar[time]) * noise
    mean, log_variance = spaced.moments(time, x, eps, v)
    total = ((noise - eps) ** 2).mean(1)
    if time == 0:
        cdf = lambda u: 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))  # noqa: E731
        deviation = torch.exp(log_variance / 2)
        upper, lower = cdf((clean - mean + 1 / 255) / deviation), cdf((clean - mean - 1 / 255) / deviation)
        mass = torch.where(clean < -0.999, upper, torch.where(clean > 0.999, 1 - lower, upper - lower))
        return total - mass.clamp(min=1e-12).log().mean(1) / math.log(2)
    true = torch.distributions.Normal(
        spaced.coef1[time] * clean + spaced.coef2[time] * x, math.exp(spaced.small[time] / 2)
    )
    told = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    return total + torch.distributions.kl_divergence(true, told).mean(1) / math.log(2)

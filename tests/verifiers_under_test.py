"""Third-party styles of one correct verifier: what people write, unedited. Used by several test files."""

from __future__ import annotations

import math
import random
from bisect import bisect

import numpy as np
import torch
import torch.nn.functional as F


def _rest(p, q, x, i, draw):
    residual = (p[i] - q[i]).clamp(min=0)
    return [*x[:i].tolist(), draw(residual / residual.sum())]


def torch_item(x, q, p):
    for i in range(len(x)):
        if torch.rand(1).item() < (p[i, x[i]] / q[i, x[i]]).item():
            continue
        return _rest(p, q, x, i, lambda w: torch.multinomial(w, 1).item())
    return [*x.tolist(), torch.multinomial(p[len(x)], 1).item()]


def torch_float(x, q, p):
    for i in range(len(x)):
        if float(torch.rand(1)) < float(p[i, x[i]] / q[i, x[i]]):
            continue
        return _rest(p, q, x, i, lambda w: int(torch.multinomial(w, 1)))
    return [*x.tolist(), int(torch.multinomial(p[len(x)], 1))]


def torch_vectorised_race(x, q, p):
    n = len(x)
    index = torch.arange(n)
    accepted = torch.rand(n, dtype=torch.float64) < p[index, x] / q[index, x]
    kept = int(accepted.long().cumprod(0).sum())
    weights = p[n] if kept == n else (p[kept] - q[kept]).clamp(min=0)
    noise = torch.empty_like(weights)
    noise.exponential_()
    return torch.cat([x[:kept], weights.div_(noise).argmax().reshape(1)])


def torch_log_gumbel(x, q, p):
    n = len(x)
    index = torch.arange(n)
    accepted = torch.log(torch.rand(n)) < p[index, x].log() - q[index, x].log()
    kept = int(accepted.long().cumprod(0).sum())
    weights = p[n] if kept == n else (p[kept] - q[kept]).clamp(min=0)
    gumbel = -torch.log(-torch.log(torch.rand_like(weights)))
    return torch.cat([x[:kept], (weights.log() + gumbel).argmax().reshape(1)])


def torch_inverse_cdf(x, q, p):
    for i in range(len(x)):
        if torch.rand(()) <= p[i, x[i]] / q[i, x[i]]:
            continue
        cdf = (p[i] - q[i]).clamp(min=0).cumsum(0)
        return [*x[:i].tolist(), torch.searchsorted(cdf, torch.rand(1, dtype=torch.float64) * cdf[-1]).item()]
    cdf = p[len(x)].cumsum(0)
    return [*x.tolist(), int((torch.rand(1, dtype=torch.float64) * cdf[-1] > cdf).sum())]


def torch_bernoulli(x, q, p):
    n = len(x)
    index = torch.arange(n)
    accepted = torch.bernoulli((p[index, x] / q[index, x]).clamp(max=1))
    kept = int(accepted.cumprod(0).sum())
    weights = p[n] if kept == n else F.relu(p[kept] - q[kept])
    return x[:kept].tolist() + [torch.distributions.Categorical(probs=weights).sample().item()]


def torch_generator(x, q, p, generator=torch.Generator()):  # noqa: B008 - one generator for all calls is the point
    for i in range(len(x)):
        u = torch.zeros(1).uniform_(generator=generator)
        if u[0] < p[i, x[i]] / q[i, x[i]]:
            continue
        return _rest(p, q, x, i, lambda w: torch.multinomial(w, 1, generator=generator).item())
    return [*x.tolist(), torch.multinomial(p[len(x)], 1, generator=generator).item()]


def one_minus_u(x, q, p):
    for i in range(len(x)):
        u = 1 - torch.rand(1)
        if -torch.log(u) > -torch.log(p[i, x[i]] / q[i, x[i]]):
            continue
        return _rest(p, q, x, i, lambda w: torch.multinomial(w, 1).item())
    return [*x.tolist(), torch.multinomial(p[len(x)], 1).item()]


def numpy_generator(x, q, p):
    x, q, p = x.tolist(), q.numpy(), p.numpy()
    rng = np.random.default_rng()
    for i in range(len(x)):
        if rng.random() < min(1, p[i, x[i]] / q[i, x[i]]):
            continue
        residual = np.maximum(p[i] - q[i], 0)
        return [*x[:i], int(rng.choice(len(residual), p=residual / residual.sum()))]
    return [*x, int(rng.choice(p.shape[1], p=p[-1] / p[-1].sum()))]


_RNG = np.random.default_rng(7)


def numpy_cached_generator(x, q, p):
    x, q, p = x.tolist(), q.numpy(), p.numpy()
    n = len(x)
    accepted = _RNG.random(n) < p[np.arange(n), x] / q[np.arange(n), x]
    kept = n if accepted.all() else int(accepted.argmin())
    weights = p[n] if kept == n else np.maximum(p[kept] - q[kept], 0)
    return np.append(
        x[:kept],
        np.argmax(
            np.log(weights, where=weights > 0, out=np.full(len(weights), -np.inf)) + _RNG.gumbel(size=len(weights))
        ),
    )


def numpy_legacy(x, q, p):
    x, q, p = x.tolist(), q.numpy(), p.numpy()
    for i in range(len(x)):
        if np.random.rand() < p[i, x[i]] / q[i, x[i]]:
            continue
        cdf = np.cumsum(np.maximum(p[i] - q[i], 0))
        return [*x[:i], int(np.searchsorted(cdf, np.random.uniform(0, cdf[-1])))]
    return [*x, int(np.random.choice(p.shape[1], p=p[-1] / p[-1].sum()))]


def stdlib_loop(x, q, p):
    x, q, p = x.tolist(), q.tolist(), p.tolist()

    def draw(weights):
        left = random.random() * sum(weights)
        for token, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return token
        return max(token for token, weight in enumerate(weights) if weight > 0)

    for i in range(len(x)):
        if math.log(random.random()) < math.log(p[i][x[i]] or 1e-320) - math.log(q[i][x[i]]):
            continue
        return [*x[:i], draw([max(a - b, 0.0) for a, b in zip(p[i], q[i], strict=True)])]
    return [*x, draw(p[-1])]


def stdlib_bisect(x, q, p):
    x, q, p = x.tolist(), q.tolist(), p.tolist()
    rng = random.Random()
    for i in range(len(x)):
        if rng.random() * q[i][x[i]] < p[i][x[i]]:
            continue
        cdf = np.cumsum([max(a - b, 0.0) for a, b in zip(p[i], q[i], strict=True)]).tolist()
        return [*x[:i], bisect(cdf, rng.uniform(0, cdf[-1]))]
    return [*x, rng.choices(range(len(p[-1])), weights=p[-1])[0]]


def sampler_match(x, q, p):
    emitted = []
    for i in range(len(x)):
        y = torch.multinomial(p[i], 1).item()
        emitted.append(y)
        if y != x[i]:
            return emitted
    return [*emitted, torch.multinomial(p[len(x)], 1).item()]


def point_mass(x, q, p):
    for i in range(len(x)):
        if torch.rand(()) < p[i, x[i]]:
            continue
        rest = p[i].clone()
        rest[x[i]] = 0
        return [*x[:i].tolist(), torch.multinomial(rest, 1).item()]
    return [*x.tolist(), torch.multinomial(p[len(x)], 1).item()]


class Sampler:
    """A verifier object with a generator of its own."""

    def __init__(self):
        self.rng = random.Random(3)
        self.noise = {"numpy": np.random.RandomState(5)}

    def __call__(self, x, q, p):
        for i in range(len(x)):
            if self.rng.random() < p[i, x[i]] / q[i, x[i]]:
                continue
            residual = (p[i] - q[i]).clamp(min=0).numpy()
            return [*x[:i].tolist(), int(self.noise["numpy"].choice(len(residual), p=residual / residual.sum()))]
        return [*x.tolist(), torch.multinomial(p[len(x)], 1).item()]


EXACT = [
    torch_item, torch_float, torch_vectorised_race, torch_log_gumbel, torch_inverse_cdf, torch_bernoulli,
    torch_generator,
    one_minus_u, numpy_generator, numpy_cached_generator, numpy_legacy, stdlib_loop, stdlib_bisect, sampler_match,
    point_mass, Sampler(),
]  # fmt: skip

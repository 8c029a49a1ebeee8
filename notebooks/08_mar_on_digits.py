# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # MAR on digits
#
# A **masked autoregressive** model (MAR, [2406.11838](https://arxiv.org/abs/2406.11838)) fills an image in a random
# order. A bidirectional transformer reads the tokens that are there and makes a condition for each place that is not;
# a small diffusion head draws the token. Here: digits of 28 by 28 pixels, 49 tokens of 16 numbers, 12 steps a token,
# and a pair of models trained on 5000 images, a target and a drafter of a fifth of its size.
#
# **Speculation on it** differs from language in one thing: the encoder sees all visible tokens at once, so that each
# prefix of a draft is *a mask of its own*. The target's laws after $0,1,\dots,N$ drafted tokens are $N+1$ images side
# by side in one batch, one round of latency, and no cheaper in arithmetic.
#
# ## 1. Both models, and an exact decoder
#
# Drafts can come from the small model, and need not: here a window of eight guesses is refreshed round by round by a
# coupling of the target's chains, and its first tokens that stayed what they were are kept (notebook 09). That is exact
# on any model that gives the laws after a draft. The last row but one shows only what was kept.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

from verify.imaging.figures import counted
from verify.studies.images.evidence import levels
from verify.studies.images.rules import COMPARED, EXACT, LOSSY
from verify.studies.images.scores import fewer, method, scores
from verify.studies.images.subjects import Job, batches, shipped, tokens
from verify.studies.ladder.bounds import departure

torch.set_num_threads(1)
INK, TARGET, DRAFT, KEPT, RESIDUAL, LOSSY_INK = "#2b303a", "#1f5fa8", "#e08214", "#aab4c2", "#1a8f7a", "#c4342d"
plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9.5, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "text.color": INK,
})  # fmt: skip

mnist, alone, released = shipped("mnist.mar", 12), Job("target alone", None), COMPARED["released"]
rows = 12
exact = Job("coalescing_jacobi", EXACT["coalescing_jacobi"], 8, batch=rows, drafter="none")
(part,) = batches(mnist, exact, rows, 1)
drafted, kept = counted(part.decoded)
verified, trace = part.decoded.tokens, part.decoded.trace
where = torch.zeros(rows, 49, dtype=torch.bool).scatter(1, part.decoded.place, part.decoded.kept)
paper = -mnist.images.centre / mnist.images.spread
made = {
    "target alone": tokens(mnist, alone, rows, 1),
    "drafter alone": tokens(replace(mnist, target=mnist.small), alone, rows, 1),
    "verified": verified,
    "of these, kept drafts": torch.where(where.unsqueeze(-1), verified, paper),
    "released, N = 16": tokens(mnist, Job("released", released, 16, batch=rows), rows, 1),
}
print(f"exact: {kept:.0f} of {drafted:.0f} drafts kept, {float(trace.rounds.double().mean()):.1f} rounds an image "
      f"in place of 49")  # fmt: skip

figure, panels = plt.subplots(len(made), 1, figsize=(10.5, 3.1))
for panel, (name, value) in zip(panels, made.items(), strict=True):
    ink = torch.nn.functional.pad(1 - mnist.images.ink(value), (1, 1, 1, 1), value=1.0)
    panel.imshow(torch.cat(list(ink), -1), cmap="gray", vmin=0, vmax=1)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    panel.set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# ## 2. Where drafts are kept
#
# By place in the image, and by number of the token: the order is random, so the two say different things. On the right,
# the images as they are filled: the number of the round in which each place was.

# %%
number = torch.zeros(rows, 49, dtype=torch.double)
ends = trace.lengths.cumsum(0)  # tokens there after every round
for row in range(rows):
    number[row, part.decoded.place[row]] = torch.searchsorted(
        ends[:, row].contiguous(), torch.arange(49), right=True
    ).double()
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 2.9), width_ratios=(1, 1.6, 1.6))
share = where.double().mean(0).reshape(7, 7)
figure.colorbar(left.imshow(share, vmin=0, vmax=1), ax=left, shrink=0.8)
left.set(xticks=[], yticks=[], title="kept, by place")
middle.plot(range(1, 50), part.decoded.kept.double().mean(0), color=TARGET)
middle.set(xlabel="number of the token", ylim=(0, 1), title="kept, by number")
first = number[:4].reshape(4, 7, 7).transpose(0, 1).reshape(7, 28)
figure.colorbar(right.imshow(first, cmap="viridis"), ax=right, shrink=0.6)
right.set(xticks=[], yticks=[], title="round of each place, four images")
plt.show()

# %% [markdown]
# ## 3. Lossless or not
#
# Given the tokens before it, every step of a token's path is a Gaussian that the target knows. Whitened by these, a
# decoded image is independent standard normals, and so a decoder can be judged without a second sample. Shown is the
# level of the squared length of each token's normals, flat for the target. The released procedure draws a token's last
# step without noise, keeps later tokens after a refusal and judges a whole block in its first context: its paths are
# others. `no rollback` is the exact rule with the second of these alone: it is seen on the causal sibling of the model,
# which fills images row by row, where a token leans on the one before it. In a random order the one before is seldom a
# neighbour, and the same defect is too small to be seen on so few images. Digits of 8 by 8 pixels, 16 tokens.

# %%
cases = {
    ("mar", "target alone"): (None, 100, INK), ("mar", "coalescing"): (COMPARED["coalescing"], 24, TARGET),
    ("mar", "released"): (LOSSY["released"], 100, LOSSY_INK),
    ("causal", "no rollback"): (LOSSY["no rollback"], 100, DRAFT),
}  # fmt: skip
figure, panels = plt.subplots(1, 4, figsize=(10.5, 2.5), sharey=True)
for panel, ((kind, name), (rule, images, colour)) in zip(panels, cases.items(), strict=True):
    digits, job = shipped(f"digits.{kind}", 8), Job(name, rule, 8, batch=images)
    level = torch.cat([levels(digits, item) for item in batches(digits, job, images, 3)])
    gap = departure(level.flatten(0, 1))
    panel.hist(level[..., 4].flatten(), 20, range=(0, 1), density=True, color=colour)
    panel.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    panel.set(title=f"{name}: distance {gap.found:.3f}", xlabel="level", ylim=(0, 4))
    print(f"{kind:6s} {name:12s} largest distance of five statistics {gap.found:.3f} ({gap.name}); chance reaches "
          f"{gap.room:.3f} once in a million")  # fmt: skip
    assert (gap.least > 0) == (not job.exact)  # false alarm 1e-6 a case
plt.show()

# %% [markdown]
# ## 4. The honest baseline
#
# A masked model has a rival to any draft within itself: fill several places *at once*, in $K<49$ iterations. That is
# not lossless either, the places of one iteration are drawn independently, but it needs no drafter. Below, the squared
# Fréchet distance of a classifier's features from those of the target's own images, against evaluations of the
# backbone a token. (The features are of a small classifier trained here; a distance of this many images is mostly
# noise of their covariance, and the dotted line is what a second sample of the target has.)

# %%
images = 32
own = tokens(mnist, alone, images, 11)
methods = [method(mnist, "target, again", alone, images, 12)]
methods += [fewer(mnist, iterations, images, 13) for iterations in (4, 8, 16)]
methods += [method(mnist, f"released, N = {n}", Job("released", released, n), images, 14) for n in (4, 16)]
found = list(scores(mnist.images, own, methods))
print("method              evaluations a token   Frechet, target   data   inception-style score")
for item in found:
    print(f"{item.method:20s}{item.calls:12.2f}{item.target:22.3f}{item.data:10.3f}{item.inception:12.2f}")

figure, axis = plt.subplots(figsize=(6.5, 3.4))
axis.axhline(found[0].target, color=INK, linewidth=0.8, linestyle=":")
axis.text(0.5, found[0].target, "a second sample of the target", fontsize=8, va="bottom")
for name, colour in (("iterations", RESIDUAL), ("released", LOSSY_INK)):
    mine = [item for item in found if name in item.method]
    axis.plot([item.calls for item in mine], [item.target for item in mine], "o-", color=colour, label=name)
    for item in mine:
        axis.annotate(item.method, (item.calls, item.target), (5, 4), textcoords="offset points", fontsize=8)
axis.set(xlim=(0, 0.8), ylim=(0, None), xlabel="evaluations of the backbone a token", ylabel="squared Fréchet distance")
axis.legend()
plt.show()

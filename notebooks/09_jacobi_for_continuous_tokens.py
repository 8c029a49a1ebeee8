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
# # Jacobi decoding for continuous tokens
#
# Jacobi decoding (notebook 03) needs no drafter: a window of guesses is refreshed round by round, and the first
# columns whose tokens stay what they were are committed. It has been for discrete tokens, since it needs a coupling: a
# way to redraw a guess from its *new* law so that it is likely to be *the same* token. For tokens that a diffusion head
# draws, whose laws have no density that could be computed, this notebook couples their **paths**.
#
# Column $j$ of the window holds a path $y_j$, a chain from noise to the token, labelled with the law $Q_j$ that it was
# drawn from. One parallel pass of the backbone gives the laws $P_j$ after the drafted tokens. Walk a chain of $P_j$
# beside $y_j$, and draw every step by a **maximal coupling** with the step that $y_j$ took: the same point as often as
# two Gaussians allow, its mirror image otherwise. Chains that part may merge again, bit for bit.
#
# > The new path $y_j'$ has the law $P_j$ exactly, whatever the coupling and whatever $y_j$ was. Commit the first
# > columns whose *tokens* stayed what they were, and one more; the others, relabelled $P_j$, are the next window.
#
# A committed column was reached by a decision of earlier columns alone, its context is what is committed, and so its
# path has the target's law after that context: the images are lossless. Notebook 04 has the coupling of one path,
# `verify/verifiers/coalescing_jacobi.py` the proof.
#
# ## 1. An image, round by round
#
# A causal transformer with a diffusion head, trained on 28 by 28 digits: 49 tokens of 16 numbers, 12 steps a token.

# %%
from dataclasses import dataclass, replace
from itertools import count

import matplotlib.pyplot as plt
import torch

from verify.studies.images.evidence import known
from verify.studies.images.subjects import Job, batches, shipped
from verify.studies.images.windows import coded, continuous, discrete
from verify.verifiers.coalescing_jacobi import CoalescingJacobi

torch.set_num_threads(1)
INK, TARGET, DRAFT, KEPT, RESIDUAL, LOSSY = "#2b303a", "#1f5fa8", "#e08214", "#aab4c2", "#1a8f7a", "#c4342d"
plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9.5, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "text.color": INK,
})  # fmt: skip

mnist = shipped("mnist.causal", 12)
rules = {"coupled": CoalescingJacobi(), "redrawn": CoalescingJacobi(coupled=False)}
jobs = {name: Job(name, rule, 12, drafter="none", batch=20) for name, rule in rules.items()}
made = {name: next(batches(mnist, job, 20, 1)) for name, job in jobs.items()}
for name, part in made.items():
    rounds = part.decoded.trace.rounds.double()
    print(f"{name}: {float(rounds.mean()):.1f} evaluations of the backbone an image in place of 49, "
          f"{int(rounds.min())} to {int(rounds.max())}")  # fmt: skip

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), width_ratios=(2, 3))
for (name, part), colour in zip(made.items(), (TARGET, DRAFT), strict=True):
    for row in range(20):
        lengths = part.decoded.trace.lengths[:, row]
        left.step(range(len(lengths) + 1), [0, *lengths.cumsum(0).clamp(max=49).tolist()], where="post", color=colour,
                  linewidth=0.7, alpha=0.6)  # fmt: skip
    left.plot([], [], color=colour, label=name)
left.plot([0, 49], [0, 49], color=INK, linewidth=1, linestyle=":", label="one by one")
left.set(xlabel="evaluations of the backbone", ylabel="tokens committed", xlim=(0, 50), ylim=(0, 50))
left.set_title("Twenty images, windows of 12 drafts")
left.legend(loc="lower right")
ink = 1 - mnist.images.ink(made["coupled"].decoded.tokens)
sheet = torch.nn.functional.pad(ink, (1, 1, 1, 1), value=0.85).reshape(2, 10, 30, 30).transpose(1, 2).reshape(60, 300)
right.imshow(sheet, cmap="gray", vmin=0, vmax=1)
right.set_axis_off()
right.set_title("The images, classes 0 to 9")
plt.show()

# %% [markdown]
# ## 2. Lossless, and what breaks it
#
# Given the tokens before it, a path's steps are Gaussians that the model knows. Subtract the means, divide by the
# deviations: a whole decoded image becomes independent standard normals, and no second sample is needed
# (Rosenblatt 1952). Five statistics of every token are held against their law, among them the sum of the normals along
# the direction in which the last window's guess would pull, were the redraw not exact.
#
# A planted defect shows what the test sees, the one that notebook 03 found in released code: a guess that stays in the
# window keeps its *old* label. Every step is still a coupling of two laws, more guesses are kept, images look as good.


# %%
@dataclass(frozen=True)
class StaleLabel(CoalescingJacobi):
    """Guesses that wait are labelled with the law they were drawn from first, and not with their last one."""

    def _slide(self, value, length, target, draft, tape):
        new, nodes = super()._slide(value, length, target, draft, tape), draft.value.shape[1]
        place = length.unsqueeze(1) + torch.arange(nodes)
        row, column = torch.nonzero(place < nodes, as_tuple=True)
        condition = new.law.kernel.condition.clone()
        condition[row, column] = draft.law.kernel.condition[row, place[row, column]]
        return replace(new, law=replace(new.law, kernel=replace(new.law.kernel, condition=condition)))


digits, images, windows = shipped("digits.causal", 25), 60, (8, 16)
cases = {**rules, "stale label": StaleLabel()}
found = {
    (name, window): known(digits, Job(name, rule, window - 1, drafter="none", batch=images), images, 7)
    for name, rule in cases.items()
    for window in windows
}
for (name, window), cell in found.items():
    print(f"{name:12s} window {window:2d}: distance {cell.gap.found:.3f}, {cell.calls:.1f} evaluations an image of 16")
    assert cell.flagged == (name == "stale label")  # false alarm 2e-6 a cell

figure, axis = plt.subplots(figsize=(5.5, 2.8))
for name, colour, offset in zip(cases, (TARGET, DRAFT, LOSSY), (-1, 0, 1), strict=True):
    height = [found[name, window].gap.found for window in windows]
    axis.bar([place + 0.25 * offset for place in range(len(windows))], height, 0.22, color=colour, label=name)
room = found["coupled", 8].gap.room
axis.axhline(room, color=INK, linewidth=0.8, linestyle=":")
axis.text(-0.4, room + 0.003, "chance, once in a million", fontsize=8, va="bottom")
axis.set(ylabel="Kolmogorov distance", xticks=range(len(windows)), xticklabels=[f"window {w}" for w in windows])
axis.set_title(f"Paths of {images * 16} tokens against their law")
axis.legend(loc="upper left", bbox_to_anchor=(0, 0.85))
plt.show()

# %% [markdown]
# ## 3. What the coupling buys
#
# On the left, evaluations of the backbone an image against the window. Redrawn guesses stop gaining early: a guess is
# redrawn as often as it waits, and the last redraw decides. A coupled guess that has merged *stays*: once the context
# is what it will be, $P_j=Q_j$, and the path is kept as a whole. On the right the same on discrete tokens, digits as 49
# codes of a vocabulary of 256, where SJD redraws and SCD couples. The bands are 95 % intervals over images.
#
# What is saved is evaluations of the *backbone*. Every refreshed path is a walk through the diffusion head, with as
# many steps as the chain has, for each column of the window: a gain in time where the backbone dominates or where
# parallel columns are free, as on a GPU, and not on this notebook's one core.

# %%
seed = count(100)
windows = (2, 4, 8, 16, 32)
cells = [*continuous(mnist, windows, 12, seed), *discrete(coded(20), windows, 20, seed)]
titles = {"mnist.causal": "Paths", "mnist.codes": "Codes"}
style = {
    "coalescing_jacobi": ("coupled", TARGET), "coalescing_jacobi, redrawn": ("redrawn", DRAFT),
    "sjd": ("SJD, redrawn", DRAFT), "scd": ("SCD, coupled", TARGET), "scd_gumbel": ("SCD, Gumbel coupling", RESIDUAL),
}  # fmt: skip
figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True)
for panel, (model, title) in zip(panels, titles.items(), strict=True):
    for rule in dict.fromkeys(cell.rule for cell in cells if cell.model == model):
        mine = [cell for cell in cells if (cell.model, cell.rule) == (model, rule)]
        middle, low, high = zip(*(cell.saved for cell in mine), strict=True)
        name, colour = style[rule]
        panel.fill_between(windows, low, high, color=colour, alpha=0.18, linewidth=0)
        panel.plot(windows, middle, "o-", color=colour, label=name, markersize=4)
    panel.set_xscale("log", base=2)
    panel.set(xticks=windows, xticklabels=windows, xlabel="window", title=title)
    panel.legend(loc="upper left")
panels[0].set_ylabel("evaluations saved, times")
for cell in cells:
    name = f"{titles[cell.model]:6s} {style[cell.rule][0]:20s}"
    print(f"{name} window {cell.window:2d}: {cell.calls:5.1f} evaluations an image of {cell.length}")
plt.show()

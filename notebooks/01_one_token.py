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
# # One token
#
# Speculative sampling makes one promise: a cheap **drafter** proposes, an expensive **target** decides, and what comes
# out is distributed *exactly* as if the target had spoken alone. This notebook looks at a single token, where the whole
# mechanism fits in one picture. Throughout, $q$ is the drafter's law, $p$ the target's, and
#
# $$x \sim q, \qquad \text{keep } x \text{ with probability } \min\left(1, \frac{p(x)}{q(x)}\right), \qquad
# \text{otherwise draw from } \frac{(p-q)_+}{\mathrm{TV}(p,q)}.$$
#
# Kept values have density $q\min(1,p/q)=\min(p,q)$. Its mass is the **acceptance**, which is the area that the two
# densities share, $\int\min(p,q)=1-\mathrm{TV}(p,q)$. What $p$ still lacks is the **residual** $(p-q)_+$, of mass
# $\mathrm{TV}$, and replacements fill exactly that: $\min(p,q)+(p-q)_+=p$.
#
# ## 1. Two Gaussians
#
# For $q=\mathcal N(0,1)$ and $p=\mathcal N(\delta,1)$ the overlap is $2\,\Phi(-\delta/2)$. We draw it, then let
# `verify/verifiers/rejection.py` have 100 000 drafts. It is the file that also verifies vocabularies and whole
# diffusion paths, unedited: it asks a law only for `sample` and `log_prob`. Every random number comes from a *tape*,
# here one backed by a seeded generator.

# %%
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from torch.special import ndtr

from distributions.autoregressive import Markov
from distributions.gaussian import Gaussian
from distributions.mixture import Mixture
from distributions.tape import GeneratorTape, RecordingTape
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.ks import KolmogorovSmirnov
from verify.couplings import couple_gaussian
from verify.exact import exact_rows
from verify.records import Draft
from verify.residual import conclude, log_ratio
from verify.statistics.trace import Trace
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection
from verify.verifiers.sampler_match import SamplerMatch

torch.set_num_threads(1)  # the tensors are small, and sums in one order print the same digits everywhere
INK, TARGET, DRAFT, KEPT, RESIDUAL, LOSSY = "#2b303a", "#1f5fa8", "#e08214", "#aab4c2", "#1a8f7a", "#c4342d"
plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9.5, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "text.color": INK,
})  # fmt: skip


def density(law, x):
    """The density of the one law in a batch of shape (1,), at points on the line."""
    return law.log_prob(x.unsqueeze(-1)).exp()


def one_token(verifier, draft, target, rows, tape):
    """Draft one value a row from a law of batch (1,) and verify it: (drafts, first emitted values, kept)."""
    law = draft[torch.zeros(rows, 1, dtype=torch.long)]
    value = law.sample(tape, "draft")
    outcome = verifier.verify(Draft.chain(value, law), target[torch.zeros(rows, 2, dtype=torch.long)], tape)
    return value[:, 0], outcome.value[:, 0], outcome.kept[:, 0]


def sampled(kept, truth):
    """A frequency, after checking it against its true value: 5 standard errors, false alarm 6e-7 a call."""
    found, n = float(kept.double().mean()), len(kept)
    assert abs(found - truth) < 5 * math.sqrt(truth * (1 - truth) / n)
    return found


def draw_pair(axes, draft, target, x):
    """The two densities, the area they share and what the target has beyond it."""
    lower, upper = torch.minimum(density(draft, x), density(target, x)), density(target, x)
    axes.fill_between(x, lower, color=KEPT, alpha=0.6, linewidth=0, label="shared: kept")
    axes.fill_between(x, lower, upper, color=RESIDUAL, alpha=0.5, linewidth=0, label="residual $(p-q)_+$")
    axes.plot(x, density(draft, x), color=DRAFT, label="drafter $q$")
    axes.plot(x, density(target, x), color=TARGET, label="target $p$")


def draw_outputs(axes, out, kept, target, x, bins):
    """Outputs as a stacked histogram of area 1: kept drafts below, replacements above."""
    weights = [torch.full((int(part.sum()),), 1 / (len(out) * (bins[1] - bins[0]))) for part in (kept, ~kept)]
    parts = [out[kept, 0].numpy(), out[~kept, 0].numpy()]
    axes.hist(parts, bins, weights=weights, stacked=True, color=[KEPT, RESIDUAL], alpha=0.6,
              label=["kept drafts", "replacements"])  # fmt: skip
    axes.plot(x, density(target, x), color=TARGET, label="target $p$")


# %%
delta, rows = 1.2, 100_000
one = torch.ones(1, 1, dtype=torch.float64)  # a batch of one law on a line of one dimension
draft, target = Gaussian(0 * one, one), Gaussian(delta * one, one)
value, out, kept = one_token(Rejection(), draft, target, rows, GeneratorTape(seed=1))

overlap = 2 * float(ndtr(torch.tensor(-delta / 2)))
tv = 1 - overlap
ks = KolmogorovSmirnov()(out, Gaussian(target.mean[0], target.scale[0]), alpha=1e-6, tape=GeneratorTape(2))
print(f"overlap          2 Phi(-delta/2) = {overlap:.5f}   Gaussian.overlap = {float(draft.overlap(target)):.5f}")
print(f"acceptance       {sampled(kept, overlap):.5f} of {rows} drafts")
print(f"outputs against the target: Kolmogorov-Smirnov distance {ks.statistic:.4f}, p-value {ks.p_value:.2f}")

x = torch.linspace(-3.6, 4.8, 600, dtype=torch.float64)
bins = torch.linspace(-3.6, 4.8, 64, dtype=torch.float64).numpy()
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), sharex=True)
draw_pair(left, draft, target, x)
left.set_title(f"Overlap {overlap:.3f}, TV {tv:.3f}")
middle.hist(out[~kept, 0].numpy(), bins, density=True, color=RESIDUAL, alpha=0.5, label="replacements")
middle.plot(x, (density(target, x) - density(draft, x)).clamp(min=0) / tv, color=RESIDUAL, label="$(p-q)_+/$TV")
middle.set_title("After a rejection: the residual law")
draw_outputs(right, out, kept, target, x, bins)
right.set_title("All outputs: the target")
for axes in (left, middle, right):
    axes.set(xlabel="token value", ylim=(0, 1.42 * axes.get_ylim()[1]))
    axes.legend(loc="upper left", ncols=2, fontsize=8, columnspacing=1, handlelength=1.4)
left.set_ylabel("density")
plt.show()

# %% [markdown]
# ## 2. Mixtures, and what thinning costs
#
# Nothing above used the Gaussian shape. For mixtures `Mixture.overlap` integrates $\min(p,q)$ between the points where
# the densities cross, and the residual has a lobe wherever the drafter falls short. There is no formula to sample
# such a residual; **thinning** does it with what a law has anyway: draw $Z\sim p$, keep it with probability
# $(1-q(Z)/p(Z))_+$, else draw again.
#
# A try succeeds with probability $\int(p-q)_+=\mathrm{TV}$, so a rejection costs $1/\mathrm{TV}$ draws of the target on
# average: the *better* the drafter, the dearer its rare rejections. But rejections happen with probability
# $\mathrm{TV}$, so a drafted token costs on average
#
# $$\mathrm{TV}\cdot\frac{1}{\mathrm{TV}}=1 \text{ draw, for every pair of laws},\qquad
# \text{with standard deviation } \sqrt{2(1-\mathrm{TV})/\mathrm{TV}}.$$
#
# The mean never moves while the tail grows without bound. To see it we blend the drafter with the target,
# $q_w=(1-w)\,q+w\,p$, which scales $\mathrm{TV}$ by $1-w$ and leaves the residual law as it is. A recording tape counts
# the draws; the verifier does not know.


# %%
def mixture(weights, means, scales):
    """A batch of one mixture on the line."""
    parts = [torch.tensor(part, dtype=torch.float64) for part in (weights, means, scales)]
    return Mixture(parts[0][None], Gaussian(parts[1][None, :, None], parts[2][None, :, None]))


def blend(draft, target, share):
    """The mixture (1 - share) draft + share target."""
    parts = draft.components, target.components
    components = Gaussian(torch.cat([p.mean for p in parts], 1), torch.cat([p.scale for p in parts], 1))
    return Mixture(torch.cat([(1 - share) * draft.weights, share * target.weights], 1), components)


def tries(draws):
    """How many rows were still unfinished at each round of thinning."""
    return torch.tensor([draw.value.numel() for draw in draws if draw.site == "residual.keep"], dtype=torch.float64)


lumpy = mixture([0.3, 0.4, 0.3], [-3.2, 0.0, 3.0], [0.55, 0.7, 0.6])
guess = mixture([0.45, 0.55], [-2.4, 1.4], [1.0, 1.3])
mixed_overlap = float(guess.overlap(lumpy))
_, out, kept = one_token(Rejection(), guess, lumpy, rows, GeneratorTape(seed=3))
print(f"overlap by quadrature {mixed_overlap:.5f}   acceptance {sampled(kept, mixed_overlap):.5f}")

cost = []
for share in (0.0, 0.5, 0.75, 0.9, 0.95, 0.98):
    near = blend(guess, lumpy, share)
    gap = 1 - float(near.overlap(lumpy))
    assert abs(gap - (1 - share) * (1 - mixed_overlap)) < 1e-9
    tape = RecordingTape(GeneratorTape(seed=4))
    _, _, near_kept = one_token(Rejection(), near, lumpy, 40_000, tape)
    left_over, count = tries(tape.draws), len(near_kept)
    mean = float(left_over.sum()) / count
    square = float(left_over @ (2.0 * torch.arange(len(left_over)) + 1).double()) / count  # E[N^2], from P(N > k)
    cost.append((gap, mean, float(left_over.sum() / left_over[0]), math.sqrt(square - mean**2)))
    # 5 standard errors of a mean of 40 000: false alarm below 1e-5 each, with the skewness at the smallest TV.
    assert abs(mean - 1) < 5 * math.sqrt(2 * (1 - gap) / gap / count)

x = torch.linspace(-6, 6, 800, dtype=torch.float64)
bins = torch.linspace(-6, 6, 81, dtype=torch.float64).numpy()
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.3))
draw_pair(left, guess, lumpy, x)
left.set_title(f"Overlap {mixed_overlap:.3f}: a residual of three lobes")
draw_outputs(middle, out, kept, lumpy, x, bins)
middle.set_title("All outputs: the target")
for axes in (left, middle):
    axes.set(xlabel="token value", ylim=(0, 1.42 * axes.get_ylim()[1]))
    axes.legend(loc="upper left", ncols=2, fontsize=8, columnspacing=1, handlelength=1.4)
left.set_ylabel("density")
gaps, means, given, spread = (torch.tensor(column) for column in zip(*cost, strict=True))
line = torch.logspace(-2.3, -0.2, 100)
right.loglog(line, 1 / line, color=RESIDUAL, label="mean after a rejection: 1/TV")
right.loglog(line, (2 * (1 - line) / line).sqrt(), color=INK, label="std. dev. per drafted token")
right.loglog(line, torch.ones_like(line), color=TARGET, label="mean per drafted token: 1")
for series, colour in ((given, RESIDUAL), (spread, INK), (means, TARGET)):
    right.loglog(gaps, series, "o", color=colour, markersize=5)
right.set(xlabel="TV(drafter, target)", ylabel="draws of the target", title="The cost of thinning", ylim=(0.4, 900))
right.legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# ## 3. A coupling that never draws again
#
# For two Gaussians of one covariance a rejected draft need not be thrown away: **reflect** it. With
# $\delta=\lVert\mu_p-\mu_q\rVert/\sigma$ and $e$ the unit vector between the means,
#
# $$y=\begin{cases}x & \text{with probability }\min(1,p(x)/q(x)),\\[2pt]
# \mu_p+(I-2ee^\top)(x-\mu_q)&\text{otherwise.}\end{cases}$$
#
# The reflection carries the rejected mass $(q-p)_+$ onto $(p-q)_+$, so $y\sim p$ exactly
# (Bou-Rabee, Eberle and Zimmer 2020; De Bortoli et al. 2025). The acceptance is the same $2\,\Phi(-\delta/2)$, which no
# coupling exceeds; the draws after a rejection go from $1/\mathrm{TV}$ to none. The pictures show drafts against
# outputs: both rules have the same two marginals, and differ in where a rejected draft goes.


# %%
def reflect(draft, target, rows, tape):
    """As ``one_token``, by the reflection coupling."""
    law, goal = (law[torch.zeros(rows, dtype=torch.long)] for law in (draft, target))
    value = law.sample(tape, "draft")
    return value, *couple_gaussian(value, goal, law, tape)


def scatter(axes, value, out, kept, title):
    """Drafts against outputs."""
    axes.scatter(value[kept], out[kept], s=9, color=KEPT, linewidth=0, label="kept")
    axes.scatter(value[~kept], out[~kept], s=5, color=RESIDUAL, alpha=0.6, linewidth=0, label="rejected")
    axes.set(xlim=(-3.6, 3.6), ylim=(-2.6, 4.6), xlabel="draft $x$", ylabel="output $y$", title=title, aspect="equal")
    axes.legend(loc="lower right", fontsize=8, markerscale=3, handletextpad=0.2)


table = []
print("delta   overlap   rejection   reflection   draws after a rejection: thinning (1/TV), reflection")
for shift in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0):
    far = Gaussian(shift * one, one)
    bound = 2 * float(ndtr(torch.tensor(-shift / 2)))
    tapes = [RecordingTape(GeneratorTape(seed=5)), RecordingTape(GeneratorTape(seed=6))]
    accepted = [sampled(rule[2], bound) for rule in
                (one_token(Rejection(), draft, far, rows, tapes[0]), reflect(draft, far, rows, tapes[1]))]  # fmt: skip
    assert [draw.site for draw in tapes[1].draws] == ["draft", "couple.keep"]  # the draft and its coin, nothing else
    thinned = tries(tapes[0].draws)
    table.append((shift, *accepted, float(thinned.sum() / thinned[0]), 0.0))
    print(f"{shift:5.2f}   {bound:.4f}    {accepted[0]:.4f}      {accepted[1]:.4f}       "
          f"{table[-1][3]:5.2f} ({1 / (1 - bound):5.2f})   {table[-1][4]:.0f}")  # fmt: skip

figure, axes = plt.subplot_mosaic([["thin", "reflect", "accept"], ["thin", "reflect", "draws"]], figsize=(11, 3.9))
for name, rule, title in (
    ("thin", one_token(Rejection(), draft, target, 4000, GeneratorTape(seed=7)), "Rejection and thinning"),
    ("reflect", reflect(draft, target, 4000, GeneratorTape(seed=8)), "Reflection"),
):
    scatter(axes[name], rule[0][:, 0], rule[1][:, 0], rule[2], title)
shifts, by_rejection, by_reflection, thinned, none = (torch.tensor(column) for column in zip(*table, strict=True))
line = torch.linspace(0.15, 3.2, 200)
bound = 2 * ndtr(-line / 2)
axes["accept"].plot(line, bound, color=INK, linewidth=1, label=r"$2\,\Phi(-\delta/2)$")
axes["accept"].plot(shifts, by_rejection, "o", color=RESIDUAL, markersize=8, fillstyle="none", label="rejection")
axes["accept"].plot(shifts, by_reflection, "x", color=TARGET, markersize=5, label="reflection")
axes["accept"].set(title="Acceptance", ylim=(0, 1), xticklabels=[])
axes["draws"].plot(line, 1 / (1 - bound), color=INK, linewidth=1, label="1/TV")
axes["draws"].plot(shifts, thinned, "o", color=RESIDUAL, markersize=8, fillstyle="none", label="rejection")
axes["draws"].plot(shifts, none, "x", color=TARGET, markersize=5, clip_on=False, label="reflection")
axes["draws"].set(title="Target draws after a rejection", xlabel=r"$\delta$", ylim=(0, 12))
for name in ("accept", "draws"):
    axes[name].set_xlim(0, 3.2)
    axes[name].legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# ## 4. A vocabulary: the law itself, without sampling
#
# On a finite vocabulary the same verifier can be run on a tape that *branches* at every coin and every draw.
# `exact_rows` adds up all branches: not an estimate of the output's law but the law, to rounding. We take two small
# Markov models and one drafted token after each of four contexts. *Rejection* must leave no bias at all. *Lenient*
# accepts with probability $\min\left(1,\,p/(\ell q)\right)$ for some $\ell<1$ and keeps the residual as it was. It
# emits $\min(q,p/\ell)+(1-\beta)\,(p-q)_+/\mathrm{TV}$ with acceptance $\beta=\sum\min(q,p/\ell)$, and so misses the
# target by
#
# $$\mathrm{TV}(\text{out},p)=\sum\min(q,p/\ell)-\sum\min(p,q).$$

# %%
vocab, leniency = 5, 0.9
big = Markov.random(vocab, order=1, seed=21, concentration=3.0)
small = Markov(0.15 * big.table + 0.85 * Markov.random(vocab, 1, seed=22).table, order=1)
contexts = torch.arange(4).unsqueeze(1)
target_law, draft_law = big.rows[:4], small.rows[:4]
exact = exact_rows(Rejection(), big, small, contexts, draft_length=1)
lenient = exact_rows(Lenient(leniency), big, small, contexts, draft_length=1)
closed = Lenient(leniency).bias(target_law, draft_law)
print("context   overlap   rejection: acceptance, bias   lenient: acceptance, bias (closed form)")
for c in range(4):
    print(f"{c:4d}      {float(draft_law.overlap(target_law)[c]):.4f}        {float(exact.acceptance[c]):.4f}   "
          f"{float(exact.tv[c]):.0e}          {float(lenient.acceptance[c]):.4f}   {float(lenient.tv[c]):.6f}"
          f" ({float(closed[c]):.6f})")  # fmt: skip
assert float(exact.tv.max()) < 1e-14 and float((lenient.tv - closed).abs().max()) < 1e-14

c = int(closed.argmax())
p, q = target_law.probs[c], draft_law.probs[c]
beta = torch.minimum(q, p / leniency).sum()
formula = torch.minimum(q, p / leniency) + (1 - beta) * (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()
tokens = torch.arange(vocab)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.1))
left.bar(tokens - 0.2, q, 0.38, color=DRAFT, label="drafter $q$")
left.bar(tokens + 0.2, p, 0.38, color=TARGET, label="target $p$")
left.set(xlabel="token", ylabel="probability", title=f"The laws after token {c}")
right.axhline(0, color=INK, linewidth=0.8)
right.bar(tokens, lenient.joint[0][c, 0] - p, 0.5, color=LOSSY, label=f"lenient: bias {float(lenient.tv[c]):.3f}")
right.plot(tokens, formula - p, "D", color=INK, markersize=4, label="lenient: closed form")
right.plot(tokens, exact.joint[0][c, 0] - p, "o", color=RESIDUAL, label=f"rejection: bias {float(exact.tv[c]):.0e}")
right.set(xlabel="token", ylabel="output minus target", title="What the enumerated output adds and takes")
for axes in (left, right):
    axes.margins(y=0.25)
    axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 5. How much bias does acceptance buy?
#
# Let any rule emit law $o$ and hand back its draft with probability $\alpha$. Draft and output are then coupled so that
# they agree with probability $\alpha$, whence $\mathrm{TV}(o,q)\le 1-\alpha$; the triangle inequality gives
#
# $$\mathrm{TV}(o,p)\;\ge\;\mathrm{TV}(p,q)-\mathrm{TV}(o,q)\;\ge\;\alpha-\bigl(1-\mathrm{TV}(p,q)\bigr).$$
#
# **Accepting more than the overlap proves bias**, before one output is looked at. Lenience sits on this frontier for
# every $\ell$ (the red numbers): it pays the least bias that its acceptance can have. A rule that is also careless
# about the residual, say one that redraws from the target, lies above; lossless but timid rules, such as sampling the
# target and comparing, lie on the axis to the left. On the left below, everything is enumerated. On the right the laws
# are the Gaussians of section 1, where $\alpha=\bar\Phi(t)+\Phi(t-\delta)/\ell$ with $t=\delta/2+\ln(\ell)/\delta$ and
# $\bar\Phi=1-\Phi$, and drafts are only counted: from 20 000 of them `ExcessAcceptance` certifies a lower bound on the
# bias (triangles) that exceeds the truth at most once in a million times.


# %%
@dataclass(frozen=True)
class Careless(Lenient):
    """Lenient acceptance, then a draw of the target itself: a verifier of one's own is this short."""

    def verify(self, draft, target, tape):
        log_accept = (log_ratio(draft.value, target[:, :-1], draft.law) - math.log(self.lenience)).clamp(max=0)
        coins = tape.coin("accept", log_accept.exp())
        return conclude(draft, target, coins, log_accept, tape, lambda law, _, tape, site: law.sample(tape, site))


levels = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
share = float(draft_law.overlap(target_law)[c])
points = {"lenient": [], "careless": [], "match": []}
for name, rule in [
    *(("lenient", Lenient(level)) for level in levels), *(("careless", Careless(level)) for level in levels),
    ("match", SamplerMatch()),
]:  # fmt: skip
    law = exact_rows(rule, big, small, contexts, draft_length=1)
    points[name].append((float(law.acceptance[c]), float(law.tv[c])))
certified = []
for level in levels[1:]:
    place = delta / 2 + math.log(level) / delta
    alpha = float(ndtr(torch.tensor(-place)) + ndtr(torch.tensor(place - delta)) / level)
    value, out, kept = one_token(Lenient(level), draft, target, 20_000, GeneratorTape(seed=9))
    trace = Trace.single(value, out, draft[0], target[0])
    proof = ExcessAcceptance()(trace, None, alpha=1e-6, tape=GeneratorTape(seed=10))
    certified.append((sampled(kept, alpha), alpha - overlap, proof.statistic))

for level, (alpha, bias) in zip(levels, points["lenient"], strict=True):  # on the frontier, and at its closed form
    assert abs(bias - (alpha - share)) < 1e-14
    assert abs(bias - float(Lenient(level).bias(target_law, draft_law)[c])) < 1e-14
for level, (alpha, bias) in zip(levels, points["careless"], strict=True):
    beta = torch.minimum(q, p / level).sum()
    assert abs(bias - float((torch.minimum(q, p / level) - beta * p).abs().sum() / 2)) < 1e-14
    assert bias > 0 and bias >= alpha - share - 1e-14  # equal once nothing is rejected any more
assert abs(points["match"][0][0] - float(p @ q)) < 1e-14 and points["match"][0][1] < 1e-14
assert all(proven <= bias for _, bias, proven in certified)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
for axes, start, title in ((left, share, "Vocabulary, enumerated"), (right, overlap, "Gaussians, sampled")):
    axes.fill_between([start, 1], [0, 1 - start], color=KEPT, alpha=0.35, linewidth=0)
    axes.plot([0.3, start, 1], [0, 0, 1 - start], color=INK, linewidth=1.2, label=r"frontier: $\alpha-(1-$TV$)$")
    axes.text(0.99, 0.02 * (1 - start), "impossible", ha="right", fontsize=8, color=INK, alpha=0.8)
    axes.set(xlabel=r"acceptance $\alpha$", ylabel="bias: TV(output, target)", title=title)
left.plot(*zip(*points["careless"], strict=True), "s-", color=DRAFT, markersize=5, linewidth=0.8, label="careless")
left.plot(*zip(*points["lenient"], strict=True), "o", color=LOSSY, label="lenient")
left.plot(*points["lenient"][0], "o", color=RESIDUAL, markersize=8, zorder=4, label="rejection (lossless)")
left.plot(*points["match"][0], "D", color=TARGET, clip_on=False, label="sampler match (lossless)")
accepted, bias, proven = zip(*certified, strict=True)
right.plot(accepted, bias, "o", color=LOSSY, label="lenient: true bias")
right.vlines(accepted, proven, bias, color=TARGET, linewidth=0.8)
right.plot(accepted, proven, "^", color=TARGET, markersize=5, label="certified from acceptance alone")
for axes, marks in ((left, points["lenient"][1:]), (right, [mark[:2] for mark in certified])):
    for level, mark in zip(levels[1:], marks, strict=True):
        if mark[0] < 1 - 1e-9:  # below some lenience everything is kept, and the marks coincide
            axes.annotate(f"{level}", mark, (9, -6), textcoords="offset points", fontsize=8, color=LOSSY)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_xlim(0.3, 1.02)
plt.show()

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
# # Alignment is a coupling
#
# Continuous speculative decoding ([2411.11925](https://arxiv.org/abs/2411.11925)) runs the target's diffusion chain
# beside the drafter's with the **same noise**, and calls this *denoising trajectory alignment*. In the language of
# probability that is a *coupling*: two chains, each with its own law, built on one source of randomness. There are
# many couplings, and all of them leave both laws alone. They differ in how often the two chains end at one point,
# which is what speculative decoding is about.
#
# At a step both chains are Gaussian, $\mathcal N(\mu_q,S)$ and $\mathcal N(\mu_p,S)$. Given the drafter's draw $x$,
#
# - **synchronous** (shared noise): $y=\mu_p+(x-\mu_q)$. As near as can be, and equal only if $\mu_p=\mu_q$.
# - **maximal** (reflection): $y=x$ with probability $\min(1,p(x)/q(x))$, else the mirror image of $x$. Equal as often
#   as can be, and otherwise on the far side, facing back.
#
# ## 1. Two chains in the plane
#
# The heads are the trained pair that ships with the package, for a ring of eight Gaussians, with one variance for
# both. One drafted path, and the target's chain beside it under each coupling: shared noise leaves the start at once
# and never comes back to *one point*, near as it stays. Under reflection the paths are one line for a while, part,
# and meet again. From the moment that they meet they have one history, and the past is of no account.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from distributions.datasets import conditions
from distributions.gaussian import Gaussian
from distributions.heads import ExactHead
from distributions.mixture import Mixture
from distributions.path import Denoiser, PathLaw
from distributions.pooled import PooledNoise, influence, log_normal
from distributions.schedule import cosine, respaced
from distributions.tape import GeneratorTape
from distributions.training import pretrained
from verify.gaussian.maximal import independent, maximal, synchronous
from verify.paths import follow, link
from verify.records import Draft
from verify.studies.path_ratio.cells import head, line
from verify.studies.path_ratio.chains import Wavy
from verify.verifiers import pooled_noise
from verify.verifiers.cspd import Cspd
from verify.verifiers.last_gaussian import LastGaussian

torch.set_num_threads(1)
torch.set_grad_enabled(False)
INK, TARGET, DRAFT, KEPT, RESIDUAL, LOSSY = "#2b303a", "#1f5fa8", "#e08214", "#aab4c2", "#1a8f7a", "#c4342d"
plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9.5, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "text.color": INK,
})  # fmt: skip


def schedule(steps):
    """The cosine chain of 1000 levels from the 950th, in fewer steps."""
    return respaced(cosine(1000).signal[1:951].square(), steps)


def beside(path, prior, after, couple, tape):
    """The target's path (rows, T + 1, d) beside the drafted one, and where the two are one point (rows, T + 1)."""
    walked = follow(path, prior, after, couple, tape)
    walked.path[..., -1, :] = couple(path[..., -1, :], walked.target, walked.draft, tape, "follow.0")
    return walked.path, (walked.path == path).all(-1)


trained = pretrained("ring", dtype=torch.float64)


def ring(steps, condition):
    """The laws of paths of the trained drafter and target."""
    return [
        PathLaw(Denoiser(each, schedule(steps), condition, fraction=0.5)) for each in (trained.drafter, trained.target)
    ]


steps, rows = 25, 1500
condition = conditions(GeneratorTape(1), rows)
prior, after = ring(steps, condition)
path = prior.sample(GeneratorTape(2), "draft")
walks = {
    name: beside(path, prior, after, couple, GeneratorTape(3))
    for name, couple in (("shared noise", synchronous), ("forgetful residual", independent), ("reflection", maximal))
}
together = walks["reflection"][1]
assert not bool(walks["shared noise"][1][:, 1:].any())  # the start is common, and no other point
healed = together[:, -1] & ((~together).sum(1) >= 8) & together[:, 1:4].all(1)
row = int(torch.nonzero(healed)[0])

figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.9))
for panel, name in zip(axes, ("shared noise", "reflection"), strict=False):
    ours, same = walks[name]
    panel.plot(*path[row].T, "o-", color=DRAFT, markersize=3, linewidth=1, label="draft")
    panel.plot(*ours[row].T, "o-", color=TARGET, markersize=3, linewidth=1, label="target's chain", zorder=3)
    panel.plot(*ours[row][same[row]].T, "o", color=INK, markersize=5, label="one point", zorder=4)
    panel.plot(*path[row, -1], "*", color=DRAFT, markersize=13, markeredgecolor=INK, zorder=5, label="drafted token")
    panel.set(
        title=f"{name.capitalize()}: {int(same[row].sum())} of {steps + 1} points in common",
        aspect="equal",
        adjustable="datalim",
    )
figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8.5, loc="outside lower left", ncols=4)
for name, colour in (("shared noise", LOSSY), ("reflection", TARGET)):
    apart = torch.linalg.vector_norm(walks[name][0][row] - path[row], dim=-1)
    axes[2].plot(range(steps, -1, -1), apart, "o-", color=colour, markersize=3, linewidth=1, label=name)
axes[2].set(xlim=(steps, -0.5), xlabel="level $t$", title="Distance of the two chains")
axes[2].legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 2. What makes an aligned rule exact, and what does not
#
# **Lemma L7.** Let drafter and target be built on a common variable $\omega$, of one law under both. If for every
# $\omega$ the pair $q(\cdot\mid\omega)$, $p(\cdot\mid\omega)$ is verified by an exact rule, the whole is exact, and it
# accepts $\mathbb E_\omega[1-\mathrm{TV}(p(\cdot\mid\omega),q(\cdot\mid\omega))]$. (Average $p(\cdot\mid\omega)$ over
# $\omega$.) Shared noise down to $x_1$ is such an $\omega$; what remains is the last Gaussian, given each chain's own
# $x_1$. Speculating on that is the verifier `last_gaussian`.
#
# The published rule multiplies that last ratio by the ratio of everything before it, *each product on its own path*.
# Since both used the noise $\varepsilon_t$, every quadratic form is $\lVert\varepsilon_t\rVert^2/2$ on both sides and
# cancels. What is left is a ratio of volumes,
#
# $$\frac{\prod_{t\ge2}p(x^p_{t-1}\mid x^p_t)}{\prod_{t\ge2}q(x^q_{t-1}\mid x^q_t)}
# =\Sigma=\prod_{t=2}^{T}\frac{|S_{q,t}|^{1/2}}{|S_{p,t}|^{1/2}},$$
#
# a number that knows nothing of the means, however far apart: it compares two points, not two laws of one point. Left
# below, on Gaussian data that the drafter has in the wrong place. Where variances are fixed and shared, $\Sigma=1$, the
# published rule is `last_gaussian` bit for bit, and exact. Where they are learned and differ, $\Sigma\neq1$ weighs the
# last test by what has nothing to do with it, and the rule is lossy (notebook 06). The right panel shows the price of
# the exact case: with any number of steps the aligned chains end a dozen deviations of the last step apart, and a few
# drafts in a hundred are accepted.


# %%
def shifted(shift, fraction, rows):
    """The chain of data N(shift, .5^2 I) in the plane."""
    data = Mixture(torch.ones(1), Gaussian(torch.full((1, 2), shift), torch.full((1, 2), 0.5)))
    none = torch.zeros(rows, 1, dtype=torch.float64)
    return PathLaw(Denoiser(ExactHead(lambda condition: data, none[0]), schedule(10), none, fraction=fraction))


def products(path, law):
    """log density of every link but the last, summed (rows,)."""
    return sum(link(law, place, path).log_prob(path[:, place]) for place in range(path.shape[1] - 1))


shifts = torch.linspace(0, 1, 9).tolist()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
goal = shifted(0.0, 0.5, 400)
found = {"one path under both laws": [], r"aligned, one variance: $\Sigma=1$": [], r"aligned, two variances": []}
for shift in shifts:
    for name, fraction in zip(found, (0.5, 0.5, 0.55), strict=True):
        drafter = shifted(shift, fraction, 400)
        drafted = drafter.sample(GeneratorTape(4), "draft")
        ours = drafted if name.startswith("one") else follow(drafted, drafter, goal, synchronous, GeneratorTape(5)).path
        found[name].append(products(ours, goal) - products(drafted, drafter))
for (name, ratios), colour in zip(found.items(), (TARGET, LOSSY, DRAFT), strict=True):
    low, middle, high = torch.stack(ratios).quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64), 1)
    left.fill_between(shifts, low, high, color=colour, alpha=0.25, linewidth=0)
    left.plot(shifts, middle, "o-", color=colour, markersize=3.5, label=name)
    if name.startswith("aligned"):
        assert (
            float((torch.stack(ratios) - ratios[0][0]).abs().max()) < 1e-9
        )  # one number, whatever the means and the noise
        print(f"{name}: log Sigma = {float(ratios[0][0]):+.6f} for every path and every shift")
left.set(
    xlabel="how far the drafter's data are off",
    ylabel="log-ratio of all links but the last",
    ylim=(-8, 6),
    title="Means are seen on one path, and not on two",
)
left.legend(fontsize=8, loc="lower left")

counts, measured = (5, 10, 20, 40, 80), []
for count in counts:
    laws = ring(count, condition[:500, None])
    draft = Draft.chain(laws[0].sample(GeneratorTape(6), "draft"), laws[0])
    both = [rule.verify(draft, laws[1][:, [0, 0]], GeneratorTape(7)) for rule in (LastGaussian(), Cspd())]
    assert torch.equal(both[0].value, both[1].value) and torch.equal(both[0].kept, both[1].kept)
    walked = follow(draft.value, laws[0], laws[1], synchronous, GeneratorTape(7))
    apart = torch.linalg.vector_norm(walked.target.mean - walked.draft.mean, dim=-1)
    measured.append((float(both[0].log_accept.exp().mean()), float(walked.draft.scale.mean()), float(apart.median())))
accept, deviation, distance = zip(*measured, strict=True)
right.loglog(counts, distance, "s-", color=LOSSY, markersize=4, label="distance of the two last means, median")
right.loglog(counts, deviation, "o-", color=INK, markersize=4, label="deviation of the last step")
right.loglog(counts, accept, "D-", color=TARGET, markersize=4, label="acceptance of last_gaussian")
right.set(xlabel="steps", xticks=counts, xticklabels=counts, ylim=(0.004, 3), title="Trained heads, shared noise")
right.minorticks_off()
right.legend(fontsize=8, loc="upper right")
plt.show()

# %% [markdown]
# ## 3. Share all the noise but one weighted sum of it
#
# Lemma L7 leaves open *what* is shared. A path's noise $\varepsilon_T,\dots,\varepsilon_0$ splits, for any weights of
# $\sum_kw_k^2=1$, into the sum $\eta=\sum_kw_k\varepsilon_k\sim\mathcal N(0,I)$ and the rest, which is independent of
# it. Share the rest. Then $x_0$ is a map of $\eta$ for either model, with a density by change of variables, and the
# token rule on the two densities is exact: `pooled_noise`. `last_gaussian` is the special case of all weight on the
# last step. With weights in proportion to how far each noise moves $x_0$, the two laws of $x_0$ are broad and lie on
# top of one another, where those of the last Gaussian are needles that miss. Three drafts on the line, the drafter's
# noise prediction off by a smooth random .1:

# %%
none = torch.zeros(3, 1, dtype=torch.float64)
pair = [Denoiser(each, schedule(10), none, fraction=0.5) for each in (Wavy(head(line, 0), 0.1), head(line, 0))]
drafted = PathLaw(pair[0]).sample(GeneratorTape(26), "draft")
last = torch.zeros(11, dtype=torch.float64)
last[-1] = 1.0
figure, (bars, *panels) = plt.subplots(1, 4, figsize=(11.5, 3.5), width_ratios=(0.8, 1, 1, 1))
weights = influence(pair[1], 0.1)
bars.bar(range(11), weights, color=RESIDUAL, width=0.7)
bars.set_xticks(range(11), ["$x_T$", *(str(level) for level in range(9, -1, -1))], fontsize=8)
bars.set(title="Weight of each noise in $\\eta$", xlabel="level")
sums = torch.linspace(-5, 5, 4001, dtype=torch.float64)
for which, style in ((weights, "-"), (last, ":")):
    near, eta = PooledNoise.split(pair[0], drafted, which)
    for law, colour, name in ((near, DRAFT, "draft"), (PooledNoise(pair[1], near.others, which), TARGET, "target")):
        for row, panel in enumerate(panels):
            one = PooledNoise(law.kernel[[row] * len(sums)], law.others[[row] * len(sums)], which)
            value = one.path(sums.unsqueeze(-1))[:, -1, 0]
            density = (
                log_normal(sums.unsqueeze(-1)).exp() / torch.gradient(value, spacing=float(sums[1] - sums[0]))[0].abs()
            )
            panel.plot(
                value,
                density / (1 if style == "-" else density.max() / 1.9),
                style,
                color=colour,
                label=f"{name}, {'pooled' if style == '-' else 'last Gaussian'}",
            )
for panel, x in zip(panels, drafted[:, -1, 0], strict=True):
    panel.plot([x], [0], "*", color=DRAFT, markeredgecolor=INK, markersize=11, clip_on=False, zorder=5)
    panel.set(xlabel="$x_0$ given what is shared", ylim=(0, 2.1), xlim=(-2.6, 2.6), title="A drafted token")
figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8.5, loc="outside lower center", ncols=4)
panels[0].set_ylabel("density (needles scaled)")
plt.show()

# %% [markdown]
# ## 4. Together and apart
#
# The same 1500 drafted tokens of section 1, level by level. On the left every line is a token, dark where the target's
# chain under reflection stands on the draft's point: paths part and heal, and what counts is the last column. On the
# right, the probability of being together. Shared noise is together at the start only. Restarting, which gives a path
# up at its first separation, can only fall. A maximal coupling whose residual forgets the rejected point meets again
# sometimes, since steps of large variance forgive; reflection keeps the chains near one another, and meets more often.
# Every curve's last point is the acceptance of a rule that is exactly lossless. The star is `pooled_noise`, which
# does not ask the paths to meet at all, only their ends.

# %%
curves = {name: same.double().mean(0) for name, (_, same) in walks.items()}
curves["restarting"] = together.long().cumprod(1).double().mean(0)
assert float(curves["restarting"][-1]) <= float(curves["reflection"][-1])
few = slice(0, 70)
chains = [law.kernel[few] for law in ring(steps, condition)]
drafted = PathLaw(chains[0]).sample(GeneratorTape(8), "draft")
near, eta = PooledNoise.split(chains[0], drafted, influence(chains[1], 0.05))
keep = (
    pooled_noise.compare(near, PooledNoise(chains[1], near.others, near.weights), drafted[:, -1], eta)[0]
    .clamp(max=0)
    .exp()
)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.15))
some = together[:120]
order = np.lexsort((-some.sum(1).numpy(), ~some[:, -1].numpy()))
left.imshow(
    some[order],
    aspect="auto",
    cmap=plt.matplotlib.colors.ListedColormap(["#f4d9b5", TARGET]),
    vmin=0,
    vmax=1,
    interpolation="none",
    extent=(steps + 0.5, -0.5, 120, 0),
)
left.set(
    xlabel="level $t$", ylabel="120 drafted tokens, the kept ones on top", title="Reflection: one point (blue), or two"
)
colours = {"shared noise": LOSSY, "restarting": DRAFT, "forgetful residual": RESIDUAL, "reflection": TARGET}
for name, colour in colours.items():
    right.plot(
        range(steps, -1, -1), curves[name], "-", color=colour, label=f"{name}: {float(curves[name][-1]):.2f} at the end"
    )
right.errorbar(
    [0],
    [float(keep.mean())],
    2 * float(keep.std()) / len(keep) ** 0.5,
    fmt="*",
    color=INK,
    markersize=11,
    capsize=3,
    label=f"pooled noise: {float(keep.mean()):.2f}",
    clip_on=False,
    zorder=5,
)
right.set(xlim=(steps, 0), ylim=(0, 1.02), xlabel="level $t$", title="Probability that the chains are together")
right.legend(fontsize=8.5, loc="lower center")
for name in colours:
    print(f"{name:18s} together at the end {float(curves[name][-1]):.3f} of {rows}")
print(f"pooled noise       {float(keep.mean()):.3f} +- {float(keep.std()) / len(keep) ** 0.5:.3f}")
plt.show()

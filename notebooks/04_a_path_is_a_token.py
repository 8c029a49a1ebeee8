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
# # A path is a token
#
# Some image models draw each token, a vector $x_0\in\mathbb R^d$, with a small **diffusion head**: from noise $x_T$ a
# chain of Gaussian steps leads to $x_0$. Speculative sampling wants $p(x_0)/q(x_0)$, and here neither density can be
# computed: each is an integral over all the ways to arrive at $x_0$.
#
# The **path** $Y=(x_T,\dots,x_0)$ has a density, though, a product of Gaussians,
#
# $$P(Y)=p(x_T)\prod_{t=T}^{1}p(x_{t-1}\mid x_t),\qquad\text{keep } Y\sim Q \text{ with probability }
# \min\left(1,\frac{P(Y)}{Q(Y)}\right),\qquad\text{otherwise draw from }(P-Q)_+ .$$
#
# Nothing in the proof of speculative sampling asks what a token is. So the rule is exact for paths, and therefore for
# every function of a path, $x_0$ included. Two conditions are easily missed: both products are taken on the *same*
# path, the drafted one; and the last step must add noise, for otherwise the two path laws have no mass in common.
#
# ## 1. The token rule, unedited
#
# Below the data are three Gaussians on the line for the target, and three slightly different ones for the drafter.
# The heads are exact, 25 steps each of the cosine schedule, starting from $\mathcal N(0,1)$ where the signal is .08.
# `Rejection` is the verifier of notebook 01, which knows only `sample` and `log_prob`. The law of the target's $x_0$ is
# computed by quadrature, step by step, for comparison.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats

from distributions.datasets import conditions
from distributions.flow import FlowLaw
from distributions.path import Denoiser, PathLaw
from distributions.pooled import PooledNoise, influence
from distributions.reversal import Reversal
from distributions.schedule import cosine, respaced
from distributions.tape import GeneratorTape
from distributions.training import pretrained
from verify.paths import log_ratios
from verify.records import Draft
from verify.residual import log_ratio
from verify.studies.path_ratio.cells import copies, head, line, plane, wide
from verify.studies.path_ratio.chains import Mistaken, Wavy, distances
from verify.studies.path_ratio.line import marginal, shared
from verify.verifiers import flow_exact, pooled_noise
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.rejection import Rejection

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


def chain(head, steps, *shape, fraction=0.5):
    """The ancestral sampler of an unconditional head, a batch of copies."""
    return Denoiser(head, schedule(steps), torch.zeros(*shape, 1, dtype=torch.float64), fraction=fraction)


rows = 20_000
drafter, target = PathLaw(chain(head(line, 1), 25, rows, 1)), PathLaw(chain(head(line, 0), 25, rows, 2))
paths = drafter.sample(GeneratorTape(1), "draft")
outcome = Rejection().verify(Draft.chain(paths, drafter), target, GeneratorTape(2))
kept, emitted = outcome.kept[:, 0], outcome.value[:, 0, :, 0]

exact, guess = (marginal(chain(head(line, which), 25)) for which in (0, 1))
cumulative = (exact.density.cumsum(0) - exact.density / 2) * exact.spacing
ks = {name: stats.kstest(x.numpy(), lambda at: np.interp(at, exact.place, cumulative))
      for name, x in (("drafts", paths[:, 0, -1, 0]), ("emitted", emitted[:, -1]))}  # fmt: skip
assert ks["emitted"].pvalue > 1e-6 > ks["drafts"].pvalue  # false alarm 1e-6
for name, found in ks.items():
    print(f"x_0 of {name:8s} distance (KS) to the target {found.statistic:.4f}, p-value {found.pvalue:.1g}")
print(f"paths kept {float(kept.double().mean()):.3f}; 1 - TV of the tokens' laws {shared(exact, guess):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), width_ratios=(3, 2), sharey=True)
level = torch.arange(25, -1, -1)
some = torch.arange(60)
for row in some[kept[some]]:
    left.plot(level, emitted[row], color=KEPT, linewidth=0.8)
for row in some[~kept[some]]:
    left.plot(level, paths[row, 0, :, 0], color=DRAFT, linewidth=0.8, linestyle="--")
    left.plot(level, emitted[row], color=RESIDUAL, linewidth=1.1)
for colour, name, style in ((KEPT, "kept", "-"), (DRAFT, "rejected", "--"), (RESIDUAL, "its replacement", "-")):
    left.plot([], [], color=colour, label=name, linestyle=style)
left.set(xlim=(25, 0), xlabel="level $t$", ylabel="$x_t$", title="Sixty drafted paths, each one token")
left.legend(loc="upper left", ncols=3, fontsize=8)
bins = np.linspace(-2.6, 3.0, 71)
parts, width = [emitted[kept, -1].numpy(), emitted[~kept, -1].numpy()], bins[1] - bins[0]
right.hist(parts, bins, weights=[np.full(len(part), 1 / (rows * width)) for part in parts], stacked=True, alpha=0.6,
           orientation="horizontal", color=[KEPT, RESIDUAL], label=["kept", "replacements"])  # fmt: skip
right.plot(exact.density, exact.place, color=TARGET, label="target, by quadrature")
right.plot(guess.density, guess.place, color=DRAFT, linewidth=1, linestyle="--", label="drafter")
right.set(xlabel="density of $x_0$", title="Emitted tokens: the target's", ylim=(-2.6, 3.4))
right.legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# ## 2. When the joint ratio is the marginal ratio
#
# A natural objection, also made in a public review of the published method: the rule for tokens asks for
# $p(x_0)/q(x_0)$, and the ratio of the joints is something else. It is a fair question of *acceptance*, not of
# exactness, and it has an answer. Suppose both chains are exact time reversals of **one forward process**, from data
# $p$ and from data $q$. Then each joint can be written forwards,
#
# $$\frac{P(Y)}{Q(Y)}=\frac{p(x_0)\prod_t r(x_t\mid x_{t-1})}{q(x_0)\prod_t r(x_t\mid x_{t-1})}=\frac{p(x_0)}{q(x_0)},$$
#
# the forward kernels cancel, and testing the path *is* testing the token, at any number of steps. `Reversal` has the
# exact reverse kernels of Gaussian and mixture data; the table compares the two log-ratios on drafted paths.
#
# A sampler with an exact head is not yet a reversal: its kernels are single Gaussians, of a variance that the
# schedule prescribes. On the right each dot is a path of two such samplers; the scatter about the diagonal is what the
# joint adds to the marginal, and costs acceptance: $\mathrm{TV}(P,Q)\ge\mathrm{TV}(p,q)$.

# %%
print("exact reversals: largest difference of the two log-ratios over 1000 paths")
for name, data, steps in (("Gaussian, 2-D", plane, 25), ("Gaussian, 16-D", wide, 25), ("mixture on a line", line, 5),
                          ("mixture on a line", line, 100)):  # fmt: skip
    laws = PathLaw(Reversal(data(0), schedule(steps))), PathLaw(Reversal(copies(data(1), 1000), schedule(steps)))
    path = laws[1].sample(GeneratorTape(3), "path")
    ends = data(0).log_prob(path[:, -1]) - data(1).log_prob(path[:, -1])
    apart = float((log_ratio(path, *laws) - ends).abs().max())
    least = float(laws[0].log_prob(path).min())
    print(f"  {name:20s} {steps:3d} steps   {apart:.1e}   log densities down to {least:.0f}")
    assert apart < 1e-10

figure, panels = plt.subplots(1, 4, figsize=(11.5, 3.2), sharex=True, sharey=True)
for place, (axes, steps) in enumerate(zip(panels, (5, 5, 25, 100), strict=True)):
    if place == 0:
        laws = [PathLaw(Reversal(copies(line(which), 1500), schedule(steps))) for which in (0, 1)]
        path = laws[1].sample(GeneratorTape(4), "path")
        ends = line(0).log_prob(path[:, -1]) - line(1).log_prob(path[:, -1])
        title = f"Exact reversals, {steps} steps"
    else:
        laws = [PathLaw(chain(head(line, which), steps, 1500)) for which in (0, 1)]
        path = laws[1].sample(GeneratorTape(4), "path")
        tables = [marginal(chain(head(line, which), steps)) for which in (0, 1)]
        ends = torch.tensor(np.subtract(*(np.interp(path[:, -1, 0], law.place, law.density.log()) for law in tables)))
        title = f"Exact heads, {steps} steps"
    joint = log_ratio(path, *laws)
    accept = [float(ratio.clamp(max=0).exp().mean()) for ratio in (joint, ends)]
    axes.plot((-3, 3), (-3, 3), color=INK, linewidth=0.8, zorder=0)
    axes.scatter(ends, joint, s=3, color=RESIDUAL if place == 0 else TARGET, alpha=0.35, linewidth=0)
    axes.set(xlim=(-2.2, 1.6), ylim=(-3, 2.4), title=title, xlabel=r"$\log\,p(x_0)/q(x_0)$")
    axes.text(-2.1, 2.0, f"E min(1, ratio)\npath {accept[0]:.3f}, token {accept[1]:.3f}", fontsize=8.5, va="top")
panels[0].set_ylabel(r"$\log\,P(Y)/Q(Y)$")
plt.show()

# %% [markdown]
# ## 3. Steps close one gap, and not the other
#
# For Gaussian data everything is linear and both distances have a closed form. **Left**, two data laws with exact
# heads: with the posterior's own covariance there is no gap, with any variance that a schedule offers there is one, and
# it closes as the steps grow fine. **Right**, one data law and a drafter whose predicted noise is off by a constant:
# from some twenty steps on, more do not help. In the limit the path distance is made of the integral of the squared
# error along the chain (Girsanov), while in $x_0$ part of the error is forgotten on the way.

# %%
counts, errors = (2, 3, 5, 10, 20, 50), (0.02, 0.05, 0.1, 0.2)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), sharey=True)
shades = {"posterior's own": INK, "large": RESIDUAL, "middle": TARGET, "small": DRAFT}
for name, fraction in (("posterior's own", None), ("large", 1.0), ("middle", 0.5), ("small", 0.0)):
    found = []
    for steps in counts:
        if fraction is None:
            pair = [Reversal(plane(which), schedule(steps)) for which in (0, 1)]
        else:
            pair = [chain(head(plane, which), steps, fraction=fraction) for which in (0, 1)]
        found.append(distances(*pair))
        assert fraction is not None or abs(found[-1][0] - found[-1][1]) < 1e-10
    paths_apart, ends_apart = zip(*found, strict=True)
    left.plot(counts, paths_apart, "o-", markersize=3.5, color=shades[name], label=name)
    left.plot(counts, ends_apart, ":", color=shades[name])
left.set(xscale="log", xticks=counts, xticklabels=counts, xlabel="steps", ylabel="TV",
         title="Two data laws, exact heads, by the variance")  # fmt: skip
for error, shade in zip(errors, plt.cm.viridis(np.linspace(0.75, 0.1, len(errors))), strict=True):
    found = []
    for steps in counts:
        right_one = Reversal(plane(0), schedule(steps))
        found.append(distances(right_one, Mistaken(right_one, right_one.schedule, error)))
        assert found[-1][0] > found[-1][1] - 1e-12
    paths_apart, ends_apart = zip(*found, strict=True)
    right.plot(counts, paths_apart, "o-", markersize=3.5, color=shade, label=f"{error:g}")
    right.plot(counts, ends_apart, ":", color=shade)
right.set(xscale="log", xticks=counts, xticklabels=counts, xlabel="steps", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6),
          title="One data law, noise off by a constant")  # fmt: skip
for axes in (left, right):
    axes.minorticks_off()
    handles, labels = axes.get_legend_handles_labels()
    handles += [
        plt.Line2D([], [], color=KEPT, **how) for how in ({"marker": "o", "markersize": 3.5}, {"linestyle": ":"})
    ]
    axes.legend(handles, [*labels, "paths", "$x_0$"], fontsize=8, loc="upper right", ncols=2)
plt.show()

# %% [markdown]
# ## 4. What to do about the gap
#
# `whole_path` is the rule above. Other exact rules look at the same draft differently.
#
# - `coalescing` (notebook 05) walks the target's chain beside the draft and tries at every step to be where it is.
# - `pooled_noise` (notebook 05) fixes all of the path's noise but one weighted sum of it, and compares the laws of
#   $x_0$ given the rest.
# - `flow_exact` needs a deterministic sampler: $x_0$ is then a map of $x_T$ and has a density by change of variables.
#   It reaches the optimum *of its own pair of laws*, if the maps are one to one. With few steps they may not be; what
#   cannot be inverted is rejected, which keeps the rule exact and costs acceptance.
#
# Below the target's head is exact, on the line, and the drafter's predicted noise is off by a smooth random function.
# There the optimum $1-\mathrm{TV}$ of the tokens is known, by quadrature for the chain and by a fine histogram for the
# flow. On the right are the trained heads that ship with this package, conditioned, in two dimensions.


# %%
def acceptances(drafter, target, condition, steps, few, spread):
    """E min(1, ratio) of each rule over drafts, one for every condition (rows, c); the dear rule on the first few."""
    chains = [Denoiser(each, schedule(steps), condition[:, None], fraction=0.5) for each in (drafter, target)]
    prior, after = (PathLaw(each) for each in chains)
    path = prior.sample(GeneratorTape(11), "draft")
    found = {"whole path": log_ratios(path, prior, after).sum(-1)[:, 0]}
    beside = Coalescing().verify(Draft.chain(path, prior), after[:, [0, 0]], GeneratorTape(12))
    found["coalescing"] = beside.log_accept[:, 0]
    near, eta = PooledNoise.split(chains[0][:few, 0], path[:few, 0], influence(chains[1], spread))
    far = PooledNoise(chains[1][:few, 0], near.others, near.weights)
    found["pooled noise"] = pooled_noise.compare(near, far, path[:few, 0, -1], eta)[0]
    flows = [FlowLaw(each, schedule(steps), condition, with_noise=True) for each in (drafter, target)]
    ends = flows[0].sample(GeneratorTape(13), "draft")
    found["flow-exact"] = flow_exact.compare(ends[:, 1], flows[1], flows[0], drafted=ends[:, 0]).nan_to_num(-torch.inf)
    each = {name: ratio.clamp(max=0).exp() for name, ratio in found.items()}
    return {name: (float(keep.mean()), float(keep.std()) / len(keep) ** 0.5) for name, keep in each.items()}


def optima(drafter, target, steps):
    """1 - TV of the law of x_0, of the chains by quadrature and of the flows by the images of even quantiles."""
    tables = [marginal(chain(each, steps)) for each in (drafter, target)]
    noise = torch.special.ndtri((torch.arange(30_000, dtype=torch.float64) + 0.5) / 30_000).unsqueeze(-1)
    bins = np.linspace(-5, 5, 401)
    masses = [np.histogram(FlowLaw(each, schedule(steps), noise.new_zeros(1)).transport(noise), bins)[0] / len(noise)
              for each in (drafter, target)]  # fmt: skip
    return shared(*tables), float(np.minimum(*masses).sum())


none = torch.zeros(600, 1, dtype=torch.float64)
right_head = head(line, 0)
sweeps = {
    "steps": {steps: (Wavy(right_head, 0.1), right_head, steps) for steps in (5, 10, 25)},
    "error": {error: (Wavy(right_head, error), right_head, 15) for error in (0.01, 0.03, 0.1, 0.2, 0.3)},
}
results = {name: {at: (acceptances(*pair[:2], none, pair[2], 90, 0.1), optima(*pair)) for at, pair in sweep.items()}
           for name, sweep in sweeps.items()}  # fmt: skip
pair = pretrained("ring", dtype=torch.float64)
ring = acceptances(pair.drafter, pair.target, conditions(GeneratorTape(14), 400), 15, 64, 0.05)
for name, (mean, error) in ring.items():
    print(f"trained heads on the ring, 15 steps: {name:13s} {mean:.3f} +- {error:.3f}")

COLOUR = {"whole path": TARGET, "coalescing": DRAFT, "pooled noise": RESIDUAL, "flow-exact": LOSSY}
figure, (left, middle, last) = plt.subplots(1, 3, figsize=(11.5, 3.7), width_ratios=(1, 1, 0.72), sharey=True)
for axes, found in zip((left, middle), results.values(), strict=True):
    for kind, (colour, style, label) in enumerate(((INK, "-", "optimum, chain"), (LOSSY, ":", "optimum, flow"))):
        axes.plot(found.keys(), [both[kind] for _, both in found.values()], style, color=colour, label=label)
    for rule, colour in COLOUR.items():
        mean, error = zip(*(each[rule] for each, _ in found.values()), strict=True)
        axes.errorbar(found.keys(), mean, 2 * np.array(error), fmt="o", ms=4.5, color=colour, label=rule, capsize=2)
        for (reached, noise), (_, both) in zip((each[rule] for each, _ in found.values()), found.values(), strict=True):
            assert reached < both[rule == "flow-exact"] + 5 * noise + 0.005  # false alarm 3e-7; 0.005 for the histogram
    axes.set(xscale="log", xticks=list(found), xticklabels=[f"{at:g}" for at in found], ylim=(0, 1))
    axes.minorticks_off()
left.set(xlabel="steps", ylabel="acceptance", title="On the line, error .1 of the noise")
middle.set(xlabel="error of the drafter's predicted noise", title="On the line, 15 steps")
middle.legend(loc="lower left", fontsize=8)
names = sorted(ring, key=lambda name: ring[name][0])
last.bar(names, [ring[name][0] for name in names], yerr=[2 * ring[name][1] for name in names], width=0.6, capsize=2,
         color=[COLOUR[name] for name in names], alpha=0.85)  # fmt: skip
last.set_xticks(range(len(names)), [name.replace(" ", "\n").replace("-", "-\n") for name in names])
last.set_title("Trained heads in the plane")
plt.show()

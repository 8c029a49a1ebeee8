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
# # Blocks, trees and siblings
#
# One drafted token can be kept with probability $1-\mathrm{TV}(p,q)$ and no more. With several there is more to win.
# A draft may be a **chain** of $N$ tokens, a set of **siblings**, which are $K$ guesses at the same token, or a
# **tree** of both. Nothing below is estimated from samples: the lines that sample are run on a tape that follows every
# branch, and what is too large for that has a closed form.
#
# ## 1. A block is more than its tokens
#
# Think of drafting as a flow of mass through prefixes. Prefix $x$ is drafted with mass $Q(x)$, the target gives it
# $P(x)$, and a rule keeps some mass $k(x)\le Q(x)$ of it. What may be kept of the next prefix $xy$?
#
# | rule | $k(xy)$ | because |
# | --- | --- | --- |
# | token by token | $k(x)\,\min(p(y),\,q(y))$ | every token tosses its own coin |
# | block | $\min\bigl(Q(xy),\;k(x)\,p(y)\bigr)$ | after $x$, token $y$ must not come out more often than $p(y)$ |
# | greedy block | $\min\bigl(Q(xy),\;P(xy)\bigr)$ | no coupling of $P$ and $Q$ keeps more |
#
# The block's rule is the largest that leaves a *single round* lossless. The paper's opening example (Sun et al.
# 2403.10444) has two tokens without memory, $p=(\frac13,\frac23)$ and $q=(\frac23,\frac13)$. The chance that a rule
# keeps a prefix of a given draft is in its `log_accept`; times $Q$, that is the mass kept.

# %%
import itertools

import matplotlib.pyplot as plt
import torch

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from verify.couplings import sibling_cap
from verify.decode import depths, parents
from verify.exact import exact_chain, exact_rows
from verify.records import Draft, Outcome
from verify.saboteurs.block_early_stop import BlockEarlyStop
from verify.saboteurs.block_token_residual import BlockTokenResidual
from verify.saboteurs.block_without_lookahead import BlockWithoutLookahead
from verify.scenarios import Scenario
from verify.studies.multidraft import chain_caps, rules
from verify.verifiers.block import Block
from verify.verifiers.greedy_block import GreedyBlock
from verify.verifiers.k_seq import KSeq
from verify.verifiers.recursive_rejection import RecursiveRejection
from verify.verifiers.rejection import Rejection
from verify.verifiers.top_down import TopDown
from verify.verifiers.traversal import Traversal

torch.set_num_threads(1)
INK, TARGET, DRAFT, TOKEN, BLOCK, GREEDY, LOSSY = (
    "#2b303a",
    "#1f5fa8",
    "#e08214",
    "#aab4c2",
    "#1a8f7a",
    "#8a5fbf",
    "#c4342d",
)
plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9.5, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "text.color": INK,
})  # fmt: skip
RULES = {"token by token": (Rejection(), TOKEN), "block": (Block(), BLOCK), "greedy block": (GreedyBlock(), GREEDY)}

p, q = (torch.tensor(part, dtype=torch.float64) for part in ([1 / 3, 2 / 3], [2 / 3, 1 / 3]))
drafts = torch.tensor(list(itertools.product(range(2), repeat=2)))
draft, target = Categorical(q.expand(4, 2, 2)), Categorical(p.expand(4, 3, 2))
Q, P = q[drafts].prod(-1), p[drafts].prod(-1)
kept = {}
for name, (rule, _) in RULES.items():
    chance = rule.verify(Draft.chain(drafts, draft), target, GeneratorTape(0)).log_accept.cumsum(-1).exp()
    kept[name] = [(Q * chance[:, 0]).reshape(2, 2).sum(-1), Q * chance[:, 1]]
    ninths = 9 * sum(float(part.sum()) for part in kept[name])
    print(f"{name:15s} keeps {ninths:.10f} / 9 tokens a round")
    assert abs(ninths - {"token by token": 10, "block": 11, "greedy block": 12}[name]) < 1e-12

figure, panels = plt.subplots(1, 2, figsize=(10, 3.1), width_ratios=(1, 2), sharey=True)
for axes, part, masses in ((panels[0], 0, (q, p)), (panels[1], 1, (Q, P))):
    places = torch.arange(len(masses[0]))
    for mass, colour, label in zip(masses, (DRAFT, TARGET), ("drafted, $Q$", "target, $P$"), strict=True):
        axes.hlines(mass, places - 0.42, places + 0.42, color=colour, linewidth=2, label=label)
    for shift, (name, (_, colour)) in zip((-0.27, 0, 0.27), RULES.items(), strict=True):
        axes.bar(places + shift, kept[name][part], 0.25, color=colour, label=f"kept, {name}")
    words = ["a", "b"] if part == 0 else ["aa", "ab", "ba", "bb"]
    axes.set(xticks=places, xticklabels=words, xlabel=f"prefix of {'one token' if part == 0 else 'two tokens'}")
panels[0].set_ylabel("mass")
panels[1].legend(ncols=2, fontsize=8.5, loc="upper right")
plt.show()

# %% [markdown]
# ## 2. Longer blocks, and three ways to get them wrong
#
# How does block verification reach its $k$? Let $w_i=k(x_1..x_i)/Q(x_1..x_i)$, that is
# $w_i=\min\bigl(1,\,w_{i-1}\,p(x_i)/q(x_i)\bigr)$, and toss **one coin for each prefix**, of probability
#
# $$h_i=\frac{S_i}{S_i+1-w_i},\qquad S_i=\sum_y\bigl(w_i\,p(y)-q(y)\bigr)_+,\qquad h_N=w_N .$$
#
# The *longest* prefix whose coin succeeds is kept, whatever the shorter ones say, and its replacement is drawn from
# $(w_i\,p-q)_+$. Each of the three ingredients has been missed or misread: the residual (taken as $(p-q)_+$), the
# look-ahead in $h$ (a coin of $w_i$), and the scan (stopped at the first failure, as a reviewer of
# vllm-project/vllm-ascend #11985 demanded). On the right, what each of them does to the length and to the law.

# %%
big = Markov.random(3, 1, seed=47)
close = Scenario(Markov(0.6 * big.table + 0.4 * Markov.random(3, 1, seed=1047).table, 1), big)
after = torch.tensor([[1]])
lengths = range(1, 6)
found = {name: [exact_rows(rule, big, close.drafter, after, n) for n in lengths] for name, (rule, _) in RULES.items()}
caps = torch.tensor([[float(cap) for cap in chain_caps(close, after, n)] for n in lengths])

far = Scenario(Markov.random(3, 1, seed=11), Markov.random(3, 1, seed=12))
planted = {
    "residual (p - q)+": BlockTokenResidual(),
    "coin w": BlockWithoutLookahead(),
    "early stop": BlockEarlyStop(),
}
points = {}
for name, rule in {**{name: rule for name, (rule, _) in RULES.items()}, **planted}.items():
    law = exact_rows(rule, far.target, far.drafter, far.contexts, 3)
    points[name] = float(law.expected_length.mean()) - 1, float(law.tv.max())
    print(f"{name:20s} keeps {points[name][0]:.4f} tokens on average; worst bias of a round {points[name][1]:.1e}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
for (name, (_, colour)), rows in zip(RULES.items(), found.values(), strict=True):
    left.plot(lengths, [float(row.expected_length) - 1 for row in rows], "o-", color=colour, label=name)
for part, style, label in ((0, "--", "cap of a lossless round"), (1, ":", "cap of any round")):
    left.plot(lengths, caps[:, part], style, color=INK, linewidth=1, label=label)
    rule = list(found.values())[part + 1]
    assert max(abs(float(row.expected_length) - 1 - cap) for row, cap in zip(rule, caps[:, part], strict=True)) < 1e-6
left.set(xlabel="drafted tokens $N$", ylabel="tokens kept", xticks=list(lengths), title="A drafter close to its target")
left.legend(fontsize=8.5)
for name, (tokens, bias) in points.items():
    right.plot(tokens, bias, "o" if name in RULES else "D", color=RULES[name][1] if name in RULES else LOSSY)
    side = -1 if tokens > 1.5 or name == "token by token" else 1
    right.annotate(name, (tokens, bias), (8 * side, -3), textcoords="offset points", fontsize=8.5,
                   ha="left" if side > 0 else "right")  # fmt: skip
right.axvline(points["block"][0], color=INK, linewidth=0.8, linestyle="--")
right.set(
    xlabel="tokens kept ($N=3$, a distant drafter)",
    ylabel="bias of one round",
    title="Right of the line nothing is lossless by itself",
)
right.margins(x=0.14, y=0.14)
plt.show()

# %% [markdown]
# ## 3. Keeping more than is lossless, and paying it back
#
# Greedy block verification lies to the right of that line, so one round of it *must* be biased; and it is. Where
# $P(x)\le Q(x)$ all of the target's mass is met by drafts. Where $P(x)>Q(x)$ too few drafts pass through $x$, and what
# is still missing after it, $(P-Q)_+(xy)$, is owed by everybody who has left the drafts at $x$ or before. So the next
# round must not sample the target but, until the $N$ positions of this block are filled,
#
# $$p'(y\mid x)\;\propto\;\bigl(P(xy)-Q(xy)\bigr)_+ .$$
#
# The ratio $P/Q$ of what was emitted travels with the sequence (`Outcome.memory`); with debts on debts there are up to
# $N-1$ of them. Decoded sequences are then exact, which only a test across rounds can see. The gain is not free: later
# rounds verify against a harder target.


# %%
class Forgetful(GreedyBlock):
    """Greedy, and the next round is not told."""

    def verify(self, draft, target, tape):
        made = super().verify(draft, target, tape)
        return Outcome(made.value, made.length, made.kept, made.log_accept)


two = Markov.random(2, 2, seed=6), Markov.random(2, 1, seed=5)
print("tokens   bias: block    greedy   forgetful   rounds: token    block   greedy")
for length in range(1, 8):
    chain = [exact_chain(*two, rule, 3, length) for rule in (Rejection(), Block(), GreedyBlock(), Forgetful())]
    bias = "   ".join(f"{law.tv:7.1e}" for law in chain[1:])
    print(f"{length:4d}         {bias}            " + "  ".join(f"{law.rounds:7.4f}" for law in chain[:3]))
    assert max(law.tv for law in chain[:3]) < 1e-14

# %% [markdown]
# ## 4. Trees: from the leaves to the root
#
# In a tree every node may have several children. The obvious way is **top-down** (SpecInfer 2305.09781): try the
# children of the root one after the other, then those of the one that was kept. **Traversal** (2505.12398) starts at
# the leaves. A path has the weight $w_i=\min(1,\,w_{i-1}\,p/q)$ of a block; a leaf that fails leaves its parent with
# the residual for a law and a new weight, the $h$ of section 2, for its next child. On a chain it *is* block
# verification.
# Both are lossless, and both keep each child of the root equally often: traversal wins below. The circles hold the
# probability that a node is kept (green: more than top-down); siblings are drawn without replacement.

# %%
pair = Markov.random(3, 1, seed=15, concentration=0.3), Markov.random(3, 1, seed=1015, concentration=0.3)
contexts, nodes = torch.arange(3).unsqueeze(1), 6
laws = {
    name: exact_rows(rule, *pair, contexts, nodes)
    for name, rule in (("top-down", TopDown()), ("traversal", Traversal()))
}
row = int((laws["traversal"].expected_length - laws["top-down"].expected_length).argmax())
parent = parents(Traversal(), nodes).tolist()
level = depths(torch.tensor(parent)).tolist()
place = {-1: (0.0, 0), 0: (-1.15, 1), 1: (1.15, 1), 2: (-1.7, 2), 3: (-0.6, 2), 4: (0.6, 2), 5: (1.7, 2)}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.3))
for axes, (name, law) in zip(panels, laws.items(), strict=True):
    assert float(law.tv.max()) < 1e-14
    for node, above in enumerate(parent):
        chance = float(law.kept[row, node])
        (x, depth), (x0, depth0) = place[node], place[above]
        axes.plot([x0, x], [-depth0, -depth], color=TOKEN, linewidth=1 + 9 * chance, zorder=1, solid_capstyle="round")
        gain = chance - float(laws["top-down"].kept[row, node])
        colour = BLOCK if gain > 1e-9 else LOSSY if gain < -1e-9 else INK
        axes.scatter(x, -depth, s=1150, color="white", edgecolor=colour, linewidth=1.6, zorder=2)
        axes.text(x, -depth, f"{chance:.3f}", ha="center", va="center", fontsize=8.5, color=colour, zorder=3)
    axes.scatter(0, 0, s=500, color="white", edgecolor=INK, zorder=2)
    axes.text(0, 0, "root", ha="center", va="center", fontsize=8, zorder=3)
    axes.set(
        title=f"{name}: {float(law.expected_length[row]) - 1:.4f} drafted tokens kept",
        xlim=(-2.2, 2.2),
        ylim=(-2.4, 0.35),
    )
    axes.axis("off")
plt.show()

# %% [markdown]
# ## 5. Siblings, and the cap of optimal transport
#
# $K$ guesses at one token can be accepted with probability at most
#
# $$\alpha^*_K=\min_{H}\;\Bigl[1+p(H)-\Pr(\text{all siblings in }H)\Bigr],$$
#
# the minimum over sets $H$ of tokens; for independent siblings the last term is $q(H)^K$, and the best $H$ collects
# tokens by increasing $p/q$. Below are all the catalogue's exact rules that read siblings: recursive rejection, K-SEQ,
# list matching on the siblings' own Gumbel noise, and recursive rejection of siblings drawn without replacement, whose
# cap is higher. For one sibling all but list matching are at the cap; for more, each of them leaves room.

# %%
pair = Scenario(Markov.random(5, 1, seed=13, concentration=0.7), Markov.random(5, 1, seed=14, concentration=0.7))
after, counts = torch.tensor([[0]]), range(1, 6)
known = rules().siblings
laws = {name: [exact_rows(rule, pair.target, pair.drafter, after, n) for n in counts] for name, rule in known.items()}
assert max(float(law.tv.max()) for some in laws.values() for law in some) < 1e-13
assert all(float(law.acceptance) < float(law.overlap) + 1e-13 for some in laws.values() for law in some)

noise = GeneratorTape(seed=1).normal("logits", (2, 2000))
logits = -1.1 * torch.log(torch.arange(1, 2001, dtype=torch.float64)) + 0.6 * noise[0]
wide = Categorical(logits.softmax(-1)), Categorical((logits + 1.2 * noise[1]).softmax(-1))
many = [1, 2, 4, 8, 16, 32, 64]
forms = {"recursive_rejection": RecursiveRejection(), "k_seq": KSeq()}
most = [float(sibling_cap(wide[0].probs, wide[1].probs, n)) for n in many]

colours = dict(zip(known, (DRAFT, TARGET, BLOCK, GREEDY), strict=False))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
for name, some in laws.items():
    left.plot(counts, [float(law.acceptance) for law in some], "o-", color=colours.get(name, LOSSY), label=name)
for drawn, style in (("independent", "--"), ("distinct", ":")):
    some = next(laws[name] for name, rule in known.items() if hasattr(rule, "drafts") == (drawn == "distinct"))
    left.plot(counts, [float(law.overlap) for law in some], style, color=INK, label=f"cap, {drawn} siblings")
for name, rule in forms.items():
    accepted = [float(rule.acceptance(*wide, n)) for n in many]
    assert all(part < cap + 1e-12 for part, cap in zip(accepted, most, strict=True))
    right.plot(many, accepted, "o-", color=colours[name], label=name)
    print(
        f"{name:20s} reaches {min(a / b for a, b in zip(accepted, most, strict=True)):.4f} of the cap where it is worst"
    )
right.plot(many, most, "--", color=INK, label="cap, independent siblings")
right.fill_between(many, most, 1, color=TOKEN, alpha=0.3, linewidth=0)
right.text(1.1, 0.93, "no lossless rule", fontsize=8.5, alpha=0.8)
right.set_xscale("log", base=2)
right.set(xlabel="siblings $K$", xticks=many, xticklabels=many, ylim=(None, 1.0), title="2 000 tokens, in closed form")
left.set(xlabel="siblings $K$", ylabel="acceptance", xticks=list(counts), title="5 tokens, enumerated")
for axes, where in ((left, "upper left"), (right, "lower right")):
    axes.legend(fontsize=8.5, loc=where)
plt.show()

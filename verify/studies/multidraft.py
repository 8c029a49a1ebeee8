"""What blocks, siblings and trees are for: every lossless rule of the catalogue against the most that any can keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from distributions.autoregressive import Markov
from verify.audit import TOLERANCE, finite
from verify.decode import parents
from verify.exact import RoundLaw, conditionals, exact_chain, exact_rows
from verify.jacobi import Jacobi
from verify.report.curves import curve, legend, panels, strokes
from verify.report.figures import INK, MUTED
from verify.scenarios import Scenario, scenarios
from verify.study import Study
from verify.verifier import Verifier, catalog

VOCABS = {"quick": (3,), "thorough": (2, 3, 5)}
SIBLINGS, NODES, TOKENS = 2, 4, 4
"""Siblings of one token, nodes of a tree, and tokens decoded, in the tables."""
MOST = {"siblings": 5, "chain": 5, "tree": 6}
"""Of the figures."""


@dataclass(frozen=True)
class Rules:
    """The exact rules of the catalogue by the shape of their drafts. Jacobi decoding, whose drafter is the rule itself,
    has a study of its own.
    """

    chain: Mapping[str, Verifier]
    siblings: Mapping[str, Verifier]
    tree: Mapping[str, Verifier]


def rules() -> Rules:
    """The catalogue, sorted: a rule that reads siblings only, one that reads a deeper tree, or a chain."""
    found: dict[str, dict[str, Verifier]] = {"chain": {}, "siblings": {}, "tree": {}}
    for name, kind in catalog().items():
        if kind.claim.exact and finite(kind.claim) and not issubclass(kind, Jacobi):
            shape = parents(kind(), NODES)
            flat, own = bool((shape < 0).all()), hasattr(kind, "parent")
            found["siblings" if flat else "tree" if own else "chain"][name] = kind()
    return Rules(**found)


def chain_caps(scenario: Scenario, contexts: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The most drafted tokens (rows,) of a chain that a round can keep: if it is lossless itself, and in any case.

    With p, q the conditionals after prefix x and P, Q the laws of whole prefixes, prefix xy is kept with mass at most
    min(Q(xy), kept(x) p(y)) if token y may not be emitted more often after x than the target does, and at most
    min(P, Q)(xy) by the cap on one draft. Summed over all prefixes; block and greedy_block attain them.
    """
    laws = []
    for model in (scenario.target, scenario.drafter):
        state = model.extend(model.start(len(contexts)), contexts, torch.full((len(contexts),), contexts.shape[1]))
        laws.append(conditionals(model, state, len(contexts), nodes))
    target = draft = kept = torch.ones(len(contexts), 1, dtype=torch.float64)
    alone, across = torch.zeros(2, len(contexts), dtype=torch.float64)
    for law, prior in zip(*laws, strict=True):
        target, draft = ((mass.unsqueeze(-1) * part).flatten(1) for mass, part in ((target, law), (draft, prior)))
        kept = torch.minimum(draft, (kept.unsqueeze(-1) * law).flatten(1))
        alone, across = alone + kept.sum(-1), across + torch.minimum(target, draft).sum(-1)
    return alone, across


class Ledger:
    """Rounds enumerated, each held against its caps: what was found largest of excess and of bias."""

    def __init__(self) -> None:
        self.excess = self.bias = -1.0
        self.rounds = 0

    def round(self, verifier: Verifier, scenario: Scenario, contexts: Tensor, nodes: int) -> RoundLaw:
        """The exact law of a round; raises ValueError where a lossless rule passes a cap or has a bias."""
        found = exact_rows(verifier, scenario.target, scenario.drafter, contexts, nodes)
        excess = [found.acceptance - found.overlap]
        if not hasattr(verifier, "parent"):
            alone, across = chain_caps(scenario, contexts, nodes)
            excess.append(found.expected_length - 1 - (alone if verifier.claim.level == "round" else across))
        self.excess = max(self.excess, *(float(part.max()) for part in excess))
        if verifier.claim.level == "round":
            self.bias = max(self.bias, float(found.tv.max()))
        self.rounds += len(contexts)
        if max(self.excess, self.bias) > TOLERANCE:
            raise ValueError(
                f"{verifier!r} on {scenario.name or 'a scenario'} passes a cap by {self.excess:.3g} or has bias "
                f"{self.bias:.3g}: its claim is wrong, or the cap is"
            )
        return found


def run(budget: str) -> Study:
    """Every exact rule on every scenario, and against the number of its drafts on one pair of models."""
    known, ledger = rules(), Ledger()
    cases = scenarios(VOCABS[budget]).values()
    tables = (
        list(_chains(known.chain, cases, ledger)),
        list(_decoded(known.chain, cases)),
        list(_siblings(known.siblings, cases, ledger)),
        list(_trees(known.tree, cases, ledger)),
    )
    captions = (
        "Drafted tokens kept in one round of a chain, mean over contexts",
        f"Rounds to decode {TOKENS} tokens from the start",
        f"Probability that one of {SIBLINGS} siblings is the next token, mean over contexts",
        f"Drafted tokens kept of a tree of {NODES} nodes, mean over contexts",
    )
    pair = Scenario(Markov.random(5, 1, 13, 0.7), Markov.random(5, 1, 14, 0.7), name="the figures' pair")
    figures = {
        "Probability that the next token is one of K drafted siblings, in three contexts, by rule and the most that a "
        "lossless rule can reach. Distinct siblings have a cap of their own.": _sibling_figure(
            known.siblings, pair, ledger
        ),
        "Drafted tokens kept in one round: chains, with the caps of a lossless round and of any; and trees.": (
            _length_figure(known, ledger)
        ),
    }
    return Study(
        title="Blocks, siblings and trees: lossless rules against their caps",
        text=_text(known, ledger, tables),
        tables=dict(zip(captions, tables, strict=True)),
        figures=figures,
    )


# --- tables ----------------------------------------------------------------------------------------------------------
def _chains(known: Mapping[str, Verifier], cases: Iterable[Scenario], ledger: Ledger) -> Iterator[dict[str, Any]]:
    for case in cases:
        alone, across = chain_caps(case, case.contexts, case.draft_length)
        found = {name: ledger.round(rule, case, case.contexts, case.draft_length) for name, rule in known.items()}
        kept = {name: float(rows.expected_length.mean()) - 1 for name, rows in found.items()}
        caps = {"cap, lossless round": float(alone.mean()), "cap, any round": float(across.mean())}
        yield {"scenario": case.name, "drafted": case.draft_length, **kept, **caps}


def _decoded(known: Mapping[str, Verifier], cases: Iterable[Scenario]) -> Iterator[dict[str, Any]]:
    for case in cases:
        pair = case.target, case.drafter
        yield {"scenario": case.name} | {
            name: exact_chain(*pair, rule, case.draft_length, TOKENS).rounds for name, rule in known.items()
        }


def _siblings(known: Mapping[str, Verifier], cases: Iterable[Scenario], ledger: Ledger) -> Iterator[dict[str, Any]]:
    for case in cases:
        row: dict[str, Any] = {"scenario": case.name}
        caps: dict[str, float] = {}
        for name, rule in known.items():
            found = ledger.round(rule, case, case.contexts, SIBLINGS)
            row[name], caps[_drawn(rule)] = float(found.acceptance.mean()), float(found.overlap.mean())
        yield row | {f"cap, {drawn}": cap for drawn, cap in caps.items()}


def _trees(known: Mapping[str, Verifier], cases: Iterable[Scenario], ledger: Ledger) -> Iterator[dict[str, Any]]:
    for case in cases:
        found = {name: ledger.round(rule, case, case.contexts, NODES) for name, rule in known.items()}
        yield {"scenario": case.name} | {name: float(rows.expected_length.mean()) - 1 for name, rows in found.items()}


def _drawn(rule: Verifier) -> str:
    """How a rule's siblings are drawn."""
    return "distinct" if hasattr(rule, "drafts") else "independent"


# --- figures ---------------------------------------------------------------------------------------------------------
def _sibling_figure(known: Mapping[str, Verifier], pair: Scenario, ledger: Ledger) -> Figure:
    places = range(1, MOST["siblings"] + 1)
    contexts = pair.contexts[[0, 1, 3]]
    figure, plots = panels([f"after token {int(context)}" for context in contexts[:, 0]], width=3.2, height=3.4)
    found = {name: [ledger.round(rule, pair, contexts, count) for count in places] for name, rule in known.items()}
    lines = strokes(list(known), [])
    caps = {f"cap, {_drawn(rule)}": name for name, rule in known.items()}
    dashes = dict(zip(caps, ("--", ":"), strict=True))
    for row, plot in enumerate(plots):
        for cap, name in caps.items():
            most = [float(law.overlap[row]) for law in found[name]]
            plot.plot(places, most, color=INK, linestyle=dashes[cap], linewidth=1.3)
        for name, laws in found.items():
            curve(plot, places, [(float(law.acceptance[row]),) * 3 for law in laws], lines[name])
        _count_axis(plot, "siblings K")
    plots[0].set_ylabel("acceptance")
    legend(figure, lines | {cap: {"color": INK, "linestyle": dashes[cap]} for cap in caps})
    return figure


def _length_figure(known: Rules, ledger: Ledger) -> Figure:
    target = Markov.random(3, 1, 47)
    pair = Scenario(
        Markov(0.6 * target.table + 0.4 * Markov.random(3, 1, 1047).table, 1), target, name="the figures' pair"
    )
    context = torch.tensor([[1]])
    figure, plots = panels(["a chain of N nodes", "a tree of N nodes, two children each"], width=4.4, height=3.4)
    dashed = {name: {**line, "linestyle": "-."} for name, line in strokes(list(known.tree), []).items()}
    lines = strokes(list(known.chain), []) | dashed
    caps = {"cap, lossless round": "--", "cap, any round": ":"}
    for plot, some, most in ((plots[0], known.chain, MOST["chain"]), (plots[1], known.tree, MOST["tree"])):
        places = range(1, most + 1)
        for name, rule in some.items():
            kept = [float(ledger.round(rule, pair, context, nodes).expected_length) - 1 for nodes in places]
            curve(plot, places, [(value,) * 3 for value in kept], lines[name])
        _count_axis(plot, "nodes N")
    places = range(1, MOST["chain"] + 1)
    both = [chain_caps(pair, context, nodes) for nodes in places]
    for part, dash in enumerate(caps.values()):
        plots[0].plot(places, [float(cap[part]) for cap in both], color=INK, linestyle=dash, linewidth=1.3)
    plots[0].set_ylabel("drafted tokens kept")
    plots[1].set_ylim(plots[0].get_ylim())
    legend(figure, lines | {cap: {"color": INK, "linestyle": dash} for cap, dash in caps.items()})
    return figure


def _count_axis(plot: Axes, label: str) -> None:
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel(label)
    plot.tick_params(color=MUTED)


# --- words -----------------------------------------------------------------------------------------------------------
def _text(known: Rules, ledger: Ledger, tables: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    chains, decoded, siblings, trees = tables
    gain = max(chains, key=lambda row: row["block"] - row["rejection"])
    higher = max(trees, key=lambda row: row["traversal"] - row["top_down"])
    owed = [row["greedy_block"] - row["block"] for row in decoded]
    at_cap = ", ".join(
        f"{name} on {sum(row[name] > row[f'cap, {_drawn(rule)}'] - TOLERANCE for row in siblings)}"
        for name, rule in known.siblings.items()
    )
    return (
        f"Every figure here is enumerated, none is sampled. Over {ledger.rounds} rounds no rule passes its cap by more "
        f"than {max(ledger.excess, 0.0):.1e}, and no round of a rule that is exact by itself has a bias above "
        f"{ledger.bias:.1e}.\n\n"
        "**Chains.** Block verification attains the most that a lossless round can keep. Its largest gain over token "
        f"by token here is {gain['block'] - gain['rejection']:.3f} tokens a round, on {gain['scenario']}. Greedy block "
        "keeps what any round can, and owes the difference to the rounds after it: over whole sequences it takes more "
        f"rounds than block on {sum(more > TOLERANCE for more in owed)} of {len(owed)} scenarios, and fewer on "
        f"{sum(more < -TOLERANCE for more in owed)}.\n\n"
        f"**Siblings.** Of {len(siblings)} scenarios, each rule reaches the cap of its own drafts: {at_cap}.\n\n"
        "**Trees.** Traversal and recursive rejection from the root down accept a first token equally often; whole "
        f"paths gain below it, at most {higher['traversal'] - higher['top_down']:.3f} tokens a round, on "
        f"{higher['scenario']}."
    )

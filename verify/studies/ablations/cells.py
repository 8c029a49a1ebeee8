"""What is measured: decoded sequences of tokens of trained heads, and which drafts were kept where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from distributions.heads import Head
from distributions.path import Denoiser, PathLaw
from distributions.schedule import cosine
from distributions.sequence import TokenSequence
from distributions.tape import GeneratorTape, Tape
from distributions.training import Trained, pretrained
from verify.decode import decode, policy, propose
from verify.estimates import Estimate
from verify.verifier import Verifier

VARIANCES: Mapping[str, float | None] = {"learned": None, "equal": 1.0}


@dataclass(frozen=True)
class Setting:
    """What is decoded, and how: ``length`` tokens at least, to the end of a round, the first ``prefilled`` share of the
    length by the target; drafts of ``nodes`` tokens; chains of ``steps``; sampling ``temperature`` and ``guidance`` of
    drafter and target alike; ``variance`` of the steps, each head's own or one for both.
    """

    data: str = "ring"
    steps: int = 16
    length: int = 24
    nodes: int = 8
    variance: str = "learned"
    temperature: float = 1.0
    guidance: float = 1.0
    prefilled: float = 0.0

    @property
    def before(self) -> int:
        """How many tokens the target makes first."""
        return math.ceil(self.prefilled * self.length - 1e-9)

    def model(self, head: Head) -> TokenSequence:
        """The sequence model of a head: a cosine chain, entered one step in."""
        grid = cosine(self.steps).one_step_in()

        def given(condition: Tensor) -> PathLaw:
            fraction = VARIANCES[self.variance]
            return PathLaw(Denoiser(head, grid, condition, self.temperature, self.guidance, fraction))

        return TokenSequence(given, head.dim)


@dataclass(frozen=True, eq=False)
class Cell:
    """One rule in one setting: how often each place of each sequence, (rows, places) all, was ``drafted``, ``examined``
    by the test and ``kept``; and the ``rounds`` and ``tokens`` (rows,). ``tries``: how many residuals took 1, 2, ...
    draws. Places beyond the length belong to the last round.
    """

    rule: str
    setting: Setting
    drafted: Tensor
    examined: Tensor
    kept: Tensor
    rounds: Tensor
    tokens: Tensor
    tries: Tensor

    @property
    def alpha(self) -> Estimate:
        """Kept among drafted, the published figure; what follows a rejection counts as not kept."""
        return ratio(self.kept.sum(1), self.drafted.sum(1))

    @property
    def token(self) -> Estimate:
        """Kept among those examined: the probability that one test is passed."""
        return ratio(self.kept.sum(1), self.examined.sum(1))

    @property
    def emitted(self) -> Estimate:
        """Tokens a round."""
        return ratio(self.tokens, self.rounds)

    def by_place(self, bins: int) -> list[Estimate]:
        """``token`` for each of ``bins`` stretches of the sequence; (nan, nan) where nothing was examined."""
        size = self.setting.length - self.setting.before
        stretches = zip(*(part[:, :size].chunk(bins, 1) for part in (self.kept, self.examined)), strict=True)
        return [ratio(kept.sum(1), examined.sum(1)) for kept, examined in stretches]

    @property
    def by_node(self) -> tuple[Estimate, Estimate]:
        """``token`` of the first node of a draft and of the later ones, for a rule that examines all of them."""
        nodes = self.setting.nodes
        kept, size = self.kept.reshape(len(self.kept), -1, nodes), self.examined.shape[1] // nodes
        counts = torch.full((len(kept),), size)
        return ratio(kept[..., 0].sum(1), counts), ratio(kept[..., 1:].sum((1, 2)), counts * (nodes - 1))


def ratio(part: Tensor, whole: Tensor) -> Estimate:
    """sum part / sum whole over independent rows (n,), and its standard error by linearisation (Cochran 1977, 6.4)."""
    part, whole = part.double(), whole.double()
    total = float(whole.sum())
    if not total:
        return math.nan, math.nan
    value = float(part.sum()) / total
    rows = len(part)
    return value, math.sqrt(float((part - value * whole).square().sum()) * rows / max(1, rows - 1)) / total


@dataclass(eq=False)
class Counting(GeneratorTape):
    """A tape that counts, loop by loop, the rows that drew a proposal of a residual: ``loops`` of counts that fall.

    A proposal that is a path draws its x_T at ``residual.proposal.`` ``steps``, which opens it.
    """

    steps: int = 0
    loops: list[list[int]] = field(default_factory=list)
    _open: bool = False

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        if not site.startswith("residual.proposal"):
            self._open = False
        elif site in ("residual.proposal", f"residual.proposal.{self.steps}"):
            if not self._open:
                self.loops.append([])
            self.loops[-1].append(shape[0])
            self._open = True
        return super().normal(site, shape)

    def tries(self) -> Tensor:
        """How many residuals took 1, 2, ... draws; those cut short count with the last."""
        most = max((len(loop) for loop in self.loops), default=0)
        left = torch.zeros(most + 1, dtype=torch.long)
        for loop in self.loops:
            left[: len(loop)] += torch.tensor(loop)
        return left[:-1] - left[1:]


@dataclass(frozen=True, eq=False)
class Begun(TokenSequence):
    """A sequence that has begun: its start is ``state`` (rows, order, d)."""

    state: Tensor = field(default_factory=lambda: torch.zeros(0))

    def start(self, rows: int, condition: object = None) -> Tensor:
        """The state given."""
        return self.state


@cache
def heads(data: str) -> Trained:
    """The trained pair."""
    return pretrained(data)


def measure(name: str, rule: Verifier, setting: Setting, rows: int, seed: int, pair: Trained | None = None) -> Cell:
    """Decode ``rows`` sequences and count."""
    pair = heads(setting.data) if pair is None else pair
    target, drafter = setting.model(pair.target), setting.model(pair.drafter)
    tape, state = Counting(seed, steps=setting.steps - 1), target.start(rows)
    for place in range(setting.before):
        value = target.law(state).sample(tape, f"prefill.{place}")
        state = target.extend(state, value, torch.ones(rows, dtype=torch.long))
    both = Begun(target.given, target.dim, state=state), Begun(drafter.given, drafter.dim, state=state)
    count = one_by_one if getattr(rule, "rollback", True) else together
    found = count(*both, rule, setting.nodes, setting.length - setting.before, tape, rows)
    return Cell(name, setting, *found, tape.tries())


Counts = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def together(target: Begun, drafter: Begun, rule: Verifier, nodes: int, length: int, tape: Tape, rows: int) -> Counts:
    """The counts of ``decode`` for a rule without rollback, which examines every node and emits as many."""
    whole = math.ceil(length / nodes)
    trace = decode(target, drafter, rule, nodes, whole * nodes, tape, rows)
    kept = trace.kept.transpose(0, 1).reshape(rows, whole * nodes).long()
    every, rounds = torch.ones_like(kept), torch.full((rows,), whole)
    return every, every, kept, rounds, nodes * rounds


def one_by_one(target: Begun, drafter: Begun, rule: Verifier, nodes: int, length: int, tape: Tape, rows: int) -> Counts:
    """The counts of ``decode`` for a rule that stops at the first rejection and judges every node by itself.

    A round is walked node by node, as far as it goes, which is the same in law: whether a node is kept depends on it
    and on what was emitted before it alone. It ends at a rejection, or after ``nodes`` and the bonus. So a long draft
    costs no more than a short one; its nodes behind a rejection are counted and not drawn. A row's last round is the
    one that passes the length, and it is walked to its end.
    """
    states = target.start(rows), drafter.start(rows)
    alive, place, depth = torch.arange(rows), torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
    drafted, examined, kept = torch.zeros(3, rows, length + 2 * nodes, dtype=torch.long)
    rounds = torch.zeros(rows, dtype=torch.long)
    while len(alive):
        begin = alive[depth[alive] == 0]
        rounds[begin] += 1
        drafted[begin.unsqueeze(1), place[begin].unsqueeze(1) + torch.arange(nodes)] += 1
        draft = propose(drafter, states[1], torch.tensor([-1]), tape[alive], policy(rule))
        outcome = rule.verify(draft, target.law(states[0], draft.value, draft.parent), tape[alive])
        passed = outcome.kept[:, 0]
        examined[alive, place[alive]] += 1
        kept[alive, place[alive]] += passed
        ends = depth[alive] + 1 == nodes
        depth[alive] = torch.where(passed & ~ends, depth[alive] + 1, 0)
        advance = 1 + (passed & ends).long()
        place[alive] += advance
        left = torch.nonzero((place[alive] < length) | (depth[alive] > 0)).squeeze(1)
        both = zip((target, drafter), states, strict=True)
        first, second = (model.select(model.extend(state, outcome.value, advance), left) for model, state in both)
        states, alive = (first, second), alive[left]
    return drafted, examined, kept, rounds, place

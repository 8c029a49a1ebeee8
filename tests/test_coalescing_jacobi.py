"""Jacobi decoding of paths: exact by enumeration on gridded chains, the known law of whole sequences, fewer passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.enumeration import enumerate_tape
from distributions.gaussian import FullGaussian
from distributions.law import Law
from distributions.path import PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape, Tape
from tests.ladder_models import Tokens, double, reversal
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.products import Products
from verify.decode import Trace, decode
from verify.records import Draft, Outcome
from verify.residual import residual_law
from verify.verifiers.coalescing_jacobi import CoalescingJacobi

torch.set_num_threads(1)


# --- chains on a grid: every draw a coin or a category ---
@dataclass(frozen=True, eq=False)
class Places:
    """A Categorical over the places 0 .. K - 1 of a line, as a law of points (1,)."""

    probs: Tensor

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.probs.shape[:-1])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (1,)

    def sample(self, tape: Tape, site: str) -> Tensor:
        return tape.categorical(site, self.probs).double().unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return Categorical(self.probs).log_prob(value.squeeze(-1).long())

    def token(self, value: Tensor) -> Tensor:
        return value

    def __getitem__(self, index: Any) -> Places:
        return Places(self.probs[index])


@dataclass(frozen=True, eq=False)
class Grid:
    """A chain on places whose tables depend on the ``last`` token (*batch,): from ``start`` (K,) at x_T, tables
    (T, K, K, K) by time, last token and x_t.
    """

    first: Tensor
    tables: Tensor
    last: Tensor
    dim: int = 1

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.last.shape)

    @property
    def steps(self) -> int:
        return len(self.tables)

    def start(self) -> Places:
        return Places(self.first.expand(*self.last.shape, -1))

    def step(self, time: int, value: Tensor) -> Places:
        return Places(self.tables[time - 1][self.last, value.squeeze(-1).long()])

    def __getitem__(self, index: Any) -> Grid:
        return replace(self, last=self.last[index])


@dataclass(frozen=True, eq=False)
class GridTokens:
    """A sequence of tokens drawn by such chains; its state is the last token (rows,), 0 at first."""

    first: Tensor
    tables: Tensor

    def start(self, rows: int, condition: Any = None) -> Tensor:
        return torch.zeros(rows, dtype=torch.long)

    def law(self, state: Tensor, value: Tensor | None = None, parent: Tensor | None = None) -> Law:
        here = state.unsqueeze(1)
        tokens = here if value is None else torch.cat([here, value[..., -1, 0].long()], 1)
        return PathLaw(Grid(self.first, self.tables, tokens))

    def extend(self, state: Tensor, value: Tensor, length: Tensor) -> Tensor:
        return value[torch.arange(len(value)), length - 1, -1, 0].long()

    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        return state[rows]

    def marginal(self) -> Tensor:
        """The law (K, K) of a token given the last one, by matrix products."""
        return torch.stack([self._token(last) for last in range(self.tables.shape[1])])

    def _token(self, last: int) -> Tensor:
        mass = self.first
        for table in self.tables.flip(0):
            mass = mass @ table[last]
        return mass


def coupled_places(value: Tensor, target: Any, draft: Any, tape: Tape, site: str) -> Tensor:
    """The maximal coupling on places: keep with min(1, p / q), else draw from (p - q)+."""
    keep = tape.coin(f"{site}.keep", (target.log_prob(value) - draft.log_prob(value)).clamp(max=0).exp())
    left = torch.nonzero(~keep, as_tuple=True)
    found = value.clone()
    if len(left[0]):
        law = residual_law(Categorical(target.probs[left]), Categorical(draft.probs[left]))
        found[left] = law.sample(tape[left[0]], f"{site}.residual").double().unsqueeze(-1)
    return found


def random_tokens(seed: int, places: int = 2, steps: int = 1) -> GridTokens:
    tape = GeneratorTape(seed)
    tables = tape.race("tables", (steps, places, places, places))
    return GridTokens(double([0.3, 0.7]), tables / tables.sum(-1, keepdim=True))


def law_of_sequences(target: GridTokens, drafter: GridTokens, rule: Any, nodes: int, length: int) -> Tensor:
    """The law (2,) * length of decoded sequences, by enumeration of every draw."""
    total = torch.zeros((2,) * length, dtype=torch.float64)

    def run(index: Tensor, tape: Tape) -> Tensor:
        return decode(target, drafter, rule, nodes, length, tape, len(index)).tokens  # type: ignore[arg-type]

    for _, mass, _, tokens in enumerate_tape(run, 1, max_leaves=4_000_000):
        total.index_put_(tuple(tokens[..., 0].long().T), mass, accumulate=True)
    return total


def truth(target: GridTokens, length: int) -> Tensor:
    table, total = target.marginal(), target.marginal()[0]
    for _ in range(length - 1):
        total = total.unsqueeze(-1) * table
    return total


@pytest.mark.parametrize(("nodes", "length", "coupled"), [(1, 3, True), (2, 2, True), (2, 2, False)])
def test_exact_on_a_grid(nodes: int, length: int, coupled: bool) -> None:
    """Total variation below 1e-12 of whole sequences, drafts and window entries included."""
    target, drafter = random_tokens(1), random_tokens(2)
    rule = CoalescingJacobi(coupled_places, coupled)
    found = law_of_sequences(target, drafter, rule, nodes, length)
    assert float((found - truth(target, length)).abs().sum() / 2) < 1e-12


def target_in_place_of_residual(value: Tensor, target: Any, draft: Any, tape: Tape, site: str) -> Tensor:
    """Keep with min(1, p / q), else draw from p: no coupling, what comes out has another law than its label."""
    keep = tape.coin(f"{site}.keep", (target.log_prob(value) - draft.log_prob(value)).clamp(max=0).exp())
    return torch.where(keep.unsqueeze(-1), value, target.sample(tape, f"{site}.fresh"))


@dataclass(frozen=True)
class Mislabelled(CoalescingJacobi):
    """The window moves on, and its labels by one column less."""

    def _slide(self, value: Tensor, length: Tensor, target: Law, draft: Draft, tape: Tape) -> Draft:
        new = super()._slide(value, length, target, draft, tape)
        place = (length.unsqueeze(1) + torch.arange(draft.value.shape[1]) - 1).clamp(max=draft.value.shape[1])
        return replace(new, law=target[torch.arange(len(length)).unsqueeze(1), place])


def carried(rule: Any, steps: int) -> float:
    """How far a carried path is from the law of its label, given what was committed and all labels: one round, window
    of two, the first column rejected; the exact condition of Jacobi decoding.
    """
    target, drafter = random_tokens(3, steps=steps), random_tokens(4, steps=steps)
    joint: dict[tuple[int, ...], Tensor] = {}

    def run(index: Tensor, tape: Tape) -> tuple[Tensor, Tensor]:
        rows = len(index)
        state = drafter.start(rows)
        path = drafter.law(state).sample(tape, "draft.0")
        path = torch.cat([path, drafter.law(state, path)[:, 1:].sample(tape, "draft.1")], 1)
        draft = Draft.chain(path, drafter.law(state, path)[:, :2])
        outcome: Outcome = rule.verify(draft, target.law(target.start(rows), path), tape)
        assert outcome.carry is not None
        code = outcome.carry.value[:, 0, :, 0].long()
        law: Any = outcome.carry.law
        return torch.cat([outcome.length.unsqueeze(1), outcome.value[:, 0, -1].long(), law.kernel.last[:, :1]], 1), code

    for _, mass, _, (given, code) in enumerate_tape(run, 1, max_leaves=4_000_000):
        for row, path, weight in zip(given.tolist(), code.tolist(), mass, strict=True):
            if row[0] == 1:
                table = joint.setdefault(tuple(row), torch.zeros((2,) * (steps + 1), dtype=torch.float64))
                table[tuple(path)] += weight
    worst = 0.0
    for (_, _, last), table in joint.items():
        law = PathLaw(Grid(target.first, target.tables, torch.tensor(last)))
        every = torch.cartesian_prod(*[torch.arange(2.0).double()] * (steps + 1)).unsqueeze(-1)
        wanted = law.log_prob(every).exp().reshape(table.shape)
        worst = max(worst, float((table / table.sum() - wanted).abs().sum() / 2))
    return worst


@pytest.mark.parametrize("steps", [1, 2])
def test_a_carried_path_has_the_law_of_its_label(steps: int) -> None:
    """Given the committed token and the label."""
    assert carried(CoalescingJacobi(coupled_places), steps) < 1e-12


def test_a_carried_path_of_another_law_is_seen() -> None:
    """Two planted defects."""
    assert carried(CoalescingJacobi(target_in_place_of_residual), 1) > 1e-2
    assert carried(Mislabelled(coupled_places), 1) > 1e-2


# --- Gaussian tokens: the law of sequences is known ---
SLOPE, SCALE, SHIFT = 0.6, 0.8, 0.2


def gaussian(rows: int, nodes: int, length: int, coupled: bool = True, seed: int = 5) -> Trace:
    """Tokens of exact reversals: x_j | x_{j-1} ~ N(SHIFT + SLOPE x_{j-1}, SCALE^2), x_0 = 1; a drafter that forgets."""
    grid = cosine(6)
    target, drafter = Tokens(reversal(grid, SHIFT, SCALE, SLOPE), 1), Tokens(reversal(grid, 0.0, 1.0, 0.0), 1)
    rule = CoalescingJacobi(coupled=coupled)
    return decode(target, drafter, rule, nodes, length, GeneratorTape(seed), rows)


def sequence_law(length: int) -> FullGaussian:
    """N(m, A A^T), x = m + A eps."""
    mean, level = [], 1.0
    for _ in range(length):
        level = SHIFT + SLOPE * level
        mean.append(level)
    lag = torch.arange(length).unsqueeze(1) - torch.arange(length)
    factor = torch.where(lag >= 0, SCALE * SLOPE ** lag.clamp(min=0).double(), 0.0)
    return FullGaussian(double(mean), factor)


@pytest.mark.parametrize("coupled", [True, False])
def test_sequences_have_the_target_law(coupled: bool) -> None:
    """20 000 sequences of 8 tokens, window 5: Rosenblatt's columns are uniform and uncorrelated. Level 1e-6 each."""
    tokens = gaussian(20_000, 5, 8, coupled).tokens[..., 0]
    for check in (KolmogorovSmirnov(), Products()):
        found = check(tokens, sequence_law(8), 1e-6, GeneratorTape(9))
        assert not found.rejects, found


def test_the_coupling_saves_passes() -> None:
    """Target passes a token: below those of independent redraws, which are below the one of plain autoregression."""
    kept, redrawn = (gaussian(500, 16, 48, coupled).work.mean() for coupled in (True, False))
    assert kept < 0.75 * redrawn < 0.75, (kept, redrawn)
    wide, narrow = (gaussian(500, nodes, 48).work.mean() for nodes in (16, 2))
    assert wide < narrow


def test_acceptance_is_that_of_the_last_coin() -> None:
    """Columns whose context is right are kept as often as exp(log_accept) says: the first of each round. 5 s.e."""
    trace = gaussian(4_000, 4, 12)
    chance = trace.log_accept[..., 0].exp()
    alive = ~chance.isnan()
    gap = trace.kept[..., 0][alive].double() - chance[alive]
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(len(gap))

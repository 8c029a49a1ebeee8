"""Right rules in parts, so that a planted defect is the one part that is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.policies import finite
from verify.records import Draft, Outcome
from verify.residual import conclude, excess, log_ratio, residual_law
from verify.siblings import keep_first, laws_of_siblings, siblings
from verify.verifiers.block import both_categorical, log_any, stop_chance, times


class PlantedRejection:
    """Rejection on a finite vocabulary. A defect replaces one of its parts; as it stands, it is exact."""

    def rows(self, draft: Draft, target: Categorical) -> tuple[Draft, Categorical]:
        """The draft and the target's laws (rows, N + 1) as the code reads them."""
        return draft, target

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """log of the probability (rows, N) of keeping each node, given that it is examined: min(1, target / draft)."""
        return log_ratio(value, target, draft).clamp(max=0)

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The replacement's law (rows, N, V), up to a factor, where ``value`` is refused: (target - draft)+."""
        return excess(target, draft)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        draft, after = self.rows(draft, finite(target))
        log_accept, law = self.parts(draft, after)
        return conclude_with(law, draft, after, tape.coin("accept", log_accept.exp()), log_accept, tape)

    def parts(self, draft: Draft, target: Categorical) -> tuple[Tensor, Categorical]:
        """``log_accept`` and the replacement's law at every node; the target's own where nothing is left."""
        laws = draft.value, target[:, :-1], finite(draft.law)
        return self.log_accept(*laws), filled(self.weights(*laws), target[:, :-1])


class PlantedBlock:
    """Block verification. A defect replaces one of its parts; as it stands, it is exact."""

    def chance(self, log_weight: Tensor, mass: Tensor) -> Tensor:
        """The coin of every prefix that is not the whole block, of weight w: h = S / (S + 1 - w), S the ``mass``."""
        return stop_chance(log_weight, mass)

    def residual_log_weight(self, log_weight: Tensor) -> Tensor:
        """log w of the replacement's law (w target - draft)+, for every node."""
        return log_weight

    def keep(self, coins: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes (rows, N) kept, the longest prefix whose coin succeeded, and the log-probabilities of that."""
        kept = coins.flip(1).cummax(1).values.flip(1)
        reach = torch.stack([log_any(chance[:, node:]) for node in range(chance.shape[1])], 1)
        before = torch.nn.functional.pad(reach[:, :-1], (1, 0))
        return kept, torch.where(torch.isneginf(reach), reach, (reach - before).clamp(max=0))

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        after, prior = both_categorical("block", target, draft)
        weights = [torch.zeros_like(after.probs[:, 0, 0])]
        for step in log_ratio(draft.value, after[:, :-1], prior).unbind(1):
            weights.append(times(weights[-1], step).clamp(max=0))
        weight = torch.stack(weights, 1)
        mass = excess(after[:, 1:-1], prior[:, 1:], weight[:, 1:-1]).sum(-1)
        chance = torch.cat([self.chance(weight[:, 1:-1], mass), weight[:, -1:].exp()], 1)
        kept, log_accept = self.keep(tape.coin("accept", chance), chance)
        law = filled(excess(after[:, :-1], prior, self.residual_log_weight(weight[:, :-1])), after[:, :-1])
        return conclude_with(law, draft, after, kept, log_accept, tape)


def filled(weights: Tensor, target: Categorical) -> Categorical:
    """The law proportional to ``weights``, and the target's where they have no mass."""
    return Categorical(torch.where(weights.sum(-1, keepdim=True) > 0, weights, target.probs))


def conclude_with(
    law: Categorical, draft: Draft, target: Categorical, accept: Tensor, log_accept: Tensor, tape: Tape
) -> Outcome:
    """As ``conclude``, with the replacement at each node drawn from ``law`` (rows, N)."""

    def replace(_: Law, instead: Law, some: Tape, site: str) -> Tensor:
        return instead.sample(some, site)

    return conclude(Draft(draft.value, law, draft.parent), target, accept, log_accept, tape, replace)


def point(token: Tensor, vocab: int) -> Tensor:
    """The point masses (*batch, V) at ``token`` (*batch)."""
    return torch.nn.functional.one_hot(token, vocab).double()


class PlantedSiblings:
    """Recursive rejection of independent siblings. A defect replaces one of its parts; as it stands, it is exact."""

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def order(self, draft: Draft, target: Categorical) -> Tensor:
        """In which order (rows, N) the siblings are tried: as drawn."""
        return torch.arange(draft.value.shape[1]).expand(draft.value.shape)

    def targets(self, target: Categorical, prior: Categorical) -> list[Categorical]:
        """The laws (rows) that siblings 1, ..., N are held against, and the one to draw from once all are refused."""
        laws = [target]
        for node in range(prior.probs.shape[1]):
            laws.append(residual_law(laws[-1], prior[:, node]))
        return laws

    def bonus(self, target: Categorical) -> Categorical:
        """The target's laws (rows, N + 1): of the token that is drafted, then after each sibling."""
        return target

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        after, prior = laws_of_siblings("recursive rejection", draft, target)
        order = self.order(draft, after)
        value, row = draft.value.gather(1, order), torch.arange(len(order)).unsqueeze(1)
        prior, after = prior[row, order], after[row, torch.nn.functional.pad(order + 1, (1, 0))]
        *held, rest = self.targets(after[:, 0], prior)
        held_law = Categorical(torch.stack([law.probs for law in held], 1))
        log_accept = log_ratio(value, held_law, prior).clamp(max=0)
        coins = tape.coin("accept", log_accept.exp())
        made = keep_first(Draft(value, prior, draft.parent), self.bonus(after), coins, log_accept, rest, tape)
        back = order.argsort(1)
        return Outcome(made.value, made.length, made.kept.gather(1, back), log_accept.gather(1, back))

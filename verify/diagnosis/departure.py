"""Where a wrong law first departs from the target's: at which position, after what, and in which branch of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from verify.spaces.problem_law import ProblemLaw, Tokens

SAME = 1e-9  # masses nearer than this are one
SHOWN = 8  # tokens of a law in words


@dataclass(frozen=True, eq=False)
class Departure:
    """The first position where a law departs, at its worst prefix: the law of the next token ``found`` and ``wanted``
    (V,), and the ``branch`` it departs in, where the drafts can be seen.
    """

    prefix: Tokens
    found: Tensor
    wanted: Tensor
    branch: str = ""

    def __str__(self) -> str:
        context = f"after {list(self.prefix)}" if self.prefix else "at the start"
        branch = f", in {self.branch}" if self.branch else ""
        which = "" if len(self._worst) == len(self.found) else f" of tokens {self._worst}"
        found, wanted = ([float(f"{law[token]:.6g}") for token in self._worst] for law in (self.found, self.wanted))
        return (
            f"first departs at position {len(self.prefix) + 1} {context}{branch}: "
            f"the law{which} is {found}, the target's {wanted}"
        )

    @property
    def _worst(self) -> list[int]:
        """The tokens whose masses differ most."""
        return sorted((self.found - self.wanted).abs().topk(min(SHOWN, len(self.found))).indices.tolist())

    def masses(self) -> tuple[dict[str, float], dict[str, float]]:
        """The laws found and wanted of the tokens that are shown, as the records keep them."""
        found, wanted = ({str(token): float(law[token]) for token in self._worst} for law in (self.found, self.wanted))
        return found, wanted


@dataclass(frozen=True, eq=False)
class Branches:
    """The mass of every token at one position after one emitted prefix, by the way it got there.

    ``kept`` and ``replaced`` (V, V): by the token drafted there (first axis) and the one emitted, where all tokens
    before are drafted ones. ``bonus`` (V,): after a draft kept whole. ``later`` (V,): after a token that was not
    drafted. A drafted token that is emitted and gone on from counts as kept. One that is emitted last is a replacement
    that happens to equal it; unless the function is one that ends where it keeps.
    """

    kept: Tensor
    replaced: Tensor
    bonus: Tensor
    later: Tensor

    @property
    def total(self) -> float:
        return float(self.kept.sum() + self.replaced.sum() + self.bonus.sum() + self.later.sum())

    def keeps_as(self, other: Branches) -> bool:
        """Whether each token has the same probability of being drafted here and kept."""
        return _near(self.kept / self.total, other.kept / other.total)

    def replaces_as(self, other: Branches) -> bool:
        """Whether replacements have the same law given the drafted token, wherever both replace one."""
        mine, yours = self.replaced.sum(-1), other.replaced.sum(-1)
        both = (mine > SAME) & (yours > SAME)
        return bool(both.any()) and _near(
            self.replaced[both] / mine[both, None], other.replaced[both] / yours[both, None]
        )


def _near(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) < SAME


def goes_on(laws: Sequence[ProblemLaw]) -> tuple[bool, bool]:
    """Whether a function ever emits something after a drafted token that it keeps: inside a draft, and at its end."""
    inside = at_end = False
    for law in laws:
        for block, tokens in law.joint:
            inside |= len(block) > 1 and len(tokens) > 1 and tokens[0] == block[0]
            at_end |= len(tokens) > len(block) and tokens[: len(block)] == block
    return inside, at_end


def branches(case: ProblemLaw, prefix: Tokens, on: tuple[bool, bool] = (True, True)) -> Branches:
    """What was emitted after a prefix, by its branch; ``on`` as ``goes_on`` says."""
    vocab, place = case.problem.vocab, len(prefix)
    kept, last, replaced = (torch.zeros(vocab, vocab, dtype=torch.float64) for _ in range(3))
    bonus, later = (torch.zeros(vocab, dtype=torch.float64) for _ in range(2))
    for (block, tokens), mass in case.joint.items():
        if len(tokens) <= place or tokens[:place] != prefix:
            continue
        token = tokens[place]
        if block[:place] != prefix:
            later[token] += mass
        elif place == len(block):
            bonus[token] += mass
        elif token != block[place]:
            replaced[block[place], token] += mass
        else:
            (kept if len(tokens) > place + 1 else last)[token, token] += mass
    if on[place == case.problem.length - 1]:
        return Branches(kept, replaced + last, bonus, later)
    return Branches(kept + last, replaced, bonus, later)


def departure(case: ProblemLaw, laws: Sequence[ProblemLaw] = ()) -> Departure | None:
    """The first departure of a law and its branch; None for the target's own law. ``laws`` of the same function on
    other problems tell how it ends.

    The branch is read off the joint law of drafts and emissions. What came after a token that was not drafted, and what
    did not, are each held against the target's law p: the one that departs more is at fault. A bonus stands alone. A
    drafted position has mass m, of which kept tokens x take k(x). If k(x) > m p(x) too much of x is kept, whatever
    replaces the others. Otherwise some replacement, m p - k, would make the rule exact, and the replacement is at
    fault; unless it is one that an exact rule of the catalogue has, which keeps other tokens than this function does.
    """
    departed = case.departure()
    if departed is None:
        return None
    prefix, found, wanted = departed
    here = branches(case, prefix, goes_on([case, *laws]))
    return Departure(prefix, found, wanted, _branch(case, here, prefix, wanted))


def _branch(case: ProblemLaw, here: Branches, prefix: Tokens, wanted: Tensor) -> str:
    kept = here.kept.diagonal()
    drafted = kept + here.replaced.sum(0) + here.bonus
    mass = drafted.sum()
    off, off_later = ((part - part.sum() * wanted).abs().sum() for part in (drafted, here.later))
    if off_later > off:
        return "a token after one that was not drafted"
    if len(prefix) == case.problem.length:
        return "the bonus after a draft kept whole"
    over = kept - mass * wanted
    if float(over.max()) > SAME:
        token = int(over.argmax())
        have, may = float(kept[token] / mass), float(wanted[token])
        return (
            f"the acceptance (token {token} is drafted and kept with probability {have:.4g}, and may be with {may:.4g})"
        )
    keeping, replacing = _as_exact_rules(case, here, prefix)
    if keeping:
        also = f", and replaces as {replacing} does" if replacing else ""
        return f"the replacement after a rejection (it keeps as {keeping} does{also})"
    if replacing:
        return f"the acceptance (it replaces as {replacing} does, and keeps other tokens)"
    return "the replacement after a rejection"


def _as_exact_rules(case: ProblemLaw, here: Branches, prefix: Tokens) -> tuple[str, str]:
    """The exact rules of the catalogue, if any, that keep and that replace just so at this place."""
    from verify.diagnosis.rule_law import joint_law, laid_beside  # which need not be loaded for a law that is right
    from verify.verifier import catalog

    keeping = replacing = ""
    simple_first = sorted(catalog().items(), key=lambda item: item[0] != "rejection")
    for name, kind in simple_first:
        if not kind.claim.exact or kind.claim.level != "round" or laid_beside(kind(), case.problem.length):
            continue
        theirs = branches(joint_law(kind(), case.problem), prefix)
        if theirs.total > SAME:
            keeping = keeping or (name if here.keeps_as(theirs) else "")
            replacing = replacing or (name if here.replaces_as(theirs) else "")
    return keeping, replacing

"""What tests by sampling see of a rule, in the forms in which projects publish them.

Every public function that takes a Sample, a level and a tape, and returns a Finding, is one: ``peer_checks()`` finds it
by its signature.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.checks.chi_square import ChiSquare
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.ks import KolmogorovSmirnov
from verify.decode import Round, decode, parents, policy
from verify.exact import encode
from verify.records import Finding
from verify.scenarios import Scenario
from verify.statistics.trace import Trace
from verify.verifier import Verifier

LENGTH = 3
"""Tokens decoded in each sequence."""
FEWEST = 100
"""A prefix that fewer sequences share is not looked at alone."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Runs of a rule on a pair: decoded ``tokens`` (n, 3); ``flat`` (n, 3), decoded by models that forget the context;
    the first ``drafted`` (n, roots) and ``emitted`` (n,) token of a round, and the ``drafter``'s true law of the first.
    """

    pair: Scenario
    tokens: Tensor
    flat: Tensor
    drafted: Tensor
    emitted: Tensor
    drafter: Categorical

    @property
    def opening(self) -> Categorical:
        """The target's law of the first token."""
        return Categorical(self.pair.target.table[-1])


PeerCheck = Callable[[Sample, float, Tape], Finding]


def sampled(verifier: Verifier, pair: Scenario, rows: int, tape: Tape) -> Sample:
    """``rows`` runs of each kind."""
    nodes = pair.draft_length
    step = Round(pair.target, pair.drafter, verifier, nodes)
    turn = step(step.start(rows), tape)[1]
    law = policy(verifier)(Categorical(pair.drafter.table[-1:])[:, None], torch.zeros(1, 1, 0, dtype=torch.long))
    assert isinstance(law, Categorical)
    return Sample(
        pair,
        decode(pair.target, pair.drafter, verifier, nodes, LENGTH, tape, rows).tokens,
        decode(_opening(pair.target), _opening(pair.drafter), verifier, nodes, LENGTH, tape, rows).tokens,
        turn.draft.value[:, parents(verifier, nodes) < 0],
        turn.tokens[:, 0],
        law[0, 0],
    )


def _opening(model: Markov) -> Markov:
    """The model that forgets: the law which opens a sequence, in every context."""
    return Markov(model.table[-1:], 0)


def chi_square_pooled(sample: Sample, alpha: float, tape: Tape) -> Finding:
    """Chi-square of all tokens in one heap, on models whose law is the same in every context.

    So vllm-project/vllm has its test_rejection_approximates_target: rows mixed up cannot show, nor can dependence.
    """
    return ChiSquare()(sample.flat.flatten(), sample.opening, alpha, tape)


def chi_square_by_context(sample: Sample, alpha: float, tape: Tape) -> Finding:
    """Chi-square of every token given all tokens before it, Bonferroni over the prefixes seen 100 times and more."""
    tokens, vocab, found = sample.tokens, sample.pair.vocab, []
    for place in range(LENGTH):
        codes = encode(tokens[:, :place], vocab)
        for code in torch.nonzero(torch.bincount(codes) >= FEWEST).flatten().tolist():
            mine = tokens[codes == code]
            truth = Categorical(sample.pair.target.prefix_probs(mine[0, :place].tolist()))
            found.append(ChiSquare()(mine[:, place], truth, alpha, tape))
    worst = min(found, key=lambda item: item.p_value or 0.0)
    return replace(worst, p_value=min(1.0, len(found) * (worst.p_value or 0.0)), note=f"worst of {len(found)} prefixes")


def ks_first_token(sample: Sample, alpha: float, tape: Tape) -> Finding:
    """Kolmogorov-Smirnov on the first token's randomised probability integral transform."""
    return KolmogorovSmirnov()(sample.tokens[:, 0], sample.opening, alpha, tape)


def acceptance_counted(sample: Sample, alpha: float, tape: Tape) -> Finding:
    """How often the first token is the drafted one, against the overlap of target and true draft law (lemma L2).

    One draft a token: for siblings, whose cap is another, the finding has no p-value.
    """
    if sample.drafted.shape[1] > 1:
        return Finding("", "", "excess_acceptance", 0.0, None, alpha, len(sample.emitted), 0, note="siblings")
    first = Trace.single(sample.drafted[:, 0], sample.emitted, sample.drafter, sample.opening)
    return ExcessAcceptance()(first, None, alpha, tape)


def peer_checks() -> dict[str, PeerCheck]:
    """Every check of this module by name, in the order of the file."""
    found: dict[str, PeerCheck] = {}
    wanted = {"sample": Sample, "alpha": float, "tape": Tape, "return": Finding}
    for name, item in inspect.getmembers(sys.modules[__name__], inspect.isfunction):
        if inspect.get_annotations(item, eval_str=True) == wanted:
            found[name] = item
    return dict(sorted(found.items(), key=lambda pair: inspect.getsourcelines(pair[1])[1]))

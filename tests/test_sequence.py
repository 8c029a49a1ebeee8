"""The autoregression over continuous tokens: its windows, and decoding whole paths as its tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.datasets import ring
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.model import Model
from distributions.path import Denoiser, PathLaw
from distributions.reversal import Reversal
from distributions.schedule import cosine
from distributions.sequence import TokenSequence, encoded
from distributions.tape import GeneratorTape, Tape
from distributions.training import pretrained
from verify.decode import decode
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude
from verify.verifier import Verifier
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)
SCHEDULE = cosine(6)
LENGTH = 3


def truth(dim: int = 2) -> TokenSequence:
    return TokenSequence(ring, dim)


def reversed_ring(condition: Tensor) -> PathLaw:
    """Paths whose token has the law ``ring(condition)`` exactly, since the kernel is the forward process's reversal."""
    return PathLaw(Reversal(ring(condition), SCHEDULE))


def shrunken_ring(condition: Tensor) -> PathLaw:
    """A drafter: the same with another weighting of the ring."""
    return PathLaw(Reversal(ring(condition * torch.tensor([-1.0, 1.0, 0.8, 0.8])), SCHEDULE))


def test_encoding() -> None:
    """On two circles, so never the null condition; all round them; smooth, and the last token counts the most."""
    window = GeneratorTape(0).normal("window", (500, 2, 16))
    found = encoded(window)
    assert found.shape == (500, 4)
    assert torch.allclose(found.reshape(500, 2, 2).square().sum(-1), torch.ones(500, 2).double())
    assert float(torch.pdist(found).min()) > 1e-6
    # Both angles go round the circle: the resultant of N(phase, 1.5^2) is exp(-1.5^2 / 2) = .325, 5 sd of 500 = .22.
    centre = found.reshape(500, 2, 2).mean(0).square().sum(-1).sqrt()
    assert float((centre - 0.325).abs().max()) < 0.22
    # A unit's move of one token turns the condition by 1.5 at most, and the last token counts twice the one before.
    moves = []
    for place in (1, 0):
        moved = window.clone()
        moved[:, place, 3] += 1e-6
        moves.append(float((encoded(moved) - found).norm(dim=-1).max()) / 1e-6)
    assert 0 < moves[0] < 1.5 * 2**0.5 and abs(moves[0] / moves[1] - 2) < 0.05


def test_is_a_model_with_a_window() -> None:
    model = TokenSequence(ring, 2, order=2)
    assert isinstance(model, Model)
    tokens = GeneratorTape(1).normal("tokens", (4, 6, 2))
    start = model.start(4)
    whole = model.law(start, tokens)
    assert isinstance(whole, Mixture) and whole.batch_shape == (4, 7)
    done = torch.tensor([0, 1, 3, 6])
    later = model.law(model.extend(start, tokens, done))
    probe = GeneratorTape(2).normal("probe", (4, 1, 2))
    row = torch.arange(4)
    assert torch.equal(later.log_prob(probe), whole[row.unsqueeze(1), done.unsqueeze(1)].log_prob(probe))
    # The third token back no longer counts, the second does.
    for place, same in ((3, True), (4, False)):
        other = tokens.clone()
        other[:, place] += 1
        moved = model.law(model.extend(start, other, torch.full((4,), 6)))
        last = model.law(model.extend(start, tokens, torch.full((4,), 6)))
        assert torch.equal(moved.log_prob(probe), last.log_prob(probe)) is same
    assert torch.equal(model.select(start, row > 1), start[2:])


def test_paths_are_drafted_and_tokens_remembered() -> None:
    """With paths as values the laws and states are those of their last points; on a tree, of each node's own line."""
    paths, tokens = TokenSequence(reversed_ring, 2), truth()
    value = GeneratorTape(3).normal("paths", (5, 3, SCHEDULE.steps + 1, 2))
    last, parent = value[..., -1, :], torch.tensor([-1, 0, 0])
    probe = GeneratorTape(4).normal("probe", (5, 4, 2))
    law, wanted = paths.law(paths.start(5), value, parent), tokens.law(tokens.start(5), last, parent)
    assert isinstance(law, PathLaw) and law.batch_shape == (5, 4)
    assert isinstance(law.kernel, Reversal) and isinstance(wanted, Mixture)
    assert torch.equal(law.kernel.data.log_prob(probe), wanted.log_prob(probe))
    chain = paths.law(paths.start(5), value[:, [0, 2]])
    assert isinstance(chain, PathLaw) and isinstance(chain.kernel, Reversal)
    assert torch.equal(chain.kernel.data[:, 2].log_prob(probe[:, 0]), wanted[:, 3].log_prob(probe[:, 0]))
    length = torch.tensor([1, 2, 3, 3, 1])
    assert torch.equal(paths.extend(paths.start(5), value, length), tokens.extend(tokens.start(5), last, length))


@dataclass(frozen=True)
class KeepsAll:
    """Every draft is kept: the tokens have the drafter's law."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="planted")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        shape = draft.value.shape[:2]
        return conclude(draft, target, torch.ones(shape, dtype=torch.bool), torch.zeros(shape), tape)


def surprises(tokens: Tensor) -> list[float]:
    """For each place and each of four directions, the p-value that the tokens follow ``ring`` of what came before.

    Along a direction w a Gaussian of the mixture is N(w.m, |L^T w|^2), so the token's quantile under the law is a
    weighted sum of normal distribution functions: uniform and independent over rows if the law is right (Rosenblatt).
    """
    laws, found = truth().law(truth().start(len(tokens)), tokens[:, :-1]), []
    for angle in torch.arange(4).double() * torch.pi / 4:
        way = torch.stack((angle.cos(), angle.sin()))
        spread = (laws.components.factor.mT @ way).norm(dim=-1)
        beyond = ((tokens @ way).unsqueeze(-1) - laws.components.mean @ way) / spread
        quantile = (laws.weights * torch.special.ndtr(beyond)).sum(-1)
        found += [float(stats.kstest(column.numpy(), "uniform").pvalue) for column in quantile.T]
    return found


@pytest.mark.parametrize(("verifier", "exact"), [(Rejection(), True), (KeepsAll(), False)], ids=["rejection", "all"])
def test_decoded_paths_end_in_the_target_law(verifier: Verifier, exact: bool) -> None:
    """Plain rejection, unedited, on paths: the tokens have the known law, place by place, given those before them.

    12 p-values at level 1e-6 / 12: false alarms 1e-6. A rule that keeps all drafts is seen by the same test.
    """
    target, drafter = TokenSequence(reversed_ring, 2), TokenSequence(shrunken_ring, 2)
    trace = decode(target, drafter, verifier, 2, LENGTH, GeneratorTape(5), 1500)
    assert trace.tokens.shape == (1500, LENGTH, 2)
    assert (min(surprises(trace.tokens)) > 1e-6 / 12) is exact
    kept = trace.kept[0, :, 0].double().mean()
    assert 0.2 < float(kept) < 0.98 if exact else float(kept) == 1


def test_trained_heads_decode() -> None:
    """The shipped pair in the same loop: it accepts as often as its log-probabilities say, and never repeats."""
    pair, schedule = pretrained("ring"), cosine(10).one_step_in()

    def model(head: object) -> TokenSequence:
        return TokenSequence(lambda condition: PathLaw(Denoiser(head, schedule, condition)), 2)  # type: ignore[arg-type]

    with torch.no_grad():
        trace = decode(model(pair.target), model(pair.drafter), Rejection(), 2, 4, GeneratorTape(6), 300)
    assert bool(torch.isfinite(trace.tokens).all()) and len(trace.tokens.flatten(0, 1).unique(dim=0)) == 1200
    said, done = trace.log_accept[0, :, 0].exp().mean(), trace.kept[0, :, 0].double().mean()
    assert abs(float(said - done)) < 5 * 0.5 / 300**0.5  # a coin's sd is at most 1/2: false alarms below 6e-7
    assert float(said) > 0.05


def test_device_and_order_are_the_models() -> None:
    model = replace(truth(), order=3, device="meta")
    assert model.start(2).shape == (2, 3, 2) and model.start(2).device.type == "meta"

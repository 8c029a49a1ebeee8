"""The transform of a law to independent uniforms: by quadrature, by the joint law, and for each kind of law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import integrate, special
from torch import Tensor

from distributions.autoregressive import LinearGaussianAR
from distributions.categorical import Categorical
from distributions.flow import FlowLaw
from distributions.gaussian import FullGaussian
from distributions.mixture import Mixture
from distributions.path import PathLaw
from distributions.reversal import Reversal
from distributions.schedule import cosine
from distributions.sequence import TokenSequence
from distributions.tape import GeneratorTape
from tests.ladder_models import head, normal_data
from tests.law_checks_under_test import WORDS, spoken
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.chi_square import ChiSquare
from verify.checks.neyman import Neyman
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.statistics.transform import Uniform, scores, tails, uniforms

CHAIN = LinearGaussianAR(
    torch.tensor([[[0.5, 0.2], [0.0, 0.3]], [[-0.3, 0.0], [0.1, 0.1]]]), torch.ones(2), torch.ones(2)
)


def independent(columns: Tensor, level: float = 1e-6) -> bool:
    """Every column uniform and all pairs independent, five checks at ``level`` each."""
    tape, width = GeneratorTape(), columns.shape[1]
    checks: list[Check] = [AndersonDarling(12), ChiSquare(32, bits=12), Neyman(bits=12)]
    checks += [Products(), PooledProducts()] if width > 1 else []
    return not any(check(columns, Uniform(width), level, tape).rejects for check in checks)


def in_the_plane() -> Mixture:
    factor = torch.tensor([[[1.0, 0.0], [0.8, 0.5]], [[0.4, 0.0], [-0.3, 0.2]], [[0.7, 0.0], [0.0, 1.5]]])
    return Mixture(
        torch.tensor([0.5, 0.3, 0.2]), FullGaussian(torch.tensor([[0.0, 0.0], [2.0, -1.0], [-3.0, 1.0]]), factor)
    )


def test_rosenblatt_of_a_mixture_by_quadrature() -> None:
    """u_1 and u_2 at some points from the density alone; both tails."""
    law, places = in_the_plane(), [(0.3, -0.2), (2.1, -1.4), (-3.0, 2.0), (5.5, -1.0)]

    def density(x: float, y: float) -> float:
        return float(law.log_prob(torch.tensor([x, y], dtype=torch.float64)).exp())

    found = uniforms(torch.tensor(places, dtype=torch.float64), law, GeneratorTape())
    for row, (x, y) in zip(found.tolist(), places, strict=True):
        total = integrate.quad(lambda t, x=x: density(x, t), -12, 12, limit=200)[0]
        below = integrate.quad(lambda t, x=x: density(x, t), -12, y, limit=200)[0]
        assert row[1] == pytest.approx(below / total, abs=1e-8)
        first = sum(
            float(weight) * special.ndtr((x - mean) / scale)
            for weight, mean, scale in zip(
                law.weights, law.components.mean[:, 0].tolist(), law.components.factor[:, 0, 0].tolist(), strict=True
            )
        )
        assert row[0] == pytest.approx(float(first), abs=1e-12)
    far = tails(torch.tensor([[9.0, 0.0], [-12.0, 0.0]]).double(), law, GeneratorTape())[:, 0]
    parts = list(zip(law.weights, law.components.mean[:, 0], law.components.factor[:, 0, 0], strict=True))
    above, below = (
        sum(float(weight) * special.ndtr(float(sign * (mean - x) / scale)) for weight, mean, scale in parts)
        for x, sign in ((9.0, 1), (-12.0, -1))
    )
    assert float(far[0]) == pytest.approx(-above, rel=1e-9, abs=0) and above < 1e-17  # 1 - u is 0 in floats
    assert float(far[1]) == pytest.approx(below, rel=1e-9, abs=0) and below < 1e-17


def test_transform_along_a_sequence_is_that_of_its_joint_law() -> None:
    """Token by token with the model's laws, or whitened by the Cholesky factor of all at once: the same noise."""
    joint = CHAIN.sequence_law(6)
    z = GeneratorTape(12).normal("z", (50, 12))
    tokens = (joint.mean + z @ joint.scale_tril.T).unflatten(1, (6, 2))
    assert torch.allclose(scores(tokens, CHAIN, GeneratorTape()), z, atol=1e-12)
    assert torch.allclose(scores(tokens.flatten(1), joint, GeneratorTape()), z, atol=1e-12)
    assert torch.allclose(scores(uniforms(tokens, CHAIN, GeneratorTape()), Uniform(12), GeneratorTape()), z, atol=1e-6)


def samples() -> dict[str, tuple[Any, Callable[[int, GeneratorTape], Tensor]]]:
    """Truths, and how as many samples as wanted are drawn from them."""

    def of(law: Any) -> Callable[[int, GeneratorTape], Tensor]:
        return lambda n, tape: law[None][torch.zeros(n, dtype=torch.long)].sample(tape, "draw")

    grid, condition = cosine(5).one_step_in(), torch.tensor([0.4, -0.2]).double()
    bell = head(normal_data(scale=0.5), 2, grid)(condition)
    modes = Reversal(in_the_plane(), cosine(4))
    flow = FlowLaw(head(normal_data(scale=0.5), 2, grid)(condition).head, grid, condition)
    paths = TokenSequence(
        lambda where: PathLaw(head(normal_data(scale=0.5), 2, cosine(3))(where[..., :2])), dim=2, order=1
    )

    def told(n: int, tape: GeneratorTape) -> Tensor:
        state, found = paths.start(n), []
        for place in range(3):
            found.append(paths.law(state).sample(tape, f"path.{place}"))
            state = paths.extend(state, found[-1], torch.ones(n, dtype=torch.long))
        return torch.cat(found, 1)

    return {
        "a mixture": (in_the_plane(), of(in_the_plane())),
        "paths of a head": (PathLaw(bell), of(PathLaw(bell))),
        "paths without a last noise": (PathLaw(bell, last_noise=False), of(PathLaw(bell, last_noise=False))),
        "paths of a reversal of a mixture": (PathLaw(modes), of(PathLaw(modes))),
        "tokens of a flow": (flow, of(flow)),
        "tokens of a flow with their noise": (
            FlowLaw(flow.head, grid, condition, with_noise=True),
            of(FlowLaw(flow.head, grid, condition, with_noise=True)),
        ),
        "words": (WORDS, lambda n, tape: spoken(tape, n, 4)),
        "a sequence of paths": (paths, told),
    }


@pytest.mark.parametrize("name", samples())
def test_transform_of_each_law_is_uniform_and_independent(name: str) -> None:
    """False alarm 5e-6 a law; and a sample moved a little, or tokens by one place, is found."""
    truth, draw = samples()[name]
    tape, n = GeneratorTape(13), 4000
    sample = draw(n, tape)
    columns = uniforms(sample, truth, tape)
    assert columns.shape[0] == n and bool(((columns >= 0) & (columns <= 1)).all())
    assert independent(columns)
    found = scores(sample, truth, tape)
    assert bool(torch.isfinite(found).all()) and abs(float(found.var()) - 1) < 0.05
    wrong = sample.roll(1, 1) if name == "words" else sample + 0.15 * sample.std()
    assert not independent(uniforms(wrong, truth, tape))


def test_a_path_that_ends_elsewhere_is_found() -> None:
    """Without a last noise x_0 has no law but its one atom: one wrong end in 50 is seen, and only in that column."""
    truth, draw = samples()["paths without a last noise"]
    tape = GeneratorTape(14)
    path = draw(4000, tape)
    path[::50, -1] += 0.01
    columns = uniforms(path, truth, tape)
    assert independent(columns[:, :-2]) and not independent(columns)


def test_a_flow_that_cannot_be_inverted_raises() -> None:
    truth, _ = samples()["tokens of a flow"]
    with pytest.raises(ArithmeticError, match="no noise leads to"):
        uniforms(torch.full((3, 2), torch.nan).double(), truth, GeneratorTape())


def test_tokens_outside_the_vocabulary_are_ends_of_the_interval() -> None:
    law = Categorical(torch.tensor([0.5, 0.5]))
    found = uniforms(torch.tensor([-1, 0, 1, 2]), law, GeneratorTape())[:, 0].tolist()
    assert found[0] < 1e-300 and found[3] == 1.0 and 0 < found[1] < 0.5 < found[2] < 1

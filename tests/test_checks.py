"""The checks: their size under the null, the power they promise, their bounds, and what they must not see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare, kstest
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape
from tests.chance import at_least, at_most
from verify.checks import Check
from verify.checks.battery import holm, rejections, stamp
from verify.checks.chi_square import ChiSquare
from verify.checks.dependence import RowDependence
from verify.checks.excess_acceptance import ExcessAcceptance, same
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.mmd import MaximumMeanDiscrepancy
from verify.checks.products import Products
from verify.checks.support import Support, repeats_p_value
from verify.records import Finding
from verify.statistics.trace import Trace
from verify.statistics.transform import Uniform, uniforms
from verify.statistics.witness import Interval, Witness, heaviest_interval, measure

RUNS = 2000


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def normal(dim: int = 1) -> Gaussian:
    return Gaussian(torch.zeros(dim), torch.ones(dim))


def draw(law: Law, n: int, tape: GeneratorTape) -> Tensor:
    return law[None][torch.zeros(n, dtype=torch.long)].sample(tape, "draw")


COIN = Categorical(torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01]))
CALLS = torch.arange(5).repeat_interleave(100)
SHIFTED = Gaussian(torch.ones(1), torch.ones(1))


def null_excess(tape: GeneratorTape) -> Finding:
    """Accepts exactly as often as the overlap allows."""
    drafted = draw(normal(), 300, tape)
    kept = tape.coin("kept", torch.full((300, 1), float(normal().overlap(SHIFTED))))
    trace = Trace.single(drafted, torch.where(kept, drafted, drafted + 1), normal(), SHIFTED)
    return ExcessAcceptance()(trace, None, 0.05, tape)


def of_calls(rows: Tensor, calls: Tensor, kept: Tensor | None = None) -> Trace:
    """Outputs that are uniform under the target, and the draft where they were kept."""
    drafted = rows if kept is None else torch.where(kept.unsqueeze(1), rows, rows + 1)
    return Trace.single(drafted, rows, Uniform(rows.shape[1]), Uniform(rows.shape[1]), calls)


def null_rows(tape: GeneratorTape) -> Finding:
    accepted = tape.coin("accepted", torch.full((500,), 0.4))
    return RowDependence()(of_calls(tape.uniform("rows", (500, 2)), CALLS, accepted), None, 0.05, tape)


NULLS: dict[str, tuple[Callable[[GeneratorTape], Finding], bool]] = {
    "ks": (lambda tape: KolmogorovSmirnov()(draw(normal(), 200, tape), normal(), 0.05, tape), True),
    "ks, three columns": (
        lambda tape: KolmogorovSmirnov(bits=14)(draw(normal(3), 200, tape), normal(3), 0.05, tape),
        False,
    ),
    "ks of tokens": (lambda tape: KolmogorovSmirnov()(draw(COIN, 200, tape), COIN, 0.05, tape), True),
    "chi-square": (lambda tape: ChiSquare(16)(draw(normal(), 400, tape), normal(), 0.05, tape), True),
    "chi-square of tokens": (lambda tape: ChiSquare()(draw(COIN, 400, tape), COIN, 0.05, tape), True),
    "mmd": (
        lambda tape: MaximumMeanDiscrepancy(16, 12)(draw(normal(2), 130, tape), normal(2), 0.05, tape),
        True,
    ),
    "excess acceptance": (null_excess, True),
    "products": (lambda tape: Products()(draw(normal(3), 200, tape), normal(3), 0.05, tape), False),
    "row dependence": (null_rows, False),
    "support": (lambda tape: Support()(draw(normal(), 200, tape), normal(), 0.05, tape), False),
}


@pytest.mark.parametrize("name", NULLS)
def test_size(name: str) -> None:
    """2000 samples of the null at level 0.05: more than 146 rejections have probability 1e-6 if the size is 0.05.

    Those with a sharp p-value must also reject at least 1 % of the time, or they would be blind.
    """
    null, sharp = NULLS[name]
    tape = GeneratorTape(11)
    hits = sum(null(tape).rejects for _ in range(RUNS))
    assert hits <= at_most(0.05, RUNS)
    assert not sharp or hits >= RUNS // 100


def test_every_check_meets_the_protocol() -> None:
    checks = [
        KolmogorovSmirnov(),
        ChiSquare(),
        MaximumMeanDiscrepancy(),
        ExcessAcceptance(),
        Products(),
        RowDependence(),
        Support(),
    ]
    for check in checks:
        assert isinstance(check, Check) and dataclasses.is_dataclass(check)
        assert check.claim.level in ("exact", "asymptotic") and check.claim.against and check.claim.blind_to
        with pytest.raises(dataclasses.FrozenInstanceError):
            check.claim = None  # type: ignore[misc]


def test_ks_agrees_with_scipy_and_its_bound_holds() -> None:
    """The bound fails with probability 0.01 a run: more than 17 of 400 failures have probability 1e-6."""
    tape = GeneratorTape(1)
    other = Gaussian(torch.tensor([0.1]), torch.tensor([1.0]))
    truth = math.erf(0.05 / math.sqrt(2))  # KS of normals 0.1 apart
    failures = 0
    for _ in range(400):
        sample = draw(other, 300, tape)
        found = KolmogorovSmirnov(delta=0.01)(sample, normal(), 0.01, tape)
        reference = kstest(sample[:, 0].numpy(), "norm")
        assert found.statistic <= reference.statistic + 1e-12 <= found.statistic + 2**-16 + 2e-12  # within one cell
        assert found.p_value is not None and found.p_value >= reference.pvalue * 0.999  # DKW is conservative
        assert found.bound is not None
        failures += found.bound < truth
    assert failures <= at_most(0.01, 400)


def power(check: Callable[[GeneratorTape], Finding], runs: int = 300) -> int:
    tape = GeneratorTape(2)
    return sum(check(tape).rejects for _ in range(runs))


def test_ks_sees_its_smallest_defect() -> None:
    """A jump of the distribution function by the promised distance is found nine times in ten, less binomial noise."""
    n, alpha = 2000, 1e-4
    any_sample = GeneratorTape().uniform("u", (n, 1))
    size = KolmogorovSmirnov()(any_sample, Uniform(), alpha, GeneratorTape()).smallest
    assert size is not None and size < 0.07

    def defect(tape: GeneratorTape) -> Finding:
        u = tape.uniform("u", (n, 1))
        moved = (u < 0.5) & tape.coin("moved", torch.full((n, 1), 2 * size))
        return KolmogorovSmirnov()(torch.where(moved, u + 0.5, u), Uniform(), alpha, tape)

    assert power(defect) >= at_least(0.9, 300)


def test_chi_square_agrees_with_scipy_and_sees_its_smallest_defect() -> None:
    n, cells, alpha = 4000, 16, 1e-4
    tape = GeneratorTape(3)
    sample = tape.uniform("u", (n, 1))
    found = ChiSquare(cells)(sample, Uniform(), alpha, tape)
    reference = chisquare(np.histogram(sample.numpy(), cells, (0, 1))[0])
    assert found.statistic == pytest.approx(reference.statistic) and found.p_value == pytest.approx(reference.pvalue)
    size = found.smallest
    assert size is not None and size < 0.06

    def defect(tape: GeneratorTape) -> Finding:
        u = tape.uniform("u", (n, 1))
        odd = (u * cells).long() % 2 == 1
        moved = odd & tape.coin("moved", torch.full((n, 1), 2 * size))
        return ChiSquare(cells)(torch.where(moved, u - 1 / cells, u), Uniform(), alpha, tape)

    assert power(defect) >= at_least(0.9, 300)


def test_chi_square_merges_rare_tokens_and_ignores_unknown_ones() -> None:
    law = Categorical(torch.tensor([0.6, 0.3999, 0.0001, 0.0]))
    sample = torch.tensor([0] * 600 + [1] * 400 + [7])
    found = ChiSquare()(sample, law, 1e-3, GeneratorTape())
    assert found.p_value is not None and found.p_value > 0.05 and "2 cells" in found.note


def test_excess_acceptance_agrees_with_scipy_and_sees_its_smallest_defect() -> None:
    n, alpha = 2000, 1e-4
    cap = float(normal().overlap(SHIFTED))

    def accepting(prob: float, tape: GeneratorTape) -> Finding:
        drafted = draw(normal(), n, tape)
        kept = tape.coin("kept", torch.full((n, 1), prob))
        trace = Trace.single(drafted, torch.where(kept, drafted, drafted + 1), normal(), SHIFTED)
        return ExcessAcceptance()(trace, None, alpha, tape)

    found = accepting(0.7, GeneratorTape(4))
    hits = round(float(found.note.split()[1].rstrip(",")) * n)
    test = binomtest(hits, n, cap, alternative="greater")
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-6)
    low = test.proportion_ci(1 - alpha, method="exact").low
    assert found.statistic == pytest.approx(low - cap) and 0 < found.statistic < 0.7 - cap + 0.03
    assert found.smallest is not None
    assert power(lambda tape: accepting(cap + found.smallest, tape)) >= at_least(0.9, 300)
    assert accepting(0.5, GeneratorTape(5)).statistic == 0.0


def test_excess_acceptance_where_rows_have_laws_of_their_own() -> None:
    """2000 nulls at level 0.05, rows of very different overlaps: the pooled binomial bound holds."""
    shift = torch.linspace(0, 3, 200).unsqueeze(-1)
    draft, target = Gaussian(torch.zeros(200, 1), torch.ones(1)), Gaussian(shift, torch.ones(1))
    overlap, tape = draft.overlap(target).unsqueeze(-1), GeneratorTape(6)
    hits = 0
    for _ in range(RUNS):
        x = draft.sample(tape, "x")
        y = torch.where(tape.coin("kept", overlap), x, x + 1)
        hits += ExcessAcceptance()(Trace.single(x, y, draft, target), None, 0.05, tape).rejects
    assert hits <= at_most(0.05, RUNS)


def test_acceptance_survives_a_detour_through_other_coordinates() -> None:
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64).unsqueeze(-1)
    assert bool(same(0.7 * ((x - 3.1) / 0.7) + 3.1, x).all())
    assert not bool(same(x + 1e-9, x).any())
    assert bool(same(x.float(), x).all())
    assert same(torch.tensor([1, 2]), torch.tensor([1, 3])).tolist() == [True, False]


def test_support_finds_what_the_target_cannot_emit() -> None:
    tape = GeneratorTape(7)
    good = draw(normal(), 5000, tape)
    assert Support()(good, normal(), 1e-6, tape).p_value == 1.0
    for bad in (float("nan"), float("inf")):
        spoilt = good.clone()
        spoilt[17] = bad
        found = Support()(spoilt, normal(), 1e-6, tape)
        assert found.p_value == 0.0 and found.statistic == 1
    padded = good.clone()
    padded[torch.arange(0, 5000, 500)] = 0.0  # ten rows of 5000
    assert Support()(padded, normal(), 1e-6, tape).rejects
    tokens = torch.tensor([0, 1, 2])
    assert Support()(tokens, Categorical(torch.tensor([0.5, 0.5, 0.0])), 1e-6, tape).p_value == 0.0
    assert Support()(torch.tensor([0, 5]), COIN, 1e-6, tape).p_value == 0.0
    assert Support()(torch.tensor([0, -1]), COIN, 1e-6, tape).p_value == 0.0
    assert Support()(torch.tensor([0, 0, 0]), COIN, 1e-6, tape).p_value == 1.0
    with pytest.raises(ValueError, match="rows of shape"):
        Support()(good.squeeze(-1), normal(), 1e-6, tape)


def test_single_precision_ties_are_chance_and_the_bound_says_so() -> None:
    coarse = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    assert len(coarse.unique()) < 200_000  # there are ties
    assert not Support()(coarse, normal(), 1e-6, GeneratorTape()).rejects
    # Atoms 1 / m exactly, n draws, twice or more: the bound is the union bound of the birthday problem.
    assert repeats_p_value(10, 2, 1 / 365) == pytest.approx(45 / 365)
    assert repeats_p_value(10, 1, 1e-9) == 1.0


def test_products_see_correlation_and_common_scales_of_the_promised_size() -> None:
    n, alpha = 4000, 1e-4
    size = Products()(draw(normal(3), n, GeneratorTape(0)), normal(3), alpha, GeneratorTape()).smallest
    assert size is not None and size < 0.12

    def correlated(tape: GeneratorTape) -> Finding:
        z = draw(normal(3), n, tape)
        rho = 2 * math.sin(math.pi * size / 6)  # the normal correlation whose Spearman correlation is the size
        z[:, 2] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 2]
        return Products()(z, normal(3), alpha, tape)

    def scaled(tape: GeneratorTape) -> Finding:
        """Uncorrelated, each column uniform; near the middle together."""
        u = tape.uniform("u", (n, 2))
        together, mirrored = (tape.coin("coin", torch.full((n,), prob)) for prob in (0.3, 0.5))
        u[:, 1] = torch.where(together, torch.where(mirrored, 1 - u[:, 0], u[:, 0]), u[:, 1])
        return Products()(u, Uniform(2), alpha, tape)

    assert power(correlated) >= at_least(0.9, 300)
    assert power(scaled, 50) == 50
    assert "degrees 2 and 2" in scaled(GeneratorTape(3)).note
    with pytest.raises(ValueError, match="two columns"):
        Products()(torch.zeros(10, 1), Uniform(), alpha, GeneratorTape())


def test_row_dependence_sees_shared_noise_and_not_a_wrong_law() -> None:
    tape = GeneratorTape(8)
    calls = torch.cat((torch.arange(30).repeat_interleave(3), 30 + torch.arange(20).repeat_interleave(300)))
    n, alpha = len(calls), 1e-6
    iid = tape.uniform("u", (n, 2))
    accepted = tape.coin("accepted", torch.full((n,), 0.6))

    def check(rows: Tensor, kept: Tensor | None = None) -> Finding:
        return RowDependence()(of_calls(rows, calls, kept), None, alpha, tape)

    assert not check(iid, accepted).rejects
    assert not check(iid**2, iid[:, 0] < 0.1).rejects  # the wrong law of single rows
    assert not check(torch.where(iid < 0.2, 0.0, iid)).rejects  # an atom, which many calls return

    shared = (iid + 0.5 * tape.uniform("shared", (50, 1))[calls]) / 1.5
    found = check(shared)
    assert found.rejects and found.note == "levels of whole calls"

    smooth = iid.clone()
    smooth[1::2] = 0.5 * smooth[1::2] + 0.5 * smooth[0::2]
    found = check(smooth)
    assert found.rejects and found.note == "neighbouring rows"

    coin = tape.uniform("coin", (50,))[calls]
    found = check(iid, coin < 0.6)
    assert found.rejects and found.note == "acceptance of whole calls"

    copied = iid.clone()
    copied[1:90:3] = copied[0:90:3]
    found = check(copied)
    assert found.rejects and found.note == "rows copied within a call"


def test_mmd_sees_a_shift_and_says_what_it_cannot_do() -> None:
    tape = GeneratorTape(9)
    shifted = Gaussian(torch.tensor([0.3, 0.0]), torch.ones(2))
    check = MaximumMeanDiscrepancy(permutations=999)
    found = check(draw(shifted, 4000, tape), normal(2), 0.01, tape)
    assert found.rejects and found.p_value == pytest.approx(1 / 1000)
    assert found.bound is not None and found.bound > found.statistic
    tiny = check(draw(shifted, 4000, tape), normal(2), 1e-6, tape)
    assert not tiny.rejects and "cannot reject below 1.0e-03" in tiny.note and tiny.smallest is None
    mild = check(draw(shifted, 4000, tape), normal(2), 0.1, tape)
    assert "100 permutations" in mild.note and mild.smallest is not None
    with pytest.raises(ValueError, match="blocks"):
        check(torch.zeros(50, 2), normal(2), 0.1, tape)


def test_transform_of_each_law_is_uniform_and_independent() -> None:
    """KS of 20 000 rows at level 1e-6 for each column, products at 1e-6: seven chances of 1e-6."""
    tape = GeneratorTape(10)
    n = 20_000
    full = FullGaussian(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.0], [-1.0, 0.5]]))
    by_row = Gaussian(torch.linspace(-3, 3, n).unsqueeze(-1), torch.linspace(0.1, 2, n).unsqueeze(-1))
    several = Categorical(COIN.probs.expand(n, 5).roll(1, 0))
    for law, sample in (
        (full, draw(full, n, tape)),
        (by_row, by_row.sample(tape, "rows")),
        (COIN, draw(COIN, n, tape)),
        (several, several.sample(tape, "tokens")),
        (Uniform(2), tape.uniform("u", (n, 2))),
    ):
        columns = uniforms(sample, law, tape).reshape(n, -1)
        assert not KolmogorovSmirnov()(columns, Uniform(columns.shape[1]), 1e-6, tape).rejects
    assert not Products()(uniforms(draw(full, n, tape), full, tape), Uniform(2), 1e-6, tape).rejects
    assert not KolmogorovSmirnov()(draw(COIN, n, tape), COIN, 1e-6, tape).rejects

    class Unknown:
        pass

    with pytest.raises(TypeError, match="two-sample"):
        uniforms(torch.zeros(3, 1), Unknown(), tape)  # type: ignore[arg-type]


def finding(p_value: float | None) -> Finding:
    return Finding("", "", "check", 0.0, p_value, 0.5, 100, 0)


def test_holm() -> None:
    found = [finding(p) for p in (0.0005, None, 0.02, 0.003, 0.9)]
    decided = holm(found, 0.01)
    assert [item.rejects for item in decided] == [True, False, False, True, False]
    assert decided[1] == found[1]
    assert decided[3].alpha == pytest.approx(0.01 / 3) and decided[2].alpha == pytest.approx(0.01 / 2)
    assert [item.p_value for item in rejections(found, 0.01)] == [0.0005, 0.003]
    assert all(item.rejects for item in holm([finding(0.0), finding(1e-9)], 0.01))
    # p = 0.006 is below 0.01 / 1 and above 0.01 / 2, the level it meets: Holm stops before it.
    assert rejections([finding(0.006), finding(0.007)], 0.01) == ()
    assert holm([finding(None)], 0.01) == (finding(None),)
    named = stamp(finding(0.1), verifier="v", scenario="s", seed=3)
    assert (named.verifier, named.scenario, named.seed, named.p_value) == ("v", "s", 3, 0.1)


def test_holm_agrees_with_statsmodels() -> None:
    for family in (GeneratorTape(15).uniform("p", (20, 8)) ** 4).tolist():
        expected = multipletests(family, 0.05, method="holm")[0].tolist()
        assert [item.rejects for item in holm([finding(p) for p in family], 0.05)] == expected


def test_holm_keeps_the_family_wise_error() -> None:
    """Ten true hypotheses, 2000 families at 0.05: more than 146 with a rejection have probability 1e-6."""
    levels = GeneratorTape(12).uniform("p", (RUNS, 10)).tolist()
    assert sum(bool(rejections([finding(p) for p in family], 0.05)) for family in levels) <= at_most(0.05, RUNS)


def test_the_heaviest_interval_is_the_heaviest() -> None:
    column = GeneratorTape(13).uniform("u", (60,)) ** 1.5
    interval, excess = heaviest_interval(column)
    points = [0.0, *column.tolist(), 1.0]
    every = [Interval(a, b, inside) for a in points for b in points if a <= b for inside in (True, False)]
    gaps = [float(item.holds(column).double().mean()) - item.mass for item in every]
    found = float(interval.holds(column).double().mean()) - interval.mass
    # Intervals open below miss the point at their lower end; letting it in is worth 1/n.
    assert max(gaps) - 1 / 60 - 1e-12 <= found <= max(gaps) + 1e-12
    assert found <= excess + 1e-12 and excess <= found + 1 / 60 + 1e-12


def test_certified_biases_hold_together() -> None:
    """Three witnesses of true biases 0.1, 0 and -0.2 at confidence 0.95: more than 51 of 500 failures, 1e-6."""
    tape = GeneratorTape(14)
    cuts, masses = (0.3, 0.5, 0.7), (0.2, 0.5, 0.9)
    failures = 0
    for _ in range(500):
        u = tape.uniform("u", (200,))
        witnesses = [
            Witness("{found} {mass}", lambda x, cut=cut: x < cut, mass) for cut, mass in zip(cuts, masses, strict=True)
        ]
        biases = measure([(witness, u) for witness in witnesses], 0.05)
        assert biases[0].lower == max(bias.lower for bias in biases)
        true = {mass: max(0.0, cut - mass) for cut, mass in zip(cuts, masses, strict=True)}
        failures += any(bias.lower > true[bias.witness.mass] for bias in biases)
    assert failures <= at_most(0.05, 500)
    assert str(biases[0]).split()[1] == str(biases[0].witness.mass)

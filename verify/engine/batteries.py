"""Which checks a sampler goes through, by what is known of its target."""

from __future__ import annotations

import math
from importlib.util import find_spec

from distributions.law import Law
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.betting import Betting
from verify.checks.chi_square import ChiSquare
from verify.checks.cramer_von_mises import CramerVonMises
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.lags import Lags
from verify.checks.mmd import MedianBandwidth
from verify.checks.neyman import Neyman
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.checks.projections import Projections
from verify.checks.radius import Radius
from verify.checks.sliced import Sliced
from verify.checks.support import Support
from verify.statistics.learned import Learner, learners

Battery = list[Check | Learner]


def known_law(law: Law) -> Battery:
    """Against a law whose conditional distribution functions are known."""
    column = [KolmogorovSmirnov(), AndersonDarling(), CramerVonMises(), Neyman(), ChiSquare(64), ChiSquare(1024)]
    joint = [Products(), PooledProducts(), Lags(), Projections(), Radius()]
    return [Support(), *column, MedianBandwidth(), Betting(), *(joint if math.prod(law.event_shape) > 1 else ())]


def two_samples() -> Battery:
    """Against draws of the target, of which nothing else is known: every learner in the folder; the classifier needs
    scikit-learn.
    """
    absent = () if find_spec("sklearn") else ("classifier",)
    return [learner for name, learner in learners().items() if name not in absent]


def lines(battery: Battery, width: int) -> int:
    """How many distribution functions are compared, for rows of ``width`` numbers."""
    found = sum(item.directions for item in battery if isinstance(item, Projections) or isinstance(item, Sliced))
    found = found if width > 1 else 1
    known = any(isinstance(item, KolmogorovSmirnov) for item in battery)
    return found + (width + 1 if known and width > 1 else 0)

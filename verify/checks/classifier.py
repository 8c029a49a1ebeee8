"""Two samples told apart by gradient-boosted trees: an optional check for changes without a name."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.records import CheckClaim
from verify.statistics.held_out import HeldOut
from verify.statistics.learned import Learned, Learner
from verify.statistics.pairs import pilot


@dataclass(frozen=True, eq=False)
class Boosted(Learned):
    """f(x): the odds that a row is the sample's, by the ``trees``, a pickled model of scikit-learn: the estimate of the
    ratio of densities, the score of the largest studentised mean where they are near. Clipped to [1/20, 20].
    """

    trees: bytes

    def __call__(self, rows: Tensor) -> Tensor:
        with _one_thread():
            return torch.from_numpy(_loaded(self.trees).decision_function(rows.numpy())).clamp_(-3.0, 3.0).exp_()


@dataclass(frozen=True, eq=False)
class ClassifierDifference(HeldOut):
    """The held-out test of the odds of boosted trees."""

    name: ClassVar[str] = "classifier"
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="changes of any shape that a pilot of this size shows: blobs, gaps, modes, wrong regions",
        blind_to="faint smooth changes, which a linear witness sees with fewer rows",
    )


@dataclass(frozen=True)
class Classifier(Learner):
    """Histogram gradient boosting (scikit-learn's HistGradientBoostingClassifier, after LightGBM): the classifier
    two-sample test of Lopez-Paz and Oquab (ICLR 2017), with the held-out difference of odds for its statistic.

    A leaf holds ``rows_a_leaf`` rows of the pilot or more, but one row in fifty is enough. Raises ImportError where
    scikit-learn is not installed.
    """

    rounds: int = 100
    rate: float = 0.05
    leaves: int = 31
    rows_a_leaf: int = 200

    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> ClassifierDifference:
        first, second = pilot(sample, truth, tape, 64)
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier
        except ImportError as error:
            raise ImportError("the classifier check needs scikit-learn: pip install 'specproof[train]'") from error
        trees = HistGradientBoostingClassifier(
            max_iter=self.rounds,
            learning_rate=self.rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=min(self.rows_a_leaf, len(first) // 25),
            early_stopping=False,
            random_state=0,
        )
        labels = torch.arange(2).flip(0).repeat_interleave(len(first))
        with _one_thread():
            trees.fit(torch.cat((first, second)).numpy(), labels.numpy())
        return ClassifierDifference.after(Boosted(pickle.dumps(trees)), first, second)


def _one_thread() -> Any:
    return _threads().limit(limits=1, user_api="openmp")  # threads that wait spin, and cost ten times the work


@cache
def _threads() -> Any:
    import_module("sklearn.ensemble")  # a controller knows the libraries loaded before it
    return import_module("threadpoolctl").ThreadpoolController()  # which comes with scikit-learn


@lru_cache(maxsize=8)
def _loaded(trees: bytes) -> Any:
    return pickle.loads(trees)

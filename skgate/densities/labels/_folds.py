"""`LabelFolds`: parts of the rows, and the models that leave some of them out."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

#: Parts of the samples.
N_FOLDS = 5


@dataclass
class LabelFolds:
    """Rows in the order of their parts, and which parts the models leave out.

    The probabilities of part ``k`` come from a model that leaves it out. They are calibrated on
    every other part ``j``, by a model that leaves out both: it serves ``k`` and ``j``.

    Attributes
    ----------
    order : ndarray of int
        Rows, part by part; everything else counts rows in this order.
    starts : ndarray of shape (n_parts + 1,)
    targets : list of int
        Parts whose probabilities are asked for.
    fitted : slice
        Rows that models may be fitted to.
    """

    order: np.ndarray
    starts: np.ndarray
    targets: list
    fitted: slice

    @classmethod
    def crossing(cls, samples, seed):
        """Return the folds in which every row is scored by models that leave it out."""
        part = np.empty(len(samples.of_rows), int)
        for fold, (_, test) in enumerate(samples.folds(N_FOLDS, seed)):
            part[test] = fold
        starts = np.cumsum([0, *np.bincount(part, minlength=N_FOLDS)])
        order = np.argsort(part, kind="stable")
        return cls(order, starts, list(range(N_FOLDS)), slice(0, len(part)))

    @classmethod
    def with_new(cls, samples, n_new, seed):
        """Return those in which new rows, which come behind the others, are scored."""
        folds, n = cls.crossing(samples, seed), len(samples.of_rows)
        order = np.append(folds.order, n + np.arange(n_new))
        return cls(order, np.append(folds.starts, n + n_new), [N_FOLDS], slice(0, n))

    @property
    def n_parts(self):
        return len(self.starts) - 1

    def rows(self, part):
        """Return the rows of a part, a slice."""
        return slice(self.starts[part], self.starts[part + 1])

    @property
    def models(self):
        """The parts that each model leaves out: one, or a target and one that calibrates."""
        pairs = [p for p in combinations(range(self.n_parts), 2) if set(p) & set(self.targets)]
        return [(target,) for target in self.targets] + pairs

    def scored(self, left_out):
        """Return the parts that a model has to score."""
        if len(left_out) == 1:
            return left_out
        return [a for a, b in (left_out, left_out[::-1]) if b in self.targets]

    def calibrating(self, target):
        """Return pairs of a part and the model that calibrates the target's on it."""
        others = (part for part in range(N_FOLDS) if part != target)
        return [(part, tuple(sorted((part, target)))) for part in others]

    def sums(self, values):
        """Return sums over the rows of each part, along the first axis."""
        return np.stack([values[self.rows(part)].sum(axis=0) for part in range(self.n_parts)])

    def without(self, sums, left_out):
        """Return sums over all parts but some."""
        return sums.sum(axis=0) - sums[list(left_out)].sum(axis=0)


@dataclass
class Labels:
    """Labels of rows in the order of the folds.

    Attributes
    ----------
    encoded : ndarray of shape (n_rows,)
    indicators : ndarray of shape (n_rows, n_classes)
        0 in rows that models may not be fitted to.
    log_shares : ndarray of shape (n_classes,)
        Logarithms of the shares of the classes among the others.
    """

    encoded: np.ndarray
    indicators: np.ndarray
    log_shares: np.ndarray

    @classmethod
    def of(cls, encoded, folds):
        fitted = encoded[folds.fitted]
        indicators = np.zeros((len(encoded), int(fitted.max()) + 1))
        indicators[np.arange(len(fitted)), fitted] = 1
        return cls(encoded, indicators, np.log(indicators[folds.fitted].mean(axis=0)))

    @property
    def n_classes(self):
        return len(self.log_shares)

    def counts_without(self, folds, left_out):
        """Return the sizes of the classes among the rows that a model is fitted to."""
        return folds.without(folds.sums(self.indicators), left_out)

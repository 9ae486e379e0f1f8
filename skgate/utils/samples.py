"""`Samples`: folds, orders, draws and permutations that keep the rows of a sample together."""

import numpy as np
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state

from .arrays import sample_rows


class Samples:
    """The samples that rows belong to, numbered in the order of their first rows.

    With one row a sample, every method gives what it would of the rows themselves.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,) or None
        Those of `GatingStates`; ``None``: each row is a sample.
    n_rows : int

    Attributes
    ----------
    of_rows : ndarray of shape (n_rows,)
        Number of the sample of each row.
    sizes : ndarray of shape (n_samples,)
        Number of rows of each sample.
    """

    def __init__(self, groups, n_rows):
        self.of_rows = np.arange(n_rows)
        if groups is not None:
            _, firsts, inverse = np.unique(groups, return_index=True, return_inverse=True)
            self.of_rows = np.argsort(np.argsort(firsts))[inverse]
        self.sizes = np.bincount(self.of_rows)

    def __len__(self):
        return len(self.sizes)

    @property
    def are_rows(self):
        """Whether each sample has one row."""
        return len(self) == len(self.of_rows)

    def folds(self, n_folds, seed=None):
        """Yield the rows to fit and to score of each fold; without a seed, folds are in order."""
        splitter = KFold(n_folds, shuffle=seed is not None, random_state=seed)
        for _, test in splitter.split(np.arange(len(self))):
            held_out = np.isin(self.of_rows, test)
            yield np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def shuffled_rows(self, seed):
        """Return all rows, samples in random order, the rows of each together in random order."""
        rng = np.random.default_rng(seed)
        samples = rng.permutation(len(self))
        if self.are_rows:
            return samples
        place = np.argsort(samples)  # of each sample
        rows = rng.permutation(len(self.of_rows))
        return rows[np.argsort(place[self.of_rows[rows]], kind="stable")]

    def drawn_rows(self, max_samples, random_state):
        """Return the rows of samples that are drawn at random, or None for all rows."""
        drawn = sample_rows(len(self), max_samples, random_state)
        return None if drawn is None else np.flatnonzero(np.isin(self.of_rows, drawn))

    def permuted_labels(self, y, random_state):
        """Return labels of rows such that each sample has those of another one, drawn at random.

        Where these are fewer than its rows, they are repeated; where they are more, it has the
        first of them.
        """
        donors = check_random_state(random_state).permutation(len(self))[self.of_rows]
        by_sample = np.argsort(self.of_rows, kind="stable")
        starts = np.cumsum(self.sizes) - self.sizes
        place = np.empty_like(by_sample)  # of each row in its sample
        place[by_sample] = np.arange(len(place)) - np.repeat(starts, self.sizes)
        return y[by_sample[starts[donors] + place % self.sizes[donors]]]

    def sums(self, values):
        """Return sums over the rows of each sample, along the last axis."""
        by_sample = np.argsort(self.of_rows, kind="stable")
        starts = np.cumsum(self.sizes) - self.sizes
        return np.add.reduceat(values[..., by_sample], starts, axis=-1)

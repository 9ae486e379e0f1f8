"""`ChowLiu`: units on the most informative forest (Chow and Liu, 1968)."""

import numpy as np

from .._units import n_units
from ._columns import SparseColumns
from ._forest import ForestDensity
from ._information import information_rows
from ._sparse_edges import sparse_edges


class ChowLiu(ForestDensity):
    r"""Units on a forest, each of which depends on at most one other.

    A unit is a gate, or the gates that encode one value together: a window of max pooling, the two
    thresholds of ReLU6. The forest is the one of maximum likelihood, without the edges whose
    information may be chance:

    .. math::

        \log p(\sigma) = \sum_u \log p(\sigma_u)
            + \sum_{(u,w)} \log \frac{p(\sigma_u \mid \sigma_w)}{p(\sigma_u)}

    The units' own rates are those of :class:`Product`. Those given another unit are drawn to them
    by :math:`\kappa` samples, fitted to all edges of a pair of layers: with :math:`c_{vw}` the
    samples in which the units have the values :math:`v` and :math:`w`,

    .. math::

        p(v \mid w) = \frac{c_{vw} + \kappa p(v)}{c_w + \kappa}

    Fitting takes time with the square of the number of gates; 20,000 are about the most, unless few
    of them are open: then it takes time with the square of the gates that are open in a sample.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    References
    ----------
    .. [1] C. K. Chow, C. N. Liu, "Approximating discrete probability distributions with dependence
       trees", IEEE Transactions on Information Theory 14(3), 1968.

    Examples
    --------
    Four fair gates, each there twice, have 4 bits:

    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> from skgate.densities import ChowLiu
    >>> gates = np.random.default_rng(0).random((2000, 4)) < 0.5
    >>> measure = GatingEntropy(density=ChowLiu(), random_state=0).fit(np.hstack([gates, gates]))
    >>> round(measure.entropy_, 1)
    4.0
    """

    _uses_gpu = True

    def _edges(self, layers, columns, gpu):
        if isinstance(columns, SparseColumns):
            return sparse_edges(columns)
        return forest_edges(columns, layers, gpu)

    def _cost(self, layers, n_rows, n_fits):
        n_gates = sum(layer.n_gates for layer in layers)
        of_pairs = n_gates**2 * (6.5e-9 + 2.7e-12 * n_rows)
        return n_fits * (2e-3 + 7e-6 * n_gates + of_pairs), n_gates * (n_rows + 500)


def forest_edges(columns, layers, gpu=None):
    """Return ``(children, parents)``, the most informative forest of `BitColumns`.

    Edges that may be chance are none. It is found by Prim's algorithm, with a row of the matrix
    when its unit joins the forest.
    """
    if sum(map(n_units, layers)) == 1:
        return np.zeros((2, 0), np.int64)
    rows, least = information_rows(columns, layers, gpu)
    best, parent = np.full(rows.n_units, least), np.full(rows.n_units, -1)
    outside, children, unit = np.ones(rows.n_units, bool), [], 0
    for _ in range(rows.n_units - 1):
        outside[unit], best[unit] = False, -np.inf
        gained = rows(unit)
        better = outside & (gained > best)
        best[better], parent[better] = gained[better], unit
        unit = int(best.argmax())
        if parent[unit] >= 0:  # or else it begins another tree
            children.append(unit)
    children = np.array(children, np.int64)
    return children, parent[children]

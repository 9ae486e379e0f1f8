"""`Product`: independent units."""

import numpy as np

from ._columns import OpenCounts
from ._forest import ForestDensity


class Product(ForestDensity):
    r"""Independent units, each with its own distribution.

    A unit is a gate, or the gates that encode one value together: a window of max pooling, the two
    thresholds of ReLU6.

    .. math::

        \log p(\sigma) = \sum_u \log p(\sigma_u)

    A gate that is open in :math:`k` of :math:`n` samples has the rate

    .. math::

        p = \frac{k + a}{n + a + b},

    with a Beta(a, b) prior that is fitted to all gates of its layer, so that constant gates cost
    next to nothing where many are. The values of a unit with more than two come one after the
    other, and the share of each among those that are left has a prior likewise.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    References
    ----------
    .. [1] "Understanding, Analyzing, and Optimizing the Complexity of Deep Models", submitted
       to ICLR 2021, Eq. 31.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> from skgate.densities import Product
    >>> gates = np.random.default_rng(0).random((1000, 8)) < 0.5
    >>> round(GatingEntropy(density=Product(), random_state=0).fit(gates).entropy_, 1)
    8.0
    """

    _columns = OpenCounts

    def _edges(self, layers, columns, gpu):
        return np.zeros((2, 0), np.int64)

    def _cost(self, layers, n_rows, n_fits):
        n_gates = sum(layer.n_gates for layer in layers)
        seconds = n_fits * (2e-3 + 1.8e-10 * n_rows * n_gates)
        return seconds, n_gates * (n_rows / 2 + 200)

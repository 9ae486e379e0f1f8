"""`Product`: independent units."""

import numpy as np

from ._columns import OpenCounts
from ._forest import ForestDensity


class Product(ForestDensity):
    r"""Independent units, each with its own distribution.

    A unit is a gate, or the gates that encode one unit together: a window of max pooling, the two
    thresholds of ReLU6.

    .. math::

        \log p(\sigma) = \sum_u \log p(\sigma_u)

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

    def _edges(self, states, columns, sizes, gpu):
        return np.zeros((2, 0), np.int64)

    def independent(self):
        """Return the reference of the total correlation: the same density."""
        return Product()

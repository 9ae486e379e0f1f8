"""Information of layers by binning: `BinnedLayerMI` and its function `binned_layer_mi`."""

import numpy as np

from ..exceptions import warn_user
from ..utils.parallel import slices
from ..utils.sklearn import POSITIVE, validate_params
from ._base import LAYER_CONSTRAINTS, as_result
from ._baseline import BaselineLayerMI
from ._inputs import name_layers

_BLOCK = 1 << 18  # activations that are binned at once


class _Cells:
    """The cells of a grid that hold samples of one layer, with their numbers of each class.

    ``log_counts``, (3, n_samples), has for each sample the logarithms of the numbers of samples in
    its cell: all, those of its class, and those of its shuffled label. A grid is ``too_wide`` if
    all samples are in one cell, though their activations vary.
    """

    def __init__(self, activations, y_encoded, y_shuffled, n_classes, bin_size):
        self.bin_size, self.n_classes = bin_size, n_classes
        keys = _keys(activations, bin_size)
        cells, first = _group(keys)
        self.keys = keys[first]
        self.sizes = np.bincount(cells)
        self.pairs, pair, self.pair_sizes = np.unique(
            cells * n_classes + y_encoded, return_inverse=True, return_counts=True
        )
        shuffled = np.unique(cells * n_classes + y_shuffled, return_inverse=True)[1]
        shuffled_sizes = np.bincount(shuffled)[shuffled]
        self.log_counts = np.log([self.sizes[cells], self.pair_sizes[pair], shuffled_sizes])
        self.class_shares = np.bincount(y_encoded) / len(y_encoded)
        self.too_wide = len(self.sizes) == 1 and bool((activations != activations[:1]).any())

    def count(self, activations):
        """Return the cells of new samples and their sizes; -1 and 0 for a cell without samples."""
        n_cells = len(self.keys)
        groups, first = _group(np.vstack([self.keys, _keys(activations, self.bin_size)]))
        cells = np.where(first < n_cells, first, -1)[groups[n_cells:]]  # fitted ones come first
        return cells, np.where(cells < 0, 0, self.sizes[cells])

    def count_class(self, cells, y_encoded):
        """Return the number of fitted samples of the given classes in the given cells."""
        pairs = cells * self.n_classes + y_encoded
        places = np.searchsorted(self.pairs, pairs).clip(max=len(self.pairs) - 1)
        return np.where((cells >= 0) & (self.pairs[places] == pairs), self.pair_sizes[places], 0)


def _keys(activations, bin_size):
    """Return two 64-bit numbers per row that identify its cell, (n_samples, 2).

    They are sums of the bins with random coefficients, modulo 2^64: two cells share both numbers
    with a probability of about 2^-128.
    """
    coefficients = np.random.default_rng(0).integers(0, 2**64, (2, activations.shape[1]), np.uint64)
    coefficients |= np.uint64(1)
    keys = np.empty((len(activations), 2), np.uint64)
    height = max(1, _BLOCK // activations.shape[1])
    # allocated once: fresh arrays of this size cost more in page faults than the arithmetic on them
    quotients = np.empty((height, activations.shape[1]))
    numbers = np.empty(quotients.shape, np.int64)
    for rows in slices(0, len(activations), height):
        bins, integers = quotients[: rows.stop - rows.start], numbers[: rows.stop - rows.start]
        with np.errstate(over="ignore"):
            np.divide(activations[rows], bin_size, out=bins, dtype=np.float64)
        np.floor(bins, out=bins)
        if max(-bins.min(), bins.max()) >= 2**62:
            raise ValueError(
                f"bin_size={bin_size} is too small: activations reach "
                f"{np.abs(activations).max():.3g}, more than 2^62 bins from 0."
            )
        np.copyto(integers, bins, casting="unsafe")
        for column, c in zip(keys[rows].T, coefficients, strict=True):
            np.einsum("ij,j->i", integers.view(np.uint64), c, out=column)
    return keys


def _group(keys):
    """Return the group of each row, equal rows being in one, and the first row of each group."""
    one, two = (np.unique(column, return_inverse=True)[1] for column in keys.T)
    _, first, groups = np.unique(one * len(keys) + two, return_index=True, return_inverse=True)
    return groups, first


class BinnedLayerMI(BaselineLayerMI):
    r"""Information of layers about input and label, by counting samples in bins.

    Each activation is cut into bins ``[k * bin_size, (k + 1) * bin_size)``; all activations of a
    layer together are its state T, and probabilities are shares of the samples:

    .. math::

        P(T=c) = \frac1n \sum_j 1[t_j \in c], \qquad I(X;T) = H(T), \qquad
        I(Y;T) = H(T) - \sum_m p_m H(T \mid Y=m).

    T is a function of X, so that H(T|X) = 0. Both values depend on ``bin_size`` more than on the
    network: with small bins each sample has a cell of its own, I(X;T) is log n and I(Y;T) is H(Y)
    for any network. A `SaturationWarning` then names the layers. The activations of all samples
    are held at once.

    :meth:`transform` returns the surprisals :math:`-\log P(T=c)` of the cells of new samples, one
    column per layer; log n for a cell without fitted samples, as if it had one. :meth:`score` is
    the mean of :math:`\log \hat p(y|c) / \hat p(y)`, with

    .. math::

        \hat p(y|c) = \frac{n_{cy} + p_y}{n_c + 1}, \qquad \hat p(y) = p_y;

    the prior counts as one sample of each cell, so that an empty cell is not informative.

    Parameters
    ----------
    model : None, torch.nn.Module or fitted estimator with a module, default=None
        Network whose layers are measured, as in :class:`GibbsLayerMI`.
    bin_size : float, default=2.0
        Width of a bin. The default is the paper's choice for its synthetic data; no value is
        right in general.
    layers
        As in :class:`GibbsLayerMI`.
    spatial : {"channels", "flatten"}, default="flatten"
        As in :class:`GibbsLayerMI`. With ``"channels"``, n is the number of samples and positions.
    base, batch_size
        As in :class:`GibbsLayerMI`.
    random_state : int, RandomState instance or None, default=None
        Seed for shuffling labels.

    Attributes
    ----------
    layer_mi_x_, layer_mi_y_ : ndarray of shape (n_layers,)
        I(X;T) and I(Y;T), in bits unless ``base`` says else.
    shuffled_layer_mi_y_ : ndarray of shape (n_layers,)
        I(Y;T) with the labels shuffled once: only the excess over it is information about the
        label.
    layer_ceiling_ : ndarray of shape (n_layers,)
        log n, above which I(X;T) cannot be.
    layer_saturated_ : ndarray of shape (n_layers,), dtype bool
        Layers whose entropy, or entropy given the label, is within 1% of its ceiling.
    layer_names_, n_units_, activation_functions_, classes_, n_features_in_, feature_names_in_
        As in :class:`GibbsLayerMI`.

    See Also
    --------
    binned_layer_mi : The same for activations in memory.
    GibbsLayerMI : The estimate that this one is a baseline for.

    References
    ----------
    .. [1] "A Probabilistic Representation for Deep Learning: Delving into The Information
       Bottleneck Principle", submitted to NeurIPS 2021, Eq. 63.
    .. [2] R. Shwartz-Ziv, N. Tishby, "Opening the Black Box of Deep Neural Networks via
       Information", arXiv:1703.00810, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import BinnedLayerMI
    >>> y = np.repeat([0, 1, 2], 100)
    >>> activations = np.tanh(np.random.default_rng(0).normal(size=(300, 3)) + 3 * np.eye(3)[y])
    >>> measure = BinnedLayerMI(bin_size=0.5).fit(activations, y)
    >>> measure.layer_mi_x_.round(2), measure.layer_mi_y_.round(2), measure.layer_saturated_
    (array([4.99]), array([1.12]), array([False]))
    """

    _parameter_constraints = {
        **LAYER_CONSTRAINTS,
        "bin_size": [POSITIVE],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        model=None,
        *,
        bin_size=2.0,
        layers=None,
        spatial="flatten",
        base=2,
        batch_size=256,
        random_state=None,
    ):
        self.model = model
        self.bin_size = bin_size
        self.layers = layers
        self.spatial = spatial
        self.base = base
        self.batch_size = batch_size
        self.random_state = random_state

    def _fit(self, X, y):
        super()._fit(X, y)
        layers = zip(self.layer_names_, self._fitted, strict=True)
        if too_wide := [name for name, cells in layers if cells.too_wide]:
            warn_user(
                f"All samples are in one cell of bin_size={self.bin_size} in layers {too_wide}: "
                "I(X;T) is 0 for any network. Take bins that are smaller than the range of the "
                "activations."
            )

    def _fit_layer(self, activations, y_encoded, y_shuffled):
        cells = _Cells(activations, y_encoded, y_shuffled, len(self.classes_), self.bin_size)
        return cells, cells.log_counts, np.log(len(activations))

    def _surprisals(self, fitted, activations):
        _, counts = fitted.count(activations)
        return -np.log(np.maximum(counts, 1) / fitted.sizes.sum())

    def _information(self, fitted, activations, y_encoded):
        cells, sizes = fitted.count(activations)
        prior = fitted.class_shares[y_encoded]
        posterior = (fitted.count_class(cells, y_encoded) + prior) / (sizes + 1)
        return np.log(posterior / prior)


@validate_params(BinnedLayerMI._parameter_constraints, prefer_skip_nested_validation=True)
def binned_layer_mi(activations, y, *, bin_size=2.0, base=2, random_state=None):
    """Return the information plane of activations in memory, by binning them.

    The function form of :class:`BinnedLayerMI`, which describes the parameters; ``activations`` may
    also be a list of arrays, one per layer in the order of the network.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        The fitted attributes of :class:`BinnedLayerMI`, without the underscores at the end.

    Raises
    ------
    ValueError
        If activations or labels are not as :meth:`BinnedLayerMI.fit` needs them, or activations
        reach more than 2^62 bins from 0.

    See Also
    --------
    BinnedLayerMI : The same as an estimator, also from raw inputs of a model; has the references.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import binned_layer_mi
    >>> activations = np.array([[0.2, 1.4], [0.4, 1.1], [0.7, 1.4], [0.9, 1.4]] * 10)
    >>> binned_layer_mi(activations, [0, 0, 1, 1] * 10, bin_size=0.5).layer_mi_x
    array([1.])
    """
    measure = BinnedLayerMI(bin_size=bin_size, base=base, random_state=random_state)
    return as_result(measure.fit(name_layers(activations), y))

"""Information of layers by binning: `BinnedLayerMI` and its twin `binned_layer_mi`."""

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..exceptions import warn_user
from ..utils.labels import check_labels
from ..utils.parallel import slices
from ..utils.sklearn import POSITIVE, _fit_context, validate_params
from ._base import LAYER_CONSTRAINTS, LayerEstimator, as_samples, plane_of_masses
from ._inputs import as_layers

__all__ = ["BinnedLayerMI", "binned_layer_mi"]

_BLOCK = 1 << 18  # activations that are binned at once


class _Cells:
    """The cells of a grid that samples of one layer fall into, and how many of each class do.

    Parameters
    ----------
    activations : ndarray of shape (n_samples, n_units)
    codes, null_codes : ndarray of shape (n_samples,), dtype int
        Labels, and labels shuffled.
    n_classes : int
    bin_size : float

    Attributes
    ----------
    log_masses : ndarray of shape (3, n_samples)
        Logarithms of the number of samples in the same cell: of all, of the same class, and of the
        same shuffled label.
    """

    def __init__(self, activations, codes, null_codes, n_classes, bin_size):
        self.bin_size, self.n_classes = bin_size, n_classes
        keys = _keys(activations, bin_size)
        cells, first = _group(keys)
        self.keys = keys[first]
        self.sizes = np.bincount(cells)
        self.pairs, pair, self.pair_sizes = np.unique(
            cells * n_classes + codes, return_inverse=True, return_counts=True
        )
        null_pair = np.unique(cells * n_classes + null_codes, return_inverse=True)[1]
        null_sizes = np.bincount(null_pair)[null_pair]
        self.log_masses = np.log([self.sizes[cells], self.pair_sizes[pair], null_sizes])

    def count(self, activations):
        """Return the cells of new samples, -1 where no fitted one is, and its number of these."""
        n_cells = len(self.keys)
        groups, first = _group(np.vstack([self.keys, _keys(activations, self.bin_size)]))
        cells = np.where(first < n_cells, first, -1)[groups[n_cells:]]  # fitted ones come first
        return cells, np.where(cells < 0, 0, self.sizes[cells])

    def count_class(self, cells, codes):
        """Return the number of fitted samples of some classes in some cells."""
        pairs = cells * self.n_classes + codes
        places = np.searchsorted(self.pairs, pairs).clip(max=len(self.pairs) - 1)
        return np.where((cells >= 0) & (self.pairs[places] == pairs), self.pair_sizes[places], 0)


def _keys(activations, bin_size):
    """Return two 64-bit numbers a row that are those of its cell, (n_samples, 2).

    Sums of the bins with random coefficients, modulo 2^64: two cells share both numbers with a
    probability of about 2^-128.
    """
    coefficients = np.random.default_rng(0).integers(0, 2**64, (2, activations.shape[1]), np.uint64)
    coefficients |= np.uint64(1)
    keys = np.empty((len(activations), 2), np.uint64)
    height = max(1, _BLOCK // activations.shape[1])
    # made once: fresh arrays of this size cost more in page faults than the arithmetic on them
    quotients = np.empty((height, activations.shape[1]))
    numbers = np.empty(quotients.shape, np.int64)
    for rows in slices(0, len(activations), height):
        bins, whole = quotients[: rows.stop - rows.start], numbers[: rows.stop - rows.start]
        with np.errstate(over="ignore"):
            np.divide(activations[rows], bin_size, out=bins, dtype=np.float64)
        np.floor(bins, out=bins)
        if max(-bins.min(), bins.max()) >= 2**62:
            raise ValueError(
                f"bin_size={bin_size} is too small: activations reach "
                f"{np.abs(activations).max():.3g}, more than 2^62 bins from 0."
            )
        np.copyto(whole, bins, casting="unsafe")
        for column, c in zip(keys[rows].T, coefficients, strict=True):
            np.einsum("ij,j->i", whole.view(np.uint64), c, out=column)
    return keys


def _group(keys):
    """Return the group of each row of ``keys``, equal rows being one, and the first row of each."""
    one, two = (np.unique(column, return_inverse=True)[1] for column in keys.T)
    _, first, groups = np.unique(one * len(keys) + two, return_index=True, return_inverse=True)
    return groups, first


@validate_params(
    {
        "activations": "no_validation",
        "y": "no_validation",
        "bin_size": [POSITIVE],
        "base": LAYER_CONSTRAINTS["base"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def binned_layer_mi(activations, y, *, bin_size=2.0, base=2, random_state=None):
    """Return the information plane of activations at hand, by binning them.

    The function twin of :class:`BinnedLayerMI`.

    Parameters
    ----------
    activations : array-like of shape (n_samples, n_units), or list or dict of these
        Post-activation vectors, one array a layer in the order of the network.
    y : array-like of shape (n_samples,)
        Class labels.
    bin_size : float, default=2.0
        See :class:`BinnedLayerMI`, as for all parameters below.
    base : float, default=2
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffled labels.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mi_x``, ``mi_y``, ``null_mi_y``, ``ceilings``, ``saturated``, ``layer_names`` and
        ``classes``, as the attributes of :class:`BinnedLayerMI`.

    Raises
    ------
    ValueError
        If the activations are not finite or reach more than 2^62 bins from 0, layers differ in
        their number of samples, or ``y`` is missing, continuous or of another length.

    Warns
    -----
    SaturationWarning
        If I(X;T) is within 1% of log n.
    UserWarning
        If all samples of a layer are in one cell, though its activations vary.

    See Also
    --------
    BinnedLayerMI : The same as an estimator, from raw inputs of a model too; has the references.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import binned_layer_mi
    >>> activations = np.array([[0.2, 1.4], [0.4, 1.1], [0.7, 1.4], [0.9, 1.4]] * 10)
    >>> binned_layer_mi(activations, [0, 0, 1, 1] * 10, bin_size=0.5).mi_x
    array([1.])
    """
    layers = as_layers(activations)
    classes, codes = check_labels(y, len(next(iter(layers.values()))))
    null_codes = check_random_state(random_state).permutation(codes)
    samples = [(array, codes, null_codes) for array in layers.values()]
    cells = [_Cells(*sample, len(classes), bin_size) for sample in samples]
    return Bunch(**_plane(layers, cells, samples, bin_size, base), classes=classes)


def _plane(names, cells, samples, bin_size, base):
    arrays, codes, null_codes = zip(*samples, strict=True)
    ceilings = np.log([len(own) for own in codes])
    masses = [c.log_masses for c in cells]
    together = [
        name
        for name, logs, ceiling, array in zip(names, masses, ceilings, arrays, strict=True)
        if logs[0].min() > ceiling - 1e-9 and (array != array[:1]).any()
    ]
    if together:
        warn_user(
            f"All samples are in one cell of bin_size={bin_size} in layers {together}: I(X;T) is "
            "0, whatever they do. Take bins that are smaller than what the activations span."
        )
    return plane_of_masses(list(names), masses, codes, null_codes, ceilings, base)


class BinnedLayerMI(LayerEstimator):
    r"""Information of layers about input and label, by counting samples in bins.

    Each activation is cut into bins ``[k * bin_size, (k + 1) * bin_size)``; all activations of a
    layer together are its state T, and probabilities are shares of the samples:

    .. math::

        P(T=c) = \frac1n \sum_j 1[t_j \in c], \qquad I(X;T) = H(T), \qquad
        I(Y;T) = H(T) - \sum_m p_m H(T \mid Y=m).

    T is a function of X, so that H(T|X) = 0. Both values depend on ``bin_size`` more than on the
    network: with small bins each sample has a cell of its own, I(X;T) is log n and I(Y;T) is H(Y)
    whatever the network does. A `SaturationWarning` then names the layers.

    Parameters
    ----------
    model : None, torch.nn.Module or fitted estimator with a module, default=None
        Network whose layers are measured, as in :class:`GibbsLayerMI`.
    bin_size : float, default=2.0
        Width of a bin. The default is the one that the paper settles on for its synthetic data;
        there is no right one.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers of ``model`` to measure; all by default.
    spatial : {"channels", "flatten"}, default="flatten"
        As in :class:`GibbsLayerMI`. With ``"channels"``, n is the number of samples and positions.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    batch_size : int, default=256
        Samples that go through ``model`` at once.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffled labels.

    Attributes
    ----------
    mi_x_, mi_y_ : ndarray of shape (n_layers,)
        I(X;T) and I(Y;T), in units of ``base``.
    null_mi_y_ : ndarray of shape (n_layers,)
        I(Y;T) with the labels shuffled once: only what exceeds it is information about the label.
    ceilings_ : ndarray of shape (n_layers,)
        log n, above which I(X;T) cannot be.
    saturated_ : ndarray of shape (n_layers,), dtype bool
        Layers whose entropy, or entropy given the label, is within 1% of its ceiling.
    layer_names_ : list of str
    n_units_ : list of int
    activation_functions_ : list of str or None
        Only with a model.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Only when ``X`` holds activations or is an array.
    feature_names_in_ : ndarray of str
        Only when ``X`` has string column names.

    See Also
    --------
    binned_layer_mi : The same of given activations.
    GibbsLayerMI : The estimate that this one is a baseline of.

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
    >>> measure.mi_x_.round(2), measure.mi_y_.round(2), measure.saturated_
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

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the layers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units), dict of these, or raw inputs of ``model``
            As in :meth:`GibbsLayerMI.fit`; the activations of all samples are held at once.
        y : array-like of shape (n_samples,), default=None
            Class labels; left out when ``X`` is a dataset or loader that yields them.

        Returns
        -------
        self : BinnedLayerMI

        Raises
        ------
        ValueError
            If ``y`` is missing, continuous or of another length, a parameter is not as described,
            ``layers`` names none, or activations are not finite.
        """
        self._start(X, y)
        layers, y = self._collect(X, y, reset=True)
        self.classes_, codes = check_labels(y, len(next(iter(layers.values()))))
        null_codes = check_random_state(self.random_state).permutation(codes)
        samples = [as_samples(array, codes, null_codes) for array in layers.values()]
        self._cells = [_Cells(*sample, len(self.classes_), self.bin_size) for sample in samples]
        self._class_counts = np.bincount(codes)
        self._set_result(_plane(layers, self._cells, samples, self.bin_size, self.base))
        return self

    def transform(self, X):
        """Return the surprisal of each sample in each layer, ``-log P(T=c)`` of its cell.

        Parameters
        ----------
        X : array-like, dict of these, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        surprisals : ndarray of shape (n_samples, n_layers)
            In units of ``base``; log n for a cell that no fitted sample fell into, as if one had.
            Of a layer with positions, the mean over them.
        """
        return self._read_rows(X, self._surprisals)

    def _surprisals(self, layers):
        columns = []
        for cells, activations in zip(self._cells, layers.values(), strict=True):
            n, n_positions, n_units = activations.shape
            _, counts = cells.count(activations.reshape(-1, n_units))
            shares = np.maximum(counts, 1) / cells.sizes.sum()
            columns.append(-np.log(shares).reshape(n, n_positions).mean(axis=1))
        return np.stack(columns, axis=1) / np.log(self.base)

    def score(self, X, y=None):
        r"""Return the held-out information of the last layer about the label.

        The mean of :math:`\log \hat p(y|c) / \hat p(y)` over the samples, c their cells and

        .. math::

            \hat p(y|c) = \frac{n_{cy} + p_y}{n_c + 1}, \qquad \hat p(y) = p_y,

        the prior being counted as one sample of each cell, so that an empty one tells nothing.

        Parameters
        ----------
        X : array-like, dict of these, or raw inputs of ``model``
            As in :meth:`fit`.
        y : array-like of shape (n_samples,), default=None
            Class labels, all of them in ``classes_``.

        Returns
        -------
        score : float
            In units of ``base``; higher is better.

        Raises
        ------
        ValueError
            If a label was not there in :meth:`fit`.
        """
        activations, codes = self._last_layer(X, y)
        cells, sizes = self._cells[-1].count(activations)
        prior = (self._class_counts / self._class_counts.sum())[codes]
        posterior = (self._cells[-1].count_class(cells, codes) + prior) / (sizes + 1)
        return float(np.mean(np.log(posterior / prior)) / np.log(self.base))

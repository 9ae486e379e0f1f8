"""Information of layers by kernel density: `KDELayerMI` and its twin `kde_layer_mi`."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities import kernel_weights
from ..pairwise import Engine, kernel_masses
from ..utils.arrays import sample_rows
from ..utils.labels import check_labels
from ..utils.sklearn import MAX_SAMPLES, POSITIVE, StrOptions, _fit_context, validate_params
from ._base import LAYER_CONSTRAINTS, LayerEstimator, as_samples, plane_of_masses
from ._inputs import as_layers

__all__ = ["KDELayerMI", "kde_layer_mi"]

_CONSTRAINTS = {
    "noise_variance": [POSITIVE],
    "bound": [StrOptions({"upper", "lower"})],
    "base": LAYER_CONSTRAINTS["base"],
    "device": [StrOptions({"auto", "cpu", "cuda"})],
    "n_jobs": [None, Integral],
    "verbose": ["verbose"],
}


@validate_params(
    {
        "activations": "no_validation",
        "y": "no_validation",
        **_CONSTRAINTS,
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def kde_layer_mi(
    activations,
    y,
    *,
    noise_variance=2.0,
    bound="upper",
    base=2,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    """Return the information plane of activations at hand, from their kernel density.

    The function twin of :class:`KDELayerMI`.

    Parameters
    ----------
    activations : array-like of shape (n_samples, n_units), or list or dict of these
        Post-activation vectors, one array a layer in the order of the network.
    y : array-like of shape (n_samples,)
        Class labels.
    noise_variance : float, default=2.0
        See :class:`KDELayerMI`, as for all parameters below.
    bound : {"upper", "lower"}, default="upper"
    base : float, default=2
    device : {"auto", "cpu", "cuda"}, default="auto"
    n_jobs : int, default=None
    verbose : int, default=0
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffled labels.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mi_x``, ``mi_y``, ``null_mi_y``, ``ceilings``, ``saturated``, ``layer_names`` and
        ``classes``, as the attributes of :class:`KDELayerMI`.

    Raises
    ------
    ValueError
        If the activations are not finite, layers differ in their number of samples, or ``y`` is
        missing, continuous or of another length.

    Warns
    -----
    SaturationWarning
        If I(X;T) is within 1% of its ceiling.

    See Also
    --------
    KDELayerMI : The same as an estimator, from raw inputs of a model too; has the references.

    Examples
    --------
    Two points, far apart or close together beside the noise:

    >>> import numpy as np
    >>> from skgate import kde_layer_mi
    >>> activations = np.array([[0.0], [1.0]] * 50)
    >>> [kde_layer_mi(activations, [0, 1] * 50, noise_variance=v).mi_x.round(2) for v in (0.05, 1)]
    [array([1.]), array([0.32])]
    """
    engine = Engine(device, n_jobs, verbose)
    layers = as_layers(activations)
    classes, codes = check_labels(y, len(next(iter(layers.values()))))
    null_codes = check_random_state(random_state).permutation(codes)
    samples = [(array, codes, null_codes) for array in layers.values()]
    return Bunch(
        **_plane(layers, samples, _weights(noise_variance, bound), base, engine), classes=classes
    )


def _weights(noise_variance, bound):
    return kernel_weights(np.array([[float(noise_variance)]]), bound)  # (1, 1)


def _plane(names, samples, weights, base, engine):
    # layers with positions differ in their number of rows: each has a pass of its own
    masses = [
        kernel_masses([array], weights, labelings=labelings, engine=engine)[0]
        for array, *labelings in samples
    ]
    arrays, codes, null_codes = zip(*samples, strict=True)
    logs = np.log([len(own) for own in codes])
    spread = np.array([array.var(axis=0, dtype=np.float64).sum() for array in arrays])
    ceilings = np.minimum(2 * weights[0, 0] * spread, logs)  # the mean exponent: Jensen
    return plane_of_masses(list(names), masses, codes, null_codes, ceilings, base)


class KDELayerMI(LayerEstimator):
    r"""Information of layers about input and label, from pairwise distances of activations.

    The activations of the samples, blurred with Gaussian noise, are a mixture of Gaussians whose
    entropy has bounds in closed form [2]_:

    .. math::

        I(X;T) &= -\frac1n \sum_j \log \frac1n \sum_k
            \exp\Big(-\frac{\|t_j - t_k\|^2}{2\sigma_n^2}\Big) \\
        I(Y;T) &= I(X;T) - \sum_m p_m I(X;T \mid Y=m)

    with 8 in place of 2 for the lower bound. The first is a bound on the information in T with
    noise; the difference of two bounds bounds nothing. Both depend on ``noise_variance`` more than
    on the network: with little noise I(X;T) is log n and I(Y;T) is H(Y) whatever the network does.
    A `SaturationWarning` then names the layers.

    Parameters
    ----------
    model : None, torch.nn.Module or fitted estimator with a module, default=None
        Network whose layers are measured, as in :class:`GibbsLayerMI`.
    noise_variance : float, default=2.0
        :math:`\sigma_n^2`. The default is the one that the paper settles on for its synthetic
        data; there is no right one.
    bound : {"upper", "lower"}, default="upper"
        Bound on the information in T with noise: from the Kullback-Leibler distances of the
        components (the paper), or from their Bhattacharyya distances.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers of ``model`` to measure; all by default.
    spatial : {"channels", "flatten"}, default="flatten"
        As in :class:`GibbsLayerMI`. With ``"channels"``, n is the number of samples and positions,
        and work grows with its square.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    max_samples : int, float or None, default=None
        Number or share of samples drawn at random to be measured.
    batch_size : int, default=256
        Samples that go through ``model`` at once.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where the pairs are computed. ``"auto"`` takes a GPU for work of more than about two seconds
        where CuPy finds one, ``"cuda"`` raises where it does not.
    n_jobs : int, default=None
        Number of threads for the pairs; ``None`` is 1 unless in a
        :func:`joblib.parallel_config` context.
    verbose : int, default=0
        Whether to show what is done and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of the drawn samples and of the shuffled labels.

    Attributes
    ----------
    mi_x_, mi_y_ : ndarray of shape (n_layers,)
        I(X;T) and I(Y;T), in units of ``base``.
    null_mi_y_ : ndarray of shape (n_layers,)
        I(Y;T) with the labels shuffled once: only what exceeds it is information about the label.
    ceilings_ : ndarray of shape (n_layers,)
        The lower of log n and the mean exponent of the kernel, above which I(X;T) cannot be.
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
    kde_layer_mi : The same of given activations.
    GibbsLayerMI : The estimate that this one is a baseline of.

    References
    ----------
    .. [1] "A Probabilistic Representation for Deep Learning: Delving into The Information
       Bottleneck Principle", submitted to NeurIPS 2021, Eq. 65.
    .. [2] A. Kolchinsky, B. D. Tracey, "Estimating Mixture Entropy with Pairwise Distances",
       Entropy 19(7), 2017.
    .. [3] A. M. Saxe et al., "On the Information Bottleneck Theory of Deep Learning", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import KDELayerMI
    >>> y = np.repeat([0, 1, 2], 100)
    >>> activations = np.tanh(np.random.default_rng(0).normal(size=(300, 3)) + 3 * np.eye(3)[y])
    >>> measure = KDELayerMI(noise_variance=0.1).fit(activations, y)
    >>> measure.mi_x_.round(2), measure.mi_y_.round(2), measure.saturated_
    (array([4.38]), array([1.23]), array([False]))
    """

    _parameter_constraints = {
        **LAYER_CONSTRAINTS,
        **_CONSTRAINTS,
        "max_samples": MAX_SAMPLES,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        model=None,
        *,
        noise_variance=2.0,
        bound="upper",
        layers=None,
        spatial="flatten",
        base=2,
        max_samples=None,
        batch_size=256,
        device="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.model = model
        self.noise_variance = noise_variance
        self.bound = bound
        self.layers = layers
        self.spatial = spatial
        self.base = base
        self.max_samples = max_samples
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the layers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units), dict of these, or raw inputs of ``model``
            As in :meth:`GibbsLayerMI.fit`; the activations of the samples that are measured are
            held at once.
        y : array-like of shape (n_samples,), default=None
            Class labels; left out when ``X`` is a dataset or loader that yields them.

        Returns
        -------
        self : KDELayerMI

        Raises
        ------
        ValueError
            If ``y`` is missing, continuous or of another length, a parameter is not as described,
            ``layers`` names none, or activations are not finite.
        RuntimeError
            If ``device="cuda"`` cannot be had.
        """
        engine = self._engine()
        self._start(X, y)

        random_state = check_random_state(self.random_state)

        def draw(n_samples):
            return sample_rows(n_samples, self.max_samples, random_state)

        layers, y = self._collect(X, y, reset=True, draw=draw)
        self.classes_, codes = check_labels(y, len(next(iter(layers.values()))))
        null_codes = random_state.permutation(codes)
        self._samples = [as_samples(array, codes, null_codes) for array in layers.values()]
        self._weights = _weights(self.noise_variance, self.bound)
        self._set_result(_plane(layers, self._samples, self._weights, self.base, engine))
        return self

    def _engine(self):
        return Engine(self.device, self.n_jobs, self.verbose)

    def transform(self, X):
        r"""Return what each sample adds to I(X;T) of each layer.

        That is :math:`-\log \frac1n \sum_k \exp(-\|t - t_k\|^2 / 2\sigma_n^2)`, the sum over the
        fitted samples.

        Parameters
        ----------
        X : array-like, dict of these, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        surprisals : ndarray of shape (n_samples, n_layers)
            In units of ``base``. Of a layer with positions, the mean over them.
        """
        return self._read_rows(X, self._surprisals)

    def _surprisals(self, layers):
        columns = []
        for (fitted, *_), activations in zip(self._samples, layers.values(), strict=True):
            n, n_positions, n_units = activations.shape
            queries = [activations.reshape(-1, n_units)]
            masses = kernel_masses([fitted], self._weights, queries=queries, engine=self._engine())[
                0, 0
            ]
            columns.append((np.log(len(fitted)) - masses).reshape(n, n_positions).mean(axis=1))
        return np.stack(columns, axis=1) / np.log(self.base)

    def score(self, X, y=None):
        r"""Return the held-out information of the last layer about the label.

        The mean of :math:`\log \hat p(t|y) / \hat p(t)` over the samples, both densities those of
        the fitted samples with noise.

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
        fitted, fitted_codes, _ = self._samples[-1]
        total, given = kernel_masses(
            [fitted],
            self._weights,
            labelings=[fitted_codes],
            queries=[activations],
            query_labelings=[codes],
            engine=self._engine(),
        )[0]
        share = np.log(np.bincount(fitted_codes) / len(fitted_codes))[codes]
        return float(np.mean(given - total - share) / np.log(self.base))

"""Information of layers by kernel density: `KDELayerMI` and its function `kde_layer_mi`."""

from numbers import Integral

import numpy as np

from ..densities import kernel_weights
from ..pairwise import Engine, kernel_masses
from ..utils.sklearn import MAX_SAMPLES, POSITIVE, StrOptions, validate_params
from ._base import LAYER_CONSTRAINTS, as_result
from ._baseline import BaselineLayerMI
from ._inputs import name_layers


class KDELayerMI(BaselineLayerMI):
    r"""Information of layers about input and label, from pairwise distances of activations.

    The activations of the samples, blurred with Gaussian noise, are a mixture of Gaussians whose
    entropy has bounds in closed form [2]_:

    .. math::

        \begin{aligned}
        I(X;T) &= -\frac1n \sum_j \log \frac1n \sum_k
            \exp\Big(-\frac{\|t_j - t_k\|^2}{2\sigma_n^2}\Big) \\
        I(Y;T) &= I(X;T) - \sum_m p_m I(X;T \mid Y=m)
        \end{aligned}

    with 8 in place of 2 for the lower bound. The first is a bound on the information in T with
    noise; the difference of two bounds is no bound. Both depend on ``noise_variance`` more than
    on the network: with little noise I(X;T) is log n and I(Y;T) is H(Y) for any network. A
    `SaturationWarning` then names the layers.

    :meth:`transform` returns the terms of the sum over :math:`j` for new samples, one column per
    layer. :meth:`score` is the mean of :math:`\log \hat p(t|y) / \hat p(t)`, both densities those
    of the fitted samples with noise.

    Parameters
    ----------
    model : None, torch.nn.Module or fitted estimator with a module, default=None
        Network whose layers are measured, as in :class:`GibbsLayerMI`.
    noise_variance : float, default=2.0
        :math:`\sigma_n^2`. The default is the paper's choice for its synthetic data; no value is
        right in general.
    bound : {"upper", "lower"}, default="upper"
        Bound on the information in T with noise: from the Kullback-Leibler distances of the
        components (the paper), or from their Bhattacharyya distances.
    layers
        As in :class:`GibbsLayerMI`.
    spatial : {"channels", "flatten"}, default="flatten"
        As in :class:`GibbsLayerMI`. With ``"channels"``, n is the number of samples and positions,
        and work grows with its square.
    base, max_samples, batch_size, device, n_jobs, verbose
        As in :class:`GibbsLayerMI` and :class:`GatingEntropy`. The activations of the samples that
        are measured are held at once.
    random_state : int, RandomState instance or None, default=None
        Seed for drawing samples and shuffling labels.

    Attributes
    ----------
    layer_ceiling_ : ndarray of shape (n_layers,)
        The lower of log n and the mean exponent of the kernel, above which I(X;T) cannot be.
    layer_mi_x_, layer_mi_y_, shuffled_layer_mi_y_, layer_saturated_ : ndarray of shape (n_layers,)
        As in :class:`BinnedLayerMI`, as all other attributes; in bits unless ``base`` says else.

    See Also
    --------
    kde_layer_mi : The same for activations in memory.
    GibbsLayerMI : The estimate that this one is a baseline for.

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
    >>> measure.layer_mi_x_.round(2), measure.layer_mi_y_.round(2), measure.layer_saturated_
    (array([4.38]), array([1.23]), array([False]))
    """

    _parameter_constraints = {
        **LAYER_CONSTRAINTS,
        "noise_variance": [POSITIVE],
        "bound": [StrOptions({"upper", "lower"})],
        "max_samples": MAX_SAMPLES,
        "device": [StrOptions({"auto", "cpu", "cuda"})],
        "n_jobs": [None, Integral],
        "verbose": ["verbose"],
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

    def _start(self, X, y):
        self._engine()  # raises without a GPU that was asked for
        super()._start(X, y)

    def _engine(self):
        return Engine(self.device, self.n_jobs, self.verbose)

    def _fit_layer(self, activations, y_encoded, y_shuffled):
        # layers with positions differ in their number of rows: each has a pass of its own
        weights = kernel_weights(np.array([[float(self.noise_variance)]]), self.bound)  # (1, 1)
        log_sums = kernel_masses(
            [activations], weights, label_sets=[y_encoded, y_shuffled], engine=self._engine()
        )[0]
        # by Jensen's inequality, the mean exponent bounds the entropy
        exponent = 2 * weights[0, 0] * activations.var(axis=0, dtype=np.float64).sum()
        return (weights, activations, y_encoded), log_sums, min(exponent, np.log(len(activations)))

    def _surprisals(self, fitted, activations):
        weights, samples, _ = fitted
        log_sums = kernel_masses([samples], weights, queries=[activations], engine=self._engine())
        return np.log(len(samples)) - log_sums[0, 0]

    def _information(self, fitted, activations, y_encoded):
        weights, samples, y_fitted = fitted
        data = {"queries": [activations], "label_sets": [y_fitted], "query_label_sets": [y_encoded]}
        total, given = kernel_masses([samples], weights, **data, engine=self._engine())[0]
        return given - total - np.log(np.bincount(y_fitted) / len(y_fitted))[y_encoded]


@validate_params(KDELayerMI._parameter_constraints, prefer_skip_nested_validation=True)
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
    """Return the information plane of activations in memory, from their kernel density.

    The function form of :class:`KDELayerMI`, which describes the parameters; ``activations`` may
    also be a list of arrays, one per layer in the order of the network.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        The fitted attributes of :class:`KDELayerMI`, without the underscores at the end.

    Raises
    ------
    ValueError
        If activations or labels are not as :meth:`KDELayerMI.fit` needs them.

    See Also
    --------
    KDELayerMI : The same as an estimator, also from raw inputs of a model; has the references.

    Examples
    --------
    Two points, far apart or close together compared with the noise:

    >>> import numpy as np
    >>> from skgate import kde_layer_mi
    >>> X, y = np.array([[0.0], [1.0]] * 50), [0, 1] * 50
    >>> [kde_layer_mi(X, y, noise_variance=v).layer_mi_x.round(2) for v in (0.05, 1)]
    [array([1.]), array([0.32])]
    """
    measure = KDELayerMI(
        noise_variance=noise_variance,
        bound=bound,
        base=base,
        device=device,
        n_jobs=n_jobs,
        verbose=verbose,
        random_state=random_state,
    )
    return as_result(measure.fit(name_layers(activations), y))

"""The Gibbs probability space of a layer: `GibbsLayerMI` and its twin `gibbs_layer_mi`."""

import copy
from numbers import Integral

import numpy as np
from scipy.special import softmax
from sklearn.utils import Bunch

from ..utils.labels import check_labels, encode_known
from ..utils.sklearn import StrOptions, _fit_context, check_is_fitted, validate_params
from ._base import LAYER_CONSTRAINTS, LayerEstimator, as_samples
from ._gibbs_sums import GibbsSums, information_plane
from ._inputs import as_layers

__all__ = ["GibbsLayerMI", "gibbs_layer_mi"]


@validate_params(
    {
        "activations": "no_validation",
        "y": "no_validation",
        "class_weight": [StrOptions({"prior", "uniform"})],
        "base": LAYER_CONSTRAINTS["base"],
        "n_jobs": [None, Integral],
    },
    prefer_skip_nested_validation=True,
)
def gibbs_layer_mi(activations, y, *, class_weight="prior", base=2, n_jobs=None):
    """Return the information plane of activations at hand, by layer and of the network.

    The function twin of :class:`GibbsLayerMI`.

    Parameters
    ----------
    activations : array-like of shape (n_samples, n_units), or list or dict of these
        Post-activation vectors, one array a layer in the order of the network; of the output
        layer its logits.
    y : array-like of shape (n_samples,)
        Class labels.
    class_weight : {"prior", "uniform"}, default="prior"
        See :class:`GibbsLayerMI`, as for all parameters below.
    base : float, default=2
    n_jobs : int, default=None

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mi_x``, ``mi_y``, ``mi_xbar``, ``network_mi_x``, ``network_mi_y``, ``layer_names`` and
        ``classes``, as the attributes of :class:`GibbsLayerMI`.

    Raises
    ------
    ValueError
        If the activations are not finite, layers differ in their number of samples, or ``y`` is
        missing, continuous or of another length.

    See Also
    --------
    GibbsLayerMI : The same as an estimator, from raw inputs of a model too; has the references.

    Examples
    --------
    Four units, each of which stands for a pair of label and background:

    >>> import numpy as np
    >>> from skgate import gibbs_layer_mi
    >>> y, background = np.arange(400) % 2, np.arange(400) // 2 % 2
    >>> activations = 200.0 * np.eye(4)[2 * y + background]
    >>> result = gibbs_layer_mi(activations, y)
    >>> result.mi_x.round(6), result.mi_y.round(6), result.mi_xbar.round(6)
    (array([2.]), array([1.]), array([1.]))
    """
    layers = as_layers(activations)
    n_samples = len(next(iter(layers.values())))
    classes, codes = check_labels(y, n_samples)
    sums = [GibbsSums(array.shape[1]) for array in layers.values()]
    for layer, array in zip(sums, layers.values(), strict=True):
        layer.reorder([], len(classes))
        layer.add(array, codes, n_jobs)
    result = information_plane(sums, class_weight, base)
    return Bunch(**result, layer_names=list(layers), classes=classes)


class GibbsLayerMI(LayerEstimator):
    r"""Information of layers about input and label, in the Gibbs probability space of a layer.

    A layer of N units is an experiment with N outcomes, which of its units' features is
    recognised in the input, with probabilities

    .. math::

        P(T=n \mid x) = \frac{\exp t_n(x)}{\sum_{n'} \exp t_{n'}(x)},

    :math:`t(x)` the activations after the activation function; for the output layer, its logits.
    From sums over the samples follow

    .. math::

        I(X;T) &= H\Big(\sum_m p_m P(T|m)\Big) - \sum_m p_m \operatorname{mean}_{x \in m} H(P(T|x))
            \le \log N \\
        I(Y;T) &= H\Big(\sum_m p_m P(T|m)\Big) - \sum_m p_m H(P(T|m)), \qquad
            P(T|m) = \operatorname{mean}_{x \in m} P(T|x) \\
        I(\bar X;T) &= I(X;T) - I(Y;T) \ge 0 \\
        I(X;T_{net}) &= I(\bar X;T_1) + I(Y;\hat Y), \qquad I(Y;T_{net}) = I(Y;\hat Y)

    with :math:`T_1` the first layer and :math:`\hat Y` the last. :math:`\bar X` is what there is
    in X besides Y.

    Parameters
    ----------
    model : None, torch.nn.Module or fitted estimator with a module, default=None
        Network whose layers are measured; ``X`` then holds its raw inputs. Read is the output of
        every linear and convolutional layer, in the order in which they run, after the activation
        function that follows it if there is one; of the last of them, the output itself. ``None``:
        ``X`` holds activations.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers of ``model`` to measure, as of :class:`GateExtractor`; all by default.
    spatial : {"channels", "flatten"}, default="channels"
        What a layer with positions is, such as a convolution. ``"channels"``: one unit a channel,
        and every position a sample of what the kernel sees. ``"flatten"``: one unit a channel and
        position. The paper treats linear layers alone; ``"channels"`` is our reading of its "a
        kernel defines a local feature".
    class_weight : {"prior", "uniform"}, default="prior"
        The weights :math:`p_m` of the classes: their shares among the samples, or the same for
        all, in which case samples are weighted in every term alike.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    batch_size : int, default=256
        Samples that go through ``model`` at once. A ``DataLoader`` has its own.
    n_jobs : int, default=None
        Number of threads for the sums; ``None`` is 1 unless in a
        :func:`joblib.parallel_config` context.

    Attributes
    ----------
    mi_x_, mi_y_, mi_xbar_ : ndarray of shape (n_layers,)
        I(X;T), I(Y;T) and their difference, in units of ``base``.
    network_mi_x_, network_mi_y_ : float
        I(X;T_net) and I(Y;T_net), from the first layer and the last, which are those of ``X`` or
        of ``model``, in the order in which they run; NaN if the layer was left out by ``layers`` or
        cannot be seen.
    layer_names_ : list of str
    n_units_ : list of int
        Number of units of each layer.
    activation_functions_ : list of str or None
        What was applied to the output of each layer, as far as it is read; only with a model.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Only when ``X`` holds activations or is an array.
    feature_names_in_ : ndarray of str
        Only when ``X`` has string column names.

    See Also
    --------
    gibbs_layer_mi : The same of given activations.
    BinnedLayerMI, KDELayerMI : Other estimates of the same quantities.

    References
    ----------
    .. [1] "A Probabilistic Representation for Deep Learning: Delving into The Information
       Bottleneck Principle", submitted to NeurIPS 2021, Eq. 5 and 14 to 20.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgate import GibbsLayerMI
    >>> from skgate.datasets import make_oriented_images
    >>> _ = torch.manual_seed(0)
    >>> hidden = [nn.Linear(1024, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh()]
    >>> net = nn.Sequential(*hidden, nn.Linear(6, 2))
    >>> X, y, _ = make_oriented_images(random_state=0)
    >>> measure = GibbsLayerMI(net).fit(X, y)
    >>> measure.layer_names_, measure.activation_functions_
    (['0', '2', '4'], ['relu', 'tanh', None])
    >>> measure.mi_x_.round(3)
    array([0.057, 0.014, 0.004])
    """

    _parameter_constraints = {
        **LAYER_CONSTRAINTS,
        "class_weight": [StrOptions({"prior", "uniform"})],
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        model=None,
        *,
        layers=None,
        spatial="channels",
        class_weight="prior",
        base=2,
        batch_size=256,
        n_jobs=None,
    ):
        self.model = model
        self.layers = layers
        self.spatial = spatial
        self.class_weight = class_weight
        self.base = base
        self.batch_size = batch_size
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the layers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units), dict of these, or raw inputs of ``model``
            One array is one layer; a dict holds one a layer, in the order of the network. With a
            model: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``, which is
            read batch after batch and never held as a whole.
        y : array-like of shape (n_samples,), default=None
            Class labels; left out when ``X`` is a dataset or loader that yields them.

        Returns
        -------
        self : GibbsLayerMI

        Raises
        ------
        ValueError
            If ``y`` is missing, continuous or of another length, a parameter is not as described,
            ``layers`` names none, or activations are not finite.
        """
        self._start(X, y)
        return self._add(X, y, reset=True)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Add samples to those that were measured, as if all had come at once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units), dict of these, or raw inputs of ``model``
            As in :meth:`fit`.
        y : array-like of shape (n_samples,), default=None
            Class labels; classes may be new.

        Returns
        -------
        self : GibbsLayerMI
        """
        first = not self.__sklearn_is_fitted__()
        if first:
            self._start(X, y)
        return self._add(X, y, reset=first)

    def _add(self, X, y, *, reset):
        sums = {} if reset else copy.deepcopy(self._sums)  # as they were, should anything fail
        classes = np.empty(0) if reset else self.classes_

        def add(layers, labels):
            nonlocal classes
            new, codes = check_labels(labels, len(next(iter(layers.values()))))
            known, classes = classes, np.union1d(classes, new) if len(classes) else new
            for name, activations in layers.items():
                layer = sums.setdefault(name, GibbsSums(activations.shape[-1]))
                layer.reorder(np.searchsorted(classes, known), len(classes))
                layer.add(
                    *as_samples(activations, np.searchsorted(classes, new)[codes]), self.n_jobs
                )

        self._read(X, y, add, reset=reset)
        self._sums, self.classes_ = sums, classes
        self._set_result(information_plane(sums.values(), self.class_weight, self.base))
        if self.model is not None:
            if not (self._reader.has_first and self._reader.has_last):
                self.network_mi_x_ = np.nan
            if not self._reader.has_last:
                self.network_mi_y_ = np.nan
        return self

    def transform(self, X):
        """Return P(T|x) of each layer, side by side.

        Parameters
        ----------
        X : array-like, dict of these, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_units of all layers)
            Each layer's columns sum to 1. Of a layer with positions, the mean over them.
        """
        return self._read_rows(
            X,
            lambda layers: np.hstack(
                [softmax(t.astype(np.float64), axis=-1).mean(axis=1) for t in layers.values()]
            ),
        )

    def score(self, X, y=None):
        r"""Return the held-out information of the last layer about the label.

        The mean over the samples of

        .. math::

            \sum_n P(n|x) \log \frac{\hat P(n|y)}{\hat P(n)},

        :math:`\hat P` as it was fitted, and not less than the smallest normal number. On the data
        of :meth:`fit` it is I(Y;Ŷ). With ``"uniform"``, the classes' means are averaged.

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
        check_is_fitted(self)
        *_, fitted = self._sums.values()
        new = GibbsSums(fitted.probabilities.shape[1])
        new.reorder([], len(self.classes_))

        def add(layers, labels):
            *_, activations = layers.values()
            codes = encode_known(labels, len(activations), self.classes_)
            new.add(*as_samples(activations, codes), self.n_jobs)

        self._read(X, y, add, reset=False)
        given = fitted.given_class()
        marginal = fitted.class_weights(self.class_weight) @ given
        least = np.finfo(np.float64).tiny
        gains = np.log(np.maximum(given, least)) - np.log(np.maximum(marginal, least))
        scores = (new.probabilities * gains).sum(axis=1)  # (n_classes,)
        if self.class_weight == "uniform":
            seen = new.counts > 0
            return float(np.mean(scores[seen] / new.counts[seen]) / np.log(self.base))
        return float(scores.sum() / new.counts.sum() / np.log(self.base))

    def _columns(self):
        sizes = zip(self.layer_names_, self.n_units_, strict=True)
        return [f"{name}_{unit}" for name, n_units in sizes for unit in range(n_units)]

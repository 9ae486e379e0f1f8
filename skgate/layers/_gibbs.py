"""The Gibbs probability space of a layer: `GibbsLayerMI` and its function `gibbs_layer_mi`."""

import copy
from numbers import Integral

import numpy as np
from scipy.special import softmax

from ..utils.labels import check_labels, encode_known
from ..utils.sklearn import StrOptions, _fit_context, validate_params
from ._base import LAYER_CONSTRAINTS, LayerEstimator, as_result, as_samples
from ._gibbs_sums import GibbsSums, information_plane
from ._inputs import name_layers


class GibbsLayerMI(LayerEstimator):
    r"""Information of layers about input and label, in the Gibbs probability space of a layer.

    A layer of N units is an experiment with N outcomes: the feature of one unit is recognised in
    the input, with probabilities

    .. math::

        P(T=n \mid x) = \frac{\exp t_n(x)}{\sum_{n'} \exp t_{n'}(x)},

    :math:`t(x)` the activations after the activation function; for the output layer, its logits.
    From sums over the samples follow

    .. math::

        \begin{aligned}
        I(X;T) &= H\Big(\sum_m p_m P(T|m)\Big) - \sum_m p_m \operatorname{mean}_{x \in m} H(P(T|x))
            \le \log N \\
        I(Y;T) &= H\Big(\sum_m p_m P(T|m)\Big) - \sum_m p_m H(P(T|m)), \qquad
            P(T|m) = \operatorname{mean}_{x \in m} P(T|x) \\
        I(\bar X;T) &= I(X;T) - I(Y;T) \ge 0 \\
        I(X;T_{net}) &= I(\bar X;T_1) + I(Y;\hat Y), \qquad I(Y;T_{net}) = I(Y;\hat Y)
        \end{aligned}

    with :math:`T_1` the first layer and :math:`\hat Y` the last. :math:`\bar X` is the part of X
    that does not depend on Y. Data are read batch after batch and never held at once.

    :meth:`transform` returns :math:`P(T|x)` of each layer, side by side; each layer's columns sum
    to 1. :meth:`score` is the mean over the samples of

    .. math::

        \sum_n P(n|x) \log \frac{\hat P(n|y)}{\hat P(n)},

    with :math:`\hat P` as fitted, and not less than the smallest normal number. On the data of
    :meth:`fit` it is I(Y;Ŷ). With ``class_weight="uniform"``, the means of the classes are
    averaged.

    Parameters
    ----------
    model : None, torch.nn.Module or fitted estimator with a module, default=None
        Network whose layers are measured; ``X`` then holds its raw inputs. The output of every
        linear and convolutional layer is read, in the order in which they run, after the
        activation function that follows it if there is one; of the last layer, the output itself.
        ``None``: ``X`` holds activations.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers of ``model`` to measure, as of :class:`GateExtractor`; all by default.
    spatial : {"channels", "flatten"}, default="channels"
        How to read a layer with positions, such as a convolution. ``"channels"``: each channel is
        a unit, and each position a sample. ``"flatten"``: each channel at each position is a unit.
        The paper treats linear layers alone; ``"channels"`` is our reading of its "a kernel
        defines a local feature".
    class_weight : {"prior", "uniform"}, default="prior"
        The weights :math:`p_m` of the classes: their shares among the samples, or the same for
        all, in every term.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    batch_size : int, default=256
        Samples that go through ``model`` at once. A ``DataLoader`` has its own.
    n_jobs : int, default=None
        Number of threads for the sums; ``None`` is 1 unless in a
        :func:`joblib.parallel_config` context.

    Attributes
    ----------
    layer_mi_x_, layer_mi_y_, layer_mi_xbar_ : ndarray of shape (n_layers,)
        I(X;T), I(Y;T) and their difference, in units of ``base``.
    mi_x_, mi_y_ : float
        I(X;T_net) and I(Y;T_net), from the first and the last layer of ``X`` or of ``model``; NaN
        if the layer was left out by ``layers`` or cannot be seen.
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
    >>> measure.layer_mi_x_.round(3)
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

    def _fit(self, X, y):
        self._add(X, y, reset=True)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Add samples to the measured ones; the result is that of all of them at once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units), dict of these, or raw inputs of ``model``
            As in :meth:`fit`.
        y : array-like of shape (n_samples,), default=None
            Class labels; new classes are allowed.

        Returns
        -------
        self : GibbsLayerMI
        """
        first = not self.__sklearn_is_fitted__()
        if first:
            self._start(X, y)
        self._add(X, y, reset=first)
        return self

    def _add(self, X, y, *, reset):
        sums = {} if reset else copy.deepcopy(self._sums)  # kept unchanged should anything fail
        classes = np.empty(0) if reset else self.classes_
        for layers, labels in self._read(X, y, reset=reset):
            new, y_encoded = check_labels(labels, len(next(iter(layers.values()))))
            known, classes = classes, np.union1d(classes, new) if len(classes) else new
            y_encoded = np.searchsorted(classes, new)[y_encoded]
            for name, activations in layers.items():
                layer = sums.setdefault(name, GibbsSums(activations.shape[-1]))
                layer.reorder(np.searchsorted(classes, known), len(classes))
                layer.add(*as_samples(activations, y_encoded), self.n_jobs)
        self._sums, self.classes_ = sums, classes
        self._set_result(information_plane(sums.values(), self.class_weight, self.base))
        if self.model is not None:
            if not (self._reader.has_first and self._reader.has_last):
                self.mi_x_ = np.nan
            if not self._reader.has_last:
                self.mi_y_ = np.nan

    def _transform(self, layers):
        return np.hstack([softmax(t.astype(float), axis=-1).mean(axis=1) for t in layers.values()])

    def _score(self, X, y):
        *_, fitted = self._sums.values()
        new = GibbsSums(fitted.probabilities.shape[1], len(self.classes_))
        for layers, labels in self._read(X, y, reset=False):
            *_, activations = layers.values()
            y_encoded = encode_known(labels, len(activations), self.classes_)
            new.add(*as_samples(activations, y_encoded), self.n_jobs)
        given = fitted.given_class()
        marginal = fitted.class_weights(self.class_weight) @ given
        smallest = np.finfo(np.float64).tiny
        gains = np.log(np.maximum(given, smallest)) - np.log(np.maximum(marginal, smallest))
        scores = (new.probabilities * gains).sum(axis=1)  # (n_classes,)
        if self.class_weight == "uniform":
            seen = new.counts > 0
            return np.mean(scores[seen] / new.counts[seen])
        return scores.sum() / new.counts.sum()

    def _columns(self):
        sizes = zip(self.layer_names_, self.n_units_, strict=True)
        return [f"{name}_{unit}" for name, n_units in sizes for unit in range(n_units)]


@validate_params(GibbsLayerMI._parameter_constraints, prefer_skip_nested_validation=True)
def gibbs_layer_mi(activations, y, *, class_weight="prior", base=2, n_jobs=None):
    """Return the information plane of activations in memory, by layer and of the network.

    The function form of :class:`GibbsLayerMI`, which describes the parameters; ``activations`` may
    also be a list of arrays, one per layer in the order of the network.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        The fitted attributes of :class:`GibbsLayerMI`, without the underscores at the end.

    Raises
    ------
    ValueError
        If activations or labels are not as :meth:`GibbsLayerMI.fit` needs them.

    See Also
    --------
    GibbsLayerMI : The same as an estimator, also from raw inputs of a model; has the references.

    Examples
    --------
    Four units, each of which stands for a pair of label and background:

    >>> import numpy as np
    >>> from skgate import gibbs_layer_mi
    >>> y, background = np.arange(400) % 2, np.arange(400) // 2 % 2
    >>> activations = 200.0 * np.eye(4)[2 * y + background]
    >>> result = gibbs_layer_mi(activations, y)
    >>> result.layer_mi_x.round(6), result.layer_mi_y.round(6), result.layer_mi_xbar.round(6)
    (array([2.]), array([1.]), array([1.]))
    """
    measure = GibbsLayerMI(class_weight=class_weight, base=base, n_jobs=n_jobs)
    return as_result(measure.fit(name_layers(activations), y))

"""The Gibbs probability space of a layer: `GibbsLayerMI` and its function `gibbs_layer_mi`."""

import copy
from numbers import Integral

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_random_state

from ..exceptions import SaturationWarning, warn_user
from ..utils.labels import check_labels, encode_known
from ..utils.sklearn import StrOptions, _fit_context, _num_samples, validate_params
from ._base import LAYER_CONSTRAINTS, LayerEstimator, as_result, as_samples
from ._gibbs_sums import GibbsSums, information_plane
from ._inputs import name_layers

#: Share of the expected number of labels that shuffling needs to change.
_MIXED = 0.75
_SATURATED = (
    "Saturated: these layers have so many units that they tell most samples apart, whatever they "
    "have learned (n = {n} samples):\n  {lines}\n"
    "I(X;T) at its ceiling measures the number of samples, and I(Y;T) near that of shuffled labels "
    'measures chance. Take more samples, or spatial="channels"; score(X, y) on samples that were '
    "not fitted is the honest number of the last layer."
)


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
    :meth:`fit` it is I(Y;Ŷ), which is biased upwards; on samples that were not fitted it is the
    honest number, in expectation at most the information of the label in T. It is that of the last
    layer: ``layers`` makes another one the last. With ``class_weight="uniform"``, the means of the
    classes are averaged.

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
    random_state : int, RandomState instance or None, default=None
        Seed for shuffling labels.

    Attributes
    ----------
    layer_mi_x_, layer_mi_y_, layer_mi_xbar_ : ndarray of shape (n_layers,)
        I(X;T), I(Y;T) and their difference, in units of ``base``.
    shuffled_layer_mi_y_ : ndarray of shape (n_layers,)
        I(Y;T) with the labels shuffled once: the value of a layer that knows nothing of the label.
        Labels that come with a loader, or to :meth:`partial_fit`, are shuffled within their batch;
        NaN if the batches do not mix the classes.
    mi_x_, mi_y_, shuffled_mi_y_ : float
        I(X;T_net) and I(Y;T_net), from the first and the last layer of ``X`` or of ``model``; NaN
        if the layer was left out by ``layers`` or cannot be seen.
    layer_ceiling_ : ndarray of shape (n_layers,)
        The lower of log N and the entropy of the samples (log n for classes weighted by their
        shares), above which I(X;T) cannot be.
    layer_saturated_ : ndarray of shape (n_layers,), dtype bool
        Layers whose I(X;T) is within 1% of the entropy of the samples, if N is n or more, or whose
        shuffled labels have more than a quarter of I(Y;T), and a tenth of its ceiling, the lower
        of log N and H(Y). A wide layer of large activations has units enough to tell all samples
        apart, trained or not. :meth:`fit` warns.
    saturated_ : bool
        Whether the first or the last layer is saturated.
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
        "random_state": ["random_state"],
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
        random_state=None,
    ):
        self.model = model
        self.layers = layers
        self.spatial = spatial
        self.class_weight = class_weight
        self.base = base
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _fit(self, X, y):
        self._add(X, y, reset=True)
        if self.layer_saturated_.any():
            self._warn_saturated()

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
        mixture = np.zeros(2) if reset else self._mixture
        # without a model, all labels are in the first batch
        known_labels = None if self.model is None else y
        batches = self._read(X, y, reset=reset)
        for layers, labels, mixed in _with_shuffled(batches, known_labels, self.random_state):
            new, encoded = np.unique(labels, return_inverse=True)
            known, classes = classes, np.union1d(classes, new) if len(classes) else new
            encoded = np.searchsorted(classes, new)[encoded.reshape(labels.shape)]
            for name, activations in layers.items():
                layer = sums.setdefault(name, GibbsSums(activations.shape[-1]))
                layer.reorder(np.searchsorted(classes, known), len(classes))
                layer.add(*as_samples(activations, *encoded), self.n_jobs)
            mixture = mixture + labels.shape[1] * np.array([1, mixed])
        self._sums, self.classes_, self._mixture = sums, classes, mixture
        self._set_plane()

    def _set_plane(self):
        """Set the information of each layer and of the network, from the sums."""
        sums = self._sums.values()
        n_samples, changed = self._mixture
        in_all = n_samples * _variety(next(iter(sums)).counts)
        plane = information_plane(sums, self.class_weight, self.base, changed >= _MIXED * in_all)
        self._set_result(plane)
        if self.model is not None:
            if not (self._reader.has_first and self._reader.has_last):
                self.mi_x_ = np.nan
            if not self._reader.has_last:
                self.mi_y_ = self.shuffled_mi_y_ = np.nan

    def _warn_saturated(self):
        lines = "\n  ".join(
            f"{self.layer_names_[i]}: I(X;T) {self.layer_mi_x_[i]:.2f}, ceiling "
            f"{self.layer_ceiling_[i]:.2f}; I(Y;T) {self.layer_mi_y_[i]:.2f}, of shuffled labels "
            f"{self.shuffled_layer_mi_y_[i]:.2f}"
            for i in np.flatnonzero(self.layer_saturated_)
        )
        warn_user(_SATURATED.format(n=int(self._mixture[0]), lines=lines), SaturationWarning)

    def _transform(self, layers):
        return np.hstack([softmax(t.astype(float), axis=-1).mean(axis=1) for t in layers.values()])

    def _score(self, X, y):
        *_, fitted = self._sums.values()
        new = GibbsSums(fitted.probabilities.shape[1], len(self.classes_))
        for layers, labels in self._read(X, y, reset=False):
            *_, activations = layers.values()
            y_encoded = encode_known(labels, len(activations), self.classes_)
            new.add(*as_samples(activations, y_encoded, y_encoded), self.n_jobs)
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


def _with_shuffled(batches, y, random_state):
    """Yield the layers of each batch, its labels, and the probability that shuffling changes one.

    The labels, (2, n_samples), have shuffled ones in their second row: from all samples if ``y`` is
    known beforehand, and otherwise from those of the batch.
    """
    random_state = check_random_state(random_state)
    everyone = None if y is None else random_state.permutation(_decoded(y, _num_samples(y)))
    start = 0
    for layers, labels in batches:
        own = _decoded(labels, len(next(iter(layers.values()))))
        source = random_state.permutation(own) if y is None else everyone
        start = 0 if y is None else start
        shuffled = source[start : start + len(own)]
        start += len(own)
        yield layers, np.stack([own, shuffled]), _variety(np.unique_counts(source).counts)


def _decoded(y, n_samples):
    """Return labels as an array, checked."""
    classes, y_encoded = check_labels(y, n_samples)
    return classes[y_encoded]


def _variety(counts):
    """Return the probability that two draws from classes of these sizes differ."""
    return 1 - np.sum((counts / counts.sum()) ** 2)


@validate_params(GibbsLayerMI._parameter_constraints, prefer_skip_nested_validation=True)
def gibbs_layer_mi(activations, y, *, class_weight="prior", base=2, n_jobs=None, random_state=None):
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
    measure = GibbsLayerMI(
        class_weight=class_weight, base=base, n_jobs=n_jobs, random_state=random_state
    )
    return as_result(measure.fit(name_layers(activations), y))

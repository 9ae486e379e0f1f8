r"""`Convolutional`: gates with positions, each given those before it by weights that all share."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from ...utils.samples import Samples
from ...utils.sklearn import Interval
from .._cross_fitting import FittedDensity, n_classes_of, pointwise_information
from ..forests._product import Product
from ._grids import Grid
from ._layer_scores import derivatives, log_likelihoods
from ._link_costs import link_cost
from ._link_fits import LinkFitter

#: Parts of the rows at least, of which one judges the choices.
_N_PARTS = 5
#: Weights of the rates of a class, 0 if they are not used.
_GAINS = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])


class Convolutional(FittedDensity):
    r"""Gates at positions, each of which is regressed on those before it in a window.

    For layers with positions, such as feature maps and tokens, of any width. The order is that of
    rows, then columns, then channels. With :math:`\rho` the smoothed rates of the gates and
    :math:`x` the centred gates of a causal window (rows above, then to the left, then lower
    channels at the same place), and perhaps of 3 x 3 positions in the layer before,

    .. math::

        \operatorname{logit} P(\sigma_{cij} = 1 \mid \text{before})
            = a_c + \gamma_c \operatorname{logit} \rho_{cij} + w_c \cdot x.

    All positions share the weights, so that up to 200,000 of them suffice for a fit, at any number
    and size of images. The window, the ridge, and whether least squares are refined by the log-
    loss, are chosen on a fifth of the samples, with independent gates as the last resort. Where a
    window has more than 3000 gates, principal components replace the channels at other positions.
    Several layers are a chain, each given the one before. Gates of a unit, such as those of a
    pooling window, are one variable: a gate that follows from earlier ones of its unit costs
    nothing.

    Parameters
    ----------
    window : int, default=5
        Largest width of the window, in positions; smaller ones are tried too.
    max_iter : int, default=10
        Largest number of iterations by which the log-loss refines least squares; 0: none. The
        more, the more positions it takes: 40 are worth their time where gates nearly follow from
        others.
    given_previous : bool, default=True
        Whether a layer is given the one before it where several are measured together. If not,
        layers are independent.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    See Also
    --------
    Autoregressive : For narrow layers without positions.
    ChowLiu : For those of up to 20,000 gates.

    Notes
    -----
    A class has rates of its own, drawn to those of all samples, by a weight that is chosen on held-
    out samples.

    References
    ----------
    .. [1] H. Larochelle, I. Murray, "The Neural Autoregressive Distribution Estimator", AISTATS
       2011, for the chain of conditional probabilities; the shared causal window is that of
       A. van den Oord et al., "Pixel Recurrent Neural Networks", ICML 2016.

    Examples
    --------
    Maps whose columns repeat: each row has the gates of the one above.

    >>> import numpy as np
    >>> from skgate import GatingStates, gating_entropy
    >>> from skgate.densities import Convolutional
    >>> rows = np.random.default_rng(0).random((500, 2, 1, 6)) < 0.5
    >>> states = GatingStates.from_arrays(np.repeat(rows, 6, axis=2))
    >>> found = [gating_entropy(states, density=d, random_state=0).entropy
    ...          for d in ("product", Convolutional())]
    >>> [round(bits) for bits in found]
    [72, 12]
    """

    _parameter_constraints = {
        "window": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "given_previous": ["boolean"],
    }
    _covers = "chain"

    def __init__(self, window=5, max_iter=10, given_previous=True):
        self.window = window
        self.max_iter = max_iter
        self.given_previous = given_previous

    @property
    def _links(self):
        return self.given_previous

    def _cross_fit_part(self, states, label_sets, folds, seed, engine, bounds):
        """Return the `LinkModel` of the first fold, and log p of test rows, for all label sets."""
        parts, of_folds = _parts(states, folds, seed)
        n_parts = max(parts.max() + 1, _N_PARTS)
        fitter = LinkFitter(states, parts, n_parts, self.window // 2, self.max_iter, seed)
        labels = [_Labels(fitter, y, n_parts) for y in label_sets]
        logs = [np.empty((fitter.n_terms, len(states), of.n_classes)) for of in labels]
        first = None
        # a fold is judged by the next one, and the other way round: they share a fit
        judges = _judges(of_folds)
        for (_, test), excluded, judging in zip(folds, of_folds, judges, strict=True):
            models, judged = fitter.fit(excluded, judging)
            offsets = [of.offsets(models, judged, excluded, judging) for of in labels]
            first = first or [LinkModel(models, of_set) for of_set in offsets]
            if len(test):
                found = log_likelihoods(models, fitter.grids, test, offsets)
                for values, of_fold in zip(logs, found, strict=True):
                    values[:, test] = of_fold
        return list(zip(first, logs, strict=True))

    def _cost(self, layers, n_rows, n_fits):
        return link_cost(layers, n_rows, n_fits, self.window // 2, self.max_iter)

    def independent(self):
        """Return the reference of the total correlation: independent units."""
        return Product()


def _parts(states, folds, seed):
    """Return the part of each row, and the parts that each fold leaves out.

    Where folds are few, each has several parts, so that inner choices have rows enough.
    """
    samples = Samples(states.groups, len(states))
    fold_of_row, n_folds = np.zeros(len(states), int), max(1, len(folds) - 1)
    for fold, (_, test) in enumerate(folds[1:]):
        fold_of_row[test] = fold
    per_fold = -(-_N_PARTS // n_folds) if n_folds < 4 else 1
    shuffled = np.random.default_rng(seed).permutation(len(samples))[samples.of_rows]
    part = fold_of_row * per_fold + shuffled % per_fold
    left_out = [np.arange(per_fold) + fold * per_fold for fold in range(n_folds)]
    return part, [np.arange(0), *left_out][: len(folds)]


def _judges(of_folds):
    """Return the parts that judge the choices of each fold."""
    n = len(of_folds) - 1
    if n < 2:
        return [np.arange(1)]
    partners = [k + 1 if k % 2 and k < n else k - 1 for k in range(1, n + 1)]
    return [of_folds[1][:1], *(of_folds[partner] for partner in partners)]


class _Labels:
    """Rates of the gates in each class."""

    def __init__(self, fitter, y_encoded, n_parts):
        self.fitter, self.y_encoded = fitter, y_encoded
        self.n_classes = n_classes_of(y_encoded)
        if self.n_classes > 1:
            codes = fitter.parts * self.n_classes + y_encoded
            n_codes = n_parts * self.n_classes
            shape = n_parts, self.n_classes
            counts = fitter.grids[0].counts(codes, n_codes)
            self.counts = counts.reshape(*shape, *counts.shape[1:])
            self.sizes = np.bincount(codes, minlength=n_codes).reshape(shape)

    def offsets(self, models, judged, excluded, judging):
        """Return what classes add to the logits of each term, times the gain that tells them."""
        if self.n_classes == 1:
            return [None] * len(models)
        inner = self.fitter.training_set(sorted({*excluded, *judging}))
        gains = self._gains(judged, self._of_classes(inner), judging)
        offsets = self._of_classes(self.fitter.training_set(sorted(excluded)))
        return [np.float32(gain) * offsets for gain in gains]

    def _of_classes(self, training):
        counts, sizes = (v[training.parts].sum(axis=0) for v in (self.counts, self.sizes))
        grid, rates = self.fitter.grids[0], training.rates[0]
        return np.stack(
            [grid.class_offset(c, n, rates) for c, n in zip(counts, sizes, strict=True)]
        )

    def _gains(self, models, offsets, judging):
        """Return the weight of the rates of classes, for each term, that tells labels best."""
        rows = np.flatnonzero(np.isin(self.fitter.parts, judging))
        first, second = derivatives(models, self.fitter.grids, rows, offsets)
        # to second order, and without what classes have in common
        logs = np.stack([gain * first + gain**2 / 2 * second for gain in _GAINS])
        priors = self.sizes.sum(axis=0) / self.sizes.sum()
        information = pointwise_information(logs, self.y_encoded[rows], priors)
        return _GAINS[information.mean(axis=-1).argmax(axis=0)]


@dataclass
class LinkModel:
    """A layer, and perhaps the layer given the one before.

    Attributes
    ----------
    models : list of LayerModel
    offsets : list of ndarray of shape (n_classes, channels, height, width), or of None
        What a class adds to the logits of each.
    """

    models: list
    offsets: list

    def log_likelihoods(self, states, bounds):
        """Return log p of the layer and of it given the one before, (n_terms, n, n_classes)."""
        grids = [Grid(states, index) for index in range(len(states.layers))][::-1]
        return log_likelihoods(self.models, grids, np.arange(len(states)), [self.offsets])[0]

r"""`Convolutional`: gates with positions, each given those before it by weights that all share."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from ...utils.samples import Samples
from ...utils.sklearn import Interval
from .._cross_fitting import FittedDensity
from ._grids import Grid
from ._layer_scores import log_likelihoods
from ._link_costs import link_cost
from ._link_fits import LinkFitter

#: Parts of the rows at least, of which one judges the choices.
_N_PARTS = 5


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

    def _cross_fit_part(self, states, folds, seed, engine, bounds):
        """Return the `LinkModel` of the first fold, and log p of test rows."""
        parts, of_folds = _parts(states, folds, seed)
        n_parts = max(parts.max() + 1, _N_PARTS)
        fitter = LinkFitter(states, parts, n_parts, self.window // 2, self.max_iter, seed)
        logs, first = np.empty((fitter.n_terms, len(states))), None
        # a fold is judged by the next one, and the other way round: they share a fit
        judges = _judges(of_folds)
        for (_, test), excluded, judging in zip(folds, of_folds, judges, strict=True):
            models = fitter.fit(excluded, judging)
            first = first or LinkModel(models)
            if len(test):
                logs[:, test] = log_likelihoods(models, fitter.grids, test)
        return first, logs

    def _cost(self, layers, n_rows, n_fits):
        return link_cost(layers, n_rows, n_fits, self.window // 2, self.max_iter)


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


@dataclass
class LinkModel:
    """A layer, and perhaps the layer given the one before.

    Attributes
    ----------
    models : list of LayerModel
    """

    models: list

    def log_likelihoods(self, states, bounds):
        """Return log p of the layer and of it given the one before, (n_terms, n)."""
        grids = [Grid(states, index) for index in range(len(states.layers))][::-1]
        return log_likelihoods(self.models, grids, np.arange(len(states)))

r"""`Convolutional`: gates with positions, each given those before it by weights that all share."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from scipy.special import logit

from ..utils.samples import Samples
from ..utils.sklearn import Interval
from ._causal_regression import Regression, least_squares, rates_alone, refined
from ._cross_fitting import FittedDensity, pointwise_information
from ._grids import Grid
from ._product import Product
from ._windows import Windows

#: Places that are drawn to fit the weights, and to choose the window.
_N_PLACES, _N_CHOICE_PLACES = 200_000, 40_000
#: One in so many samples judges the choices.
_JUDGED = 5
#: Windows of more gates are not tried, nor refinements that take more multiplications.
_MAX_FEATURES, _MAX_WORK = 3000, 1e12
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
    and size of images. The window, and whether least squares are refined by the log-loss, are
    chosen on a fifth of the samples, with independent gates as the last resort. Several layers are
    a chain, each given the one before.

    Parameters
    ----------
    window : int, default=5
        Largest width of the window, in positions; smaller ones are tried too.
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
        "given_previous": ["boolean"],
    }
    _covers = "chain"

    def __init__(self, window=5, given_previous=True):
        self.window = window
        self.given_previous = given_previous

    @property
    def _links(self):
        return self.given_previous

    def _fit_link(self, states, y_encoded, n_classes, seed, gpu):
        grids = [Grid(states, index) for index in range(len(states.layers))]
        fitter = _Fitter(grids, y_encoded, n_classes, self.window // 2, seed)
        last = len(grids) - 1
        models = [fitter.fit(last, None)]
        if last:
            models.append(fitter.fit(1, 0) if _lies_on(grids[1], grids[0]) else models[0])
        return Link(models)

    _fit_model = _fit_link

    def independent(self):
        """Return the reference of the total correlation: independent units."""
        return Product()


def _lies_on(grid, before):
    """Return whether the positions of a layer lie on those of the layer before."""
    sizes = zip(grid.shape[1:], before.shape[1:], strict=True)
    return all(n_before % size == 0 for size, n_before in sizes) and (
        grid.n_places > 1 or before.n_places == 1
    )


@dataclass
class LayerModel:
    """A layer, perhaps given the one before.

    Attributes
    ----------
    index : int
    given : int or None
        Index of the layer before.
    windows : Windows
    regression : Regression
    class_offsets : ndarray of shape (n_classes, channels, height, width)
        What a class adds to the logits.
    """

    index: int
    given: int | None
    windows: Windows
    regression: Regression
    class_offsets: np.ndarray

    def log_likelihoods(self, grids, rows, gains=(1.0,)):
        """Return log p given each class, (n_gains, n_rows, n_classes), nats."""
        logs, start = np.empty((len(gains), len(rows), len(self.class_offsets))), 0
        for block, gates in grids[self.index].blocks(rows, 64):
            before = None if self.given is None else grids[self.given].gates(block)
            z = self.windows.logits(self.regression, gates, before)
            sign = np.where(gates > 0, np.float32(-1), np.float32(1))
            own = slice(start, start + len(block))
            for place, gain in enumerate(gains):
                for label, offset in enumerate(gain * self.class_offsets):
                    losses = np.logaddexp(0, sign * (z + offset.astype(np.float32)))
                    logs[place, own, label] = -losses.sum(axis=(1, 2, 3), dtype=np.float64)
            start += len(block)
        return logs


@dataclass
class Link:
    """A layer alone, and given the one before."""

    models: list

    def log_likelihoods(self, states, bounds):
        """Return log p, and log p given the layer before, (n_terms, n_rows, n_classes), nats."""
        grids = [Grid(states, index) for index in range(len(states.layers))]
        rows = np.arange(len(states))
        return np.stack([m.log_likelihoods(grids, rows)[0] for m in self.models])


class _Fitter:
    """Fits the models of layers, with choices on held-out samples."""

    def __init__(self, grids, y_encoded, n_classes, max_radius, seed):
        self.grids, self.y_encoded, self.n_classes = grids, y_encoded, n_classes
        self.max_radius, self.seed = max_radius, seed
        samples = Samples(grids[0].states.groups, len(grids[0]))
        # samples come in random order
        is_judged = samples.of_rows < len(samples) // _JUDGED
        self.train, self.judged = np.flatnonzero(~is_judged), np.flatnonzero(is_judged)

    def fit(self, index, given):
        """Return the `LayerModel` of a layer."""
        rng = np.random.default_rng(self.seed)
        radius, refine, gain = 0, None, 0.0
        if len(self.judged):
            radius, refine, model = self._choose(index, given, rng)
            gain = self._choose_gain(model)
        rows = np.arange(len(self.grids[index]))
        windows, offsets = self._windows(index, given, rows, radius)
        if refine is None:
            regression = rates_alone(windows.n_features, self.grids[index].n_channels)
        else:
            sample = windows.sample(*self._pair(index, given), rows, _N_PLACES, rng)
            regression, factor = least_squares(sample)
            if refine:
                regression = refined(regression, factor, sample)
        return LayerModel(index, given, windows, regression, gain * offsets)

    def _pair(self, index, given):
        return self.grids[index], None if given is None else self.grids[given]

    def _windows(self, index, given, rows, radius):
        """Return `Windows`, and what each class adds to the logits."""
        labels = self.y_encoded, self.n_classes
        rates, by_class = self.grids[index].rates(rows, *labels)
        before = None if given is None else self.grids[given].rates(rows, *labels)[0]
        offsets = logit(by_class) - logit(rates) if self.n_classes > 1 else 0 * by_class
        return Windows(radius, rates, before), offsets

    def _choose(self, index, given, rng):
        """Return the best radius, whether to refine (None: rates alone), and that model."""
        pair, n_channels, found = self._pair(index, given), self.grids[index].n_channels, []

        def judge(regression, refine):
            model = LayerModel(index, given, windows, regression, offsets)
            found.append((regression.loss(judged), windows.radius, refine, model))
            return found[-1][0]

        best = np.inf
        for radius in range(self.max_radius + 1):
            windows, offsets = self._windows(index, given, self.train, radius)
            if radius and windows.n_features > _MAX_FEATURES:
                break
            train, judged = (
                windows.sample(*pair, rows, _N_CHOICE_PLACES, rng)
                for rows in (self.train, self.judged)
            )
            if not radius:
                judge(rates_alone(windows.n_features, n_channels), None)
            start, factor = least_squares(train)
            loss = judge(start, False)
            if loss < best and 160 * train.features.size * n_channels < _MAX_WORK:
                judge(refined(start, factor, train), True)
            best = min(best, loss)
        return min(found, key=lambda choice: choice[0])[1:]

    def _choose_gain(self, model):
        """Return the weight of the rates of classes that tells the label best."""
        if self.n_classes == 1:
            return 0.0
        logs = model.log_likelihoods(self.grids, self.judged, _GAINS)
        priors = np.bincount(self.y_encoded, minlength=self.n_classes) / len(self.y_encoded)
        information = pointwise_information(logs, self.y_encoded[self.judged], priors)
        return _GAINS[information.mean(axis=1).argmax()]

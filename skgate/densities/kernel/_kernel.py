r"""The kernel density of gates (Eq. 2): bandwidths, weights, ceilings, normalisers.

All ranges of layers go through one pass over the pairs, as rows of a matrix of weights :math:`W`:

.. math::

    K_r(\sigma_j, \sigma_k) = \exp\Big(-\sum_l W_{rl} D_l[j, k]\Big), \qquad
    W_{rl} = \frac{1}{2\sigma_r^2}
"""

import copy

import numpy as np
from scipy.special import entr

from ...pairwise import kernel_masses
from ...utils.samples import Samples
from ...utils.sklearn import POSITIVE, StrOptions
from .._base import Density, Estimate
from .._surprisals import Surprisals, given_label, marginal
from .._units import value_counts
from ._independent_kernel import independent_log_masses
from ._jackknife import Shuffled, jackknife, subsample_entropies

#: ``alpha="auto"`` by whether gates have spatial positions (ICLR 2021 submission, Section 4.4).
AUTO_ALPHA = {True: 0.04, False: 0.01}
_BOUND_SCALE = {"upper": 0.5, "lower": 0.125}


class Kernel(Density):
    r"""Gaussian kernel density of gates, the estimate of the paper (Eq. 2).

    A measure reports its in-sample value, unnormalised, as published:

    .. math::

        H(\Sigma) = -\frac1n \sum_j \log \frac1n \sum_k
            \exp\Big(-\frac{\|\sigma_j - \sigma_k\|^2}{2\sigma_0^2}\Big)

    It bounds the information in states that are blurred with Gaussian noise of variance
    :math:`\sigma_0^2`, not the entropy of the discrete states, which can lie above both bounds. Its
    ceilings are ``log n`` and :math:`\mathrm{Var}(\Sigma) / \sigma_0^2` nats, a quarter of it for
    the lower bound. New samples are scored by Aitchison and Aitken's form, which sums to 1.

    Parameters
    ----------
    alpha : "auto", float or array-like of float, default="auto"
        Scale of the bandwidth. ``"auto"``: 0.04 for gates that have spatial positions, 0.01
        for the rest (the paper's Section 4.4). An array puts an axis in front of every result
        of :func:`~skgate.gating_entropy`, for the cost of one value.
    bandwidth : {"variance", "n_gates"} or float, default="variance"
        :math:`\sigma_0^2`: ``alpha`` times the summed variance of the gates, ``alpha`` times
        their number, or a number itself.
    bound : {"upper", "lower"} or sequence of these, default="upper"
        Bound on the information in the blurred states: Eq. 2, or the Bhattacharyya bound with
        an eighth in place of the half [2]_. A sequence adds an axis behind that of ``alpha``.
    joint : {"concatenated", "product"}, default="concatenated"
        Kernel of several layers: of all gates with one bandwidth, the sum of the layers' (the
        paper), or the product of the layers' own kernels, under which entropy grows with
        every layer.

    Attributes
    ----------
    bandwidth_ : float
        :math:`\sigma_0^2` of all layers concatenated.
    layer_bandwidth_ : ndarray of shape (n_layers,)
        :math:`\sigma_0^2` of each layer.
    layers_ : tuple of GateLayer

    References
    ----------
    .. [1] "Understanding, Analyzing, and Optimizing the Complexity of Deep Models", submitted
       to ICLR 2021, Eq. 2.
    .. [2] A. Kolchinsky, B. D. Tracey, "Estimating Mixture Entropy with Pairwise Distances",
       Entropy 19(7), 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> from skgate.densities import Kernel
    >>> gates = np.random.default_rng(0).random((500, 6)) < 0.5
    >>> measure = GatingEntropy(density=Kernel(alpha=0.1)).fit(gates)
    >>> round(measure.entropy_, 2), round(measure.density_.bandwidth_, 2)
    (5.59, 0.15)
    """

    _parameter_constraints = {
        "alpha": [StrOptions({"auto"}), POSITIVE, list, tuple, np.ndarray],
        "bandwidth": [StrOptions({"variance", "n_gates"}), POSITIVE],
        "bound": [StrOptions({"upper", "lower"}), list, tuple],
        "joint": [StrOptions({"concatenated", "product"})],
    }

    def __init__(self, alpha="auto", bandwidth="variance", bound="upper", joint="concatenated"):
        self.alpha = alpha
        self.bandwidth = bandwidth
        self.bound = bound
        self.joint = joint

    def _validate_params(self):
        super()._validate_params()
        alphas = np.asarray([] if isinstance(self.alpha, str) else self.alpha, dtype=float)
        if not (np.isfinite(alphas) & (alphas > 0)).all():
            raise ValueError(f"Each alpha must be a positive finite number; got {self.alpha!r}.")
        if not set(_listed(self.bound)) <= {"upper", "lower"}:
            raise ValueError(f"Each bound must be 'upper' or 'lower'; got {self.bound!r}.")

    @property
    def lead(self):
        return tuple(len(v) for v in (self.alpha, self.bound) if _is_sequence(v))

    def fit_states(self, states, ranges):
        """Keep the states, whose kernels are the density."""
        self._keep(states, None, ranges, _RangeKernels(self, states, ranges))

    def _keep(self, states, y_encoded, ranges, kernels):
        bandwidths = kernels.bandwidths if _is_sequence(self.alpha) else kernels.bandwidths[0]
        joint = bandwidths[..., ranges.joint]
        self.bandwidth_ = joint.item() if joint.ndim == 0 else joint
        self.layer_bandwidth_ = bandwidths[..., ranges.layers]
        self.layers_, self._states, self._y_encoded = states.layers, states, y_encoded
        self._rates = kernels.rates
        return self

    def _sum_of_units(self, ranges):
        """Return the sum of the entropies of units, which bounds that of their states, nats."""
        sums = np.zeros(len(self.layers_))
        for index, (layer, rates) in enumerate(zip(self.layers_, self._rates, strict=True)):
            shares = value_counts(rates.reshape(-1, layer.unit_size), 1.0, layer)
            shares = np.where(shares > 1e-12, shares, 0.0)  # of rounding
            # the entropy of n samples is too low by half a sample for each value but one
            n_more = np.count_nonzero(shares) - len(shares)
            sums[index] = entr(shares).sum() + n_more / (2 * len(self._states))
        return ranges.mask @ sums

    def estimate(self, states, label_sets, ranges, *, cv, errors, seed, engine):
        """Return an `Estimate` for each set of labels, all of them from one pass over the pairs."""
        states = states.select(slice(None))  # all layers at once, or an error that names their size
        options = {"label_sets": [y for y in label_sets if y is not None], "engine": engine}
        if errors:
            shuffled = Shuffled(states)
            kernels = _RangeKernels(self, states, ranges, shuffled.rates())
            masses, left_out = jackknife(shuffled, kernels.weights, kernels.scales, **options)
        else:
            kernels = _RangeKernels(self, states, ranges)
            masses = kernel_masses(states, kernels.weights, **options)
            left_out = np.empty((*masses.shape[:2], 0))

        samples = Samples(states.groups, len(states))

        def surprisals(values, group):
            return Surprisals(kernels.shaped(values), samples, kernels.shaped(left_out[:, group]))

        total, estimates = surprisals(marginal(masses[:, 0]), 0), []
        groups = iter(range(1, masses.shape[1]))
        for y in label_sets:
            given, given_ceiling = None, np.inf
            if y is not None:
                group = next(groups)
                given = surprisals(given_label(masses[:, group], y), group)
                given_ceiling = np.mean(np.log(np.bincount(y)[y]))
            density = copy.copy(self)._keep(states, y, ranges, kernels)
            found = kernels.ceilings, kernels.varies, density, given_ceiling
            estimates.append(Estimate(total, given, *found))
        return estimates

    def independent(self):
        """Return the reference of the total correlation: independent units, blurred."""
        return _IndependentKernel(**self.get_params())

    def growth(self, states, ranges, engine):
        """Return numbers of samples, and the entropies of so many, (*lead, n_ranges, n_sizes)."""
        kernels = _RangeKernels(self, states, ranges)
        n_samples, nats = subsample_entropies(states, kernels.weights, engine)
        return n_samples, kernels.shaped(nats)

    def log_marginals(self, states, engine):
        """Return log p of new states, (n_layers + 1, n_samples), that of all layers last."""
        n_layers = len(self.layers_)
        mask = np.vstack([np.eye(n_layers, dtype=bool), np.ones((1, n_layers), dtype=bool)])
        weights = self._layer_and_joint_weights()
        masses = kernel_masses(self._states, weights, queries=states, engine=engine)[:, 0]
        return _log_densities(masses, weights, mask, self._states, states)

    def log_ratios(self, states, y_encoded, engine):
        """Return log p(sigma|y) / p(sigma) of new states, all layers together."""
        masses = kernel_masses(
            self._states,
            self._layer_and_joint_weights()[-1:],
            label_sets=[self._y_encoded],
            queries=states,
            query_label_sets=[y_encoded],
            engine=engine,
        )[0]
        share = np.log(np.bincount(self._y_encoded) / len(self._y_encoded))[y_encoded]
        return masses[1] - masses[0] - share

    def _layer_and_joint_weights(self):
        own = self.layer_bandwidth_
        joint = own if self.joint == "product" else np.full(len(own), self.bandwidth_)
        return kernel_weights(np.vstack([np.diag(own), joint]), self.bound)


class _IndependentKernel(Kernel):
    """The kernel density that independent units with the same activation rates would have."""

    def estimate(self, states, label_sets, ranges, *, cv, errors, seed, engine):
        states = states.select(slice(None))
        kernels = _RangeKernels(self, states, ranges)
        none = np.empty((len(kernels.weights), 0))
        samples = Samples(states.groups, len(states))

        def surprisals(logs):
            return Surprisals(kernels.shaped(0.0 - logs), samples, kernels.shaped(none))

        def expected(rows, rates):
            return independent_log_masses(rows, rates, kernels.weights)

        def of_own_class(y):
            logs = np.empty((len(kernels.weights), len(states)))
            for label in range(y.max() + 1):
                members = states[y == label]
                logs[:, y == label] = expected(members, members.activation_rates())
            return surprisals(logs)

        total = surprisals(expected(states, kernels.rates))
        given = [None if y is None else of_own_class(y) for y in label_sets]
        return [Estimate(total, g, kernels.ceilings, kernels.varies, self) for g in given]


class _RangeKernels:
    """The kernels of ranges of layers, for every combination of some ``alpha`` and some ``bound``.

    Attributes
    ----------
    rates : list of ndarray of shape (n_gates,)
    weights : ndarray of shape (n_combinations * n_ranges, n_layers)
    bandwidths : ndarray of shape (n_alphas, n_ranges)
    ceilings : ndarray of shape (*lead, n_ranges), nats
        The lower of ``log n`` and the mean exponent (Jensen).
    varies : ndarray of shape (n_ranges,), dtype bool
        Whether some gate varies, which a single sample cannot rule out.
    """

    def __init__(self, density, states, ranges, rates=None):
        self.rates = states.activation_rates() if rates is None else rates
        self.mask, self.lead = ranges.mask, density.lead
        self.bandwidth, self.joint = density.bandwidth, density.joint
        self.n_gates = np.array(states.n_gates)
        variances = _variances(self.rates)
        bounds = _listed(density.bound)
        self.n_bounds = len(bounds)
        self.layer_alphas = [_layer_alphas(states, a) for a in _listed(density.alpha)]
        pairs = [self._bandwidths(alphas, variances) for alphas in self.layer_alphas]
        # (n_alphas, n_ranges, n_layers) and (n_alphas, n_ranges)
        per_layer, self.bandwidths = (np.stack(part) for part in zip(*pairs, strict=True))
        weights = np.stack([kernel_weights(per_layer, b) for b in bounds], axis=1)
        self.weights = (weights * self.mask).reshape(-1, len(self.n_gates))
        mean_exponents = self.shaped(2 * self.weights @ variances)
        self.ceilings = np.minimum(mean_exponents, np.log(len(states)))
        self.varies = (self.mask @ variances > 0) | (len(states) == 1)

    def _bandwidths(self, alphas, variances):
        """Return sigma0^2 by range and layer, and the one of each range."""
        if isinstance(self.bandwidth, str):
            own = alphas * (variances if self.bandwidth == "variance" else self.n_gates)
            summed = self.mask @ own
        else:
            own = np.full(len(variances), float(self.bandwidth))
            summed = np.full(len(self.mask), float(self.bandwidth))
        if self.joint == "product":
            return np.broadcast_to(own, self.mask.shape), summed
        return np.repeat(summed[:, None], len(own), axis=1), summed

    def scales(self, rates):
        """Return the quantities that bandwidths are proportional to, at some activation rates.

        They are (..., n_directions, n_weights), of rates (..., n_gates): one of all layers, or for
        a product kernel one of each.
        """
        variances = _variances(rates)  # (..., n_layers)
        if self.bandwidth != "variance":
            return np.ones((*variances.shape[:-1], 1, len(self.weights)))
        if self.joint == "product":
            # a layer that is not in a range has weight 0 there for any scale
            return np.repeat(variances[..., None], len(self.weights), axis=-1)
        summed = np.stack([variances * alphas @ self.mask.T for alphas in self.layer_alphas], -2)
        # (..., n_alphas, n_ranges), one for each bound
        summed = np.repeat(summed[..., None, :], self.n_bounds, axis=-2)
        return summed.reshape(*variances.shape[:-1], 1, -1)

    def shaped(self, values):
        """Split the first axis, (n_combinations * n_ranges, ...), into (*lead, n_ranges, ...)."""
        return values.reshape(*self.lead, len(self.mask), *values.shape[1:])


def _variances(rates):
    return np.stack([np.sum(a * (1 - a), axis=-1) for a in rates], axis=-1)


def _layer_alphas(states, alpha):
    return np.array(
        [AUTO_ALPHA[layer.spatial] if alpha == "auto" else alpha for layer in states.layers]
    )


def _is_sequence(value):
    return not isinstance(value, str) and np.ndim(value) > 0


def _listed(value):
    return list(value) if _is_sequence(value) else [value]


def kernel_weights(bandwidths, bound):
    """Return the exponent that a unit of distance costs: a half or an eighth of the inverse.

    A bandwidth of 0 is that of gates that do not vary, or of a layer that is not in a range: its
    distances cost nothing. One so small that any distance is infinite stays finite, for 0 times it.
    """
    scale = _BOUND_SCALE[bound]
    bandwidths = np.where(bandwidths > 0, np.maximum(bandwidths, 1e-200), 0.0)
    return np.divide(scale, bandwidths, out=np.zeros_like(bandwidths), where=bandwidths > 0)


def _log_densities(log_masses, weights, mask, states, queries):
    r"""Return the log-likelihood of each query under the normalised kernel density, nats.

    Aitchison and Aitken's kernel sums to 1 over all states:

    .. math::

        \log \hat p_r(\sigma) = \log \frac1n \sum_k K_r(\sigma, \sigma_k)
            - \sum_l d_l \log(1 + e^{-W_{rl}})

    Gates that never varied have a bandwidth of 0 and a point mass: other states get ``-inf``.
    """
    point_mass = mask & (weights == 0)
    normalisers = np.where(mask & ~point_mass, np.log1p(np.exp(-weights)), 0.0)
    logs = log_masses - np.log(len(states)) - (normalisers @ states.n_gates)[:, None]
    for layer in np.flatnonzero(point_mass.any(axis=0)):
        ((_, first),) = states[:1].iter_unpacked(layer)
        differs = [(gates != first).any(axis=1) for _, gates in queries.iter_unpacked(layer)]
        logs[np.ix_(point_mass[:, layer], np.concatenate(differs))] = -np.inf
    return logs

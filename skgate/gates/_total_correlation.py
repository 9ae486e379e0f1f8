"""TC(Σ), the entanglement of gates: `TotalCorrelation` and its twin `total_correlation`."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities._cross_fitting import cross_fit, draw_seed, own_class
from ..densities._information import (
    conditional_entropy,
    entropy,
    independent_entropy,
    independent_log_masses,
    mean_and_error,
    sample_independent,
)
from ..densities._kernel import KernelTerms, Spans
from ..pairwise import Engine, kernel_masses
from ..states import GatingStates, as_states
from ..utils.labels import check_labels
from ..utils.sklearn import Interval, StrOptions, _fit_context, validate_params
from ._base import DENSITY_CONSTRAINTS, GatingEstimator

__all__ = ["TotalCorrelation", "total_correlation"]

_REFERENCE_CONSTRAINTS = {
    "reference": [StrOptions({"exact", "sampled"})],
    "n_synthetic": [None, Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
}


@validate_params(
    {
        "states": "no_validation",
        "y": "no_validation",
        **DENSITY_CONSTRAINTS,
        **_REFERENCE_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def total_correlation(
    states,
    y=None,
    *,
    density="kde",
    cv=5,
    alpha="auto",
    bandwidth="variance",
    bound="upper",
    joint="concatenated",
    reference="exact",
    n_synthetic=None,
    threshold=0.0,
    base=2,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    r"""Return how far gating states are from independent units.

    The function twin of :class:`TotalCorrelation`, for states already at hand.

    Parameters
    ----------
    states : GatingStates, array-like of shape (n_samples, n_gates), or list or dict of these
        Gates, or pre-activations that are compared with ``threshold``; a list or dict holds
        one array a layer.
    y : array-like of shape (n_samples,), default=None
        Class labels; they add the total correlation given the label.
    density : {"kde", "product", "chow-liu", "autoregressive"}, default="kde"
        See :class:`TotalCorrelation`, as for all parameters below.
    cv : int or None, default=5
    alpha : "auto" or float, default="auto"
    bandwidth : {"variance", "n_gates"} or float, default="variance"
    bound : {"upper", "lower"}, default="upper"
    joint : {"concatenated", "product"}, default="concatenated"
    reference : {"exact", "sampled"}, default="exact"
    n_synthetic : int, default=None
    threshold : float, default=0.0
    base : float, default=2
    device : {"auto", "cpu", "cuda"}, default="auto"
    n_jobs : int, default=None
    verbose : int, default=0
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``total_correlation``, ``independent_entropy``, ``entropy``, the same by layer
        (``layer_total_correlations``, ``independent_entropies``, ``layer_entropies``),
        the same given the label, ``ceilings``, ``saturated``, ``network_saturated``,
        ``bandwidth`` and ``bandwidths``, as the attributes of :class:`TotalCorrelation`.

    Raises
    ------
    ValueError
        If a parameter, the states or the labels are not as described.

    Warns
    -----
    SaturationWarning
        If an entropy is within 1% of its ceiling.

    See Also
    --------
    TotalCorrelation : The same as an estimator, from raw inputs of a model too; has the references.

    Examples
    --------
    Three fair gates, each there twice, share a bit each:

    >>> import numpy as np
    >>> from skgate import total_correlation
    >>> states = np.array([[i >> k & 1 for k in range(3)] * 2 for i in range(8)] * 4)
    >>> result = total_correlation(states, alpha=0.01)
    >>> round(result.total_correlation, 6)
    3.0
    """
    engine = Engine(device, n_jobs, verbose)
    states = as_states(states, threshold)
    codes = None if y is None else check_labels(y, len(states))[1]
    if density != "kde":
        return _fitted_total_correlation(states, codes, density, cv, base, engine, random_state)
    terms = KernelTerms(states, alpha=alpha, bandwidth=bandwidth, bound=bound, joint=joint)
    random_state = check_random_state(random_state)
    n_synthetic = len(states) if n_synthetic is None else n_synthetic

    def expectations(rows, rates):
        if reference == "exact":
            return independent_log_masses(rows, rates, terms.weights)
        drawn = sample_independent(rows, rates, n_synthetic, random_state)
        columns = GatingStates(drawn, rows.layers)
        masses = kernel_masses(columns, terms.weights, queries=rows, engine=engine)[:, 0]
        return masses - np.log(n_synthetic)

    labelings = [] if codes is None else [codes]
    masses = kernel_masses(states, terms.weights, labelings=labelings, engine=engine)
    h = entropy(masses[:, 0])
    c = independent_entropy(expectations(states, terms.rates))
    c_given = h_given = np.full(len(h), np.nan)
    if codes is not None:
        c_given = independent_entropy(_by_class(states, codes, expectations))
        h_given = conditional_entropy(masses[:, 1], codes)
    saturated = terms.flag_saturated(h, base)
    unit = np.log(base)
    return Bunch(
        total_correlation=float((c - h)[terms.whole] / unit),
        layer_total_correlations=(c - h)[terms.layers] / unit,
        independent_entropy=float(c[terms.whole] / unit),
        independent_entropies=c[terms.layers] / unit,
        entropy=float(h[terms.whole] / unit),
        layer_entropies=h[terms.layers] / unit,
        conditional_total_correlation=float((c_given - h_given)[terms.whole] / unit),
        conditional_total_correlations=(c_given - h_given)[terms.layers] / unit,
        conditional_independent_entropies=c_given[terms.layers] / unit,
        conditional_entropies=h_given[terms.layers] / unit,
        ceilings=terms.ceilings()[terms.layers] / unit,
        saturated=saturated[terms.layers],
        network_saturated=bool(saturated[terms.whole]),
        **terms.reported_bandwidths(),
    )


def _fitted_total_correlation(states, codes, density, cv, base, engine, random_state):
    spans = Spans(len(states.layers))
    options = {"cv": cv, "seed": draw_seed(random_state), "engine": engine}
    everyone = np.zeros(len(states), int)
    fitted, logs = cross_fit(states, everyone, spans, kind=density, **options)
    # a tree inside a unit, as the forest has it, so that what it misses does not count as TC
    reference = "units" if density == "chow-liu" else "product"
    _, independent = cross_fit(states, everyone, spans, kind=reference, **options)
    logs, independent = logs[..., 0], independent[..., 0]  # (n_terms, n)
    logs_given = independent_given = np.full_like(logs, np.nan)
    if codes is not None:
        logs_given, independent_given = (
            own_class(cross_fit(states, codes, spans, kind=kind, **options)[1], codes)
            for kind in (density, reference)
        )
    unit = np.log(base)
    tc, tc_error = mean_and_error((logs - independent) / unit)
    h, h_error = mean_and_error(-logs / unit)
    c, tc_given = (
        -independent.mean(axis=1) / unit,
        (logs_given - independent_given).mean(axis=1) / unit,
    )
    c_given, h_given = -independent_given.mean(axis=1) / unit, -logs_given.mean(axis=1) / unit
    layers, whole = spans.layers, spans.whole
    return Bunch(
        total_correlation=float(tc[whole]),
        total_correlation_se=float(tc_error[whole]),
        layer_total_correlations=tc[layers],
        layer_total_correlations_se=tc_error[layers],
        independent_entropy=float(c[whole]),
        independent_entropies=c[layers],
        entropy=float(h[whole]),
        entropy_se=float(h_error[whole]),
        layer_entropies=h[layers],
        layer_entropies_se=h_error[layers],
        conditional_total_correlation=float(tc_given[whole]),
        conditional_total_correlations=tc_given[layers],
        conditional_independent_entropies=c_given[layers],
        conditional_entropies=h_given[layers],
        ceilings=np.array(states.n_gates) * np.log(2) / unit,
        saturated=np.zeros(len(layers), bool),
        network_saturated=False,
        density=fitted,
    )


def _by_class(states, codes, expectations):
    """Return ``expectations`` of each row under its own class, class after class."""
    order = np.argsort(codes, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    parts = []
    for rows in rows_of:
        own = states[rows]
        parts.append(expectations(own, own.activation_rates()))
    return np.concatenate(parts, axis=1)  # (n_terms, n_samples)


class TotalCorrelation(GatingEstimator):
    r"""Total correlation of gating states, the entanglement of a network's gates.

    The divergence of the states from independent units with the same activation rates, both
    blurred by the kernel :math:`K` of the entropy:

    .. math::

        TC(\Sigma) = \frac1n \sum_j \log
            \frac{\frac1n \sum_k K(\sigma_j, \sigma_k)}{E_{\tilde\sigma} K(\sigma_j, \tilde\sigma)},
        \qquad H(\Sigma) + TC(\Sigma) = C(\Sigma),

    where :math:`C` is the entropy that independent units would have. The expectation is a
    product over units, so that it needs no sampling. The gates of a unit with several (a
    window of max pooling, the two thresholds of ReLU6) depend on each other by construction;
    the units are what is taken as independent, not the gates.

    With a fitted density, H is that of :class:`GatingEntropy`, C that of independent units fitted
    likewise, and TC is their difference, in expectation a lower bound. A forest cannot hold a
    window of max pooling, so that its C has a tree inside each window.

    Parameters
    ----------
    model : None, torch.nn.Module, GateExtractor or fitted estimator with a module, default=None
        Network whose gates are measured; ``X`` then holds its raw inputs, and sampling inside
        a module, such as dropout, is on. An extractor is used as it is set, with sampling off by
        default. ``None``: ``X`` holds the gates, or pre-activations.
    density : {"kde", "product", "chow-liu", "autoregressive"}, default="kde"
        Density of the states. The kernel density has the ceilings that wide layers sit at. The
        others are fitted and have none: units that are independent, a forest in which a gate
        depends on one other, or a regression of each gate on all before it.
    cv : int or None, default=5
        Number of folds: a fitted density is asked about samples that it was not fitted to. ``None``
        asks it about its own, and gives too low an entropy. The kernel density has no folds.
    alpha : "auto" or float, default="auto"
        Scale of the bandwidth. ``"auto"``: 0.04 for gates that have spatial positions, 0.01
        for the rest.
    bandwidth : {"variance", "n_gates"} or float, default="variance"
        :math:`\sigma_0^2`, as in :class:`GatingEntropy`.
    bound : {"upper", "lower"}, default="upper"
        Kind of the entropies, as in :class:`GatingEntropy`.
    joint : {"concatenated", "product"}, default="concatenated"
        Kernel of several layers, as in :class:`GatingEntropy`.
    reference : {"exact", "sampled"}, default="exact"
        How the expectation is taken: in closed form, or over ``n_synthetic`` draws as in the
        paper's Eq. 28. Draws hardly ever come near a state of many gates, so that the sampled
        value is too high by far: 26 bits for 8, of 8 fair gates there twice and 4000 draws.
    n_synthetic : int, default=None
        Number of draws; that of the samples by default.
    threshold : float, default=0.0
        Without a model, a gate is open where ``X > threshold``.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    max_samples : int, float or None, default=None
        Number or share of samples drawn at random to be measured.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where the pairs are computed. ``"auto"`` takes a GPU for work of more than about two seconds
        where CuPy finds one, ``"cuda"`` raises where it does not.
    n_jobs : int, default=None
        Number of threads for the pairs.
    verbose : int, default=0
        Whether to show what is done and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of the drawn samples, of synthetic states and of sampling inside the model.

    Attributes
    ----------
    total_correlation_ : float
        TC of all layers, in units of ``base``.
    layer_total_correlations_ : ndarray of shape (n_layers,)
        TC of each layer.
    independent_entropy_ : float
        C of all layers.
    independent_entropies_ : ndarray of shape (n_layers,)
        C of each layer.
    entropy_ : float
        H of all layers.
    layer_entropies_ : ndarray of shape (n_layers,)
        H of each layer.
    total_correlation_se_, entropy_se_ : float
        Standard errors over the samples; only of a fitted density, which is taken as given.
    layer_total_correlations_se_, layer_entropies_se_ : ndarray of shape (n_layers,)
        The same of each layer.
    conditional_total_correlation_ : float
        TC(Σ|Y) of all layers (Eq. 21). These four are NaN if no ``y`` was given.
    conditional_total_correlations_ : ndarray of shape (n_layers,)
        TC(Σ_l|Y).
    conditional_independent_entropies_, conditional_entropies_ : ndarray of shape (n_layers,)
        C(Σ_l|Y) and H(Σ_l|Y), the other terms of Eq. 7.
    ceilings_ : ndarray of shape (n_layers,)
        The lower of the two ceilings of each layer's entropy, in units of ``base``.
    saturated_ : ndarray of shape (n_layers,), dtype bool
        Layers whose entropy is within 1% of its ceiling; their TC is then no less than C minus
        that ceiling, whatever the states.
    network_saturated_ : bool
        The same of all layers.
    density_ : FittedDensity or None
        The density of all samples; None for the kernel density.
    bandwidth_ : float
        :math:`\sigma_0^2` of all layers concatenated; only of the kernel density.
    bandwidths_ : ndarray of shape (n_layers,)
        :math:`\sigma_0^2` of each layer; likewise.
    layer_names_ : list of str
    states_ : GatingStates
        The states that were measured.
    extractor_ : GateExtractor
        What read them, if there is a model.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only when ``X`` has string column names.

    See Also
    --------
    total_correlation : The same of given states.
    GatingEntropy : The entropy alone.

    References
    ----------
    .. [1] "Understanding, Analyzing, and Optimizing the Complexity of Deep Models", submitted
       to ICLR 2021, Eq. 5, 6, 21 and 28.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import TotalCorrelation
    >>> Z = np.random.default_rng(0).normal(size=(500, 3))
    >>> measure = TotalCorrelation().fit(np.hstack([Z, Z]))
    >>> round(measure.total_correlation_, 2)
    2.99
    """

    _parameter_constraints = {**GatingEstimator._parameter_constraints, **_REFERENCE_CONSTRAINTS}

    def __init__(
        self,
        model=None,
        *,
        density="kde",
        cv=5,
        alpha="auto",
        bandwidth="variance",
        bound="upper",
        joint="concatenated",
        reference="exact",
        n_synthetic=None,
        threshold=0.0,
        base=2,
        max_samples=None,
        device="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        super().__init__(
            model,
            density=density,
            cv=cv,
            alpha=alpha,
            bandwidth=bandwidth,
            bound=bound,
            joint=joint,
            threshold=threshold,
            base=base,
            max_samples=max_samples,
            device=device,
            n_jobs=n_jobs,
            verbose=verbose,
            random_state=random_state,
        )
        self.reference = reference
        self.n_synthetic = n_synthetic

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the total correlation of the gating states.

        Parameters
        ----------
        X : GatingStates, array-like of shape (n_samples, n_gates), or raw inputs of ``model``
            With a model: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``.
        y : array-like of shape (n_samples,), default=None
            Class labels; they add the terms given the label.

        Returns
        -------
        self : TotalCorrelation

        Raises
        ------
        ValueError
            If a parameter, ``X`` or ``y`` is not as described, or ``model`` has no gates.
        RuntimeError
            If ``device="cuda"`` cannot be had.
        """
        _, codes = self._fit_states(X, y)
        result = total_correlation(
            self.states_,
            codes,
            reference=self.reference,
            n_synthetic=self.n_synthetic,
            random_state=self.random_state,
            **self._kernel_params(),
        )
        self._set_result({"density": None, **result})
        return self

"""TC(Σ), the entanglement of gates: `TotalCorrelation` and `total_correlation`."""

import numpy as np
from sklearn.utils import Bunch

from ..densities import Intervals, Kernel, LayerRanges, as_density, flag_saturated
from ..pairwise import Engine
from ..states import as_states, in_groups
from ..utils.labels import check_labels
from ..utils.sklearn import validate_params
from ._base import MEASURE_CONSTRAINTS, GatingEstimator, draw_seed


@validate_params(
    {
        "states": "no_validation",
        "groups": "no_validation",
        "y": "no_validation",
        **MEASURE_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def total_correlation(
    states,
    y=None,
    *,
    groups=None,
    density="auto",
    cv=5,
    budget=60,
    threshold=0.0,
    base=2,
    confidence=0.95,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    """Return the total correlation TC(Σ) of states at hand.

    The functional form of :class:`TotalCorrelation`, which describes the parameters; its ``fit``
    describes ``groups``. ``states`` may be a list or dict of arrays, one a layer; labels ``y`` add
    the terms given the label.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        The attributes of :class:`TotalCorrelation`, without the last underscore.

    Raises
    ------
    ValueError
        If a parameter, the states or the labels are not as described.

    See Also
    --------
    TotalCorrelation : The same as an estimator, from raw inputs of a model too.

    Examples
    --------
    Three fair gates, each there twice, share a bit each:

    >>> import numpy as np
    >>> from skgate import total_correlation
    >>> from skgate.densities import Kernel
    >>> states = np.array([[i >> k & 1 for k in range(3)] * 2 for i in range(8)] * 40)
    >>> round(total_correlation(states, density=Kernel(alpha=0.01)).total_correlation, 6)
    3.0
    """
    engine = Engine(device, n_jobs, verbose)
    density = as_density(density, budget)
    states = as_states(states, threshold)
    ranges, unit = LayerRanges(len(states.layers)), np.log(base)
    label_sets = [None]
    if y is not None:
        label_sets.append(check_labels(y, len(states), states.groups)[1])
    states = in_groups(states, groups)
    seed = draw_seed(random_state)
    options = {"cv": cv, "errors": False, "seed": seed, "engine": engine}
    real, *real_given = density.estimate(states, label_sets, ranges, **options)
    independent, *independent_given = density.independent().estimate(
        states, label_sets, ranges, **options
    )
    tc = independent.marginal - real.marginal
    found = {
        "total_correlation": tc.mean() / unit,
        "total_correlation_se": tc.standard_error() / unit,
        "independent_entropy": independent.marginal.mean() / unit,
        "entropy": real.marginal.mean() / unit,
        "entropy_se": real.marginal.standard_error() / unit,
        "ceiling": real.ceilings / unit,
        "saturated": flag_saturated(real, ranges, states, base),
    }
    c_given = h_given = np.full(len(ranges), np.nan)
    if real_given:
        c_given, h_given = (e.given.mean() / unit for e in (*independent_given, *real_given))
        if not isinstance(density, Kernel):
            h_given = np.minimum(h_given, c_given)  # both are bounds on H(Σ|Y)
    found |= {
        "conditional_total_correlation": c_given - h_given,
        "conditional_independent_entropy": c_given,
        "conditional_entropy": h_given,
    }
    result = Bunch(density=real.density)
    result.layer_densities = result.density.layer_choices(states.layers)
    for quantity, values in found.items():
        result.update(ranges.named(quantity, values))
    intervals = Intervals(real, states, ranges, confidence, seed)
    ends = {
        "entropy_interval": intervals.entropy(),
        "total_correlation_interval": intervals.total_correlation(),
    }
    for quantity, values in ends.items():
        result.update(ranges.named_intervals(quantity, values / unit))
    return result


class TotalCorrelation(GatingEstimator):
    r"""Total correlation of gating states, the entanglement of a network's gates.

    The divergence of the states from independent units with the same activation rates:

    .. math::

        TC(\Sigma) = \frac1n \sum_j \log
            \frac{\hat p(\sigma_j)}{\hat p_{\mathrm{independent}}(\sigma_j)},
        \qquad H(\Sigma) + TC(\Sigma) = C(\Sigma),

    where :math:`C` is the entropy that independent units would have. The gates of a unit with
    several (a window of max pooling, the two thresholds of ReLU6) depend on each other by
    construction; the units are taken as independent, not the gates.

    The kernel density blurs both by the kernel :math:`K` of the entropy, which is Eq. 5 of the
    paper [1]_ with :math:`\hat p_{\mathrm{independent}} \propto E_{\tilde\sigma} K(\sigma_j,
    \tilde\sigma)` in closed form, without sampling. With a fitted density, H is that of
    :class:`GatingEntropy`, C that of independent units fitted likewise, and TC is in expectation a
    lower bound. H(Σ|Y) is H less the information of :class:`GatingMI`, and at most C(Σ|Y). Samples
    must be independent; ``groups`` of :meth:`fit` say which are not.

    Parameters
    ----------
    model : None, torch.nn.Module, GateExtractor or fitted estimator with a module, default=None
        Network whose gates are measured, as in :class:`GatingEntropy`.
    density, cv, budget, threshold, base
        As in :class:`GatingEntropy`.
    confidence : float, default=0.95
        Probability with which an interval has H, and with which one has TC.
    max_samples, device, n_jobs, verbose, random_state
        As in :class:`GatingEntropy`.

    Attributes
    ----------
    total_correlation_, independent_entropy_, entropy_ : float
        TC, C and H of all layers, in bits unless ``base`` says else.
    total_correlation_se_, entropy_se_ : float
        Standard errors over the samples, of a fitted density, which is taken as given; NaN for the
        kernel density.
    entropy_interval_, total_correlation_interval_ : ndarray of shape (2,)
        Lower and upper ends of confidence intervals of H and of TC, if samples are independent; see
        Notes.
    conditional_total_correlation_, conditional_independent_entropy_, conditional_entropy_ : float
        TC(Σ|Y) (Eq. 21), C(Σ|Y) and H(Σ|Y), terms of Eq. 7. NaN if no ``y`` was given.
    ceiling_ : float
        What H cannot exceed, as in :class:`GatingEntropy`.
    saturated_ : bool
        Whether H by the kernel density is lower than that of the gates, as in
        :class:`GatingEntropy`; TC is then too high.
    layer_total_correlation_, layer_independent_entropy_ : ndarray of shape (n_layers,)
    layer_entropy_, layer_total_correlation_se_, layer_entropy_se_ : ndarray of shape (n_layers,)
    layer_entropy_interval_ : ndarray of shape (n_layers, 2)
    layer_total_correlation_interval_ : ndarray of shape (n_layers, 2)
    layer_conditional_total_correlation_ : ndarray of shape (n_layers,)
    layer_conditional_independent_entropy_ : ndarray of shape (n_layers,)
    layer_conditional_entropy_, layer_ceiling_, layer_saturated_ : ndarray of shape (n_layers,)
        The same of each layer.
    density_, layer_densities_
        As in :class:`GatingEntropy`.
    layer_names_, states_, extractor_, n_features_in_, feature_names_in_
        As in :class:`GatingEntropy`.

    See Also
    --------
    total_correlation : The same of states at hand.
    GatingEntropy : The entropy alone.

    Notes
    -----
    The interval of H is that of :class:`GatingEntropy`. That of TC is the difference of the states'
    own entropies, not of the blurred ones of the kernel density, and supposes independent samples
    too. With :math:`q` the product of the units' rates in other folds, plus half a sample for each
    value [2]_, and :math:`\hat C` the entropy that units have by their counts,

    .. math::

        E \log \frac{\hat p}{q} - \big(E[-\log q] - \hat C\big) \lesssim TC
        \le C - H.

    The lower end bounds the first mean by bets, as :class:`GatingEntropy` does; that what is
    subtracted suffices is known from simulations. It is 0 where the density is scored in-sample.
    The upper end is a bound by bets on C, which is :math:`E[-\log q]` at most, less the lower end
    of H, each at half of the error. It is far above TC where H is far above :math:`2 \log n`.

    References
    ----------
    .. [1] "Understanding, Analyzing, and Optimizing the Complexity of Deep Models", submitted
       to ICLR 2021, Eq. 5, 6, 7, 21 and 28.
    .. [2] R. Krichevsky, V. Trofimov, "The performance of universal encoding", IEEE Transactions on
       Information Theory, 27(2), 1981.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import TotalCorrelation
    >>> Z = np.random.default_rng(0).normal(size=(500, 3))
    >>> measure = TotalCorrelation(random_state=0).fit(np.hstack([Z, Z]))
    >>> round(measure.total_correlation_, 1)
    3.0
    >>> low, high = measure.total_correlation_interval_
    >>> print(f"{low:.1f} to {high:.1f} bits")
    2.9 to 3.8 bits
    """

    _function = staticmethod(total_correlation)

"""H(Σ), the entropy of gating states: `GatingEntropy` and `gating_entropy`."""

import numpy as np
from sklearn.utils import Bunch

from ..densities import Intervals, LayerRanges, as_density, flag_saturated
from ..pairwise import Engine
from ..states import as_states, in_groups
from ..utils.sklearn import validate_params
from ._base import MEASURE_CONSTRAINTS, GatingEstimator, draw_seed

_RANGES = ("", "layer_", "prefix_", "suffix_")


@validate_params(
    {
        "states": "no_validation",
        "groups": "no_validation",
        "standard_errors": ["boolean"],
        **MEASURE_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def gating_entropy(
    states,
    *,
    groups=None,
    density="auto",
    cv=5,
    budget=60,
    threshold=0.0,
    base=2,
    confidence=0.95,
    standard_errors=True,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    """Return the entropy H(Σ) of states at hand.

    The functional form of :class:`GatingEntropy`, which describes the parameters; its ``fit``
    describes ``groups``. ``states`` may be a list or dict of arrays, one a layer. ``density`` may
    hold several values of ``alpha`` and of ``bound``, ``Kernel(alpha=[0.1, 1])``, for the cost of
    one; each puts an axis in front of the results. ``standard_errors=False`` leaves out those of
    the kernel density.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        The attributes of :class:`GatingEntropy`, without the last underscore.

    Raises
    ------
    ValueError
        If a parameter or the states are not as described.

    See Also
    --------
    GatingEntropy : The same as an estimator, from raw inputs of a model too.

    Examples
    --------
    All states of three gates, each once:

    >>> import numpy as np
    >>> from skgate import gating_entropy
    >>> from skgate.densities import Kernel
    >>> states = np.array([[i >> k & 1 for k in range(3)] for i in range(8)])
    >>> gating_entropy(states, density=Kernel(alpha=[0.5, 1.0])).entropy.round(3)
    array([1.987, 1.207])
    """
    engine = Engine(device, n_jobs, verbose)
    density = as_density(density, budget, several=True)
    states = in_groups(as_states(states, threshold), groups)
    ranges, unit = LayerRanges(len(states.layers), prefixes=True), np.log(base)
    seed = draw_seed(random_state)
    options = {"cv": cv, "errors": standard_errors, "seed": seed, "engine": engine}
    (estimate,) = density.estimate(states, [None], ranges, **options)
    found = {
        "entropy": estimate.marginal.mean() / unit,
        "entropy_se": estimate.marginal.standard_error() / unit,
        "entropy_corrected": estimate.marginal.corrected() / unit,
        "ceiling": estimate.ceilings / unit,
        "saturated": flag_saturated(estimate, ranges, states, base),
    }
    result = Bunch(density=estimate.density)
    result.layer_densities = result.density.layer_choices(states.layers)
    for quantity, values in found.items():
        result.update(ranges.named(quantity, values, _RANGES))
    ends = Intervals(estimate, states, ranges, confidence, seed).entropy() / unit
    result.update(ranges.named_intervals("entropy_interval", ends, _RANGES))
    return result


class GatingEntropy(GatingEstimator):
    r"""Entropy of gating states, the complexity of a network's transformations.

    Estimates H(Σ) of every gating layer, of the layers up to each and from each on, and of all
    of them, as the mean surprisal of the samples under a density of the states:

    .. math::

        H(\Sigma) = -\frac1n \sum_j \log \hat p(\sigma_j)

    Densities are fitted, and score samples that they were not fitted to, so that the value is, up
    to sampling, an upper bound on the entropy. Samples must be independent; ``groups`` of
    :meth:`fit` say which are not. By default, each layer has the density of several that predicts
    its gates best, and all layers together are a chain, each given the one before. The kernel
    density, ``"kde"``, is that of the paper [1]_: in-sample, unnormalised, and never more than
    :math:`\log n`.

    Parameters
    ----------
    model : None, torch.nn.Module, GateExtractor or fitted estimator with a module, default=None
        Network whose gates are measured; ``X`` then holds its raw inputs, and sampling inside
        a module, such as dropout, is on and part of the entropy. An extractor is used as it is
        set, with sampling off by default. ``None``: ``X`` holds the gates, or pre-activations.
    density : str or estimator with ``fit`` and ``score_samples``, default="auto"
        Density of the states: ``"auto"``, for each layer the best on held-out samples of those that
        fit the budget (:class:`~skgate.densities.Auto`); ``"product"``, ``"chow-liu"``,
        ``"autoregressive"``, ``"convolutional"`` or ``"kde"`` for one of :mod:`skgate.densities`
        with its defaults; such a density with parameters of its own; or any estimator whose
        ``score_samples`` are log-probabilities of binary rows.
    cv : int or None, default=5
        Number of folds of a fitted density, which split neither samples nor groups. ``None``
        scores the samples that it was fitted to, and gives too low an entropy. The kernel density
        has no folds.
    budget : float, default=60
        Seconds that ``"auto"`` may take for a layer on two cores.
    threshold : float, default=0.0
        Without a model, a gate is open where ``X > threshold``.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    confidence : float, default=0.95
        Probability with which an interval has the entropy; either end fails with half of the rest.
    max_samples : int, float or None, default=None
        Number or share of samples (not of groups) drawn at random to be measured, each with all
        its rows. The paper takes 2000.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where the density is computed. ``"auto"`` takes a GPU for work of more than about two
        seconds where CuPy finds one, ``"cuda"`` raises where it does not.
    n_jobs : int, default=None
        Number of threads; ``None`` is 1 unless in a :func:`joblib.parallel_config` context.
    verbose : int, default=0
        Whether to show progress and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of the drawn samples, of folds and of sampling inside the model.

    Attributes
    ----------
    entropy_ : float
        H of all layers, in units of ``base``.
    layer_entropy_ : ndarray of shape (n_layers,)
        H of each layer.
    prefix_entropy_ : ndarray of shape (n_layers,)
        H of the layers up to each one; differences are the terms of the chain rule.
    suffix_entropy_ : ndarray of shape (n_layers,)
        H of the layers from each one on: the complexity of going from it to the output.
    entropy_se_ : float
    layer_entropy_se_, prefix_entropy_se_, suffix_entropy_se_ : ndarray of shape (n_layers,)
        Standard errors: by the block jackknife over 16 parts of the samples for the kernel
        density, over the samples for a fitted one, which is taken as given. Samples must be
        independent; rows of one sample or group count as dependent. NaN for one sample or group. An
        interval of the mean of the estimator from errors of 16 parts has the quantiles of Student's
        t with 15 degrees of freedom, ``entropy_ ± scipy.stats.t.ppf(0.975, 15) * entropy_se_`` for
        95%. It leaves out the bias, and covers too seldom where few rows differ from the rest: 80%
        of the time for one gate that is open in 2% of 100 rows, 94% of the time with 500.
    entropy_corrected_ : float
    layer_entropy_corrected_, prefix_entropy_corrected_ : ndarray of shape (n_layers,)
    suffix_entropy_corrected_ : ndarray of shape (n_layers,)
        The kernel density entropy plus what the same jackknife finds to be missing in so few
        samples. Where a value is not flagged, most of its bias is gone; where it is, this one is
        too low as well. NaN for fitted densities, which are not in-sample, and without errors.
    entropy_interval_ : ndarray of shape (2,)
    layer_entropy_interval_, prefix_entropy_interval_ : ndarray of shape (n_layers, 2)
    suffix_entropy_interval_ : ndarray of shape (n_layers, 2)
        Lower and upper ends of confidence intervals of H, if samples are independent; see Notes.
    ceiling_ : float
    layer_ceiling_, prefix_ceiling_, suffix_ceiling_ : ndarray of shape (n_layers,)
        What an entropy cannot exceed: the lower of the two ceilings of the kernel density, or the
        number of gates, which the estimate of a fitted density can exceed by its error.
    saturated_ : bool
    layer_saturated_, prefix_saturated_, suffix_saturated_ : ndarray of shape (n_layers,), bool
        Whether a kernel density entropy is lower than that of the gates: equal rows show too few
        samples, or that the kernel counts different states as one.
    density_ : estimator
        The density fitted to all samples; of the kernel density, with ``bandwidth_`` and
        ``layer_bandwidth_``; of ``"auto"``, the :class:`~skgate.densities.PerLayer` that was
        chosen. As ``density`` of another measure, it keeps the choice.
    layer_densities_ : list of LayerChoice
        The density of each layer, and how ``"auto"`` chose it; printed, a line each.
    layer_names_ : list of str
    states_ : GatingStates
        The states that were measured; where those of all layers do not fit in memory, only their
        names and shapes, and ``select`` of some layers runs the model again.
    extractor_ : GateExtractor
        What read them, if there is a model.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only when ``X`` has string column names.

    See Also
    --------
    gating_entropy : The same of states at hand, and for several bandwidths at once.
    entropy_curve : Whether there are enough samples.
    GatingMI : How much of it the input and the label account for.
    TotalCorrelation : How far the gates are from independent.

    Notes
    -----
    An interval is that of the entropy of the distribution that the states come from. Each end holds
    with a probability of :math:`1 - \delta`, :math:`2 \delta = 1 -` ``confidence``, whatever that
    distribution, **if samples are independent**: no interval is right where inputs are repeated,
    augmented or recorded together, unless ``groups`` say so, or these are the rows of one sample.
    A sample or group then counts once, and none may have more rows than the largest one.

    The lower end depends only on which rows are equal, and holds beside any density. With
    :math:`N_j` the number of rows equal to row :math:`j` and harmonic numbers :math:`h`, it is

    .. math::

        h_{n-1} - \frac1n \sum_j h_{N_j - 1} - (h_{n-1} + 1) \sqrt{\frac{\log(2/\delta)}{2n}}

    nats [2]_ [3]_, or a bound from coincidences that is higher where states are many, and is proved
    in ``skgate/densities/_coincidences.py``. From equal rows alone, no end can exceed about
    :math:`2 \log n`, 22 bits for 2000 samples. A lower end near that means only that hardly any
    rows are equal.

    The upper end is a bound on the mean surprisal by bets [4]_: the least :math:`m` for which

    .. math::

        \max_t \prod_{j \le t} \big(1 + \lambda_j (m + \log \hat p(\sigma_j))\big) \ge
        \frac1\delta,

    over samples in random order, with stakes :math:`\lambda_j` that depend on earlier ones. Here,
    :math:`\hat p` is mixed with the uniform density, whose share is :math:`1 / (n + 1)`, so that no
    surprisal exceeds the logarithm of the number of states by more than :math:`\log(n + 1)`; where
    that lowers surprisals, the end can be below the reported mean. The bound is exact for
    samples that had no part in the fit of any density; that it holds for folds, whose densities
    are fitted to each other's samples, is known from simulations. With ``cv=None``, and
    for the kernel density, whose value is no upper bound, the upper end is the logarithm of the
    number of states, that of :math:`2^d` for d gates.

    Where the rows of ``X`` are positions (``X.groups`` is not None), an entropy is that of a row,
    and rows of a sample are never split by folds, by parts of the jackknife or by permutations; no
    more are the samples of a group. scikit-learn's splitters split rows: rows of samples that were
    fitted then score too well. Pass ``cv=GroupKFold(...)`` and ``groups=X.groups``, as below. To
    have ``groups`` reach ``fit`` too, enable scikit-learn's metadata routing and call
    ``set_fit_request(groups=True)``.

    References
    ----------
    .. [1] "Understanding, Analyzing, and Optimizing the Complexity of Deep Models", submitted
       to ICLR 2021, Eq. 2.
    .. [2] Z. Zhang, "Entropy estimation in Turing's perspective", Neural Computation, 24(5), 2012.
    .. [3] T. Schürmann, "A note on entropy estimation", Neural Computation, 27(10), 2015.
    .. [4] I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting",
       Journal of the Royal Statistical Society B, 86(1), 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> Z = np.random.default_rng(0).normal(size=(500, 6))
    >>> measure = GatingEntropy(random_state=0).fit(Z)
    >>> round(measure.entropy_, 1)
    6.0
    >>> measure.transform(Z).shape
    (500, 1)

    The 64 states are seen often enough for a lower end near the truth, six bits:

    >>> low, high = measure.entropy_interval_
    >>> print(f"{low:.1f} to {high:.1f} bits")
    5.2 to 6.0 bits

    Held-out likelihoods of rows that are the ten positions of fifty samples:

    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from skgate import GatingStates
    >>> states = GatingStates.from_arrays(Z, groups=np.repeat(np.arange(50), 10))
    >>> cross_val_score(
    ...     GatingEntropy(density="product"), states, groups=states.groups, cv=GroupKFold(2)
    ... ).round(2)
    array([-6.01, -6.02])
    """

    _role_of_y = "ignored"
    _function = staticmethod(gating_entropy)

"""H of the gating states: `GatingEntropy` and its twin `gating_entropy`."""

import numpy as np
from sklearn.utils import Bunch

from ..densities._cross_fitting import cross_fit, draw_seed
from ..densities._information import entropy, jackknife_error, mean_and_error
from ..densities._jackknife import jackknife
from ..densities._kernel import KernelTerms, Spans, as_scalar
from ..pairwise import Engine, kernel_masses
from ..states import as_states
from ..utils.sklearn import _fit_context, validate_params
from ._base import DENSITY_CONSTRAINTS, GatingEstimator

__all__ = ["GatingEntropy", "gating_entropy"]


@validate_params(
    {
        "states": "no_validation",
        **DENSITY_CONSTRAINTS,
        "alpha": [*DENSITY_CONSTRAINTS["alpha"], list, tuple, np.ndarray],
        "bound": [*DENSITY_CONSTRAINTS["bound"], list, tuple],
        "standard_errors": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def gating_entropy(
    states,
    *,
    density="kde",
    cv=5,
    alpha="auto",
    bandwidth="variance",
    bound="upper",
    joint="concatenated",
    threshold=0.0,
    base=2,
    standard_errors=True,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    r"""Return the entropy of gating states, by layer, prefix, suffix and as a whole.

    The function twin of :class:`GatingEntropy`, for states already at hand and for curves:
    a sequence of ``alpha`` or of ``bound`` costs one pass over the pairs, as a single one does.

    .. math::

        H(\Sigma) = -\frac1n \sum_j \log \frac1n \sum_k
            \exp\Big(-\frac{\|\sigma_j - \sigma_k\|^2}{2\sigma_0^2}\Big)

    Parameters
    ----------
    states : GatingStates, array-like of shape (n_samples, n_gates), or list or dict of these
        Gates, or pre-activations that are compared with ``threshold``; a list or dict holds
        one array a layer.
    density : {"kde", "product", "chow-liu", "autoregressive"}, default="kde"
        See :class:`GatingEntropy`, as for all parameters below.
    cv : int or None, default=5
    alpha : "auto", float or array-like of float, default="auto"
        An array puts an axis in front of every result.
    bandwidth : {"variance", "n_gates"} or float, default="variance"
    bound : {"upper", "lower"} or sequence of these, default="upper"
        A sequence puts an axis in front of every result, behind that of ``alpha``.
    joint : {"concatenated", "product"}, default="concatenated"
    threshold : float, default=0.0
    base : float, default=2
    standard_errors : bool, default=True
        Whether to measure the kernel density's standard errors, NaN otherwise. For 2000 samples
        they take nearly as long as the entropies do, for 10,000 a fifth of it. A fitted density
        has them at no cost.
    device : {"auto", "cpu", "cuda"}, default="auto"
    n_jobs : int, default=None
    verbose : int, default=0
    random_state : int, RandomState instance or None, default=None
        Seed of the folds.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``entropy``, ``layer_entropies``, the standard errors ``entropy_se`` and
        ``layer_entropies_se``, ``prefix_entropies``, ``suffix_entropies``,
        ``ceilings``, ``saturated``, ``suffix_saturated``, ``prefix_saturated``, ``bandwidth``
        and ``bandwidths``, as the attributes of :class:`GatingEntropy`.

    Raises
    ------
    ValueError
        If a parameter or the states are not as described.

    Warns
    -----
    SaturationWarning
        If an entropy is within 1% of its ceiling.

    See Also
    --------
    GatingEntropy : The same as an estimator, from raw inputs of a model too; has the references.
    entropy_curve : Whether there are enough samples.

    Examples
    --------
    All states of three gates, each once:

    >>> import numpy as np
    >>> from skgate import gating_entropy
    >>> states = np.array([[i >> k & 1 for k in range(3)] for i in range(8)])
    >>> gating_entropy(states, alpha=[0.5, 1.0]).entropy.round(3)
    array([1.987, 1.207])
    """
    engine = Engine(device, n_jobs, verbose)
    _check_grids(alpha, bound)
    states = as_states(states, threshold)
    if density != "kde":
        if np.ndim(alpha) or not isinstance(bound, str):
            raise ValueError(
                f"density={density!r} has no kernel: got alpha={alpha!r} and bound={bound!r}, of "
                "which several values can only be asked of density='kde'."
            )
        return _fitted_entropy(states, density, cv, base, engine, random_state)
    terms = KernelTerms(
        states, alpha=alpha, bandwidth=bandwidth, bound=bound, joint=joint, ranges=True
    )
    if standard_errors:
        log_masses, left_out = jackknife(states, terms.weights, terms.spreads, engine=engine)
        errors = terms.shaped(jackknife_error(left_out[:, 0], len(states)))
    else:
        log_masses = kernel_masses(states, terms.weights, engine=engine)
        errors = np.full((*terms.lead, len(terms.support)), np.nan)
    nats = terms.shaped(entropy(log_masses[:, 0]))
    saturated = terms.flag_saturated(nats, base)
    return Bunch(
        entropy=as_scalar(nats[..., terms.whole] / np.log(base)),
        entropy_se=as_scalar(errors[..., terms.whole] / np.log(base)),
        layer_entropies=nats[..., terms.layers] / np.log(base),
        layer_entropies_se=errors[..., terms.layers] / np.log(base),
        prefix_entropies=nats[..., terms.prefixes] / np.log(base),
        suffix_entropies=nats[..., terms.suffixes] / np.log(base),
        ceilings=terms.ceilings()[..., terms.layers] / np.log(base),
        saturated=saturated[..., terms.layers],
        suffix_saturated=saturated[..., terms.suffixes],
        prefix_saturated=saturated[..., terms.prefixes],
        **terms.reported_bandwidths(),
    )


def _fitted_entropy(states, density, cv, base, engine, random_state):
    spans = Spans(len(states.layers), ranges=True)
    codes, seed = np.zeros(len(states), int), draw_seed(random_state)
    fitted, logs = cross_fit(states, codes, spans, kind=density, cv=cv, seed=seed, engine=engine)
    values, errors = mean_and_error(-logs[..., 0] / np.log(base))  # (n_terms,)
    nothing = np.zeros(len(states.layers), bool)
    return Bunch(
        entropy=float(values[spans.whole]),
        entropy_se=float(errors[spans.whole]),
        layer_entropies=values[spans.layers],
        layer_entropies_se=errors[spans.layers],
        prefix_entropies=values[spans.prefixes],
        suffix_entropies=values[spans.suffixes],
        ceilings=np.array(states.n_gates) * np.log(2) / np.log(base),
        saturated=nothing,
        suffix_saturated=nothing,
        prefix_saturated=nothing,
        density=fitted,
    )


def _check_grids(alpha, bound):
    alphas = np.asarray([] if isinstance(alpha, str) else alpha, dtype=float)
    if not (np.isfinite(alphas) & (alphas > 0)).all():
        raise ValueError(f"Each alpha must be a positive finite number; got {alpha!r}.")
    bounds = {bound} if isinstance(bound, str) else set(bound)
    if not bounds <= {"upper", "lower"}:
        raise ValueError(f"Each bound must be 'upper' or 'lower'; got {bound!r}.")


class GatingEntropy(GatingEstimator):
    r"""Entropy of gating states, the complexity of a network's transformations.

    Estimates H(Σ) of every gating layer, of the layers up to each and from each on, and of all
    of them, from the pairwise distances of the states:

    .. math::

        H(\Sigma) = -\frac1n \sum_j \log \frac1n \sum_k
            \exp\Big(-\frac{\|\sigma_j - \sigma_k\|^2}{2\sigma_0^2}\Big)

    It bounds the information in states that are blurred with Gaussian noise of variance
    :math:`\sigma_0^2`, not the entropy of the discrete states, which can lie above both bounds.

    Parameters
    ----------
    model : None, torch.nn.Module, GateExtractor or fitted estimator with a module, default=None
        Network whose gates are measured; ``X`` then holds its raw inputs, and sampling inside
        a module, such as dropout, is on and part of the entropy. An extractor is used as it is
        set, with sampling off by default. ``None``: ``X`` holds the gates, or pre-activations.
    density : {"kde", "product", "chow-liu", "autoregressive"}, default="kde"
        Density of the states. The kernel density has the ceilings that wide layers sit at. The
        others are fitted and have none: units that are independent, a forest in which a gate
        depends on one other, or a regression of each gate on all before it.
    cv : int or None, default=5
        Number of folds: a fitted density is asked about samples that it was not fitted to. ``None``
        asks it about its own, and gives too low an entropy. The kernel density has no folds.
    alpha : "auto" or float, default="auto"
        Scale of the bandwidth. ``"auto"``: 0.04 for gates that have spatial positions, 0.01
        for the rest (the paper's Section 4.4).
    bandwidth : {"variance", "n_gates"} or float, default="variance"
        :math:`\sigma_0^2`: ``alpha`` times the summed variance of the gates, ``alpha`` times
        their number, or a number itself.
    bound : {"upper", "lower"}, default="upper"
        Bound on the information in the blurred states: Eq. 2, or the Bhattacharyya bound with
        an eighth in place of the half.
    joint : {"concatenated", "product"}, default="concatenated"
        Kernel of several layers: of all gates with one bandwidth, the sum of the layers' (the
        paper), or the product of the layers' own kernels, under which entropy grows with
        every layer.
    threshold : float, default=0.0
        Without a model, a gate is open where ``X > threshold``.
    base : float, default=2
        Base of the logarithm; 2 gives bits.
    max_samples : int, float or None, default=None
        Number or share of samples drawn at random to be measured. The paper takes 2000.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where the pairs are computed. ``"auto"`` takes a GPU for work of more than about two seconds
        where CuPy finds one, ``"cuda"`` raises where it does not.
    n_jobs : int, default=None
        Number of threads for the pairs; ``None`` is 1 unless in a
        :func:`joblib.parallel_config` context.
    verbose : int, default=0
        Whether to show what is done and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of the drawn samples, of folds and of sampling inside the model.

    Attributes
    ----------
    entropy_ : float
        H of all layers, in units of ``base``. Of a fitted density, the mean surprisal of samples
        it was not fitted to: up to sampling an upper bound on the entropy of the gates.
    layer_entropies_ : ndarray of shape (n_layers,)
        H of each layer.
    entropy_se_, layer_entropies_se_ : float and ndarray of shape (n_layers,)
        Standard errors of these two: by the jackknife over 16 parts of the samples for the kernel
        density, over the samples for a fitted one, which is taken as given. NaN for one sample.
    prefix_entropies_ : ndarray of shape (n_layers,)
        H of the layers up to each one; differences are the terms of the chain rule.
    suffix_entropies_ : ndarray of shape (n_layers,)
        H of the layers from each one on: the complexity of going from it to the output.
    ceilings_ : ndarray of shape (n_layers,)
        The lower of the two ceilings of each layer's entropy, in units of ``base``.
    saturated_ : ndarray of shape (n_layers,), dtype bool
        Layers whose entropy is within 1% of its ceiling and says nothing.
    suffix_saturated_, prefix_saturated_ : ndarray of shape (n_layers,), dtype bool
        The same of the suffixes, the first of which is the whole network, and the prefixes.
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
    gating_entropy : The same of given states, and for several bandwidths at once.
    GatingMI : How much of it the input and the label account for.
    TotalCorrelation : How far the gates are from independent.

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
    >>> Z = np.random.default_rng(0).normal(size=(500, 6))
    >>> measure = GatingEntropy().fit(Z)
    >>> round(measure.entropy_, 2)
    5.89
    >>> measure.transform(Z).shape
    (500, 1)
    """

    _role_of_y = "ignored"

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the gating states.

        Parameters
        ----------
        X : GatingStates, array-like of shape (n_samples, n_gates), or raw inputs of ``model``
            With a model: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``.
        y : Ignored

        Returns
        -------
        self : GatingEntropy

        Raises
        ------
        ValueError
            If a parameter or ``X`` is not as described, or ``model`` has no gates.
        RuntimeError
            If ``device="cuda"`` cannot be had.
        """
        self._fit_states(X, None)
        result = gating_entropy(
            self.states_, random_state=self.random_state, **self._kernel_params()
        )
        self._set_result({"density": None, **result})
        return self

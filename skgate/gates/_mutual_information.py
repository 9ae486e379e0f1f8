"""I(X;Σ) and I(X;Σ;Y): `GatingMI` and its twin `gating_mi`."""

from functools import partial

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities._cross_fitting import cross_fit, draw_seed, information, mixture, own_class
from ..densities._information import conditional_entropy, entropy, jackknife_error, mean_and_error
from ..densities._jackknife import jackknife
from ..densities._kernel import KernelTerms, Spans
from ..pairwise import Engine, kernel_masses
from ..states import as_states
from ..utils.labels import check_labels, encode_known
from ..utils.sklearn import _fit_context, _num_samples, check_is_fitted, validate_params
from ._base import DENSITY_CONSTRAINTS, GatingEstimator

__all__ = ["GatingMI", "gating_mi"]


@validate_params(
    {
        "states": "no_validation",
        "y": "no_validation",
        **DENSITY_CONSTRAINTS,
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def gating_mi(
    states,
    y,
    *,
    density="kde",
    cv=5,
    alpha="auto",
    bandwidth="variance",
    bound="upper",
    joint="concatenated",
    threshold=0.0,
    base=2,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    r"""Return what gating states say of the input and of the label.

    The function twin of :class:`GatingMI`, for states already at hand.

    Parameters
    ----------
    states : GatingStates, array-like of shape (n_samples, n_gates), or list or dict of these
        Gates read with sampling removed; a list or dict holds one array a layer.
    y : array-like of shape (n_samples,)
        Class labels.
    density : {"kde", "product", "chow-liu", "autoregressive"}, default="kde"
        See :class:`GatingEntropy`, as for all parameters below.
    cv : int or None, default=5
    alpha : "auto" or float, default="auto"
    bandwidth : {"variance", "n_gates"} or float, default="variance"
    bound : {"upper", "lower"}, default="upper"
    joint : {"concatenated", "product"}, default="concatenated"
    threshold : float, default=0.0
    base : float, default=2
    device : {"auto", "cpu", "cuda"}, default="auto"
    n_jobs : int, default=None
    verbose : int, default=0
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffled labels.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        ``mi_x``, ``mi_xy``, ``null_mi_xy``, the same by layer and by suffix,
        ``conditional_entropy``, ``layer_conditional_entropies``, ``classes``, ``ceilings``,
        ``saturated``, ``suffix_saturated``, ``bandwidth`` and ``bandwidths``, as the attributes
        of :class:`GatingMI`.

    Raises
    ------
    ValueError
        If ``y`` is missing, continuous or of another length, or a parameter is not as described.

    Warns
    -----
    SaturationWarning
        If an entropy is within 1% of its ceiling, that given the label included.

    See Also
    --------
    GatingMI : The same as an estimator, from raw inputs of a model too; has the references.
    permutation_test : Whether the information is more than chance.

    Examples
    --------
    A gate that is the label, and two that know nothing of it:

    >>> import numpy as np
    >>> from skgate import gating_mi
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 1000)
    >>> gates = np.column_stack([y, rng.integers(0, 2, (1000, 2))])
    >>> result = gating_mi(gates, y, random_state=0)
    >>> round(result.mi_xy, 2), round(result.null_mi_xy, 2)
    (1.0, 0.01)
    """
    engine = Engine(device, n_jobs, verbose)
    states = as_states(states, threshold)
    classes, codes = check_labels(y, len(states))
    random_state = check_random_state(random_state)
    null_codes = random_state.permutation(codes)
    if density != "kde":
        seed = draw_seed(random_state)
        fit = partial(cross_fit, states, kind=density, cv=cv, seed=seed, engine=engine)
        return Bunch(**_fitted_mi(fit, states, codes, null_codes, base), classes=classes)
    terms = KernelTerms(
        states, alpha=alpha, bandwidth=bandwidth, bound=bound, joint=joint, ranges=True
    )
    masses, left_out = jackknife(
        states, terms.weights, terms.spreads, labelings=[codes, null_codes], engine=engine
    )
    total = entropy(masses[:, 0])
    given = conditional_entropy(masses[:, 1], codes)
    null = total - conditional_entropy(masses[:, 2], null_codes)
    total_error = jackknife_error(left_out[:, 0], len(states))
    error = jackknife_error(left_out[:, 0] - left_out[:, 1], len(states))
    saturated = terms.flag_saturated(total, base, given=given, codes=codes)
    unit = np.log(base)
    return Bunch(
        mi_x=float(total[terms.whole] / unit),
        mi_x_se=float(total_error[terms.whole] / unit),
        mi_xy=float((total - given)[terms.whole] / unit),
        mi_xy_se=float(error[terms.whole] / unit),
        null_mi_xy=float(null[terms.whole] / unit),
        layer_mi_x=total[terms.layers] / unit,
        layer_mi_x_se=total_error[terms.layers] / unit,
        layer_mi_xy=(total - given)[terms.layers] / unit,
        layer_mi_xy_se=error[terms.layers] / unit,
        layer_null_mi_xy=null[terms.layers] / unit,
        suffix_mi_xy=(total - given)[terms.suffixes] / unit,
        suffix_null_mi_xy=null[terms.suffixes] / unit,
        conditional_entropy=float(given[terms.whole] / unit),
        layer_conditional_entropies=given[terms.layers] / unit,
        classes=classes,
        ceilings=terms.ceilings()[terms.layers] / unit,
        saturated=saturated[terms.layers],
        suffix_saturated=saturated[terms.suffixes],
        **terms.reported_bandwidths(),
    )


def _fitted_mi(fit, states, codes, null_codes, base):
    spans, unit = Spans(len(states.layers), ranges=True), np.log(base)
    fitted, logs = fit(codes, spans)
    priors = fitted.priors
    total = -mixture(logs, priors) / unit  # (n_terms, n)
    given = -own_class(logs, codes) / unit
    mi_x, mi_x_error = mean_and_error(total)
    mi_xy, mi_xy_error = mean_and_error(information(logs, codes, priors) / unit)
    _, logs = fit(null_codes, spans)
    null = information(logs, null_codes, priors).mean(axis=1) / unit
    layers, suffixes, whole = spans.layers, spans.suffixes, spans.whole
    nothing = np.zeros(len(layers), bool)
    return {
        "mi_x": float(mi_x[whole]),
        "mi_x_se": float(mi_x_error[whole]),
        "mi_xy": float(mi_xy[whole]),
        "mi_xy_se": float(mi_xy_error[whole]),
        "null_mi_xy": float(null[whole]),
        "layer_mi_x": mi_x[layers],
        "layer_mi_x_se": mi_x_error[layers],
        "layer_mi_xy": mi_xy[layers],
        "layer_mi_xy_se": mi_xy_error[layers],
        "layer_null_mi_xy": null[layers],
        "suffix_mi_xy": mi_xy[suffixes],
        "suffix_null_mi_xy": null[suffixes],
        "conditional_entropy": float(given[whole].mean()),
        "layer_conditional_entropies": given[layers].mean(axis=1),
        "ceilings": np.array(states.n_gates) * np.log(2) / unit,
        "saturated": nothing,
        "suffix_saturated": nothing,
        "density": fitted,
    }


class GatingMI(GatingEstimator):
    r"""Information of gating states about the input and the label.

    I(X;Σ) is the entropy of the states with sampling removed; a deterministic network has
    I(X;Σ) = H(Σ). The part of it that serves inference is

    .. math::

        I(X;\Sigma;Y) = H(\Sigma) - \sum_m p_m H(\Sigma \mid Y=m), \qquad p_m = n_m / n,

    with one bandwidth for all terms. Both entropies are bounds of the same kind; their
    difference bounds nothing, but cannot exceed H(Y). Beside each value stands the one
    that shuffled labels give: only what exceeds it is information about the label.

    A fitted density is one for each class, drawn together as far as unseen samples ask for it, and

    .. math::

        I(X;\Sigma;Y) = \operatorname{mean} \log \frac{\hat p_y(\sigma)}{\hat p(\sigma)}, \qquad
        \hat p = \sum_m p_m \hat p_m,

    over samples it was not fitted to: in expectation a lower bound, and never more than H(Y).

    Parameters
    ----------
    model : None, torch.nn.Module, GateExtractor or fitted estimator with a module, default=None
        Network whose gates are measured; ``X`` then holds its raw inputs. A module is read
        with ``sampling="off"``; an extractor must have it off. ``None``: ``X`` holds the gates,
        or pre-activations.
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
        Seed of the drawn samples and of the shuffled labels.

    Attributes
    ----------
    mi_x_ : float
        I(X;Σ) of all layers, in units of ``base``.
    mi_xy_ : float
        I(X;Σ;Y) of all layers.
    null_mi_xy_ : float
        The same with the labels shuffled once.
    layer_mi_x_, layer_mi_xy_, layer_null_mi_xy_ : ndarray of shape (n_layers,)
        The three of each layer.
    mi_x_se_, mi_xy_se_, layer_mi_x_se_, layer_mi_xy_se_ : float and ndarray of shape (n_layers,)
        Standard errors: by the jackknife over 16 parts of the samples for the kernel density, over
        the samples for fitted ones, which are taken as given. NaN for one sample.
    suffix_mi_xy_, suffix_null_mi_xy_ : ndarray of shape (n_layers,)
        I(X;Σ;Y) of the layers from each one on, and with the labels shuffled.
    conditional_entropy_ : float
        H(Σ|Y) of all layers.
    layer_conditional_entropies_ : ndarray of shape (n_layers,)
        H(Σ_l|Y).
    classes_ : ndarray of shape (n_classes,)
    ceilings_ : ndarray of shape (n_layers,)
        The lower of the two ceilings of each layer's entropy, in units of ``base``.
    saturated_ : ndarray of shape (n_layers,), dtype bool
        Layers whose entropy, or entropy given the label, is within 1% of its ceiling.
    suffix_saturated_ : ndarray of shape (n_layers,), dtype bool
        The same of the suffixes, the first of which is the whole network.
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
    gating_mi : The same of given states.
    GatingEntropy : The entropy alone.

    References
    ----------
    .. [1] "Understanding, Analyzing, and Optimizing the Complexity of Deep Models", submitted
       to ICLR 2021, Eq. 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import GatingMI
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 3, 600)
    >>> Z = rng.normal(size=(600, 5)) + np.eye(5)[y]
    >>> measure = GatingMI(random_state=0).fit(Z, y)
    >>> round(measure.mi_xy_, 2), round(measure.null_mi_xy_, 2)
    (0.39, 0.07)
    """

    _sampling = "off"
    _role_of_y = "needed"

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the information of the gating states.

        Parameters
        ----------
        X : GatingStates, array-like of shape (n_samples, n_gates), or raw inputs of ``model``
            With a model: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``.
        y : array-like of shape (n_samples,), default=None
            Class labels; left out when ``X`` is a dataset or loader that yields them.

        Returns
        -------
        self : GatingMI

        Raises
        ------
        ValueError
            If ``y`` is missing, continuous or of another length, a parameter or ``X`` is not as
            described, or ``model`` has no gates or is an extractor with sampling on.
        RuntimeError
            If ``device="cuda"`` cannot be had.
        """
        classes, codes = self._fit_states(X, y)
        result = gating_mi(
            self.states_, codes, random_state=self.random_state, **self._kernel_params()
        )
        self._set_result({"density": None, **result, "classes": classes})
        self._codes = codes
        return self

    def score(self, X, y=None):
        r"""Return the held-out information about the label, mean of ``log p(y|sigma) / p(y)``.

        Under the densities that were fitted, :math:`\hat p(\sigma) = \sum_m p_m \hat p(\sigma|m)`,

        .. math::

            \log \frac{\hat p(y|\sigma)}{\hat p(y)}
                = \log \frac{\hat p(\sigma|y)}{\hat p(\sigma)}.

        Unlike ``mi_xy_`` on the same data, it does not reward a bandwidth that tells samples
        apart: on labels that mean nothing its best value is near 0.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.
        y : array-like of shape (n_samples,), default=None
            Class labels, all of them in ``classes_``.

        Returns
        -------
        score : float
            In units of ``base``; higher is better.

        Raises
        ------
        ValueError
            If a label was not there in :meth:`fit`.
        """
        check_is_fitted(self)
        if y is not None or hasattr(X, "shape"):
            check_labels(y, _num_samples(y if y is not None else X))
        states, y = self._new_states(X, y)
        codes = encode_known(y, len(states), self.classes_)
        if self.density_ is not None:
            logs = self.density_.log_likelihoods(states)[self.density_.spans.whole]
            return float(information(logs, codes, self.density_.priors).mean() / np.log(self.base))
        weights, _ = self._kernel()
        masses = kernel_masses(
            self.states_,
            weights[-1:],
            labelings=[self._codes],
            queries=states,
            query_labelings=[codes],
            engine=self._engine(),
        )[0]
        share = np.log(np.bincount(self._codes) / len(self._codes))[codes]
        return float(np.mean(masses[1] - masses[0] - share) / np.log(self.base))

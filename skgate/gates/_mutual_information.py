"""I(X;Σ) and I(X;Σ;Y), information about input and label: `GatingMI` and `gating_mi`."""

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities import Intervals, Kernel, LayerRanges, as_density, flag_saturated
from ..pairwise import Engine
from ..states import as_states, in_groups
from ..utils.labels import check_labels, encode_known
from ..utils.samples import Samples
from ..utils.sklearn import HasMethods, check_is_fitted, validate_params
from ._base import MEASURE_CONSTRAINTS, GatingEstimator, draw_seed

_RANGES = ("", "layer_", "suffix_")


_CLASSIFIER = {"classifier": [None, HasMethods(["fit", "predict_proba"])]}


@validate_params(
    {
        "states": "no_validation",
        "y": "no_validation",
        "groups": "no_validation",
        **_CLASSIFIER,
        **MEASURE_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def gating_mi(
    states,
    y,
    *,
    groups=None,
    density="auto",
    classifier=None,
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
    """Return I(X;Σ) and I(X;Σ;Y) of states at hand.

    The functional form of :class:`GatingMI`, which describes the parameters; its ``fit`` describes
    ``groups``. ``states`` were read with sampling off, and may be a list or dict of arrays, one a
    layer.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        The attributes of :class:`GatingMI`, without the last underscore.

    Raises
    ------
    ValueError
        If ``y`` is missing, continuous or of another length, a parameter is not as described, or a
        ``classifier`` is given to the kernel density.

    See Also
    --------
    GatingMI : The same as an estimator, from raw inputs of a model too.

    Examples
    --------
    A gate that is the label, and two that do not depend on it:

    >>> import numpy as np
    >>> from skgate import gating_mi
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 1000)
    >>> gates = np.column_stack([y, rng.integers(0, 2, (1000, 2))])
    >>> result = gating_mi(gates, y, random_state=0)
    >>> round(result.mi_xy, 2), round(result.shuffled_mi_xy, 2)
    (1.0, 0.0)
    """
    engine = Engine(device, n_jobs, verbose)
    density = as_density(density, budget)
    _require_fitted(density, classifier)
    states = as_states(states, threshold)
    classes, y_encoded = check_labels(y, len(states), states.groups)
    states = in_groups(states, groups)
    samples, random_state = Samples(states.groups, len(states)), check_random_state(random_state)
    label_sets = [y_encoded, samples.permuted_labels(y_encoded, random_state)]
    ranges, unit = LayerRanges(len(states.layers), prefixes=True), np.log(base)
    seed = draw_seed(random_state)
    options = {"cv": cv, "errors": True, "seed": seed}
    if classifier is not None:
        options["classifier"] = classifier
    real, shuffled = density.estimate(states, label_sets, ranges, engine=engine, **options)
    information = real.marginal - real.given
    found = {
        "mi_x": real.marginal.mean() / unit,
        "mi_x_se": real.marginal.standard_error() / unit,
        "mi_xy": information.mean() / unit,
        "mi_xy_se": information.standard_error() / unit,
        "conditional_entropy": real.given.mean() / unit,
        "ceiling": real.ceilings / unit,
        "saturated": flag_saturated(real, ranges, states, base),
    }
    result = Bunch(classes=classes, density=real.density)
    result.layer_densities = result.density.layer_choices(states.layers)
    for quantity, values in found.items():
        result.update(ranges.named(quantity, values, _RANGES))
    ends = Intervals(real, states, ranges, confidence, seed).entropy() / unit
    result.update(ranges.named_intervals("mi_x_interval", ends, _RANGES))
    null = ranges.named("mi_xy", (shuffled.marginal - shuffled.given).mean() / unit, _RANGES)
    result.update({f"shuffled_{name}": values for name, values in null.items()})
    return result


def _require_fitted(density, classifier):
    """Raise for a classifier that is a class, or would not be used."""
    if isinstance(classifier, type):
        name = classifier.__name__
        raise TypeError(f"Got the class {name} as classifier; need an instance, {name}(...).")
    if classifier is not None and isinstance(density, Kernel):
        raise ValueError(
            f"The kernel density has an I(X;Σ;Y) of its own, so that classifier={classifier!r} "
            "would not be used. Leave it out, or take density='auto'."
        )


class GatingMI(GatingEstimator):
    r"""Information of gating states about the input and the label.

    I(X;Σ) is the entropy of the states with sampling removed; a deterministic network has
    I(X;Σ) = H(Σ). The part of it that serves inference is

    .. math::

        I(X;\Sigma;Y) = H(\Sigma) - H(\Sigma \mid Y)
            = \frac1n \sum_j \log \frac{\hat p(\sigma_j \mid y_j)}{\hat p(\sigma_j)}.

    With a fitted density it is found by a classifier, whose probabilities :math:`q` of a sample's
    classes come from other samples,

    .. math::

        I(X;\Sigma;Y) = \hat H(Y) + \frac1n \sum_j \log q(y_j \mid \sigma_j),

    for any :math:`q` a lower bound in expectation, and never more than H(Y); H(Σ|Y) is H(Σ) less
    that. It is the same for all fitted densities. By default, :math:`q` mixes what the rates of
    gates in each class tell with linear discriminants, both calibrated on held-out samples. Where
    neither tells anything, it is 0. Samples must be independent; ``groups`` of :meth:`fit` say
    which are not.

    The kernel density has one bandwidth for both terms, in-sample. They are bounds of the same
    kind, so that their difference bounds nothing, but it cannot exceed H(Y).

    Beside each value stands the one that shuffled labels give: the excess is evidence of
    information about the label.

    Parameters
    ----------
    model : None, torch.nn.Module, GateExtractor or fitted estimator with a module, default=None
        Network whose gates are measured; ``X`` then holds its raw inputs. A module is read
        with ``sampling="off"``; an extractor must have it off. ``None``: ``X`` holds the gates,
        or pre-activations.
    density
        As in :class:`GatingEntropy`.
    classifier : estimator with ``fit`` and ``predict_proba``, default=None
        Gives :math:`q` instead, from gates as float32 numbers 0 and 1; calibrated likewise. It is
        fitted 15 times to each layer, suffix and set of labels.
    cv, budget, threshold, base, confidence, max_samples, device, n_jobs, verbose
        As in :class:`GatingEntropy`. The information about the label always has five folds.
    random_state : int, RandomState instance or None, default=None
        Seed of the drawn samples, of the shuffled labels and of folds.

    Attributes
    ----------
    mi_x_, mi_xy_ : float
        I(X;Σ) and I(X;Σ;Y) of all layers, in bits unless ``base`` says else.
    shuffled_mi_xy_ : float
        I(X;Σ;Y) with the labels shuffled once: whole samples, or groups, exchange theirs, as in
        :func:`permutation_test`.
    conditional_entropy_ : float
        H(Σ|Y) of all layers.
    mi_x_se_, mi_xy_se_ : float
        Standard errors, as in :class:`GatingEntropy`.
    mi_x_interval_ : ndarray of shape (2,)
    layer_mi_x_interval_, suffix_mi_x_interval_ : ndarray of shape (n_layers, 2)
        Confidence intervals of I(X;Σ), as in :class:`GatingEntropy`.
    ceiling_ : float
        What I(X;Σ) cannot exceed, as in :class:`GatingEntropy`.
    saturated_ : bool
        Whether a kernel density entropy, or that given the label, is lower than that of the gates,
        as in :class:`GatingEntropy`.
    layer_mi_x_, layer_mi_xy_, shuffled_layer_mi_xy_ : ndarray of shape (n_layers,)
    layer_conditional_entropy_, layer_mi_x_se_, layer_mi_xy_se_ : ndarray of shape (n_layers,)
    layer_ceiling_, layer_saturated_ : ndarray of shape (n_layers,)
        The same of each layer.
    suffix_mi_x_, suffix_mi_xy_, shuffled_suffix_mi_xy_ : ndarray of shape (n_layers,)
    suffix_conditional_entropy_, suffix_mi_x_se_, suffix_mi_xy_se_ : ndarray of shape (n_layers,)
    suffix_ceiling_, suffix_saturated_ : ndarray of shape (n_layers,)
        The same of the layers from each one on.
    classes_ : ndarray of shape (n_classes,)
    density_ : estimator
        The density fitted to all samples.
    layer_densities_ : list of LayerChoice
        As in :class:`GatingEntropy`.
    layer_names_, states_, extractor_, n_features_in_, feature_names_in_
        As in :class:`GatingEntropy`.

    See Also
    --------
    gating_mi : The same of states at hand.
    permutation_test : Whether the information is more than chance.
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
    >>> round(measure.mi_xy_, 2), round(measure.shuffled_mi_xy_, 2)
    (0.27, 0.0)
    """

    _parameter_constraints = {**GatingEstimator._parameter_constraints, **_CLASSIFIER}
    _sampling = "off"
    _role_of_y = "needed"
    _function = staticmethod(gating_mi)

    def __init__(
        self,
        model=None,
        *,
        density="auto",
        classifier=None,
        cv=5,
        budget=60,
        threshold=0.0,
        base=2,
        confidence=0.95,
        max_samples=None,
        device="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.classifier = classifier
        super().__init__(
            model,
            density=density,
            cv=cv,
            budget=budget,
            threshold=threshold,
            base=base,
            confidence=confidence,
            max_samples=max_samples,
            device=device,
            n_jobs=n_jobs,
            verbose=verbose,
            random_state=random_state,
        )

    def score(self, X, y=None):
        r"""Return the held-out information about the label, mean of ``log p(y|sigma) / p(y)``.

        Under the kernel density, :math:`p(y|\sigma) \propto p(y) \hat p(\sigma|y)`: unlike
        ``mi_xy_``, this does not reward a bandwidth that tells samples apart, and is about 0 at
        best for shuffled labels. Of a fitted density, it is the classifier of all fitted samples.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_rows,), default=None
            Class labels, all of them in ``classes_``.

        Returns
        -------
        score : float
            In units of ``base``; higher is better.

        Raises
        ------
        ValueError
            If a label did not occur in :meth:`fit`.
        """
        check_is_fitted(self)
        if y is not None or hasattr(X, "shape"):
            self._check_classes(y)
        states, y = self._new_states(X, y)
        y_encoded = encode_known(y, len(states), self.classes_, states.groups)
        ratios = self.density_.log_ratios(states, y_encoded, self._engine())
        return float(np.mean(ratios) / np.log(self.base))

"""Whether gates depend on the label: `permutation_test`."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities import SATURATED, LayerRanges, as_density
from ..exceptions import SaturationWarning, warn_user
from ..pairwise import Engine, class_sums, gate_information, work_of_class_sums
from ..states import as_states, in_groups
from ..utils.labels import check_labels
from ..utils.samples import Samples
from ..utils.sklearn import Interval, validate_params
from ._base import MEASURE_CONSTRAINTS, draw_seed

# What the masses of a pass may take; distances are computed once for as many permutations.
_MASS_BYTES = 1 << 26
#: The statistics of a layer, in the order of ``layer_statistics``.
STATISTICS = "all gates", "one gate", "wide kernel", "narrow kernel"
# Standard deviations that rounding in single precision may tell equal statistics apart by.
_TOLERANCE = 1e-3
_LONG = 3600


@validate_params(
    {
        "states": "no_validation",
        "groups": "no_validation",
        "y": "no_validation",
        "n_permutations": [Interval(Integral, 1, None, closed="left")],
        **MEASURE_CONSTRAINTS,
        "density": [None, *MEASURE_CONSTRAINTS["density"]],
    },
    prefer_skip_nested_validation=True,
)
def permutation_test(
    states,
    y,
    *,
    groups=None,
    n_permutations=999,
    density=None,
    cv=5,
    budget=60,
    threshold=0.0,
    base=2,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    r"""Test whether gates depend on the label, by permuting the labels.

    With a statistic :math:`Z` of gates and labels, and :math:`Z_b` that of permuted labels,

    .. math::

        p = \frac{1 + \#\{b : Z_b \ge Z\}}{1 + B}

    is valid at every number of samples and of classes: if gates do not depend on the label, it is
    at most :math:`u` with probability :math:`u` or less [1]_. It shows that there is dependence,
    not how much; for bits, see :class:`GatingMI`.

    By default :math:`Z` is the largest of four statistics of a layer, each less its mean and
    divided by its standard deviation over all :math:`1 + B` sets of labels. The same permutations
    serve all four, so that taking the largest needs no other correction [2]_:

    .. math::

        T_1 = \sum_i 2n \, \hat I(\sigma_i; Y), \qquad
        T_2 = \max_i \, 2n \, \hat I(\sigma_i; Y), \qquad
        T_{3, 4} = \sum_c \frac{1}{n_c} \sum_{j \ne k \in c} (k_s(j, k) - \bar k_s), \qquad
        k_s(j, k) = \exp\Big(s \, \frac{\bar D - D_{jk}}{\mathrm{sd}(D)}\Big), \quad s = 1, 2

    The plug-in information of single gates, summed, shows weak shifts of many rates, and its
    maximum strong shifts of a few. The kernels, of the Hamming distances :math:`D_{jk}` of rows,
    show what no rate does, such as an exclusive or; they are the Hilbert-Schmidt criterion with
    classes weighted by their sizes [3]_. Pairs nearer than the average by more than four standard
    deviations count as if by four, and pairs of rows of one sample do not count. For all layers
    together, :math:`Z` is the largest of each layer's and of those of all gates as one layer.
    The p-values of layers are not corrected for the number of layers.

    With a ``density``, the statistic is I(X;Σ;Y) as in :class:`GatingMI` with that density. Where
    it is saturated, any labels give nearly the same value and the test has no power.

    Samples must be independent; ``groups`` say which are not. With them, groups are permuted, and
    where rows are positions, samples: each has all labels of another one. That is exact for one
    label a group (if the number of rows does not depend on it), and for labels of rows if all
    groups have as many. If these differ, labels are cut off or repeated, and the p-value is
    approximate: simulated, it was too large rather than too small.

    Parameters
    ----------
    states : GatingStates, array-like of shape (n_samples, n_gates), or list or dict of these
        Gates read with sampling removed; a list or dict holds one array a layer.
    y : array-like of shape (n_samples,) or (n_rows,)
        Class labels.
    groups : array-like of shape (n_samples,) or (n_rows,), default=None
        As in the ``fit`` of :class:`GatingMI`.
    n_permutations : int, default=999
        B. No p-value is less than 1 / (1 + B).
    density : None, str or estimator with ``fit`` and ``score_samples``, default=None
        None: the statistics above. Otherwise that of :class:`GatingMI`: the kernel density takes
        all permutations in one pass over the pairs; any other is fitted anew for each.
    cv, budget
        As in :class:`GatingEntropy`; used only with a ``density``.
    threshold : float, default=0.0
        As in :class:`GatingEntropy`.
    base : float, default=2
        Unit of the information; used only with a ``density``.
    device : {"auto", "cpu", "cuda"}, default="auto"
        As in :class:`GatingEntropy`, for a ``density``. The statistics above are computed on the
        CPU.
    n_jobs, verbose
        As in :class:`GatingEntropy`.
    random_state : int, RandomState instance or None, default=None
        Seed of the permutations and of folds.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        - ``p_value``: float, of all layers together.
        - ``layer_p_value``: ndarray of shape (n_layers,).

        Without a density:

        - ``statistic``, ``layer_statistic``: :math:`Z`, in standard deviations; float and ndarray
          of shape (n_layers,).
        - ``null_statistic``, ``null_layer_statistic``: those of permuted labels, ndarrays of shape
          (n_permutations,) and (n_permutations, n_layers).
        - ``statistic_names``: tuple of str: all gates, one gate, wide kernel, narrow kernel.
        - ``layer_statistics``: ndarray of shape (n_layers, 4), what :math:`Z` is the largest of.

        With a density, in units of ``base``:

        - ``mi_xy``, ``layer_mi_xy``: the values that were tested.
        - ``null_mi_xy``, ``null_layer_mi_xy``: those of permuted labels, ndarrays of shape
          (n_permutations,) and (n_permutations, n_layers).

    Raises
    ------
    ValueError
        If ``y`` is missing, continuous or of another length, or a parameter is not as described.
    RuntimeError
        If ``device="cuda"`` is not available.

    Warns
    -----
    SaturationWarning
        If the entropy given the label of a kernel density that was asked for is within 1% of the
        ceiling.
    UserWarning
        If the kernels take more than an hour.

    See Also
    --------
    GatingMI : The number of bits, with one shuffle of the labels beside it.

    References
    ----------
    .. [1] B. Phipson, G. K. Smyth, "Permutation P-values Should Never Be Zero", Statistical
       Applications in Genetics and Molecular Biology 9(1), 2010.
    .. [2] P. H. Westfall, S. S. Young, "Resampling-Based Multiple Testing", Wiley, 1993.
    .. [3] A. Gretton et al., "A Kernel Statistical Test of Independence", NIPS 2007.

    Examples
    --------
    Each gate of the first layer shifts a little; in the second layer, the label is the exclusive or
    of two gates:

    >>> import numpy as np
    >>> from skgate import permutation_test
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> pair = rng.integers(0, 2, (200, 1))
    >>> gates = {"shifts": rng.random((200, 50)) < 0.45 + 0.1 * y[:, None],
    ...          "xor": np.hstack([pair, pair ^ y[:, None], rng.integers(0, 2, (200, 4))]),
    ...          "neither": rng.random((200, 50)) < 0.5}
    >>> result = permutation_test(gates, y, n_permutations=199, random_state=0)
    >>> result.layer_p_value.round(3)
    array([0.005, 0.005, 0.445])
    >>> [result.statistic_names[i] for i in result.layer_statistics[:2].argmax(axis=1)]
    ['all gates', 'narrow kernel']
    """
    engine = Engine(device, n_jobs, verbose)
    if density is not None:
        density = as_density(density, budget)
    states = as_states(states, threshold)
    _, y_encoded = check_labels(y, len(states), states.groups)
    states = in_groups(states, groups)
    samples, random_state = Samples(states.groups, len(states)), check_random_state(random_state)
    label_sets = [y_encoded]
    label_sets += [samples.permuted_labels(y_encoded, random_state) for _ in range(n_permutations)]
    if density is None:
        return _test_dependence(states, label_sets, engine)
    options = {"cv": cv, "errors": False, "seed": draw_seed(random_state), "engine": engine}
    return _test_information(states, label_sets, density, base, options)


def _p_value(values, tolerance):
    """Return the p-value of the first of some values, which are along the first axis."""
    # rounding must not tell apart what is equal
    return np.mean(values >= values[0] - tolerance, axis=0)


def _test_dependence(states, label_sets, engine):
    """Return the result for the largest of the `STATISTICS`."""
    states = states.select(slice(None))  # all layers at once, or an error that names their size
    n_classes, ranges = int(label_sets[0].max()) + 1, LayerRanges(len(states.layers))
    label_sets = np.array(label_sets, dtype=np.min_scalar_type(n_classes))
    _announce(len(states), len(ranges), len(label_sets), n_classes)
    sums, largest = gate_information(states, label_sets, engine)  # (n_layers, 1 + n_permutations)
    of_gates = np.stack(
        [ranges.mask @ sums, [largest[layers].max(axis=0) for layers in ranges.mask]]
    )
    of_pairs = class_sums(states, ranges.mask, label_sets, engine)
    scores = _studentised(np.concatenate([of_gates, of_pairs]))  # (4, n_ranges, 1 + n_permutations)
    layer = scores[:, ranges.layers].max(axis=0).T
    joint = scores.max(axis=(0, 1))
    return Bunch(
        p_value=float(_p_value(joint, _TOLERANCE)),
        layer_p_value=_p_value(layer, _TOLERANCE),
        statistic=float(joint[0]),
        layer_statistic=layer[0],
        null_statistic=joint[1:],
        null_layer_statistic=layer[1:],
        statistic_names=STATISTICS,
        layer_statistics=scores[:, ranges.layers, 0].T,
    )


def _studentised(values):
    """Return values less their mean and divided by their spread along the last axis, 0 if none."""
    deviations = values - values.mean(axis=-1, keepdims=True)
    spread = values.std(axis=-1, keepdims=True)
    varies = np.ptp(values, axis=-1, keepdims=True) > _TOLERANCE
    return np.divide(deviations, spread, out=np.zeros_like(values), where=varies)


def _announce(n_rows, n_ranges, n_sets, n_classes):
    seconds = work_of_class_sums(n_rows, n_ranges, n_sets, n_classes) / 1e9
    if seconds > _LONG:
        warn_user(
            f"permutation_test takes about {seconds / _LONG:.0f} hours of one core for the pairs "
            f"of {n_rows} rows and {n_sets - 1} permutations. Pass fewer rows, such as "
            "states[:10_000], or a smaller n_permutations."
        )


def _test_information(states, label_sets, density, base, options):
    """Return the result for I(X;Σ;Y) under a density."""
    ranges = LayerRanges(len(states.layers))
    step = max(1, _MASS_BYTES // (8 * len(ranges) * len(states)))
    means = []
    for start in range(0, len(label_sets), step):
        some = label_sets[start : start + step]
        estimates = density.estimate(states, some, ranges, **options)
        if start == 0:
            _warn_of_saturation(estimates[0], ranges, states)
        means += [e.marginal.mean() - e.given.mean() for e in estimates]
    values = np.array(means) / np.log(base)  # (1 + n_permutations, n_ranges)
    p = _p_value(values, 1e-12)
    return Bunch(
        p_value=float(p[ranges.joint]),
        layer_p_value=p[ranges.layers],
        mi_xy=float(values[0, ranges.joint]),
        layer_mi_xy=values[0, ranges.layers],
        null_mi_xy=values[1:, ranges.joint],
        null_layer_mi_xy=values[1:, ranges.layers],
    )


def _warn_of_saturation(estimate, ranges, states):
    reached = estimate.saturable & (estimate.given.mean() >= SATURATED * estimate.given_ceiling)
    names = [name for name, r in zip(states.layer_names, ranges.layers, strict=True) if reached[r]]
    if reached[ranges.joint] and len(ranges) > 1:
        names.append("all layers together")
    if names and estimate.given_ceiling > 0:
        warn_user(
            f"Saturated: the kernel density tells nearly all rows apart in {', '.join(names)}. "
            "H(Σ|Y) is within 1% of the log n of the classes for any labels, so that the test has "
            "hardly any power there. density=None, the default, has no such ceiling; or take a "
            "larger alpha.",
            SaturationWarning,
        )

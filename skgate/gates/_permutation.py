"""Whether information about the label is more than chance: `permutation_test`."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities import LayerRanges, as_density
from ..pairwise import Engine
from ..states import as_states, in_groups
from ..utils.labels import check_labels
from ..utils.samples import Samples
from ..utils.sklearn import Interval, validate_params
from ._base import MEASURE_CONSTRAINTS, draw_seed

# What the masses of a pass may take; distances are computed once for as many permutations.
_MASS_BYTES = 1 << 26


@validate_params(
    {
        "states": "no_validation",
        "groups": "no_validation",
        "y": "no_validation",
        "n_permutations": [Interval(Integral, 1, None, closed="left")],
        **MEASURE_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def permutation_test(
    states,
    y,
    *,
    groups=None,
    n_permutations=999,
    density="kde",
    cv=5,
    budget=60,
    threshold=0.0,
    base=2,
    device="auto",
    n_jobs=None,
    verbose=0,
    random_state=None,
):
    r"""Return how often permuted labels give as much I(X;Σ;Y) as the labels do.

    The statistic is that of :class:`GatingMI`. Labels are permuted, and

    .. math::

        p = \frac{1 + \#\{b : I_b \ge I\}}{1 + B}

    is the probability of so large a value without any dependence, valid at every number of
    samples, of classes and for any density. Where entropies are saturated, a small p-value shows
    that the labels matter, but not by how many bits.

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
    density : str or estimator with ``fit`` and ``score_samples``, default="kde"
        The kernel density takes all permutations in one pass over the pairs; any other is fitted
        anew for each.
    cv, budget, threshold, base, device, n_jobs, verbose
        As in :class:`GatingEntropy`.
    random_state : int, RandomState instance or None, default=None
        Seed of the permutations and of folds.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        - ``p_value``: float, of all layers together.
        - ``layer_p_value``: ndarray of shape (n_layers,).
        - ``mi_xy``, ``layer_mi_xy``: the values that were tested.
        - ``null_mi_xy``: ndarray of shape (n_permutations,), those of permuted labels.
        - ``null_layer_mi_xy``: ndarray of shape (n_permutations, n_layers).

    Raises
    ------
    ValueError
        If ``y`` is missing, continuous or of another length, or a parameter is not as described.

    See Also
    --------
    GatingMI : The statistic, with one shuffle of the labels beside it.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import permutation_test
    >>> from skgate.densities import Kernel
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> gates = {"depends": rng.random((200, 6)) < 0.3 + 0.4 * y[:, None],
    ...          "does not": rng.random((200, 6)) < 0.5}
    >>> kernel = Kernel(alpha=0.1)
    >>> result = permutation_test(gates, y, density=kernel, n_permutations=99, random_state=0)
    >>> result.layer_p_value.round(2)
    array([0.01, 0.75])
    """
    engine = Engine(device, n_jobs, verbose)
    density = as_density(density, budget)
    states = as_states(states, threshold)
    _, y_encoded = check_labels(y, len(states), states.groups)
    states = in_groups(states, groups)
    samples, random_state = Samples(states.groups, len(states)), check_random_state(random_state)
    label_sets = [y_encoded]
    label_sets += [samples.permuted_labels(y_encoded, random_state) for _ in range(n_permutations)]
    ranges = LayerRanges(len(states.layers))
    options = {"cv": cv, "errors": False, "seed": draw_seed(random_state), "engine": engine}
    step = max(1, _MASS_BYTES // (8 * len(ranges) * len(states)))
    means = []
    for start in range(0, len(label_sets), step):
        estimates = density.estimate(states, label_sets[start : start + step], ranges, **options)
        means += [e.marginal.mean() - e.given.mean() for e in estimates]
    values = np.array(means) / np.log(base)  # (1 + n_permutations, n_ranges)
    value, null = values[0], values[1:]
    # rounding must not tell apart what is equal
    p = (1 + np.sum(null >= value - 1e-12, axis=0)) / (1 + n_permutations)
    return Bunch(
        p_value=float(p[ranges.joint]),
        layer_p_value=p[ranges.layers],
        mi_xy=float(value[ranges.joint]),
        layer_mi_xy=value[ranges.layers],
        null_mi_xy=null[:, ranges.joint],
        null_layer_mi_xy=null[:, ranges.layers],
    )

"""Whether information about the label is more than chance: `permutation_test`."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ..densities._information import conditional_entropy, entropy
from ..densities._kernel import KernelTerms
from ..pairwise import Engine, kernel_masses
from ..states import as_states
from ..utils.labels import check_labels
from ..utils.sklearn import Interval, validate_params
from ._base import KERNEL_CONSTRAINTS

__all__ = ["permutation_test"]

# What the masses of a pass may take; distances are computed once for as many permutations.
_MASS_BYTES = 1 << 26


@validate_params(
    {
        "states": "no_validation",
        "y": "no_validation",
        "n_permutations": [Interval(Integral, 1, None, closed="left")],
        **KERNEL_CONSTRAINTS,
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def permutation_test(
    states,
    y,
    *,
    n_permutations=999,
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
    r"""Return how often labels that mean nothing give as much I(X;Σ;Y) as the labels do.

    The statistic is that of :class:`GatingMI` with ``density="kde"``. Labels are permuted, and

    .. math::

        p = \frac{1 + \#\{b : I_b \ge I\}}{1 + B}

    is the probability of so large a value without any dependence, valid at every number of
    samples, of classes and at any bandwidth. Where entropies are saturated, a small p-value says
    that labels matter, by a number of bits that means nothing.

    Parameters
    ----------
    states : GatingStates, array-like of shape (n_samples, n_gates), or list or dict of these
        Gates read with sampling removed; a list or dict holds one array a layer.
    y : array-like of shape (n_samples,)
        Class labels.
    n_permutations : int, default=999
        B. No p-value is less than 1 / (1 + B).
    alpha : "auto" or float, default="auto"
        See :class:`GatingMI`, as for all parameters below.
    bandwidth : {"variance", "n_gates"} or float, default="variance"
    bound : {"upper", "lower"}, default="upper"
    joint : {"concatenated", "product"}, default="concatenated"
    threshold : float, default=0.0
    base : float, default=2
    device : {"auto", "cpu", "cuda"}, default="auto"
    n_jobs : int, default=None
    verbose : int, default=0
    random_state : int, RandomState instance or None, default=None
        Seed of the permutations.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        - ``p_value``: float, of all layers together.
        - ``layer_p_values``: ndarray of shape (n_layers,).
        - ``mi_xy``, ``layer_mi_xy``: the values that were tested.
        - ``null_mean``, ``layer_null_means``: their means under permuted labels.
        - ``null_mi_xy``: ndarray of shape (n_permutations,).
        - ``layer_null_mi_xy``: ndarray of shape (n_permutations, n_layers).

    Raises
    ------
    ValueError
        If ``y`` is missing, continuous or of another length, or a parameter is not as described.

    See Also
    --------
    gating_mi : The statistic, with one shuffle of the labels beside it.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import permutation_test
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> gates = {"knows": rng.random((200, 6)) < 0.3 + 0.4 * y[:, None],
    ...          "does not": rng.random((200, 6)) < 0.5}
    >>> result = permutation_test(gates, y, alpha=0.1, n_permutations=99, random_state=0)
    >>> result.layer_p_values.round(2)
    array([0.01, 0.75])
    """
    engine = Engine(device, n_jobs, verbose)
    states = as_states(states, threshold)
    _, codes = check_labels(y, len(states))
    random_state = check_random_state(random_state)
    terms = KernelTerms(states, alpha=alpha, bandwidth=bandwidth, bound=bound, joint=joint)
    labelings = [codes] + [random_state.permutation(codes) for _ in range(n_permutations)]
    step = max(1, _MASS_BYTES // (8 * len(terms.weights) * len(states)))
    information = []
    for start in range(0, len(labelings), step):
        some = labelings[start : start + step]
        masses = kernel_masses(states, terms.weights, labelings=some, engine=engine)
        given = [conditional_entropy(masses[:, 1 + i], own) for i, own in enumerate(some)]
        information.append(entropy(masses[:, 0]) - np.array(given))
    values = np.concatenate(information) / np.log(base)  # (1 + n_permutations, n_terms)
    value, null = values[0], values[1:]
    # rounding must not tell apart what is equal
    p = (1 + np.sum(null >= value - 1e-12, axis=0)) / (1 + n_permutations)
    layers, whole = terms.layers, terms.whole
    return Bunch(
        p_value=float(p[whole]),
        layer_p_values=p[layers],
        mi_xy=float(value[whole]),
        layer_mi_xy=value[layers],
        null_mean=float(null[:, whole].mean()),
        layer_null_means=null[:, layers].mean(axis=0),
        null_mi_xy=null[:, whole],
        layer_null_mi_xy=null[:, layers],
    )

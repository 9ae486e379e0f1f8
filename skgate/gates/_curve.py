"""Whether there are enough samples: `entropy_curve`."""

import numpy as np
from sklearn.utils import Bunch

from ..densities import Kernel, LayerRanges, as_density
from ..pairwise import Engine
from ..states import as_states, in_groups
from ..utils.sklearn import StrOptions, validate_params
from ._base import MEASURE_CONSTRAINTS

_NAMES = ("threshold", "base", "device", "n_jobs", "verbose")


@validate_params(
    {
        "states": "no_validation",
        "groups": "no_validation",
        "density": [StrOptions({"kde"}), Kernel],
        **{name: MEASURE_CONSTRAINTS[name] for name in _NAMES},
    },
    prefer_skip_nested_validation=True,
)
def entropy_curve(
    states,
    *,
    groups=None,
    density="kde",
    threshold=0.0,
    base=2,
    device="auto",
    n_jobs=None,
    verbose=0,
):
    """Return how the kernel density entropy of gating states grows with the number of samples.

    An entropy that still grows at the end of the curve measures the number of samples, not the
    network: take more samples, or a fitted density. All sizes come from one pass over the pairs,
    with the bandwidth of all samples. Samples must be independent; ``groups`` say which are not.

    Parameters
    ----------
    states : GatingStates, array-like of shape (n_samples, n_gates), or list or dict of these
        Gates, or pre-activations that are compared with ``threshold``.
    groups : array-like of shape (n_samples,) or (n_rows,), default=None
        As in the ``fit`` of :class:`GatingEntropy`.
    density : "kde" or Kernel, default="kde"
        Kernel density of the states; a fitted density has no such curve at the cost of one.
    threshold, base, device, n_jobs, verbose
        As in :class:`GatingEntropy`.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        - ``n_samples``: ndarray of shape (n_sizes,), sixteenths of the number of samples; with
          ``groups``, of that of groups. Where rows are positions, or with ``groups``, the
          entropies are those of all rows of so many.
        - ``entropy``: ndarray of shape (n_sizes,), of all layers, each the mean over 16
          sub-samples.
        - ``layer_entropy``: ndarray of shape (n_sizes, n_layers).

    Raises
    ------
    ValueError
        If a parameter or the states are not as described.

    See Also
    --------
    gating_entropy : The entropy of all samples, by layer, with standard errors.

    Examples
    --------
    Six fair gates have 6 bits, and 128 samples do not show it:

    >>> import numpy as np
    >>> from skgate import entropy_curve
    >>> gates = np.random.default_rng(0).random((2048, 6)) < 0.5
    >>> curve = entropy_curve(gates)
    >>> curve.n_samples[[0, 3, 15]], curve.entropy[[0, 3, 15]].round(2)
    (array([ 128,  512, 2048]), array([5.58, 5.9 , 5.98]))
    """
    engine = Engine(device, n_jobs, verbose)
    density = as_density(density)
    states = in_groups(as_states(states, threshold), groups)
    ranges = LayerRanges(len(states.layers))
    n_samples, nats = density.growth(states, ranges, engine)
    bits = nats.T / np.log(base)  # (n_sizes, n_ranges)
    return Bunch(n_samples=n_samples, **ranges.named("entropy", bits))

r"""`Autoregressive`: a density that predicts each gate from all before it.

One Cholesky factor :math:`L` of the regularised covariance holds the ridge regressions of all gates
on their predecessors: :math:`\sigma_i - \hat\sigma_i = L_{ii} [L^{-1}(\sigma - \bar\sigma)]_i`.
A logistic curve (Platt scaling), fitted to predictions of held-out samples, makes them
probabilities.
"""

from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

import numpy as np
from scipy.special import expit, logsumexp

from ...states import check_states
from ...utils.sklearn import Interval, check_is_fitted
from .._cross_fitting import FittedDensity
from .._units import are_gates
from ._gate_code import GateCode
from ._linear_autoregression import fit_linear
from ._network_mixture import fit_mixture, seconds_of_networks


class Autoregressive(FittedDensity):
    r"""Gates each of which is regressed on all before it.

    .. math::

        \begin{aligned}
        p(\sigma) &= \prod_i p(\sigma_i \mid \sigma_1, \ldots, \sigma_{i-1}) \\
        p(\sigma_i = 1 \mid \cdot)
            &= \operatorname{logistic}(a_i + b_i (\hat\sigma_i - \bar\sigma_i))
        \end{aligned}

    with :math:`\hat\sigma_i` the ridge regression of gate :math:`i` on its predecessors. Fitting
    takes time with the cube of the number of gates that vary; a few thousand are about the most.
    Several layers are a chain, each given the one before.

    Parameters
    ----------
    hidden : int, default=None
        Number of hidden units of the networks that refine the regressions, such as 512. They see
        interactions, such as an exclusive or, and take up to a minute. ``None``: no networks.
    given_previous : bool, default=True
        Whether a layer is given the one before it in a chain, such as that of
        :class:`~skgate.densities.Auto`. If not, it counts as independent of it there.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    See Also
    --------
    ChowLiu : For more gates.

    Notes
    -----
    With ``hidden``, the density is a mixture of the regressions and of three networks, masked so
    that each predicts the gates in an order of its own, drawn at random [1]_. Each begins at its
    linear solution and has a penalty of its own. A tenth of the samples decides when to stop each,
    and the weights of the mixture, so that it predicts them no worse than the regressions alone;
    then all samples are fitted.

    References
    ----------
    .. [1] M. Germain, K. Gregor, I. Murray, H. Larochelle, "MADE: Masked Autoencoder for
       Distribution Estimation", ICML 2015.

    Examples
    --------
    Twenty gates that follow three numbers:

    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> from skgate.densities import Autoregressive
    >>> rng = np.random.default_rng(0)
    >>> gates = rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 20)) > 0
    >>> measures = [GatingEntropy(density=d, random_state=0) for d in ("product", Autoregressive())]
    >>> [round(measure.fit(gates).entropy_) for measure in measures]
    [20, 8]

    Two coins and whether they differ are two bits, which no regression sees:

    >>> a, b = rng.random((2, 500)) < 0.5
    >>> coins = np.column_stack([a, b, a ^ b])
    >>> measures = [
    ...     GatingEntropy(density=Autoregressive(hidden=hidden), cv=None, random_state=0)
    ...     for hidden in (None, 16)
    ... ]
    >>> [round(measure.fit(coins).entropy_, 1) for measure in measures]
    [3.0, 2.0]
    """

    _parameter_constraints = {
        "hidden": [Interval(Integral, 1, None, closed="left"), None],
        "given_previous": ["boolean"],
    }
    _covers = "prefixes"

    def __init__(self, hidden=None, given_previous=True):
        self.hidden = hidden
        self.given_previous = given_previous

    @property
    def _links(self):
        return self.given_previous

    def conditional_probabilities(self, X):
        r"""Return the probability that each gate is open, given the gates before it in its row.

        The logarithms of the probabilities of a row's gates add up to its
        :meth:`score_samples`. A probability does not depend, but for rounding, on the gate itself
        and those that follow, so that an entropy coder can decode a row gate by gate.

        Parameters
        ----------
        X : GatingStates or array-like of shape (n_samples, n_gates)
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_gates)
            :math:`p(\sigma_i = 1 \mid \sigma_1, \ldots, \sigma_{i-1})`, layers in their order.

        Raises
        ------
        ValueError
            With ``hidden``, whose networks have orders of their own, and for units of several
            gates.

        Examples
        --------
        Of two gates that are always equal, the second follows from the first:

        >>> import numpy as np
        >>> from skgate.densities import Autoregressive
        >>> coin = np.random.default_rng(0).random((1000, 1)) < 0.5
        >>> density = Autoregressive().fit(np.hstack([coin, coin]))
        >>> density.conditional_probabilities([[0, 0], [1, 0]]).round(1)
        array([[0.5, 0. ],
               [0.5, 1. ]])
        """
        check_is_fitted(self)
        if self.hidden is not None:
            raise ValueError(
                f"{self!r} mixes networks that predict the gates in different orders; "
                "conditional_probabilities needs hidden=None."
            )
        if not are_gates(self.layers_):
            several = [layer.name for layer in self.layers_ if not are_gates([layer])]
            raise ValueError(
                f"Units of the layers {several} have several gates, some of which follow from "
                "others; conditional_probabilities needs layers whose units are single gates: "
                "leave these out with states.select."
            )
        states = check_states(self, X, threshold=0.0, layers=self.layers_)
        n_layers = len(self.layers_)
        # the models of single layers come first, then that of all layers in their order
        return self._models[n_layers if n_layers > 1 else 0].probabilities(states)

    def _fit_model(self, states, seed, gpu, n_given=0):
        """Return an `Autoregression` of all layers but the first ``n_given``."""
        code = GateCode(states)
        columns, _ = code.read(states)
        first = code.ends[n_given]
        if first == len(code.columns):
            models, weights = [], np.zeros(0)
        elif self.hidden is None:
            models, weights = [fit_linear(columns, states.groups, first)], np.ones(1)
        else:
            options = states.groups, code, first, self.hidden, seed
            models, weights = fit_mixture(columns, *options)
        return Autoregression(code, n_given, models, weights)

    def _fit_link(self, states, *options):
        alone = self._fit_model(states.select([-1]), *options)
        several = len(states.layers) > 1
        return Link(alone, self._fit_model(states, *options, n_given=1) if several else None)

    def _cost(self, layers, n_rows, n_fits):
        widths = np.cumsum([float(layer.n_gates) for layer in layers[::-1]])
        seconds, n_bytes = 0.0, 0.0
        for width in widths:  # the layer alone, and with the one before
            fit = (14 * n_rows * width**2 + 4 * width**3) / 3.3e10 + 4e-7 * n_rows * width
            score = (n_rows * width**2 / 2.5e10 + 1e-7 * n_rows * width) / n_fits
            if self.hidden is not None:
                fit = 2 * fit + seconds_of_networks(n_rows, width, widths[0], self.hidden)
                score = 4 * score
            seconds += (fit + score) * n_fits / 2  # each of two cores has half
            n_bytes = 8.0 * (4 * width**2 + 7 * n_rows * width)
        return float(seconds), n_bytes


@dataclass
class Autoregression:
    """A mixture of models that predict the gates of layers from those before them.

    Attributes
    ----------
    code : GateCode
    n_given : int
        Layers that are not predicted, the first ones.
    models : list
        With ``logits(columns)`` of the predicted columns.
    weights : ndarray of shape (n_models,)
    """

    code: GateCode
    n_given: int
    models: list
    weights: np.ndarray

    def log_likelihoods(self, states, bounds):
        """Return log p of each range of layers, (n_ranges, n_rows), nats.

        Ranges begin at the first predicted layer, since a gate depends on all before it.
        """
        n_layers = len(states.layers) - self.n_given
        logs = np.zeros((n_layers, len(states)))
        for rows, columns, constant in self.code.blocks(states):
            logs[:, rows] = constant[:, self.n_given :].cumsum(axis=1).T
            if self.models:
                logs[:, rows] += self._of_columns(columns)
        return logs[[stop - 1 for _, stop in bounds]]

    def probabilities(self, states):
        """Return the probability that each gate is open given those before it, (n_rows, n_gates).

        There is one model at most, and no layer is given.
        """
        found = np.tile(self.code.rates, (len(states), 1))
        for rows, columns, _ in self.code.blocks(states):
            for model in self.models:
                found[rows, self.code.columns] = expit(model.logits(columns))
        return found

    def _of_columns(self, columns):
        """Return log p of the columns of the first layers, (n_layers, n_rows)."""
        ends, n_models = self.code.ends[self.n_given :], len(self.models)
        logs = np.empty((n_models, len(ends) - 1, len(columns)))
        for model, own in zip(self.models, logs, strict=True):
            values = columns.log_bernoulli(model.logits(columns), ends[0])
            layers = [values[:, s - ends[0] : t - ends[0]] for s, t in pairwise(ends)]
            own[:] = np.cumsum([x.sum(axis=1) for x in layers], axis=0)
        return logsumexp(logs + np.log(self.weights)[:, None, None], axis=0)


@dataclass
class Link:
    """A layer alone, and given the one before; without it, ``given`` is None."""

    alone: Autoregression
    given: Autoregression | None

    def log_likelihoods(self, states, bounds):
        """Return log p of the layer, and given the one before, (n_terms, n_rows)."""
        only = np.array([(0, 1)])
        logs = [self.alone.log_likelihoods(states.select([-1]), only)]
        if self.given is not None:
            logs.append(self.given.log_likelihoods(states, only))
        return np.concatenate(logs)

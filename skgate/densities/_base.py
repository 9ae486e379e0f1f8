"""`Density`, the base of the densities of gates, and `Estimate`, their answer to a measure."""

from dataclasses import dataclass, field

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin

from ..pairwise import Engine
from ..states import check_states
from ..utils.sklearn import _fit_context, check_is_fitted
from ._ranges import LayerRanges
from ._surprisals import Surprisals


@dataclass
class Estimate:
    """Surprisals of some states, and the density of all of them.

    Attributes
    ----------
    marginal : Surprisals
        Of the states alone.
    given : Surprisals or None
        Given the label; None without labels.
    ceilings : ndarray of shape (..., n_ranges), nats
        No mean of ``marginal`` exceeds these.
    given_ceiling : float
        No mean of ``given`` exceeds this; infinite without labels.
    saturable : ndarray of shape (n_ranges,), dtype bool
        Ranges whose mean is not informative when it is at its ceiling.
    density : Density
        Fitted to all states.
    held_out : bool
        Whether each row was scored by a density that was not fitted to it, so that the mean of
        ``marginal`` is in expectation an upper bound.
    """

    marginal: Surprisals
    given: Surprisals | None
    ceilings: np.ndarray
    saturable: np.ndarray
    density: "Density"
    given_ceiling: float = np.inf
    held_out: bool = False


@dataclass(eq=False)
class LayerChoice:
    """The density of a layer, and what it was chosen from.

    Attributes
    ----------
    density : estimator
    held_out : dict of str to float
        Bits a gate of samples that a density was not fitted to, of each that was tried: of the
        layer, and of the layer given the one before, whose mean decides.
    left_out : dict of str to str
        Why a density was not tried.

    See Also
    --------
    skgate.densities.Auto : Makes the choice.
    """

    density: "Density"
    held_out: dict = field(default_factory=dict)
    left_out: dict = field(default_factory=dict)

    def __eq__(self, other):
        # estimators are equal only to themselves
        return isinstance(other, LayerChoice) and str(self) == str(other)

    __hash__ = None

    def __str__(self):
        tried = [f"{name} {bits:.3f}" for name, bits in self.held_out.items()]
        why = [f"bits a gate: {', '.join(tried)}"] if tried else []
        why += [f"{name}: {reason}" for name, reason in self.left_out.items()]
        return "; ".join([repr(self.density), *why])


class Density(DensityMixin, BaseEstimator):
    """Base of the densities of gates; :mod:`skgate.densities` has the contract."""

    _parameter_constraints = {}

    #: Axes in front of every result, for a density with several values of a parameter.
    lead = ()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the density to gates.

        Parameters
        ----------
        X : GatingStates, array-like or sparse array of shape (n_samples, n_gates)
            A gate is open where ``X > 0``.
        y : Ignored

        Returns
        -------
        self : Density

        Raises
        ------
        ValueError
            If a parameter or ``X`` is not as described.
        """
        self.require_single_values()
        states = check_states(self, X, threshold=0.0, layers=None)
        self.fit_states(states, LayerRanges(len(states.layers)))
        return self

    def layer_choices(self, layers):
        """Return the `LayerChoice` of each layer."""
        return [LayerChoice(self) for _ in layers]

    def require_single_values(self):
        """Raise for a density with several values of a parameter."""
        if self.lead:
            raise ValueError(
                f"{self!r} has several values of a parameter, which only gating_entropy takes. "
                'Give one; to search, GridSearchCV(..., {"density__alpha": [...]}).'
            )

    def score_samples(self, X):
        """Return the log-likelihood of each sample, all layers together.

        Parameters
        ----------
        X : GatingStates or array-like of shape (n_samples, n_gates)
            As in :meth:`fit`.

        Returns
        -------
        log_likelihoods : ndarray of shape (n_samples,), nats
            Their exponentials sum to 1 over all states.
        """
        check_is_fitted(self)
        states = check_states(self, X, threshold=0.0, layers=self.layers_)
        return self.log_marginals(states, Engine())[-1]

    def score(self, X, y=None):
        """Return the mean log-likelihood of the samples.

        Parameters
        ----------
        X : GatingStates or array-like of shape (n_samples, n_gates)
            As in :meth:`fit`.
        y : Ignored

        Returns
        -------
        score : float, nats
        """
        return float(np.mean(self.score_samples(X)))

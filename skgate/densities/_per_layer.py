"""`PerLayer`: a density for each layer, and their chain."""

from fnmatch import fnmatchcase

from sklearn.base import clone

from ._base import LayerChoice
from ._cross_fitting import FittedDensity
from .forests._product import Product
from .labels import class_rate_gains


class PerLayer(FittedDensity):
    r"""A density for each layer; all layers together are a chain.

    .. math::

        \log p(\sigma_1, \ldots, \sigma_L) = \log p(\sigma_1)
            + \sum_{l=2}^{L} \log p(\sigma_l \mid \sigma_{l-1})

    A layer whose density cannot be given the layer before it, such as :class:`ChowLiu`, counts as
    independent of it. Either way, the entropy of all layers is, up to sampling, an upper bound.

    Parameters
    ----------
    densities : dict of str to density
        Densities of :mod:`skgate.densities` by names of layers, or patterns with ``*`` and ``?``,
        the first that matches. Those of one layer, such as the kernel density, are not among them.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    See Also
    --------
    Auto : Chooses the densities; a fitted measure has them as ``density_``, a ``PerLayer``.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import gating_entropy
    >>> from skgate.densities import Autoregressive, PerLayer, Product
    >>> rng = np.random.default_rng(0)
    >>> coins = rng.random((500, 3)) < 0.5
    >>> states = {"coins": coins, "copies": np.tile(coins, 2)}
    >>> density = PerLayer({"coins": Product(), "*": Autoregressive()})
    >>> result = gating_entropy(states, density=density, random_state=0)
    >>> result.layer_entropy.round(), round(result.entropy)
    (array([3., 3.]), 3)
    """

    _parameter_constraints = {"densities": [dict]}
    _covers, _links = "chain", True

    def __init__(self, densities):
        self.densities = densities

    #: What `Auto` chose from.
    _choices = {}

    def layer_choices(self, layers):
        return [self._choices.get(x.name) or LayerChoice(self._of_layer(x)) for x in layers]

    def _of_layer(self, layer):
        for pattern, density in self.densities.items():
            if layer.name == pattern or fnmatchcase(layer.name, pattern):
                return density
        raise ValueError(
            f"PerLayer has no density for layer {layer.name!r}; it has them for "
            f"{list(self.densities)}. Add one for the pattern '*', of all other layers."
        )

    def _validate_params(self):
        super()._validate_params()
        for name, density in self.densities.items():
            if not isinstance(density, FittedDensity):
                raise ValueError(
                    f"PerLayer has {density!r} for {name!r}; need a fitted density of "
                    "skgate.densities: Product(), ChowLiu(), Autoregressive(), Convolutional()."
                )
            density._validate_params()

    def _cost(self, layers, n_rows, n_fits):
        return self._of_layer(layers[-1])._link_cost(layers, n_rows, n_fits)

    def _cross_fit_link(self, states, *options):
        return clone(self._of_layer(states.layers[-1]))._cross_fit_link(states, *options)


class IndependentUnits(PerLayer):
    """Independent units, a layer at a time, and given the label, for the total correlation."""

    def __init__(self):
        super().__init__({"*": Product()})

    def _label_gains(self, states, label_sets, ranges, seed, classifier):
        return [class_rate_gains(states, y, ranges, seed) for y in label_sets]

"""Densities of gates: one contract, a file each.

A density is a scikit-learn estimator (``get_params``, ``clone``) with ``fit(X)`` and
``score_samples(X)``, log-probabilities of rows in nats. Measures ask ours one thing more::

    estimates = density.estimate(states, label_sets, ranges, cv=, errors=, seed=, engine=)

``ranges`` are `LayerRanges`: each layer, prefixes, suffixes, all layers together. There is one
`Estimate` for each set of labels (None: without labels), with

- ``marginal`` and ``given``: `Surprisals`, -log p(σ) and -log p(σ|y) of each row in each range. A
  difference of two is that of the entropies, and has its own standard error. A fitted density has
  log p(σ|y) = log p(σ) + log q(y|σ) / p(y), with the classifier q of `labels`;
- ``ceilings`` and ``saturable``: bounds of the estimator, and where reaching one means nothing;
- ``density``: fitted to all rows; ``log_marginals`` and ``log_ratios`` score new rows.

``independent()`` returns the density that independent units would have. A measure is a formula:

    H(Σ) = marginal          I(X;Σ;Y) = marginal - given          TC(Σ) = independent - marginal

`Kernel` answers in-sample, as published. All others derive from `FittedDensity`, which cross-fits:
rows are scored by a density that was not fitted to them. **A new density** is a file with a
subclass that has ``_fit_model``, and a name in `NAMED`. Any other
estimator with ``fit`` and ``score_samples`` is wrapped by `as_density`.

    _ranges  _surprisals          what the answers are made of
    _state_numbers                which rows are in the same state
    _units  _rates                variables, and rates with a prior that a layer's have in common
    _base                         Density, Estimate
    kernel/                       the paper's, in-sample
    labels/                       what gates tell about labels
    _cross_fitting                FittedDensity, of which all others are
    forests/  autoregression/  convolution/
    _foreign                      an estimator of somebody else's
    _per_layer --> _auto          a density for each layer, and the choice of them
    _coincidences  _betting       lower and upper ends --> _intervals
"""

from sklearn.base import clone

from ._auto import Auto
from ._base import Density, LayerChoice
from ._foreign import ForeignDensity
from ._intervals import Intervals
from ._per_layer import PerLayer
from ._ranges import LayerRanges
from ._surprisals import conditional_entropy, entropy
from .autoregression._autoregressive import Autoregressive
from .convolution._convolutional import Convolutional
from .forests._chow_liu import ChowLiu
from .forests._product import Product
from .kernel._kernel import Kernel, kernel_weights
from .kernel._saturation import SATURATED, flag_saturated

__all__ = [
    "NAMED",
    "SATURATED",
    "Auto",
    "Autoregressive",
    "ChowLiu",
    "Convolutional",
    "Intervals",
    "Kernel",
    "LayerChoice",
    "LayerRanges",
    "PerLayer",
    "Product",
    "as_density",
    "conditional_entropy",
    "entropy",
    "flag_saturated",
    "kernel_weights",
]

#: What the strings stand for.
NAMED = {
    "auto": Auto,
    "kde": Kernel,
    "product": Product,
    "chow-liu": ChowLiu,
    "convolutional": Convolutional,
    "autoregressive": Autoregressive,
}


def as_density(density, budget=60, *, several=False):
    """Return a new density for the parameters of a measure; ``several`` allows grids of values."""
    if isinstance(density, str):
        return Auto(budget) if density == "auto" else NAMED[density]()
    if isinstance(density, type):
        name = density.__name__
        raise TypeError(f"Got the class {name} as density; need an instance, {name}(...).")
    if not isinstance(density, Density):
        return ForeignDensity(clone(density, safe=False))
    density._validate_params()
    if not several:
        density.require_single_values()
    return clone(density)

"""The names of all quantities, in one table that records and plots read.

Fitted attributes are called ``[shuffled_][layer_|prefix_|suffix_]quantity[_se]_``: ``entropy_`` of
all layers together, ``layer_entropy_se_``, ``shuffled_suffix_mi_xy_``. ``shuffled_`` marks values
with shuffled labels, ``_se`` standard errors. Keys of records leave out ``layer_``, since each
record is of one layer, or of all together.
"""

from itertools import product
from typing import NamedTuple

#: Name of a quantity -> its symbol and meaning. Of layer measures, Σ is the layer's variable T.
QUANTITIES = {
    "entropy": ("H", "entropy of the gating states"),
    "total_correlation": ("TC", "total correlation of the gates"),
    "independent_entropy": ("C", "entropy that independent gates would have"),
    "mi_x": ("I(X;Σ)", "information about the input"),
    "mi_y": ("I(Y;Σ)", "information about the label"),
    "mi_xbar": ("I(X̄;Σ)", "information about the input that is not about the label"),
    "mi_xy": ("I(X;Σ;Y)", "information about the input that is about the label"),
    "conditional_entropy": ("H(Σ|Y)", "entropy given the label"),
    "conditional_total_correlation": ("TC(Σ|Y)", "total correlation given the label"),
    "conditional_independent_entropy": ("C(Σ|Y)", "entropy of independent gates given the label"),
    "ceiling": ("ceiling", "largest value that the estimator can reach"),
    "saturated": ("saturated", "whether a value is at its ceiling and not informative"),
}
#: Layers that one value of a fitted array covers.
SCOPES = {"layer_": "of each layer", "prefix_": "up to each layer", "suffix_": "from each layer on"}


class Column(NamedTuple):
    """A key of the records: what it stands for, and the fitted attributes that hold it."""

    symbol: str
    meaning: str
    scope: str
    layers: str  # attribute with one value a layer
    network: str | None  # attribute with the value of all layers; None for prefixes and suffixes


def _columns():
    for quantity, (symbol, meaning) in QUANTITIES.items():
        variants = product(("", "_se"), ("", "shuffled_"), SCOPES.items())
        for se, shuffled, (prefix, scope) in variants:
            key = f"{shuffled}{prefix.replace('layer_', '')}{quantity}{se}"
            layers = f"{shuffled}{prefix}{quantity}{se}_"
            network = f"{key}_" if prefix == "layer_" else None
            yield key, Column(symbol, meaning, scope, layers, network)


COLUMNS = dict(_columns())

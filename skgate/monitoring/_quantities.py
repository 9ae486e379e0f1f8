"""The names of all quantities, in one table that records and plots read.

Fitted attributes are called ``[shuffled_][layer_|prefix_|suffix_]quantity[_se|_corrected]_``:
``entropy_`` of all layers together, ``layer_entropy_se_``, ``shuffled_suffix_mi_xy_``.
``shuffled_`` marks values with shuffled labels, ``_se`` standard errors, ``_corrected`` values less
their bias. Keys of records leave out ``layer_``, since each record is of one layer, or of all
together.
"""

from itertools import product
from typing import NamedTuple

#: Name of a quantity -> its symbol.
QUANTITIES = {
    "entropy": "H",
    "total_correlation": "TC",
    "independent_entropy": "C",  # the entropy that independent gates would have
    "mi_x": "I(X;Σ)",  # about the input; of a layer's activations, I(X;T)
    "mi_y": "I(Y;T)",  # about the label
    "mi_xbar": "I(X̄;T)",  # about the input, and not about the label
    "mi_xy": "I(X;Σ;Y)",  # about the input, and about the label
    "conditional_entropy": "H(Σ|Y)",
    "conditional_total_correlation": "TC(Σ|Y)",
    "conditional_independent_entropy": "C(Σ|Y)",
    "ceiling": "ceiling",  # the largest value that the estimator can reach
    "saturated": "saturated",  # whether a value is at its ceiling and not informative
}
#: Layers that one value of a fitted array covers.
SCOPES = {"layer_": "of each layer", "prefix_": "up to each layer", "suffix_": "from each layer on"}


class Column(NamedTuple):
    """A key of the records: what it stands for, and the fitted attributes that hold it."""

    symbol: str
    scope: str
    layers: str  # attribute with one value a layer
    network: str | None  # attribute with the value of all layers; None for prefixes and suffixes


def _columns():
    for quantity, symbol in QUANTITIES.items():
        variants = product(("", "_se", "_corrected"), ("", "shuffled_"), SCOPES.items())
        for se, shuffled, (prefix, scope) in variants:
            key = f"{shuffled}{prefix.replace('layer_', '')}{quantity}{se}"
            layers = f"{shuffled}{prefix}{quantity}{se}_"
            network = f"{key}_" if prefix == "layer_" else None
            yield key, Column(symbol, scope, layers, network)


COLUMNS = dict(_columns())


def symbol_of(key, records):
    """Return the symbol of a quantity in the records of one measure."""
    of_activations = "mi_y" in records[0]
    return COLUMNS[key].symbol.replace("Σ", "T") if of_activations else COLUMNS[key].symbol

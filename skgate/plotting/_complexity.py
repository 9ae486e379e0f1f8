"""`ComplexityDisplay`: entropies of layers, and their curves while a network trains."""

import numpy as np

from ..densities import Kernel
from ..monitoring import records_of
from ..monitoring._quantities import COLUMNS, symbol_of
from ..utils.sklearn import check_is_fitted
from ._drawing import (
    by_layer,
    check_records,
    choose_measure,
    column,
    drawing,
    points,
    steps_of,
    style,
    unit,
)

WHOLE = "all layers"
#: The flag for values of the same layers.
FLAGS = {COLUMNS[key].scope: key for key in ("saturated", "prefix_saturated", "suffix_saturated")}
CEILING = {"linestyle": "none", "marker": "|", "markersize": 9, "color": "0.4", "label": "ceiling"}
NETWORK = {"color": "black", "linestyle": "-", "marker": "h"}


class ComplexityDisplay:
    """Entropies of the layers of a network, or their curves while it trains.

    For one step, a row for each layer, the first one on top, with standard errors and the ceilings
    of the kernel density. For several steps, a curve for each layer. Hollow points are saturated
    and not informative.

    Parameters
    ----------
    records : list of dict
        As in ``history_`` of a :class:`ComplexityMonitor`.
    measure : str, default=None
        Name of the measure to draw; needed if several have the quantity.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : dict of str to matplotlib.lines.Line2D
        The curve of each layer and of ``"all layers"``; for one step, the values and row positions
        of each quantity.

    See Also
    --------
    ComplexityMonitor : Makes the records.
    InformationPlaneDisplay : Two quantities against each other.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import ComplexityDisplay, GatingEntropy, GatingStates
    >>> rng = np.random.default_rng(0)
    >>> states = GatingStates.from_arrays(
    ...     {"first": rng.normal(size=(500, 6)), "second": rng.normal(size=(500, 3))})
    >>> display = ComplexityDisplay.from_estimator(GatingEntropy().fit(states))
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['first', 'second', 'all layers']
    """

    def __init__(self, records, *, measure=None):
        self.records = records
        self.measure = measure

    @classmethod
    def from_estimator(cls, estimator, *, quantities="entropy", ax=None):
        """Draw the entropies of a fitted measure.

        Parameters
        ----------
        estimator : GatingEntropy or TotalCorrelation
        quantities : str or list of str, default="entropy"
            ``"entropy"``, ``"prefix_entropy"``, ``"suffix_entropy"``, or another quantity in the
            records of a :class:`ComplexityMonitor`.
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : ComplexityDisplay
        """
        check_is_fitted(estimator)
        records = records_of(estimator)
        if not isinstance(getattr(estimator, "density_", None), Kernel):
            for record in records:
                record.pop("ceiling", None)  # the number of gates, which is far off
        return cls(records).plot(ax=ax, quantities=quantities)

    @classmethod
    def from_history(cls, history, *, measure=None, quantity="entropy", ax=None):
        """Draw a curve for each layer, and one for the whole network, over the steps.

        Parameters
        ----------
        history : list of dict
            ``history_`` of a :class:`ComplexityMonitor`, or the result of its ``read``.
        measure : str, default=None
            Name of the measure to draw; needed if several have the quantity.
        quantity : str, default="entropy"
            Any quantity in the records.
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : ComplexityDisplay
        """
        return cls(history, measure=measure).plot(ax=ax, quantities=quantity)

    def plot(self, ax=None, *, quantities="entropy"):
        """Draw the records.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.
        quantities : str or list of str, default="entropy"
            A single quantity if there are several steps.

        Returns
        -------
        display : ComplexityDisplay
        """
        quantities = [quantities] if isinstance(quantities, str) else list(quantities)
        records = choose_measure(check_records(self.records), self.measure, {quantities[0]})
        n_layers = len(by_layer(records))
        if len(steps_of(records)) == 1:
            for quantity in quantities[1:]:
                choose_measure(records, None, {quantity})
            draw = self._draw_rows
            height = 0.9 + max(n_layers, 3) * (0.13 + 0.07 * len(quantities))
        elif len(quantities) == 1:
            draw = self._draw_curves
            height = max(2.4, 0.6 + 0.155 * n_layers)
        else:
            raise ValueError(f"quantities={quantities!r}; choose one, as there are several steps.")
        with drawing(ax, height=height) as (self.figure_, (self.ax_,)):
            draw(records, quantities)
        return self

    def _draw_rows(self, records, quantities):
        ax, self.lines_ = self.ax_, {}
        names = [WHOLE if r["layer"] is None else r["layer"] for r in records]
        rows = np.arange(len(records))
        if "ceiling" in records[0] and "entropy" in quantities:
            ax.plot(column(records, "ceiling"), rows, **CEILING)
        for i, quantity in enumerate(quantities):
            shifted = rows + 0.25 * (i - (len(quantities) - 1) / 2)
            looks = {key: style(i)[key] for key in ("color", "marker")}
            values, errors = column(records, quantity), column(records, f"{quantity}_se")
            ax.errorbar(values, shifted, xerr=errors, fmt="none", ecolor=looks["color"], lw=1)
            flag = FLAGS[COLUMNS[quantity].scope]
            full, open_ = points(ax, values, shifted, records, flag=flag, **looks)
            full.set_label(f"{symbol_of(quantity, records)} {COLUMNS[quantity].scope}")
            if len(open_.get_xdata()):
                open_.set_label("saturated")
            (self.lines_[quantity],) = ax.plot(values, shifted, linestyle="none")
        ax.set_yticks(rows, names)
        ax.set(xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
        ax.grid(axis="y", linewidth=0.4, alpha=0.5)
        symbols = ", ".join(dict.fromkeys(symbol_of(quantity, records) for quantity in quantities))
        ax.set_xlabel(f"{symbols} [{unit(records[0]['base'])}]")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)

    def _draw_curves(self, records, quantities):
        ax, self.lines_, (quantity,) = self.ax_, {}, quantities
        for i, (layer, rows) in enumerate(by_layer(records).items()):
            looks = style(i) if layer is not None else {**style(i), **NETWORK}
            steps, values, errors = (column(rows, k) for k in ("step", quantity, f"{quantity}_se"))
            ax.errorbar(steps, values, errors, fmt="none", ecolor=looks["color"], lw=1)
            name = WHOLE if layer is None else layer
            (self.lines_[name],) = ax.plot(steps, values, **{**looks, "marker": ""})
            full, _ = points(ax, steps, values, rows, color=looks["color"], marker=looks["marker"])
            full.set(linestyle="none")
            ax.plot([], [], label=name, **looks)
        if any(r.get("saturated") for r in records):
            ax.plot([], [], "o", color="0.4", markerfacecolor="white", label="saturated")
        # a change of 1% is to look like one
        low, high = ax.get_ylim()
        short = max(0.0, 0.1 * max(abs(low), abs(high)) - (high - low))
        ax.set_ylim(low - short / 2, high + short / 2)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="step", ylabel=f"{symbol_of(quantity, records)} [{unit(records[0]['base'])}]")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False)

"""`InformationPlaneDisplay`: information of each layer about the input and about the label."""

import numpy as np

from ..monitoring import records_of
from ..monitoring._quantities import symbol_of
from ..utils.sklearn import check_is_fitted
from ._drawing import (
    COLORS,
    MARKERS,
    WIDTH,
    by_layer,
    check_records,
    choose_measure,
    column,
    drawing,
    hollow,
    steps_of,
    unit,
)

#: Pairs of quantities, of which the first that the records have is drawn.
PAIRS = [("mi_x", "mi_y"), ("mi_x", "mi_xy")]


class InformationPlaneDisplay:
    """Information of each layer about the input against that about the label.

    For one step, a point for each layer; for several, a path for each layer, from dark to light.
    Hollow points are saturated and not informative.

    Parameters
    ----------
    histories : list of dict, or dict of str to list of dict
        Records as in ``history_`` of a :class:`ComplexityMonitor`; for several networks, a dict
        with their names.
    measure : str, default=None
        Name of the measure to draw; needed if several have the quantities.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes, or ndarray of these
        An array if ``histories`` is a dict, one axes for each network.
    figure_ : matplotlib.figure.Figure
    paths_ : dict of str to ndarray of shape (n_steps, 2)
        The drawn values by layer; if ``histories`` is a dict, by network and layer.

    See Also
    --------
    GibbsLayerMI, BinnedLayerMI, KDELayerMI, GatingMI : Measures that can be drawn.
    ComplexityMonitor : Makes histories.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import GibbsLayerMI, InformationPlaneDisplay
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 3, 300)
    >>> layers = {"first": 9 * rng.random((300, 8)), "last": 9 * np.eye(3)[y]}
    >>> display = InformationPlaneDisplay.from_estimator(GibbsLayerMI().fit(layers, y))
    >>> display.paths_["last"].round(1)
    array([[1.6, 1.6]])
    >>> display.ax_.get_xlabel()
    'I(X;T) [bits]'
    """

    def __init__(self, histories, *, measure=None):
        self.histories = histories
        self.measure = measure

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the layers of a fitted measure.

        Parameters
        ----------
        estimator : GibbsLayerMI, BinnedLayerMI, KDELayerMI or GatingMI
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : InformationPlaneDisplay
        """
        check_is_fitted(estimator)
        return cls(records_of(estimator)).plot(ax=ax)

    @classmethod
    def from_history(cls, history, *, measure=None, ax=None):
        """Draw the path of each layer while one network, or several, train.

        Parameters
        ----------
        history : list of dict, or dict of str to list of dict
            ``history_`` of a :class:`ComplexityMonitor`, or the result of its ``read``; for several
            networks, a dict with their names.
        measure : str, default=None
            Name of the measure to draw; needed if several have the quantities.
        ax : matplotlib.axes.Axes or array of these, default=None
            One for each network; a new figure by default.

        Returns
        -------
        display : InformationPlaneDisplay
        """
        return cls(history, measure=measure).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the records.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            One for each network; a new figure by default.

        Returns
        -------
        display : InformationPlaneDisplay
        """
        one = not isinstance(self.histories, dict)
        planes, pairs = {}, set()
        for title, records in ({"": self.histories} if one else self.histories).items():
            pair, planes[title] = self._chosen(check_records(records))
            pairs.add((*pair, planes[title][0]["base"]))
        if len(pairs) != 1:
            raise ValueError(f"The histories hold different quantities: {sorted(pairs)}.")
        ((x, y, base),) = pairs
        steps = sorted({step for records in planes.values() for step in steps_of(records)})
        shape = (-(-len(planes) // 2), min(len(planes), 2))
        size = {"height": 2.6 * shape[0], "width": WIDTH * shape[1], "shape": shape}
        records = next(iter(planes.values()))
        xlabel, ylabel = (f"{symbol_of(key, records)} [{unit(base)}]" for key in (x, y))
        self.paths_ = {}
        with drawing(ax, len(planes), **size, sharex=True, sharey=True) as (self.figure_, found):
            for axis, (title, records) in zip(found, planes.items(), strict=True):
                self.paths_[title] = self._draw(axis, records, x, y, steps)
                axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
                axis.tick_params(labelbottom=True)
            self._legend(found, planes, steps)
        self.ax_ = found[0] if one else np.array(found, dtype=object)
        self.paths_ = self.paths_[""] if one else self.paths_
        return self

    def _chosen(self, records):
        """Return the quantities to draw, and the records of each layer that have them."""
        records = [record for record in records if record["layer"] is not None]
        pairs = {r["measure"]: pair for r in records for pair in PAIRS if set(pair) <= r.keys()}
        if self.measure is None and len(pairs) > 1:
            raise ValueError(f"Several measures can be drawn: {list(pairs)}. Choose measure=...")
        pair = pairs.get(self.measure, next(iter(pairs.values() or PAIRS)))
        return pair, choose_measure(records, self.measure, set(pair))

    def _draw(self, ax, records, x, y, steps):
        """Draw one network; return its paths, (n_steps, 2), by layer."""
        paths = {}
        for i, (layer, rows) in enumerate(by_layer(records).items()):
            marker = MARKERS[i % len(MARKERS)]
            xs, ys = column(rows, x), column(rows, y)
            paths[layer] = np.column_stack([xs, ys])
            if len(steps) > 1:
                ax.plot(xs, ys, color="0.7", linewidth=0.7, zorder=1)
                colors = self._scale(steps).to_rgba(column(rows, "step"))
            else:
                colors = [COLORS[i % len(COLORS)]] * len(rows)
                errors = [column(rows, f"{key}_se") for key in (y, x)]
                ax.errorbar(xs, ys, *errors, fmt="none", ecolor=colors[0], linewidth=1)
            faces = ["white" if h else c for c, h in zip(colors, hollow(rows), strict=True)]
            ax.scatter(xs, ys, s=16, marker=marker, c=faces, edgecolors=colors, zorder=3)
        return paths

    @staticmethod
    def _scale(steps):
        from matplotlib import cm, colormaps, colors

        return cm.ScalarMappable(colors.Normalize(steps[0], steps[-1]), colormaps["viridis"])

    def _legend(self, found, planes, steps):
        layers = list(dict.fromkeys(r["layer"] for rows in planes.values() for r in rows))
        ax = found[min(len(found), 2) - 1]
        for i, layer in enumerate(layers):
            color = "0.3" if len(steps) > 1 else COLORS[i % len(COLORS)]
            looks = {"marker": MARKERS[i % len(MARKERS)], "linestyle": "none", "color": color}
            ax.plot([], [], label=layer, **looks)
        if any(r.get("saturated") for rows in planes.values() for r in rows):
            ax.plot([], [], "o", color="0.4", markerfacecolor="white", label="saturated")
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02))
        if len(steps) > 1:
            bar = {"location": "bottom", "aspect": 30, "pad": 0.02}
            self.figure_.colorbar(self._scale(steps), ax=list(found), label="step", **bar)

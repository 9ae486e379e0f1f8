"""`InformationPlaneDisplay` and `EntanglementDisplay`: two quantities of each layer."""

import numpy as np

from ..monitoring import records_of
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

__all__ = ["EntanglementDisplay", "InformationPlaneDisplay"]


class _Plane:
    """Two quantities against each other, a path a layer; one axes a network."""

    #: Pairs of quantities, the first that the records have, and what they are called.
    _pairs = {}

    def __init__(self, histories, *, measure=None):
        self.histories = histories
        self.measure = measure

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the layers of a fitted measure.

        Parameters
        ----------
        estimator : fitted measure
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display
        """
        check_is_fitted(estimator)
        return cls(records_of(estimator)).plot(ax=ax)

    @classmethod
    def from_history(cls, history, *, measure=None, ax=None):
        """Draw the path of each layer while a network, or several, train.

        Parameters
        ----------
        history : list of dict, or dict of str to list of dict
            ``history_`` of a :class:`ComplexityMonitor`, or what its ``read`` returns; of several
            networks by their names.
        measure : str, default=None
            Name of the measure to draw; needed where several have the quantities.
        ax : matplotlib.axes.Axes or array of these, default=None
            One a network; a new figure by default.

        Returns
        -------
        display
        """
        return cls(history, measure=measure).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the records.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array of these, default=None
            One a network; a new figure by default.

        Returns
        -------
        display
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
        n = len(planes)
        shape = (-(-n // 2), min(n, 2))
        wide = WIDTH if n == 1 else 2 * WIDTH
        size = {"height": 2.6 * shape[0], "width": wide, "shape": shape}
        labels = [f"{name} [{unit(base)}]" for name in self._pairs[x, y]]
        self.paths_ = {}
        with drawing(ax, n, **size, sharex=True, sharey=True) as (self.figure_, found):
            for axis, (title, records) in zip(found, planes.items(), strict=True):
                self.paths_[title] = self._draw(axis, records, x, y, steps)
                axis.set(title=title, xlabel=labels[0], ylabel=labels[1])
                axis.tick_params(labelbottom=True)
            for axis in found:  # when all have their limits
                self._background(axis)
            self._legend(found, planes, steps)
        self.ax_ = found[0] if one else np.array(found, dtype=object)
        self.paths_ = self.paths_[""] if one else self.paths_
        return self

    def _chosen(self, records):
        """Return the quantities to draw, and the records of each layer that have them."""
        records = [record for record in records if record["layer"] is not None]
        pairs = {
            r["measure"]: pair for r in records for pair in self._pairs if set(pair) <= r.keys()
        }
        if self.measure is None and len(pairs) > 1:
            raise ValueError(f"Several measures can be drawn: {list(pairs)}. Choose measure=...")
        first = next(iter(pairs.values() or self._pairs))
        pair = pairs.get(self.measure, first)
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
            faces = [
                "white" if empty else color
                for color, empty in zip(colors, hollow(rows), strict=True)
            ]
            ax.scatter(xs, ys, s=16, marker=marker, c=faces, edgecolors=colors, zorder=3)
        return paths

    @staticmethod
    def _scale(steps):
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        return ScalarMappable(Normalize(steps[0], steps[-1]), colormaps["viridis"])

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

    def _background(self, ax):
        """Draw what there is besides the layers."""


class InformationPlaneDisplay(_Plane):
    """Information of each layer about the input against that about the label.

    Of one step, a point a layer; of several, a path a layer, from dark to light. Points are hollow
    where they are saturated and say nothing.

    Parameters
    ----------
    histories : list of dict, or dict of str to list of dict
        Records as in ``history_`` of a :class:`ComplexityMonitor`; of several networks by name.
    measure : str, default=None
        Name of the measure to draw; needed where several have the quantities.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes, or ndarray of these
        An array where ``histories`` is a dict, one a network.
    figure_ : matplotlib.figure.Figure
    paths_ : dict of str to ndarray of shape (n_steps, 2)
        What is drawn, by layer; where ``histories`` is a dict, by network and layer.

    See Also
    --------
    GibbsLayerMI, BinnedLayerMI, KDELayerMI, GatingMI : What is drawn.
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

    _pairs = {
        ("mi_x", "mi_y"): ("I(X;T)", "I(Y;T)"),
        ("mi_x", "mi_xy"): ("I(X;Σ)", "I(X;Σ;Y)"),
    }


class EntanglementDisplay(_Plane):
    """Entropy of each layer against its total correlation.

    Dotted lines join what has the same sum, the entropy C = H + TC that independent gates would
    have: along one of them, gates with the same activation rates are entangled more or less. Of
    several steps, a path a layer, from dark to light.

    Parameters
    ----------
    histories : list of dict, or dict of str to list of dict
        Records as in ``history_`` of a :class:`ComplexityMonitor`; of several networks by name.
    measure : str, default=None
        Name of the measure to draw; needed where several have the quantities.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes, or ndarray of these
        An array where ``histories`` is a dict, one a network.
    figure_ : matplotlib.figure.Figure
    paths_ : dict of str to ndarray of shape (n_steps, 2)
        What is drawn, by layer; where ``histories`` is a dict, by network and layer.

    See Also
    --------
    TotalCorrelation : What is drawn.
    ComplexityDisplay : The entropies alone.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import EntanglementDisplay, TotalCorrelation
    >>> three = np.random.default_rng(0).integers(0, 2, size=(2000, 3))
    >>> measure = TotalCorrelation(alpha=0.02).fit(np.hstack([three, three]))
    >>> EntanglementDisplay.from_estimator(measure).paths_["layer0"].round(1)
    array([[3., 3.]])
    """

    _pairs = {("entropy", "total_correlation"): ("H", "TC")}

    def _background(self, ax):
        from matplotlib.ticker import MaxNLocator

        ax.set(xlim=(0, None), ylim=(0, None))
        (_, right), (_, top) = ax.get_xlim(), ax.get_ylim()
        for total in MaxNLocator(5).tick_values(0, right + top):
            if not 0 < total < right + top:
                continue
            ax.axline((total, 0), slope=-1, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
            # at the left or upper edge
            x = max(0.0, total - top)
            ax.annotate(
                f"{total:g}", (x, total - x), xytext=(2, -2), textcoords="offset points",
                color="0.4", fontsize=6, va="top",
            )  # fmt: skip
        ax.set(xlim=(0, right), ylim=(0, top))

"""`ActivationRateDisplay`: in how many samples the gates of each layer are open."""

import numpy as np

from ..states import GatingStates
from ..utils.sklearn import check_is_fitted
from ._drawing import drawing

__all__ = ["ActivationRateDisplay"]


class ActivationRateDisplay:
    """Histograms of the activation rates of gates, a row a layer.

    The shade of a cell is the share of the layer's gates. Gates at the ends are open, or closed, in
    hardly any sample, and have little entropy; those that never change are counted beside the row.

    Parameters
    ----------
    rates : dict of str to array-like of shape (n_gates,)
        Share of samples in which each gate is open, by layer.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    shares_ : ndarray of shape (n_layers, n_bins)
        What is drawn: a row sums to 1.
    constant_ : ndarray of shape (n_layers,)
        Share of the gates whose rate is 0 or 1.

    See Also
    --------
    GatingStates : Has the rates.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import ActivationRateDisplay, GatingStates
    >>> gates = np.random.default_rng(0).random((500, 40)) < np.linspace(0, 0.5, 40)
    >>> states = GatingStates.from_arrays({"relu": gates})
    >>> display = ActivationRateDisplay.from_states(states, bins=4)
    >>> display.shares_.round(2), display.constant_
    (array([[0.52, 0.48, 0.  , 0.  ]]), array([0.025]))
    """

    def __init__(self, rates):
        self.rates = rates

    @classmethod
    def from_estimator(cls, estimator, *, bins=20, ax=None):
        """Draw the rates of the states that a measure was fitted to.

        Parameters
        ----------
        estimator : GatingEntropy, GatingMI or TotalCorrelation
        bins : int, default=20
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : ActivationRateDisplay
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "states_"):
            raise ValueError(
                f"{type(estimator).__name__} has no gating states; need a fitted GatingEntropy, "
                "GatingMI or TotalCorrelation."
            )
        return cls.from_states(estimator.states_, bins=bins, ax=ax)

    @classmethod
    def from_states(cls, states, *, bins=20, ax=None):
        """Draw the rates of gating states.

        Parameters
        ----------
        states : GatingStates
        bins : int, default=20
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : ActivationRateDisplay
        """
        if not isinstance(states, GatingStates):
            raise ValueError(f"Got {type(states).__name__}; need GatingStates.")
        rates = dict(zip(states.layer_names, states.activation_rates(), strict=True))
        return cls(rates).plot(ax=ax, bins=bins)

    def plot(self, ax=None, *, bins=20):
        """Draw the rates.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.
        bins : int, default=20

        Returns
        -------
        display : ActivationRateDisplay
        """
        edges = np.linspace(0, 1, bins + 1)
        rates = {name: np.asarray(values, dtype=float) for name, values in self.rates.items()}
        self.shares_ = np.array([np.histogram(r, edges)[0] / len(r) for r in rates.values()])
        self.constant_ = np.array([np.mean((r == 0) | (r == 1)) for r in rates.values()])
        n_layers = len(rates)
        rows, edge_rows = np.arange(n_layers), np.arange(n_layers + 1) - 0.5
        with drawing(ax, height=1.2 + 0.2 * n_layers) as (self.figure_, (self.ax_,)):
            mesh = self.ax_.pcolormesh(edges, edge_rows, self.shares_, cmap="Blues", vmin=0)
            self.ax_.set_yticks(rows, list(rates))
            self.ax_.set_ylim(n_layers - 0.5, -0.5)
            self.ax_.set_xlabel("activation rate")
            beside = {"textcoords": "offset points", "annotation_clip": False}
            for row, share in zip(rows, self.constant_, strict=True):
                self.ax_.annotate(f"{share:.0%}", (1, row), xytext=(3, 0), va="center", **beside)
            self.ax_.annotate(
                "constant", (1, -0.5), xytext=(3, 2), va="bottom", ha="center", **beside
            )
            bar = {"location": "bottom", "aspect": 30, "label": "share of the layer's gates"}
            self.figure_.colorbar(mesh, ax=self.ax_, **bar)
        return self

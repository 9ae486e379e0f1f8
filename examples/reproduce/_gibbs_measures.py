"""Measures, statements and plots that the scripts on the Gibbs paper share."""

import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
from _gibbs_networks import EPOCHS, cache, oriented_images, train_oriented
from _reproduction import at_least, show
from matplotlib.figure import Figure

from skgate import SaturationWarning, binned_layer_mi, gibbs_layer_mi, kde_layer_mi

BIN_SIZES = [0.001, 0.01, 0.1, 1.0, 2.0, 4.0, 6.0, 8.0]  # Table 3
NOISE_VARIANCES = [0.01, 0.05, 0.1, 1.0, 2.0, 4.0, 8.0, 16.0]
H_X, H_Y = 2.0, 1.0  # of the oriented images, in bits
LAYERS = ["T_1", "T_2", "Y_hat"]
LABELS = ["$T_1$", "$T_2$", "$T_3$", r"$\hat Y$"]
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]  # Okabe and Ito's, for the colour-blind
MARKERS = "osd^"


def plane(layers, y, estimator="Gibbs", setting=None):
    """Return an estimator's results for each start at one epoch, in bits.

    ``x``, ``y`` and ``x_bar`` are arrays (n_layers, n_starts); ``net_x`` and ``net_y``, of the
    whole network, have the shape (n_starts,).
    """
    measure, keywords = {
        "Gibbs": (gibbs_layer_mi, {}),
        "bins": (binned_layer_mi, {"bin_size": setting}),
        "KDE": (kde_layer_mi, {"noise_variance": setting}),
    }[estimator]
    with warnings.catch_warnings():
        # narrow bins and little noise saturate, as Fig. 8 to 11 show
        warnings.simplefilter("ignore", SaturationWarning)
        results = [measure([t[s] for t in layers], y, **keywords) for s in range(len(layers[0]))]
    mi_x = np.array([r.layer_mi_x for r in results]).T
    mi_y = np.array([r.layer_mi_y for r in results]).T
    x_bar = mi_x - mi_y
    return {"x": mi_x, "y": mi_y, "x_bar": x_bar, "net_x": x_bar[0] + mi_y[-1], "net_y": mi_y[-1]}


def stack(planes):
    """Return planes of several epochs as arrays whose first axis is the epoch."""
    return SimpleNamespace(**{key: np.array([p[key] for p in planes]) for key in planes[0]})


@cache
def information(
    name, n_starts, estimator="Gibbs", setting=None, *, epochs=EPOCHS, output_bias=True, noise=1.0
):
    """Return the information of an MLP of Table 1 at each epoch; see ``plane``."""
    states = train_oriented(name, n_starts, epochs=epochs, output_bias=output_bias, noise=noise)
    y = oriented_images(noise)[1]
    return stack([plane(layers, y, estimator, setting) for layers, _ in states.values()])


def standardised(images):
    """Return images as rows of mean 0 and deviation 1, as in the paper's released code."""
    rows = images.reshape(len(images), -1)
    return (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)


def means(values):
    """Return the mean of each row as text."""
    return " ".join(f"{value:.2f}" for value in np.mean(values, axis=-1))


def largest(values):
    """Return the largest mean over starts, of all epochs and layers."""
    return values.mean(axis=2).max()


def count(flags):
    return f"at {sum(flags)} of {len(flags)} epochs"


def claim_chains(paper, name, planes):
    """Check Corollary 1 at the last epoch, and count the epochs at which it holds.

    It is open if the mean is on the wrong side, but the starts are too few to tell.
    """
    names = [*(f"T_{i + 1}" for i in range(planes.y.shape[1] - 1)), "Y_hat"]
    for (i, a), (j, b) in pairwise(enumerate(names)):
        falls = planes.x_bar[:, i] - planes.x_bar[:, j]
        rises = planes.y[:, j] - planes.y[:, i]
        for text, by in [(f"I(X_bar;{a}) ≥ I(X_bar;{b})", falls), (f"I(Y;{a}) ≤ I(Y;{b})", rises)]:
            held = [at_least(difference, 0) for difference in by]
            wrong_side = by[-1].mean() < -0.005
            holds = None if held[-1] and wrong_side else held[-1]
            paper.claim(f"{name}: {text}, by {show(by[-1])} bits ({count(held)})", holds)


def draw_planes(columns, lines):
    """Return a figure with a column for each MLP, of (epochs, planes) by name.

    The rows are I(X;T_i), I(X_bar;T_i), I(Y;T_i) and the network; ``lines`` has the entropies.
    """
    figure = Figure(figsize=(7.5, 8), layout="constrained")
    axes = figure.subplots(4, len(columns), sharex="col", sharey="row")
    titles = ["$I(X;T_i)$", r"$I(\bar X;T_i)$", "$I(Y;T_i)$", "network"]
    for column, (name, (epochs, planes)) in zip(axes.T, columns.items(), strict=True):
        for ax, values in zip(column, [planes.x, planes.x_bar, planes.y], strict=False):
            draw_layers(ax, epochs, values)
        column[0].set_title(name)
        for values, label, style in [(planes.net_x, "X", "-"), (planes.net_y, "Y", "--")]:
            text = rf"$I({label};T_\mathrm{{net}})$"
            column[3].plot(epochs, values.mean(axis=1), style, color="0.2", label=text)
        for (label, value), colour in zip(lines.items(), COLOURS[3:0:-2], strict=False):
            column[3].axhline(value, color=colour, lw=1, ls=":", label=label)
        column[3].set(xlabel="epoch", ylim=(0, None))
    for ax, title in zip(axes[:, 0], titles, strict=True):
        ax.set_ylabel(f"{title} [bits]")
    axes[0, 0].legend(fontsize=7)
    axes[3, 0].legend(fontsize=7)
    return figure


def draw_layers(ax, epochs, values):
    """Draw a curve for each layer of values (n_epochs, n_layers, n_starts)."""
    labels = [*LABELS[: values.shape[1] - 1], LABELS[-1]]
    for i, label in enumerate(labels):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 3, "lw": 1.2}
        ax.plot(epochs, values[:, i].mean(axis=1), label=label, **style)
    ax.set_xscale("symlog" if epochs is EPOCHS else "linear")  # those grow by factors
    ax.set_ylim(0, None)

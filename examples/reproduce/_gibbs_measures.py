"""What the scripts on the Gibbs paper measure, state and draw."""

import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
from _data import load_images
from _gibbs_networks import EPOCHS, cache, oriented_images, train, train_oriented
from _reproduction import at_least, below, near, show
from matplotlib.figure import Figure
from scipy.stats import entropy

from skgate import SaturationWarning, binned_layer_mi, gibbs_layer_mi, kde_layer_mi

__all__ = [
    "BIN_SIZES",
    "COLOURS",
    "H_X",
    "H_Y",
    "LABELS",
    "LAYERS",
    "MARKERS",
    "NOISE_VARIANCES",
    "benchmark",
    "claim_benchmark",
    "claim_chains",
    "draw_estimators",
    "draw_planes",
    "draw_settings",
    "information",
    "largest",
    "means",
    "report_estimators",
    "report_settings",
    "standardised",
]

BIN_SIZES = [0.001, 0.01, 0.1, 1.0, 2.0, 4.0, 6.0, 8.0]  # Table 3
NOISE_VARIANCES = [0.01, 0.05, 0.1, 1.0, 2.0, 4.0, 8.0, 16.0]
H_X, H_Y = 2.0, 1.0  # of the oriented images, in bits
LAYERS = ["T_1", "T_2", "Y_hat"]
LABELS = ["$T_1$", "$T_2$", "$T_3$", r"$\hat Y$"]
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]  # Okabe and Ito's, for the colour-blind
MARKERS = "osd^"


def plane(layers, y, estimator="Gibbs", setting=None):
    """Return what an estimator finds at one epoch in each start.

    ``x``, ``y`` and ``x_bar`` are arrays (n_layers, n_starts), in bits; ``net_x`` and ``net_y``, of
    the whole network, (n_starts,).
    """
    measure, keywords = {
        "Gibbs": (gibbs_layer_mi, {}),
        "bins": (binned_layer_mi, {"bin_size": setting}),
        "KDE": (kde_layer_mi, {"noise_variance": setting}),
    }[estimator]
    with warnings.catch_warnings():
        # narrow bins and little noise saturate: that is what Fig. 8 to 11 show
        warnings.simplefilter("ignore", SaturationWarning)
        results = [measure([t[s] for t in layers], y, **keywords) for s in range(len(layers[0]))]
    mi_x = np.array([r.mi_x for r in results]).T
    mi_y = np.array([r.mi_y for r in results]).T
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


@cache
def benchmark(dataset, widths, activation, n_starts, *, n_images, batch_size, n_epochs):
    """Return epochs, the information at each, and H(Y), of an MLP trained on a dataset."""
    X, y = load_images(dataset, n_images)[:2]
    epochs = range(0, n_epochs + 1, n_epochs // 10)
    settings = dict(n_starts=n_starts, record=epochs, learning_rate=5e-4, batch_size=batch_size)
    steps = train(standardised(X), y, widths, activation, **settings)
    planes = stack([plane(layers, y) for _, layers, _ in steps])
    return list(epochs), planes, entropy(np.bincount(y), base=2)


def means(values):
    """Return the mean of each row as text."""
    return " ".join(f"{value:.2f}" for value in np.mean(values, axis=-1))


def largest(values):
    """Return the largest mean over starts, of all epochs and layers."""
    return values.mean(axis=2).max()


def count(flags):
    return f"at {sum(flags)} of {len(flags)} epochs"


def claim_chains(paper, name, planes):
    """Hold Corollary 1 against the last epoch, and count the epochs at which it is true.

    It is open where the mean is on the wrong side, but the starts are too few to tell.
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


def claim_benchmark(paper, name, planes, h_y):
    """State what Appendix H says of each MLP."""
    claim_chains(paper, name, planes)
    falls = planes.x[-1, 0] - planes.x[-1, -1]
    text = f"{name}: I(X;T_1) < I(X;Y_hat), against Equation 2, by {show(-falls)} bits"
    paper.claim(text, below(falls))
    above = [values.mean() > h_y for values in planes.net_x[1:]]
    equal = [near(values, h_y, 0.1) for values in planes.net_y[1:]]
    paper.claim(f"{name}: I(X;T_net) > H(Y) at most epochs ({count(above)})", np.mean(above) > 0.5)
    text = f"{name}: I(Y;T_net) = H(Y), within 0.1, at most epochs ({count(equal)})"
    paper.claim(text, np.mean(equal) > 0.5)


def draw_planes(columns, lines):
    """Return a figure with a column for each MLP: (epochs, planes) by name.

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


def report_settings(paper, setting, curves, gibbs):
    """Print what each setting of Table 3 gives after training, and where that is above H(X)."""
    rows = []
    for value, x in (curves | {"Gibbs": gibbs}).items():
        above = (x.mean(axis=2) > H_X + 0.005).sum(axis=0)
        at = [f"{layer} {n}" for layer, n in zip(LAYERS, above, strict=True) if n]
        rows += [[f"{value}", *map(show, x[-1]), ", ".join(at) or "none"]]
    paper.table([setting, *LAYERS, f"epochs of {len(EPOCHS)} above 2 bits"], rows)


def draw_settings(curves, symbol):
    """Return a figure with a panel of I(X;T_i) over epochs for each setting of Table 3."""
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True)
    for ax, (value, x) in zip(axes.flat, curves.items(), strict=True):
        draw_layers(ax, EPOCHS, x)
        ax.axhline(H_X, color="0.4", lw=1, ls=":", label="$H(X)$")
        ax.set_title(f"{symbol} = {value}", fontsize=9)
        ax.set_ylim(0, max(2.2, 1.1 * x.mean(axis=2).max()))
    for ax in axes[1]:
        ax.set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("$I(X;T_i)$ [bits]")
    axes[0, 0].legend(fontsize=7)
    return figure


def report_estimators(paper, planes):
    """Print what the three estimators give before, early in and after training."""
    chosen = [EPOCHS.index(epoch) for epoch in (0, 1, 16, 1000)]
    rows = [
        [name, str(EPOCHS[e]), *map(show, plane.x[e]), *map(show, plane.y[e])]
        for name, plane in planes.items()
        for e in chosen
    ]
    paper.table(["bits", "epoch", *(f"I({v};{t})" for v in "XY" for t in LAYERS)], rows)


def draw_estimators(planes):
    """Return a figure with a column for each estimator, a row for X and one for Y."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey="row")
    for column, (name, plane) in zip(axes.T, planes.items(), strict=True):
        column[0].set_title(name)
        column[1].set_xlabel("epoch")
        for ax, values, entropy_ in zip(column, [plane.x, plane.y], [H_X, H_Y], strict=True):
            draw_layers(ax, EPOCHS, values)
            ax.axhline(entropy_, color="0.4", lw=1, ls=":")
    axes[0, 0].set_ylabel("$I(X;T_i)$ [bits]\ndotted: $H(X)$")
    axes[1, 0].set_ylabel("$I(Y;T_i)$ [bits]\ndotted: $H(Y)$")
    axes[0, 0].legend(fontsize=7)
    return figure

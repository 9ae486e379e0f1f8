r"""
Activations of two samples are correlated
=========================================

Fig. 14 of the Gibbs paper trains an MLP (784-96-32-10, tanh) on MNIST for 200 epochs of Adam with a
learning rate of 0.0005, and computes the correlation between the activations of every two of 5000
samples. If the activations were independent, as estimators without a model assume, the correlations
would be 0. According to the paper, the correlations of inputs are very small. Those of two samples
of one class rise from layer to layer, to 0.55, 0.79 and 0.84; those of different classes stay at
0.29, 0.27 and 0.33. These are means of absolute values; the signed ones of different classes
cancel.

The paper does not say how many images it trains on, in which batches, or how they are scaled. The
small version trains on the 5000 images that it correlates, 500 from each class, in a single batch
and from 10 starts; each image has mean 0 and standard deviation 1, as in the released code. Other
settings have 3 starts. "Very small" is taken to mean below 0.1. ``--full`` adds trainings on 60,000
images.

.. image:: /reproduction/gibbs_fig14_correlation.png
   :alt: Correlation matrices of input and layers, and mean correlations over training.
"""

# sphinx_gallery_thumbnail_path = "reproduction/gibbs_fig14_correlation.png"

import numpy as np
from _data import load_images
from _gibbs_measures import COLOURS, LABELS, LAYERS, MARKERS, means, standardised
from _gibbs_networks import train
from _reproduction import Reproduction, at_least, near, show
from matplotlib.figure import Figure

from skgate import sample_correlation

paper = Reproduction(
    "Gibbs paper, Fig. 14",
    "Activations of two samples of a class correlate by 0.55, 0.79 and 0.84 from layer to layer, "
    "of different classes by 0.29, 0.27 and 0.33; inputs hardly.",
    n_seeds=10,
)
PUBLISHED = {"abs_same": [0.55, 0.79, 0.84], "abs_different": [0.29, 0.27, 0.33]}
KINDS = ["abs_same", "abs_different", "same", "different"]
EPOCHS = (0, 5, 20, 50, 100, 200)
SETTINGS = [  # number of images, batch size, scale of the images
    (5000, 5000, "standardised"),
    (5000, 5000, "[0, 1]"),
    (5000, 5000, "[-1, 1]"),
    (5000, 600, "standardised"),
]
if paper.full:
    SETTINGS += [(5000, 128, "standardised")]
    SETTINGS += [(60_000, 600, scale) for scale in ("standardised", "[0, 1]", "[-1, 1]")]

# %%
# One setting: mean correlations of input and layers over training, and some of the matrices.


def scaled(images, scale):
    if scale == "standardised":
        return standardised(images)
    rows = images.reshape(len(images), -1)
    return rows if scale == "[0, 1]" else 2 * rows - 1


@paper.cache
def correlations(n_images, batch_size, scale, n_starts):
    """Return means by kind (n_epochs, n_layers, n_starts), means for the inputs, and matrices."""
    images, y = load_images("mnist")[:2]
    X = scaled(images, scale)
    rows = np.concatenate([np.flatnonzero(y == m)[:500] for m in range(10)])
    if n_images == len(rows):
        X, y, rows = X[rows], y[rows], np.arange(len(rows))
    steps = train(
        X,
        y,
        [784, 96, 32, 10],
        "tanh",
        n_starts=n_starts,
        record=EPOCHS,
        learning_rate=5e-4,
        batch_size=batch_size,
    )
    by_epoch = []
    for _, layers, _ in steps:
        starts = [
            sample_correlation([t[s, rows] for t in layers], y[rows]) for s in range(n_starts)
        ]
        by_epoch.append([[r[kind] for kind in KINDS] for r in starts])
    curves = np.array(by_epoch).transpose(2, 0, 3, 1)
    few = rows[::50]  # ten of each class
    shown = [X[few], *(t[0, few] for t in layers)]
    matrices = sample_correlation(shown, y[few], return_matrices=True).matrices
    inputs = sample_correlation([X[rows]], y[rows])
    return dict(zip(KINDS, curves, strict=True)), {k: inputs[k][0] for k in KINDS}, matrices


results = {
    s: correlations(*s, len(paper.seeds) if s is SETTINGS[0] else min(3, len(paper.seeds)))
    for s in SETTINGS
}

# %%
# Means over the starts, layer by layer.
curves, inputs, matrices = results[SETTINGS[0]]
rows = [[str(e), *(means(curves[kind][i]) for kind in KINDS)] for i, e in enumerate(EPOCHS)]
published = [" ".join(map(str, values)) for values in PUBLISHED.values()]
paper.table(["epoch", *KINDS], [*rows, ["paper", *published, "", ""]])
paper.note("what the settings do, after 200 epochs:")
rows = [
    [f"{n} in batches of {b}, {scale}", *(means(c[kind][-1]) for kind in KINDS)]
    for (n, b, scale), (c, _, _) in results.items()
]
paper.table(["", *KINDS], rows)
paper.table(["inputs", *KINDS], [["", *(f"{inputs[kind]:.2f}" for kind in KINDS)]])

# %%
# The statements.
for kind, values in PUBLISHED.items():
    for layer, own, value in zip(LAYERS, curves[kind][-1], values, strict=True):
        text = f"{kind} of {layer} = {value}, within 0.1: {show(own)}"
        paper.claim(text, near(own, value, 0.1))
same, different = (curves[kind][-1] for kind in PUBLISHED)
rises = np.diff(same, axis=0)
text = f"abs_same rises with the layer, by {', '.join(map(show, rises))}"
paper.claim(text, all(at_least(rise, 0) for rise in rises))
spread = np.ptp(different.mean(axis=1))
text = f"abs_different is stable, within 0.1 from layer to layer: {spread:.2f} at most"
paper.claim(text, spread <= 0.1)
mean = inputs["abs_different"]
text = f"inputs are hardly correlated: mean |R| < 0.1 even of different classes: {mean:.2f}"
paper.claim(text, mean < 0.1)

# %%
# All inputs share the mean of all images, which is bright in the middle and dark around it.
images, y = load_images("mnist", 5000)[:2]
X = standardised(images)
mean = sample_correlation([X - X.mean(axis=0)], y)["abs_different"][0]
paper.note(f"inputs less the mean of all images: mean |R| of different classes is {mean:.2f}")

# %%
# Above, the correlations of ten samples of each class, of the first start; below, the means.
figure = Figure(figsize=(8, 4.4), layout="constrained")
above, below_ = figure.subfigures(2, 1, height_ratios=[1.2, 1])
names = ["input", *LABELS[:2], LABELS[-1]]
axes = above.subplots(1, 4)
for ax, name, matrix in zip(axes, names, matrices, strict=True):
    picture = ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", extent=(0, 10, 10, 0))
    ax.set_title(name)
    ax.set(xlabel="class", xticks=[0, 5, 10], yticks=[0, 5, 10])
above.colorbar(picture, ax=axes, label="correlation")
for ax, kind in zip(below_.subplots(1, 2, sharey=True), PUBLISHED, strict=True):
    for i, label in enumerate(names[1:]):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 3}
        ax.plot(EPOCHS, curves[kind][:, i].mean(axis=1), label=label, **style)
        ax.axhline(PUBLISHED[kind][i], color=COLOURS[i], lw=1, ls=":")
    classes = "one class" if kind == "abs_same" else "different classes"
    ax.set_title(f"{classes} (dotted: published)", fontsize=9)
    ax.set(xlabel="epoch", ylabel="mean |correlation|", ylim=(0, 1))
    ax.legend(fontsize=7)
paper.finish(
    figure,
    tried="What moves the correlations of layers is the number of steps (batches, epochs), then "
    "the first weights, then the scale of the images, and all are near the published ones. Those "
    "of the inputs depend on none of these: digits are bright in the middle and dark around it, "
    "which any two of them share. Less the mean of all images they correlate less, as the note "
    "says.",
)

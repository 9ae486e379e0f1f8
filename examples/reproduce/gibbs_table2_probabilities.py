r"""
The probability of each feature, through ReLU and tanh
======================================================

Table 2 of the Gibbs paper uses one image and the eight features of MLP1. Three of the products of
feature and image are positive. Their softmax through ReLU gives the largest one a probability of
1.0. Through tanh all three are the same, with 0.272 each, and the five others have 0.037 each: tanh
keeps a layer from distinguishing its features.

MLP1 is trained from 50 starts for 1000 epochs, as in Fig. 4, and the table shows the first start
with three positive products; the published table shows one start. The run has the published size,
so ``--full`` changes nothing.

.. image:: /reproduction/gibbs_table2_probabilities.png
   :alt: Probabilities of the eight features of MLP1 for one image, through ReLU and tanh.
"""

# sphinx_gallery_thumbnail_path = "reproduction/gibbs_table2_probabilities.png"

import numpy as np
from _gibbs_measures import COLOURS
from _gibbs_networks import oriented_images, train_oriented
from _reproduction import Reproduction, show
from matplotlib.figure import Figure
from scipy.special import softmax

paper = Reproduction(
    "Gibbs paper, Table 2",
    "Of three features with positive products, ReLU gives one a probability of 1.0; tanh gives "
    "each 0.272, and the other five 0.037 each.",
    n_seeds=50,
)

# %%
# The products of each start's features with Image0, and their softmax through ReLU and tanh.
features = train_oriented("MLP1", len(paper.seeds))[1000][1]
products = oriented_images()[0][0] @ features.astype(np.float64)  # (n_starts, 8)
p_relu = softmax(np.maximum(products, 0), axis=1)
p_tanh = softmax(np.tanh(products), axis=1)  # of the same products, as in the paper

# %%
# The start in the table has three positive products, like the paper's.
own = np.argmax((products > 0).sum(axis=1) == 3)
rows = [
    ["product with Image0", *(f"{v:.1f}" for v in products[own])],
    ["P, ReLU", *(f"{v:.3f}" for v in p_relu[own])],
    ["P, tanh", *(f"{v:.3f}" for v in p_tanh[own])],
]
paper.table([f"start {own}", *map(str, range(1, 9))], rows)
largest = p_relu.max(axis=1)
alone = (largest > 0.995).sum()
paper.note(f"the largest P through ReLU is above 0.995 in {alone} of {len(features)} starts")
paper.note(f"the largest P through tanh, of all starts: {show(p_tanh.max(axis=1))}")

# %%
# The statements.
text = f"ReLU: one feature has P = 1.0, the others 0.0: largest {largest[own]:.3f}"
paper.claim(text, largest[own] > 0.995)
for published, expected in [(0.272, 3), (0.037, 5)]:
    n = np.sum(p_tanh[own].round(3) == published)
    paper.claim(f"tanh: {expected} features have P = {published}: {n}", n == expected)

# %%
# The probabilities as bars.
figure = Figure(figsize=(6, 2.8), layout="constrained")
ax = figure.subplots()
ax.bar(np.arange(1, 9) - 0.2, p_relu[own], 0.4, color=COLOURS[0], label="ReLU")
ax.bar(np.arange(1, 9) + 0.2, p_tanh[own], 0.4, color=COLOURS[1], label="tanh", hatch="//")
labels = [f"{n}\n{v:.0f}" for n, v in enumerate(products[own], start=1)]
ax.set_xticks(np.arange(1, 9), labels)
ax.set(xlabel="feature, and its product with Image0", ylabel="probability")
ax.legend()
paper.finish(figure)

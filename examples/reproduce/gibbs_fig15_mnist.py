r"""
Information of layers and networks on MNIST
===========================================

Fig. 15 of the Gibbs paper trains MLP4 to MLP6 on MNIST for 500 epochs of Adam with learning rate
0.0005. It finds what it found on its own images (Fig. 5): I(X;T_i) does not fall from layer to
layer as a chain from X on would have it, I(X_bar;T_i) falls and I(Y;T_i) rises, and at most epochs
I(X;T_net) > H(Y) and I(Y;T_net) = H(Y) = log2 10.

The small version trains on 1500 images, drawn at random, in batches of 50 for 100 epochs, from
10 starts. ``--full`` takes all 60,000 in batches of 600, for 500 epochs. Each image has mean 0 and
deviation 1, as in the released code; the text does not say. The widths (Table 4) are missing from
the text that we have: these are the released script's, in the three variants of Table 5.

.. image:: /reproduction/gibbs_fig15_mnist.png
   :alt: Information of the layers of three MLPs over training on MNIST.
"""

# sphinx_gallery_thumbnail_path = "reproduction/gibbs_fig15_mnist.png"

from _gibbs_measures import benchmark, claim_benchmark, draw_planes, means
from _reproduction import Reproduction, show

paper = Reproduction(
    "Gibbs paper, Fig. 15",
    "On MNIST, I(X_bar;T_i) falls and I(Y;T_i) rises from layer to layer; at most epochs "
    "I(X;T_net) > H(Y) and I(Y;T_net) = H(Y).",
    n_seeds=10,
)
MLPS = {
    "MLP4": ([784, 96, 32, 10], "relu"),
    "MLP5": ([784, 96, 32, 10], "tanh"),
    "MLP6": ([784, 32, 96, 10], "relu"),
}
SIZE = {"n_images": 1500, "batch_size": 50, "n_epochs": 100}
if paper.full:
    SIZE = {"n_images": None, "batch_size": 600, "n_epochs": 500}

# %%
# The information of the layers and of the network over training, in bits.
columns = {}
header = ["I(X;T_i)", "I(X_bar;T_i)", "I(Y;T_i)", "I(X;T_net)", "I(Y;T_net)"]
for name, (widths, activation) in MLPS.items():
    epochs, p, h_y = benchmark("mnist", widths, activation, len(paper.seeds), **SIZE)
    columns[name] = epochs, p
    rows = []
    for i in (0, 1, 5, 10):
        layers = [means(values[i]) for values in (p.x, p.x_bar, p.y)]
        rows += [[str(epochs[i]), *layers, show(p.net_x[i]), show(p.net_y[i])]]
    paper.note(f"{name}: {'-'.join(map(str, widths))}, {activation}; H(Y) = {h_y:.3f}")
    paper.table(["epoch", *header], rows)

# %%
# The statements, of each MLP.
for name, (_, p) in columns.items():
    claim_benchmark(paper, name, p, h_y)

# %%
# A column for each MLP.
paper.finish(draw_planes(columns, {"$H(Y)$": h_y}))

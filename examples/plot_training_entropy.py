"""
Entropy over training
=====================

How do the entropies of a network's gates change while it learns? The default density separates the
epochs by many standard errors; the kernel density, with the published bandwidth, has log n for all
of them.

::

    python examples/plot_training_entropy.py
    SKGATE_DATA=folder python examples/plot_training_entropy.py FILE

The first command trains a small convolutional network on scikit-learn's digits, in half a minute.
With ``cifar10.npz`` in the folder that SKGATE_DATA names, a ResNet-20 of half the published width
learns 10,000 images, in a few minutes. FILE is where the figure is saved; that of the ResNet-20 is
at the end of this page.
"""

# sphinx_gallery_thumbnail_path = "_static/training_entropy.svg"

import os
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from _resnet import resnet20
from sklearn.datasets import load_digits
from torch import nn

from skgate import ComplexityMonitor, GateExtractor, GatingEntropy, SaturationWarning

torch.manual_seed(0)
if "SKGATE_DATA" in os.environ:
    with np.load(Path(os.environ["SKGATE_DATA"]) / "cifar10.npz") as data:
        X, y = data["x_train"][:10_500].transpose(0, 3, 1, 2) / 255, data["y_train"][:10_500]
    net, layers = resnet20(width=8), ["5.relu2", "8.relu2", "11.relu2"]
    n_train, lr, epochs = 10_000, 1e-3, [0, 1, 3]
else:
    X, y = load_digits(return_X_y=True)
    X, layers = X.reshape(-1, 1, 8, 8) / 16, None
    n_train, lr, epochs = 1397, 5e-3, [0, 1, 2, 4]
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10)),
    )
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y.ravel(), dtype=torch.long)
X, X_test, y, y_test = X[:n_train], X[n_train:], y[:n_train], y[n_train:]

# %%
# A monitor measures the gates of unseen images, before training and after some epochs. By default,
# each layer has the density that predicts its gates best at the first of these; a change from then
# on is one of the gates.
extractor = GateExtractor(net, layers=layers)
measures = {
    "default": GatingEntropy(extractor, n_jobs=2),
    "kernel": GatingEntropy(extractor, density="kde"),
}
monitor = ComplexityMonitor(measures, X_test)
optimizer = torch.optim.Adam(net.parameters(), lr=lr)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", SaturationWarning)
    for epoch in range(max(epochs) + 1):
        if epoch:
            net.train()
            for rows in torch.randperm(len(X)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
                optimizer.step()
        if epoch in epochs:
            net.eval()
            default, kernel = (r for r in monitor.record(net, epoch) if r["layer"] is None)
            accuracy = (net(X_test).argmax(1) == y_test).double().mean()
            print(
                f"epoch {epoch}: test accuracy {accuracy:.2f}, {default['entropy']:.1f} "
                f"+- {default['entropy_se']:.1f} bits, by the kernel {kernel['entropy']:.2f}"
            )

# %%
# The entropy of each layer and of all of them, with two standard errors, above; by the kernel
# density below, where the dashed line is the log of the number of images.
names = list(dict.fromkeys(record["layer"] for record in monitor.history_))
plt.rcParams.update({"font.size": 8, "svg.fonttype": "none"})
figure, axes = plt.subplots(
    2, len(names), figsize=(2.2 * len(names), 3.8), sharex=True, layout="constrained",
    height_ratios=[2, 1],
)  # fmt: skip
for name, column in zip(names, axes.T, strict=True):
    for ax, measure in zip(column, measures, strict=True):
        records = [r for r in monitor.history_ if (r["layer"], r["measure"]) == (name, measure)]
        bits, errors = (np.array([r[k] for r in records]) for k in ("entropy", "entropy_se"))
        ax.errorbar(epochs, bits, 2 * errors, fmt="o-", ms=3, lw=1, capsize=2)
    column[0].set(title="all layers" if name is None else f"layer {name}")
    column[1].axhline(np.log2(len(X_test)), ls="--", lw=0.8, color="0.4", label="log n")
    column[1].set(xlabel="epoch", ylim=(0, 1.2 * np.log2(len(X_test))), xticks=epochs)
axes[0, 0].set_ylabel("default [bits]")
axes[1, 0].set_ylabel("kernel [bits]")
axes[1, 0].legend(loc="lower left", frameon=False)
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1])

# %%
# The same of the ResNet-20, at the end of each stage:
#
# .. image:: /_static/training_entropy.svg
#    :alt: Entropy at the end of each stage and of these layers together, at epochs 0, 1 and 3

"""
Quickstart: measure the gates of a network
==========================================

This example trains a ReLU network and prints a table of all measures of its gates, layer by layer:
the entropy H with its standard error, the information I about the label beside that about shuffled
labels, and the total correlation TC, by which H falls short of the entropy of independent gates.

::

    python examples/quickstart.py                # scikit-learn's digits
    SKGATE_DATA=folder python examples/quickstart.py --data mnist

``--data mnist`` reads ``mnist.npz`` (arrays x_train, y_train) from the folder that SKGATE_DATA
names, trains the paper's network 784-1024-256-128-64-10 and measures 2000 training images.
"""

# sphinx_gallery_thumbnail_path = "_static/plot_complexity.svg"

import argparse
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from skgate import GateExtractor, GatingEntropy, GatingMI, TotalCorrelation

COLUMNS = ["layer", "gates", "kind", "H", "error", "I(X;S;Y)", "shuffled", "TC", "density"]


# %%
# The images, and a plain training loop.
def load(name):
    """Return images as rows scaled to [0, 1], labels, and the widths of a network for them."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X / 16, y, [64, 32, 16, 12, 10]
    folder = os.environ.get("SKGATE_DATA")
    if folder is None:
        raise SystemExit("--data mnist needs SKGATE_DATA, the folder that holds mnist.npz")
    with np.load(Path(folder) / "mnist.npz") as data:
        X, y = data["x_train"], data["y_train"]
    return X.reshape(len(X), -1) / 255, y.astype(int), [784, 1024, 256, 128, 64, 10]


def train(X, y, widths, epochs):
    """Return a ReLU network trained with Adam on cross entropy."""
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
    return net


# %%
# The gates are read once, for all measures.
def measure(net, X, y):
    """Return a row of the table for each gating layer, and the entropy of all of them."""
    states = GateExtractor(net).fit_transform(X)
    H = GatingEntropy(random_state=0).fit(states)
    MI = GatingMI(random_state=0).fit(states, y)
    TC = TotalCorrelation(random_state=0).fit(states)
    rows = zip(
        states.layer_names,
        states.n_gates,
        states.kinds,
        H.layer_entropy_,
        H.layer_entropy_se_,
        MI.layer_mi_xy_,
        MI.shuffled_layer_mi_xy_,
        TC.layer_total_correlation_,
        [repr(choice.density) for choice in H.layer_densities_],
        strict=True,
    )
    return list(rows), H


# %%
# Each layer has the density that predicts its gates best.
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--epochs", type=int, default=None)
    args = parser.parse_args()
    torch.manual_seed(0)
    start = time.perf_counter()
    X, y, widths = load(args.data)
    net = train(X, y, widths, args.epochs or {"digits": 30, "mnist": 3}[args.data])
    rows = np.random.default_rng(0).permutation(len(X))[:2000]
    X, y = X[rows], y[rows]
    accuracy = (net(torch.tensor(X, dtype=torch.float32)).argmax(1).numpy() == y).mean()
    print(f"{args.data}: network {'-'.join(map(str, widths))}, accuracy {accuracy:.3f}")
    print(f"{len(X)} samples, all values in bits\n")
    table, H = measure(net, X, y)
    for row in [COLUMNS, *table]:
        cells = [f"{v:.2f}" if isinstance(v, float) else str(v) for v in row]
        print("".join(f"{cell:>10}" for cell in cells[:-1]) + f"  {cells[-1]}")
    print(f"\nall layers together: {H.entropy_:.1f} ± {H.entropy_se_:.1f} bits")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()

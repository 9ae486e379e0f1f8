"""
The penalty in a plain torch loop
=================================

This loop trains with the entropy of gates as a penalty, without skorch and without a classifier.

::

    python examples/penalized_loop.py
    python examples/penalized_loop.py --lam 0

Each step runs the network once, fits the energy models further to the gates of the batch, and adds
the penalty to the loss of the task. The complexity is the energy models' own entropy, in bits, on
digits that the network is not trained on. The first value, before training, is measured after one
batch has been fitted.
"""

# sphinx_gallery_thumbnail_path = "_static/lambda_digits.svg"

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skgate import ComplexityLoss

parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
parser.add_argument("--lam", type=float, default=1e-3, help="weight of the penalty, in nats")
parser.add_argument("--epochs", type=int, default=20)
args = parser.parse_args()
torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = map(torch.tensor, train_test_split(X / 16, y, random_state=0))
X, X_test = X.float(), X_test.float()
net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
penalty = ComplexityLoss(net, random_state=0)


# %%
# The complexity of held-out digits under the energy models of the penalty.


def report(when):
    bits, errors = penalty.complexity(X_test)
    accuracy = (net(X_test).argmax(1) == y_test).double().mean()
    layers = zip(penalty.layer_names_, bits, errors, strict=True)
    words = ", ".join(f"layer {name} {b:.1f} ±{e:.1f} bits" for name, b, e in layers)
    print(f"{when}: {words}, sum {bits.sum():.1f} bits, test accuracy {accuracy:.3f}")


# %%
# The loop. ``run`` is the only pass through the network.
penalty.energy_step(X[:128])
report("before")
for _ in range(args.epochs):
    for rows in torch.randperm(len(X)).split(128):
        output, gates = penalty.run(X[rows])
        penalty.energy_step(gates)
        loss = nn.functional.cross_entropy(output, y[rows]) + args.lam * penalty(gates)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
report("after")

"""
Complexity of each layer of a network
=====================================

How many bits do the gates of each layer have, and is that a measurement or a ceiling? A network
learns some of scikit-learn's digits, and its gates are measured on the others.
"""

import warnings

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skgate import ComplexityDisplay, GateExtractor, GatingEntropy, SaturationWarning

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = map(torch.tensor, train_test_split(X / 16, y, random_state=0))
X, X_test = X.float(), X_test.float()

torch.manual_seed(0)
net = nn.Sequential(
    *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU()),
    *(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)),
)
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
for _ in range(10):
    for rows in torch.randperm(len(X)).split(128):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
        optimizer.step()
print(f"test accuracy {(net(X_test).argmax(1) == y_test).double().mean():.3f}")

# %%
# The gates are read once. Put your own network and inputs here.
states = GateExtractor(net).fit_transform(X_test)
print(states)

# %%
# The kernel density, with the published bandwidth. The first layer, and all layers together, are at
# their ceiling of log n, which is marked: hollow points are not informative.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", SaturationWarning)
    H = GatingEntropy(density="kde").fit(states)
display = ComplexityDisplay.from_estimator(H)

# %%
# The default has no such ceiling, and distinguishes the layers. ``suffix_entropy`` is the
# entropy of the layers from each one on, to the output.
H = GatingEntropy(random_state=0).fit(states)
display = ComplexityDisplay.from_estimator(H, quantities=["entropy", "suffix_entropy"])

"""Small classifiers on some digits, and what tests of them look at."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from skgate import ComplexityRegularizedClassifier

X, Y = load_digits(return_X_y=True)
X, Y = (X[:120] / 16).astype(np.float32), Y[:120]
IMAGES = X.reshape(-1, 1, 8, 8)


def classifier(module=None, **params):
    options = {"hidden_layer_sizes": (8, 6), "max_epochs": 2, "batch_size": 32, "random_state": 0}
    return ComplexityRegularizedClassifier(module, **{**options, **params})


class Net(nn.Module):
    """Batch normalisation, a ReLU in place, dropout; keeps each batch that it trains on."""

    seen = []

    def __init__(self, n_features, n_classes, width=8, p=0.3):
        super().__init__()
        self.fc, self.bn = nn.Linear(n_features, width), nn.BatchNorm1d(width)
        self.drop, self.out = nn.Dropout(p), nn.Linear(width, n_classes)

    def forward(self, x):
        hidden = F.relu(self.bn(self.fc(x)), inplace=True)
        mask = self.drop(torch.ones_like(hidden))
        if self.training:
            self.seen.append((x.clone(), mask))
        return self.out(hidden * mask)


def sequential(n_features=64, n_classes=10, width=8):
    return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(True), nn.Linear(width, n_classes))


def weights(fitted):
    state = getattr(fitted, "module_", fitted).state_dict()
    return {name: value.clone() for name, value in state.items()}


def assert_same(a, b):
    a, b = weights(a), weights(b)
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)

"""What the scripts that train with a weight λ share: settings, images, networks, statistics."""

from itertools import pairwise

import numpy as np
import torch
from _data import load_images
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from skgate import ComplexityRegularizedClassifier

#: Settings of the residual MLP in Fig. 7, Fig. 8 and the talk, by whether the size is the published
#: one. ``sizes`` are in pixels a side.
RESIDUAL_MLP = {
    False: {
        "training": {"n_images": 1000, "epochs": 15, "lr": 1e-3},
        "sizes": {"mnist": 14, "cifar10": 8},
        "lams": [0, 1e-4, 1e-3, 3e-3, 1e-2],
    },
    True: {
        "training": {"n_images": 60_000, "epochs": 100, "lr": 1e-4},  # CIFAR-10 has 50,000
        "sizes": {"mnist": 28, "cifar10": 32},
        "lams": [0, 1e-5, 1e-4, 1e-3, 1e-2],
    },
}


def images(name, n_train, n_test, *, size=None, standardize=True, seed=0):
    """Return training images and labels, then test images and labels.

    Images have the shape (n, channels, size, size); they are standardised by channel, or in [0, 1].
    Smaller images are averages over neighbouring pixels.
    """
    X, y, X_test, y_test = load_images(name, n_train, n_test, seed=seed)
    X, X_test = (A.reshape(len(A), -1, *A.shape[-2:]) for A in (X, X_test))
    if size is not None:
        X, X_test = (
            F.interpolate(torch.from_numpy(A), size=(size, size), mode="area").numpy()
            for A in (X, X_test)
        )
    if not standardize:
        return X, y, X_test, y_test
    mean, scale = X.mean((0, 2, 3), keepdims=True), X.std((0, 2, 3), keepdims=True)
    return (X - mean) / scale, y, (X_test - mean) / scale, y_test


def mlp(*widths):
    """Return a ReLU network of fully connected layers."""
    layers = [nn.Flatten()]
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """Fully connected layer with a skip-connection around it and its ReLU."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.relu = linear, nn.ReLU()

    def forward(self, x):
        return x + self.relu(self.linear(x))


def residual_mlp(width):
    """Return the residual MLP of Section 4.3: 10 fully connected layers of one width, 9 ReLUs."""
    layers = [Residual(nn.Linear(width, width)) for _ in range(9)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def last_layers(network, n=4):
    """Return the names of the last ReLU layers, in network order."""
    return [k for k, module in network.named_modules() if isinstance(module, nn.ReLU)][-n:]


def vgg11(width=64, channels=3):
    """Return VGG-11 with two fully connected layers of 2 * width; 64 is the published width."""
    layers, n_in = [], channels
    for n_out, pools in zip([1, 2, 4, 4, 8, 8, 8, 8], [1, 1, 0, 1, 0, 1, 0, 1], strict=True):
        layers += [nn.Conv2d(n_in, width * n_out, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)] * pools
        n_in = width * n_out
    layers += [nn.Flatten(), nn.Linear(8 * width, 2 * width), nn.ReLU()]
    layers += [nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 10)]
    for layer in layers:
        if hasattr(layer, "weight"):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(module, X, y, *, lam, epochs, lr, seed, penalty="ebm"):
    """Return a fitted classifier, trained on the GPU if there is one."""
    return ComplexityRegularizedClassifier(
        module,
        lam=lam,
        penalty=penalty,
        lr=lr,
        max_epochs=epochs,
        device="cuda" if torch.cuda.is_available() else "cpu",
        random_state=seed,
    ).fit(X, y)


def rank_correlations(lams, values):
    """Return Spearman's rank correlation of λ and values (n_lams, n_seeds) for each seed."""
    return [spearmanr(lams, column).statistic for column in values.T]


def records(lams, **quantities):
    """Return a record for each training, as LambdaDisplay needs, of values (n_lams, n_seeds)."""
    return [
        {"lam": lam, "seed": seed, **{key: v[i, seed] for key, v in quantities.items()}}
        for i, lam in enumerate(lams)
        for seed in range(np.shape(next(iter(quantities.values())))[1])
    ]

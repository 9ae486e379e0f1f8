"""Networks of the Complexity paper for images, of any width, and images of any size."""

from itertools import pairwise

import torch
from _data import load_images
from _image_networks import Block
from torch import nn
from torch.nn import functional as F

__all__ = ["images", "last_layers", "lenet", "mlp", "residual_mlp", "resnet", "vgg11"]


def images(name, n_train, n_test, *, size=None, standardize=True, seed=0):
    """Return images (n, channels, size, size), standardised by channel or in [0, 1], and labels.

    Smaller images are averages over neighbouring pixels. In order: training images and labels,
    test images and labels.
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

    def __init__(self, width):
        super().__init__()
        self.linear, self.relu = nn.Linear(width, width), nn.ReLU()

    def forward(self, x):
        return x + self.relu(self.linear(x))


def residual_mlp(width):
    """Return the residual MLP of Section 4.3: 10 fully connected layers, 9 ReLU layers.

    Features are as many as inputs.
    """
    layers = [Residual(width) for _ in range(9)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def resnet(depth, width=16, channels=3):
    """Return a ResNet with pre-activation, of three stages; 16 is the published width."""
    n = (depth - 2) // 6
    widths = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        *(Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


def lenet(channels, size):
    """Return LeNet-5 with ReLU and max pooling, for images of 28 or 32 pixels a side."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2 if size == 28 else 0),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def last_layers(network, n=4):
    """Return the names of the last ReLU layers, in the order of the network."""
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

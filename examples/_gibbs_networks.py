"""What the reproduction of the Gibbs paper trains: one MLP from many random starts at once."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import fetch_openml
from torch.nn import functional as F

__all__ = ["fits", "load_images", "train"]

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def train(
    X,
    y,
    widths,
    activation,
    *,
    n_starts,
    record,
    learning_rate,
    batch_size=None,
    output_bias=True,
    seed=0,
):
    """Yield (epoch, activations, features) at the epochs in ``record``; 0 is before training.

    Activations are arrays (n_starts, n_samples, n_units), one a layer, the last the logits;
    features are the weights of the first layer, (n_starts, n_inputs, n_units). All weights start
    Glorot uniform; hidden layers have no biases. The starts learn independently: each has its own
    weights, its own gradient and its own moments in Adam.
    """
    # Adam's moments of a network that fits go to 1e-40, where arithmetic is 30 times slower
    torch.set_flush_denormal(True)
    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    generator = torch.Generator().manual_seed(seed)
    weights = [_glorot_uniform(n_starts, *pair, generator) for pair in pairwise(widths)]
    bias = torch.zeros(n_starts, 1, widths[-1], requires_grad=output_bias)
    parameters = [*weights, bias] if output_bias else weights
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    batches = [slice(i, i + (batch_size or len(X))) for i in range(0, len(X), batch_size or len(X))]
    for epoch in range(max(record) + 1):
        if epoch in record:
            with torch.no_grad():
                layers = [t.numpy() for t in _forward(weights, bias, X, activation)]
                yield epoch, layers, weights[0].numpy().copy()
        for rows in batches:
            logits = _forward(weights, bias, X[rows], activation)[-1]
            # a mean over samples, but a sum over starts: no start changes another's gradient
            losses = F.cross_entropy(
                logits.flatten(0, 1), y[rows].repeat(n_starts), reduction="sum"
            )
            optimizer.zero_grad()
            (losses / len(X[rows])).backward()
            optimizer.step()


def _glorot_uniform(n_starts, n_in, n_out, generator):
    limit = (6 / (n_in + n_out)) ** 0.5
    weights = torch.empty(n_starts, n_in, n_out).uniform_(-limit, limit, generator=generator)
    return weights.requires_grad_()


def _forward(weights, bias, X, activation):
    """Return the activations of each layer, (n_starts, n_samples, n_units)."""
    layers = []
    # all starts see the same samples: their first layers are one matrix product
    t = torch.einsum("ni,siu->snu", X, weights[0])
    for W in weights[1:]:
        layers.append(ACTIVATIONS[activation](t))
        t = layers[-1] @ W
    return [*layers, t + bias]


def fits(logits, y):
    """Return for each start whether every sample's own logit is above all others.

    A tie is no fit: without output bias, all logits are 0 where the last hidden layer is 0, and
    argmax then calls every sample of class 0 correct.
    """
    logits = logits.copy()
    own = np.take_along_axis(logits, y[None, :, None], axis=2)[..., 0]
    np.put_along_axis(logits, y[None, :, None], -np.inf, axis=2)
    return (own > logits.max(axis=2)).all(axis=1)


def load_images(name, scale="standardised"):
    """Return all training images of "mnist" or "fashion_mnist" as rows, and their labels.

    They come from the folder that SKGATE_DATA names, or else from OpenML. Each image is given mean
    0 and deviation 1, as in the paper's released code, or all are put in [0, 1] or in [-1, 1].
    """
    folder = os.environ.get("SKGATE_DATA")
    if folder is None:
        openml = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST"}[name]
        X, y = fetch_openml(openml, version=1, return_X_y=True, as_frame=False)
        X, y = X[:60_000], y[:60_000]
    else:
        with np.load(Path(folder) / f"{name}.npz") as data:
            X, y = data["x_train"], data["y_train"]
    X = X.reshape(len(X), -1).astype(np.float32) / 255
    if scale == "standardised":
        X -= X.mean(axis=1, keepdims=True)
        X /= X.std(axis=1, keepdims=True)
    elif scale == "[-1, 1]":
        X = 2 * X - 1
    return X, y.astype(np.int64)

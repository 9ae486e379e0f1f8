"""The images that the scripts of this folder train on."""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml

OPENML = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR_10"}
SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}


def load_images(name, n_train=None, n_test=None, *, seed=0):
    """Return training images and labels, then test images and labels; float32, in [0, 1].

    They come from the folder that SKGATE_DATA names, with files such as ``mnist.npz``, or from
    OpenML. ``n_train`` and ``n_test`` of them are drawn at random, which depends only on ``seed``.

    Returns
    -------
    X, y, X_test, y_test : ndarray
        Images of shape (n, height, width) or (n, 3, height, width).
    """
    folder = os.environ.get("SKGATE_DATA")
    if folder:
        with np.load(Path(folder) / f"{name}.npz") as data:
            X, y, X_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    else:
        images, labels = fetch_openml(OPENML[name], version=1, return_X_y=True, as_frame=False)
        if name == "cifar10":  # OpenML has the colours first
            images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images = images.reshape(-1, *SHAPES[name])
        n = {"cifar10": 50_000}.get(name, 60_000)
        (X, X_test), (y, y_test) = np.split(images, [n]), np.split(labels.astype(int), [n])
    rng = np.random.default_rng(seed)
    parts = []
    for images, labels, n in [(X, y, n_train), (X_test, y_test, n_test)]:
        rows = rng.permutation(len(images))[:n]
        chosen = images[rows].astype(np.float32) / 255
        if chosen.ndim == 4:
            chosen = np.ascontiguousarray(chosen.transpose(0, 3, 1, 2))
        parts += [chosen, labels[rows].ravel().astype(np.int64)]
    return parts

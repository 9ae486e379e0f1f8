"""Held-out bits and time of the densities, by layers of convolutional networks.

    SKGATE_DATA=folder python -m benchmarks.bench_convolutional --write

``--write`` replaces the table of the documentation. All of it runs on one thread and takes about
ten minutes; the folder holds ``cifar10.npz`` and ``mnist.npz``. ``--n-fit 200 --n-test 100`` is a
quick look.
"""

import argparse
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and BLAS are loaded

import numpy as np
import torch

from skgate import GateExtractor
from skgate.densities import Autoregressive, ChowLiu, Convolutional, Product

from . import networks, peers
from .tables import NONE, ROOT, machine_line, publish, rst_table

OURS = {
    "product": Product(),
    "chow-liu": ChowLiu(),
    "autoregressive": Autoregressive(),
    "convolutional": Convolutional(),
    "40 iterations": Convolutional(max_iter=40),
}
PEER = "masked convolution, Adam"
#: Layers with more gates would take a method more than two minutes.
MOST_GATES = {"chow-liu": 20_000, "autoregressive": 8192, PEER: 20_000}
HEADER = ["layer", "gates", *OURS, PEER]
NOTE = (
    "Bits a gate of {n_test} images that are held out, by densities fitted to {n_fit}, and the CPU "
    "seconds of fit and likelihood together, on one thread. ResNet-20 of half the width after an "
    "epoch of 10,000 images of CIFAR-10, LeNet after an epoch of MNIST; the stem of a ResNet-18 at "
    "224 pixels has random weights, {n_large} images to fit and {n_large_test} held out. The "
    "images are of the test sets. The peer is a convolution whose weights on later gates are "
    "masked, with a bias for each gate, in torch: 30 epochs of Adam in batches of 20 images, with "
    "a step size that falls from 0.01 to 0. 40 iterations: ``Convolutional(max_iter=40)``. What "
    "would take more than two minutes is not measured."
)


def trained_networks():
    """Yield networks after an epoch, the layers to measure, and images that they did not see."""
    for name, make, layers in [
        ("cifar10", lambda: networks.resnet20(8), ["2", "8.relu2", "11.relu2"]),
        ("mnist", networks.lenet, ["1", "4"]),
    ]:
        torch.manual_seed(0)
        (X, y), net = networks.images(name), make()
        X, y = (X[:10_000], y[:10_000]) if name == "cifar10" else (X, y)
        for _ in networks.trained(net, X, y, [1], 1e-3):
            yield name, net, layers, networks.images(name, "test")[0]


def measure(states, n_fit):
    """Return the cells of a layer by column, and print them one by one."""
    (layer,) = states.layers
    cells = {}
    for name in HEADER[2:]:
        cells[name] = NONE
        if layer.n_gates <= MOST_GATES.get(name, np.inf):
            start = time.process_time()
            bits = held_out_bits(name, states[:n_fit], states[n_fit:]) / layer.n_gates
            cells[name] = f"{bits:.4f} ({time.process_time() - start:.2g} s)"
        print(f"  {name}: {cells[name]}", file=sys.stderr, flush=True)
    return cells


def held_out_bits(name, train, test):
    """Return the mean surprisal of the test images, bits."""
    if name in OURS:
        return -OURS[name].fit(train).score(test) / np.log(2)
    (layer,) = train.layers
    return peers.masked_convolution(
        *(np.asarray(s).reshape(-1, *layer.shape) for s in (train, test))
    )


def row(title, layer, cells):
    return [title, f"{layer.n_gates:,}", *cells.values()]


def main():
    """Measure, print the table and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-fit", type=int, default=1000, help="images to fit")
    parser.add_argument("--n-test", type=int, default=500, help="images that are held out")
    parser.add_argument("--write", action="store_true", help="write the table of the page")
    args = parser.parse_args()
    n, rows = args.n_fit + args.n_test, []
    for data, net, names, X in trained_networks():
        network = {"cifar10": "ResNet-20", "mnist": "LeNet"}[data]
        every = GateExtractor(net, layers=names).fit_transform(X[:n])
        for layer in every.layers:
            print(f"{network} {layer.name}, {layer.n_gates} gates", file=sys.stderr)
            cells = measure(every.select(layer.name), args.n_fit)
            rows.append(row(f"{network}, {layer.name}", layer, cells))
    n_large, n_large_test = min(args.n_fit, 256), min(args.n_test, 64)
    torch.manual_seed(0)
    X, what = networks.photos(n_large + n_large_test)
    print(f"ResNet-18 stem, {what}", file=sys.stderr)
    stem = GateExtractor(networks.resnet18().eval(), layers="relu").fit_transform(X)
    rows.append(row("ResNet-18, relu", stem.layers[0], measure(stem, n_large)))
    note = NOTE.format(
        n_fit=args.n_fit, n_test=args.n_test, n_large=n_large, n_large_test=n_large_test
    )
    parts = [f"{machine_line('torch', 'numpy', 'scipy')}. {note}", rst_table(HEADER, rows)]
    publish(parts, ROOT / "doc/bench_convolutional.inc" if args.write else None)


if __name__ == "__main__":
    main()

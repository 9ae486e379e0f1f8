"""Entropy of a whole network by the default: bits of each layer, time and memory.

    SKGATE_DATA=folder python -m benchmarks.bench_networks resnet18 --write

measures a network as ``GatingEntropy(model=net).fit(X)`` does, on two cores; then its layers by
independent gates, and by the chosen densities after shuffling each gate. ``--write`` replaces the
table of the documentation. ``--n 100`` is a quick look.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from sklearn.base import clone

from skgate import GateExtractor, GatingEntropy, GatingStates

from . import networks
from ._comparison import peak_mb, seconds_of
from .tables import NONE, ROOT, machine_line, publish, rst_table

N_CORES = 2
HEADER = ["layer", "gates", "bits", "error", "density", "product", "ratio", "shuffled"]
NOTE = (
    "Bits of each layer on samples that its density was not fitted to, five-fold, with the "
    "standard error and the density that was chosen; by independent gates (product), and the ratio "
    "to that; and by the chosen density after each gate was shuffled over the samples on its own, "
    "so that nothing is left but the rates (shuffled; one fifth held out)."
)
BY_STAGE = (
    " A row is a stage: its bits are the sum of those of its layers, each alone, and so is its "
    "error, which that of the sum does not exceed."
)
_BATCH = 32  # samples of a plain forward pass, smaller than the default of an extractor
_UNITS = 1 << 14  # that are shuffled at once


@dataclass
class Case:
    """A network to measure.

    Parameters
    ----------
    title : str
    make : callable
        Returns the network.
    inputs : callable
        Takes a number of samples; returns them, and what they are.
    n : int
        Number of samples.
    settings : dict
        Of the `GateExtractor`.
    by_stage : bool
        Whether a row of the table has all layers whose names begin alike.
    """

    title: str
    make: Callable
    inputs: Callable
    n: int = 500
    settings: dict = field(default_factory=dict)
    by_stage: bool = False


def trained_resnet20():
    """Return a ResNet-20 of half the width after two epochs."""
    X, y = networks.images("cifar10")
    net = networks.resnet20(8)
    for epoch in networks.trained(net, X[:10_000], y[:10_000], [1, 2], 1e-3):
        print(f"{epoch} of 2 epochs", file=sys.stderr, flush=True)
    return net


def cifar10(n):
    """Return test images."""
    return torch.from_numpy(networks.images("cifar10", "test")[0][:n]), "test images of CIFAR-10"


CASES = {
    "resnet18": Case("ResNet-18, random weights", networks.resnet18, networks.photos),
    "resnet50": Case(
        "ResNet-50, random weights", networks.resnet50, networks.photos, by_stage=True
    ),
    "resnet20": Case(
        "ResNet-20 of half the width after two epochs of 10,000 images of CIFAR-10",
        trained_resnet20,
        cifar10,
        n=1000,
    ),
    "vit_tiny": Case(
        "ViT-tiny, random weights, gates of its GELUs",
        networks.vit_tiny,
        networks.photos,
        settings={"smooth": True},
    ),
    "gpt2": Case(
        "GPT-2 small, random weights, gates of its GELUs; a row is a token",
        networks.gpt2,
        networks.texts,
        n=100,
        settings={"smooth": True, "samples": "position"},
    ),
}


@torch.inference_mode()
def forward(net, X):
    """Run the network on all samples, and drop its outputs."""
    for batch in X.split(_BATCH):
        net(batch)


def shuffled(states, rng):
    """Return the states of one layer with each unit shuffled over the rows on its own."""
    (layer,), n, size = states.layers, len(states), states.layers[0].unit_size
    gates = np.asarray(states).reshape(n, -1, size)
    for start in range(0, gates.shape[1], _UNITS):
        block = gates[:, start : start + _UNITS].transpose(1, 0, 2)  # (units, n, size)
        order = rng.permuted(np.broadcast_to(np.arange(n), block.shape[:2]), axis=1)
        block[:] = np.take_along_axis(block, order[..., None], axis=1)
    return GatingStates([np.packbits(gates.reshape(n, -1), axis=1)], [layer])


def held_out_bits(density, states):
    """Return the surprisal of the last fifth of the rows by a density of the others."""
    n = len(states) * 4 // 5
    return -clone(density).fit(states[:n]).score(states[n:]) / np.log(2)


def layer_rows(fitted, progress):
    """Return a tuple for each layer and one for all: its cells in `HEADER`, but for the ratio."""
    states, rng = fitted.states_, np.random.default_rng(0)
    product = GatingEntropy(density="product", random_state=0, n_jobs=N_CORES).fit(states)
    rows = []
    for i, layer in enumerate(states.layers):
        density = fitted.layer_densities_[i].density
        alone = held_out_bits(density, shuffled(states.select(i), rng))
        values = fitted.layer_entropy_[i], fitted.layer_entropy_se_[i]
        rows.append((layer.name, layer.n_gates, *values, repr(density).removesuffix("()")))
        rows[-1] += product.layer_entropy_[i], alone
        progress(f"{layer.name}: {values[0]:.1f} by {density}, shuffled {alone:.1f}")
    values = fitted.entropy_, fitted.entropy_se_, "chain", product.entropy_, None
    return [*rows, ("all layers", sum(states.n_gates), *values)]


def by_stage(rows):
    """Return sums of the rows whose names begin alike, up to the first dot."""
    for stage, members in groupby(rows, lambda row: row[0].partition(".")[0]):
        names, *columns, densities, product, alone = zip(*members, strict=True)
        counts = Counter(densities).items()
        density = ", ".join(f"{n} {name}" if len(names) > 1 else name for name, n in counts)
        sums = [None if None in column else sum(column) for column in (*columns, product, alone)]
        title = stage if len(names) == 1 else f"{stage}, {len(names)} layers"
        yield title, *sums[:3], density, *sums[3:]


def cells(name, gates, bits, error, density, product, alone):
    """Return the cells of a row."""
    ratio, error = f"{bits / product:.3f}", f"{error:.2g}" if error < 10 else f"{error:.0f}"
    bits, product, alone = (NONE if v is None else f"{v:,.1f}" for v in (bits, product, alone))
    return [name, f"{gates:,}", bits, error, density, product, ratio, alone]


def main():
    """Measure, print the table and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=CASES)
    parser.add_argument("--n", type=int, help="number of samples")
    parser.add_argument("--write", action="store_true", help="write the table of the page")
    args = parser.parse_args()
    case, start = CASES[args.network], time.perf_counter()

    def progress(said):
        print(f"{time.perf_counter() - start:.0f} s  {said}", file=sys.stderr, flush=True)

    torch.manual_seed(0)
    torch.set_num_threads(N_CORES)
    net = case.make().eval()
    X, what = case.inputs(args.n or case.n)
    forward(net, X[:_BATCH])  # a first pass loads torch's kernels
    plain = seconds_of(forward, net, X)
    progress(f"plain forward pass: {plain:.1f} s")
    extractor = GateExtractor(net, **case.settings)
    model = extractor if case.settings else net
    measure = GatingEntropy(model, n_jobs=N_CORES, random_state=0, verbose=1)
    whole, peak = seconds_of(measure.fit, X), peak_mb()
    progress(f"GatingEntropy.fit: {whole:.1f} s, peak memory {peak:.0f} MB")
    reading = seconds_of(extractor.fit_transform, X)
    rows = layer_rows(measure, progress)
    times = (
        f"The plain forward pass takes {plain:.0f} s, reading the gates {reading:.0f} s, and "
        f"``GatingEntropy.fit`` {whole:.0f} s in all, {whole - plain:.0f} s beyond the forward "
        f"pass, with a peak memory of {peak / 1000:.1f} GB, network and inputs included."
    )
    shown = list(by_stage(rows)) if case.by_stage else rows
    publish(
        [
            f"{case.title}: {len(X)} {what}. {times} {machine_line('torch', 'numpy', 'scipy')}.",
            NOTE + (BY_STAGE if case.by_stage else ""),
            rst_table(HEADER, [cells(*row) for row in shown]),
        ],
        ROOT / f"doc/bench_networks_{args.network}.inc" if args.write else None,
    )


if __name__ == "__main__":
    main()

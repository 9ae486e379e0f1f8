"""
Entropy over training, under each density
=========================================

This example follows the entropy of a network's gates through training.

::

    SKGATE_DATA=folder python examples/densities_over_training.py
    SKGATE_DATA=folder python examples/densities_over_training.py --network resnet20

The first command trains the network 784-1024-256-128-64-10 on ``mnist.npz`` in the folder that
SKGATE_DATA names, and measures 2000 training images. Without SKGATE_DATA, a smaller network learns
scikit-learn's digits. The second command trains a ResNet-20 of half the width on 10,000 images of
``cifar10.npz`` and measures 1000 of them, in the stem and after each stage. ``--full`` uses more
epochs, all images and the whole width; ``--plot FILE`` draws the held-out values with matplotlib.

"Held out" is the cross entropy of samples that the density was not fitted to, by five-fold
cross-fitting; "in sample" is that of the samples it was fitted to. The first is an upper bound on
the entropy, up to sampling error; the second is too low. The kernel density's own entropy, Eq. 2,
is neither: it is the row "kde, in sample", and "kde, held out" is the cross entropy of its
normalised density. A last table shows, for each density, whether the entropy falls and then rises
by more than two standard errors.
"""

# sphinx_gallery_thumbnail_path = "_static/densities_mnist.svg"

import argparse
import os
import time
import warnings
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, cross_val_score
from torch import nn

from skgate import GateExtractor, GatingEntropy, SaturationWarning

DENSITIES = ["kde", "product", "chow-liu", "autoregressive"]
EPOCHS = {
    ("mlp", False): [0, 1, 2, 4, 8, 12],
    ("mlp", True): [0, 1, 2, 4, 8, 12, 25, 50, 100],
    ("resnet20", False): [0, 1, 2, 4],
    ("resnet20", True): [0, 1, 2, 4, 8, 16, 32, 64],
}
# The time of the autoregressive density grows with the cube of the number of gates, and its memory
# with the square; wider layers are left out.
MOST_GATES = {False: 2048, True: 4096}


# %%
# The networks and their data.
class Block(nn.Module):
    """Basic residual block; its shortcut has no parameters."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(n_out), nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(n_out), nn.ReLU()
        self.stride, self.n_new = stride, n_out - n_in

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.n_new:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0,) * 5 + (self.n_new,))
        return self.relu2(x + y)


def resnet20(width):
    """Return a ResNet-20 and the names of the layers that are measured."""
    widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    blocks = [Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)]
    return nn.Sequential(*stem, *blocks, *head), ["2", "5.relu2", "8.relu2", "11.relu2"]


def mlp(widths):
    """Return a ReLU network and the names of its gating layers."""
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), [str(1 + 2 * i) for i in range(len(widths) - 2)]


def load(network):
    """Return the data's name, images scaled to about [0, 1], and labels."""
    folder = os.environ.get("SKGATE_DATA")
    if network == "mlp" and folder is None:
        X, y = load_digits(return_X_y=True)
        return "digits", (X / 16).astype(np.float32), y
    if folder is None:
        raise SystemExit("--network resnet20 needs SKGATE_DATA, the folder that holds cifar10.npz")
    name = {"mlp": "mnist", "resnet20": "cifar10"}[network]
    with np.load(Path(folder) / f"{name}.npz") as data:
        X, y = data["x_train"], data["y_train"].ravel().astype(int)
    if network == "mlp":
        return name, X.reshape(len(X), -1).astype(np.float32) / 255, y
    X = X.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return name, np.ascontiguousarray(X, np.float32) / 255, y


def trained(net, X, y, epochs, lr):
    """Yield after each of some epochs of training with Adam on cross entropy."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for epoch in range(max(epochs) + 1):
        if epoch:
            net.train()
            for rows in torch.randperm(len(X)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
                optimizer.step()
        if epoch in epochs:
            yield epoch


# %%
# Each layer is measured under each density, at some epochs.
def measure(states, density):
    """Return in-sample and held-out bits, the error of the reported ones, and their flag."""
    fitted = GatingEntropy(density=density, n_jobs=2, random_state=0).fit(states)
    if density == "kde":
        held_out = -cross_val_score(fitted, states, cv=KFold(5, shuffle=True, random_state=0))
        return fitted.entropy_, held_out.mean(), fitted.entropy_se_, fitted.saturated_
    return -fitted.score(states), fitted.entropy_, fitted.entropy_se_, False


def follow(net, names, X, y, rows, epochs, lr, most_gates):
    """Return values by (layer, gates, density), each an array (n_epochs, 4)."""
    found, skipped = {}, set()
    for epoch in trained(net, X, y, epochs, lr):
        every = GateExtractor(net, layers=names).fit_transform(X[rows])
        with torch.inference_mode():
            guesses = net.eval()(torch.from_numpy(X[rows])).argmax(1).numpy()
        print(f"epoch {epoch}: accuracy {(guesses == y[rows]).mean():.3f}", flush=True)
        for name, density in product(names, DENSITIES):
            states = every.select(name)
            (d,) = states.n_gates
            if density == "autoregressive" and d > most_gates:
                skipped.add(name)
                continue
            found.setdefault((name, d, density), []).append(measure(states, density))
    return {key: np.array(values) for key, values in found.items()}, sorted(skipped, key=len)


def fall_and_rise(values, errors):
    """Return how far a curve falls and then rises, and a verdict."""
    low = int(values.argmin())
    fall, rise = values[0] - values[low], values[-1] - values[low]
    fell, rose = (
        difference > 2 * np.hypot(errors[low], errors[end])
        for difference, end in [(fall, 0), (rise, -1)]
    )
    said = {(True, True): "falls, then rises", (True, False): "falls", (False, True): "rises"}
    return fall, rise, said.get((bool(fell), bool(rose)), "does not move")


# %%
# Tables, plot and settings.
def table(header, rows):
    """Return a table that reads as text and as reStructuredText."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    head = "  ".join(c.ljust(w) for c, w in zip(header, widths, strict=True)).rstrip()
    return "\n".join([rule, head, rule, *lines, rule])


def value_table(found, epochs):
    """Return bits of each layer and density, by epoch."""
    header = ["layer", "gates", "density", "samples", *(f"epoch {e}" for e in epochs), "error"]
    rows = []
    for (name, d, density), values in found.items():
        for column, how in enumerate(["in sample", "held out"]):
            error = ["–"] if (density == "kde") == bool(column) else [f"{values[:, 2].max():.2g}"]
            bits = [f"{v:.4g}" if v < 100 else f"{v:.1f}" for v in values[:, column]]
            rows.append([name, str(d), density, how, *bits, *error])
    return table(header, rows)


def verdict_table(found):
    """Return whether the entropy of each layer falls and then rises under each density."""
    rows = []
    for (name, d, density), values in found.items():
        column = int(density != "kde")
        fall, rise, said = fall_and_rise(values[:, column], values[:, 2])
        how = ["Eq. 2", "held out"][column]
        said = "saturated" if values[:, 3].any() else said
        rows.append([name, str(d), density, how, f"{fall:.4g}", f"{rise:.4g}", said])
    header = ["layer", "gates", "density", "value", "fall, bits", "rise, bits", "verdict"]
    return table(header, rows)


def draw(found, epochs, path):
    """Draw the reported entropies over the epochs, with a panel for each layer."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text, not outlines
    import matplotlib.pyplot as plt

    layers = list(dict.fromkeys((name, d) for name, d, _ in found))
    figure, panels = plt.subplots(
        1, len(layers), figsize=(2.9 * len(layers), 3.0), squeeze=False, layout="constrained"
    )
    for panel, (name, d) in zip(panels[0], layers, strict=True):
        for color, density in enumerate(DENSITIES):
            if (name, d, density) not in found:
                continue
            values = found[name, d, density]
            bits = values[:, int(density != "kde")]
            label = "kde (Eq. 2)" if density == "kde" else density
            panel.errorbar(
                range(len(epochs)), bits, 2 * values[:, 2], fmt="o-", ms=3, lw=1.2,
                color=f"C{color}", label=label,
            )  # fmt: skip
        panel.set(title=f"{d} gates", xlabel="epoch", ylim=(0, None))
        panel.set_xticks(range(len(epochs)), epochs)
    panels[0, 0].set_ylabel("entropy, bits")
    handles, labels = panels[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--network", choices=["mlp", "resnet20"], default="mlp")
    parser.add_argument("--full", action="store_true", help="more epochs, images and width")
    parser.add_argument("--epochs", type=int, nargs="+", help="when to measure")
    parser.add_argument("--samples", type=int, help="how many images to measure")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of Adam")
    parser.add_argument("--output", metavar="FILE", help="file to write the tables to")
    parser.add_argument("--plot", metavar="FILE", help="file to draw the entropies to")
    args = parser.parse_args()
    warnings.simplefilter("ignore", SaturationWarning)  # the kde saturates in wide layers
    torch.manual_seed(0)
    start = time.perf_counter()
    data, X, y = load(args.network)
    if args.network == "mlp":
        widths = [784, 1024, 256, 128, 64, 10] if data == "mnist" else [64, 128, 32, 16, 12, 10]
        title = f"MLP {'-'.join(map(str, widths))}"
        net, names = mlp(widths)
    else:
        width = 16 if args.full else 8
        title = f"ResNet-20, {width}, {2 * width} and {4 * width} channels"
        net, names = resnet20(width)
        if not args.full:
            X, y = X[:10000], y[:10000]
    small = args.network == "resnet20" and not args.full
    n = min(args.samples or (1000 if small else 2000), len(X))
    epochs = sorted(args.epochs or EPOCHS[args.network, args.full])
    rows = np.random.default_rng(0).permutation(len(X))[:n]
    found, skipped = follow(net, names, X, y, rows, epochs, args.lr, MOST_GATES[args.full])
    notes = (
        f"{title}, {len(X)} images of {data}, Adam with a learning rate of {args.lr:g}; {n} "
        "training images measured; bits. The error is the largest standard error over the epochs, "
        "of the row it stands in. kde, in sample: Eq. 2 with the published bandwidth, which cannot "
        f"exceed log2 {n} = {np.log2(n):.2f}; kde, held out: the cross entropy of its normalised "
        "density."
    )
    if skipped:
        notes += (
            f" The autoregressive density is left out where there are more than "
            f"{MOST_GATES[args.full]} gates (layers {', '.join(skipped)}): its work grows with "
            "the cube of their number."
        )
    verdicts = (
        "Whether the entropy falls from the first epoch to its least value and rises from that to "
        "the last epoch, each by more than two standard errors of the difference, taken as if the "
        "epochs had been measured on different images:"
    )
    text = "\n\n".join([notes, value_table(found, epochs), verdicts, verdict_table(found)])
    print(f"\n{text}\n\n{time.perf_counter() - start:.0f} s")
    if args.output:
        Path(args.output).write_text(text + "\n", encoding="utf-8")
    if args.plot:
        draw(found, epochs, args.plot)


if __name__ == "__main__":
    main()

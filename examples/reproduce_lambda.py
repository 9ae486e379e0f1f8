"""Train CIFAR-10 networks with the entropy of their gates as a penalty, over its weight λ.

    SKGATE_DATA=folder python examples/reproduce_lambda.py
    SKGATE_DATA=folder python examples/reproduce_lambda.py --seeds 0 1 2 --output records.json
    SKGATE_DATA=folder python examples/reproduce_lambda.py --full --device cuda

"Understanding, Analyzing, and Optimizing the Complexity of Deep Models" (submitted to ICLR 2021)
penalises the last four gating layers. Its Fig. 7 finds that with λ the complexity falls, and with
it the gap between test loss and train loss; its Fig. 8, that the test loss of the residual MLP
falls too. It gives no learning rates, epochs or values of λ that could be read; those here are
ours.

The networks are the residual MLP, of ten fully connected layers and nine ReLU layers, all 3072
wide but the output, and ResNet-20 with pre-activation. ``cifar10.npz`` (x_train, y_train, x_test,
y_test) is in the folder that SKGATE_DATA names. By default they learn from a small subset, for a
few epochs; ``--full`` takes all images of the file. The complexity is the entropy of the gates of
test images, summed over the penalised layers, by the Chow-Liu density, which has no ceiling of
log n; that of the product density and the kernel density stand beside it, the last of which is
saturated. For λ = 0 the same layers are measured.

At this budget, with three seeds, the gap of the residual MLP fell from 2.039 at λ = 0 to 1.984 at
1e-4 and its test loss from 2.152 to 2.119, by .033 ±.003, while the complexity fell from 5655 to
4134 bits. At 1e-3 and 1e-2, where 153 and 40 bits are left, both were above those at 0: the trend
of Fig. 7 is that of small λ alone. ResNet-20 has the product penalty here, for time, and hardly
learns at the largest λ, where a small gap says little.

Each network that was trained is a record in ``--output``; a run that was killed goes on from there.
"""

import argparse
import json
import os
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from _lambda_report import draw, report, summarize
from torch import nn

from skgate import ComplexityRegularizedClassifier

#: Images and epochs to train, test images, learning rate, penalty and λs of each network.
SETTINGS = {
    ("residual-mlp", False): (640, 12, 1000, 1e-4, "ebm", [0, 1e-5, 1e-4, 1e-3, 1e-2]),
    ("residual-mlp", True): (20_000, 100, 4000, 1e-4, "ebm", [0, 1e-5, 1e-4, 1e-3, 1e-2]),
    ("resnet20", False): (512, 15, 1000, 1e-3, "product", [0, 1e-3, 1e-2, 3e-2, 1e-1]),
    ("resnet20", True): (20_000, 100, 4000, 1e-3, "ebm", [0, 1e-3, 1e-2, 3e-2, 1e-1]),
}
N_MEASURED = {False: 500, True: 2000}


class Residual(nn.Module):
    """Fully connected layer with a skip-connection around it and its ReLU."""

    def __init__(self, width):
        super().__init__()
        self.linear, self.relu = nn.Linear(width, width), nn.ReLU()

    def forward(self, x):
        return x + self.relu(self.linear(x))


def residual_mlp():
    """Return the residual MLP of Section 4.3."""
    return nn.Sequential(nn.Flatten(), *(Residual(3072) for _ in range(9)), nn.Linear(3072, 10))


class Block(nn.Module):
    """Residual block with pre-activation, its shortcut without parameters."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(n_in), nn.ReLU()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(n_out), nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.stride, self.n_new = stride, n_out - n_in

    def forward(self, x):
        y = self.conv1(self.relu1(self.bn1(x)))
        y = self.conv2(self.relu2(self.bn2(y)))
        if self.n_new:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0,) * 5 + (self.n_new,))
        return x + y


def resnet20():
    """Return ResNet-20 with pre-activation."""
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        *blocks,
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS = {
    "residual-mlp": (residual_mlp, ["6.relu", "7.relu", "8.relu", "9.relu"]),
    "resnet20": (resnet20, ["8.relu2", "9.relu1", "9.relu2", "11"]),
}


def load(n_train, n_test):
    """Return images, standardised by channel, and labels, of training and of testing."""
    folder = os.environ.get("SKGATE_DATA")
    if folder is None:
        raise SystemExit("SKGATE_DATA must name the folder that holds cifar10.npz")
    with np.load(Path(folder) / "cifar10.npz") as data:
        X, y, X_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    X, X_test = (A.transpose(0, 3, 1, 2).astype(np.float32) / 255 for A in (X, X_test))
    mean, scale = X.mean((0, 2, 3), keepdims=True), X.std((0, 2, 3), keepdims=True)
    rng = np.random.default_rng(0)
    parts = []
    for images, labels, n in [(X, y, n_train), (X_test, y_test, n_test)]:
        rows = rng.permutation(len(images))[:n]
        parts.append(((images[rows] - mean) / scale, labels[rows].ravel().astype(int)))
    return parts


def train_one(lam, seed, network, train, test, settings, folder, device):
    """Return the record of one network, trained and measured."""
    build, layers = NETWORKS[network]
    files = {}
    if folder:
        name = f"{network}-{settings['penalty']}-{lam:g}-{seed}.pt"
        files = {"checkpoint": str(folder / name), "warm_start": True}
    start = time.perf_counter()
    classifier = ComplexityRegularizedClassifier(
        build,
        lam=lam,
        penalty=settings["penalty"],
        lr=settings["lr"],
        max_epochs=settings["epochs"],
        device=device,
        random_state=seed,
        **files,
    ).fit(*train)
    if lam and classifier.penalized_layers_ != layers:
        raise RuntimeError(f"penalised {classifier.penalized_layers_}, measured {layers}")
    seconds = time.perf_counter() - start
    found = summarize(classifier, train, test, layers, settings["densities"], settings["measured"])
    record = {"network": network, **settings, "lam": lam, "seed": seed, **found}
    return record | {"seconds": seconds, "measuring": time.perf_counter() - start - seconds}


def is_of(record, network, settings, lam, seed):
    wanted = {"network": network, **settings, "lam": lam, "seed": seed}
    return all(record.get(key) == value for key, value in wanted.items())


def write(records, path):
    """Write records all at once, so that a killed run leaves a file that can be read."""
    partial_path = path.with_name(path.name + ".partial")
    partial_path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    os.replace(partial_path, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--full", action="store_true", help="all images, more epochs")
    parser.add_argument("--images", type=int, help="how many to train on")
    parser.add_argument("--test-images", type=int, help="how many to test on")
    parser.add_argument("--measured", type=int, help="how many test images' gates to measure")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--lams", type=float, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--penalty", choices=["ebm", "product"])
    parser.add_argument(
        "--densities",
        nargs="+",
        choices=["chow-liu", "product", "kde"],
        default=["chow-liu", "product", "kde"],
        help="that measure the complexity; the first one is the one that is judged",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file of records")
    parser.add_argument(
        "--checkpoints",
        metavar="FOLDER",
        type=Path,
        help="keep each training there, epoch by epoch",
    )
    parser.add_argument("--plot", metavar="FILE", help="file to draw Fig. 7 and 8 to")
    args = parser.parse_args()
    records, panels = [], {}
    if args.output and args.output.exists():
        records = json.loads(args.output.read_text(encoding="utf-8"))
    if args.checkpoints:
        args.checkpoints.mkdir(parents=True, exist_ok=True)
    for network in args.networks:
        images, epochs, test_images, lr, penalty, lams = SETTINGS[network, args.full]
        settings = {
            "images": args.images or images,
            "test_images": args.test_images or test_images,
            "measured": args.measured or N_MEASURED[args.full],
            "epochs": args.epochs or epochs,
            "lr": args.lr or lr,
            "penalty": args.penalty or penalty,
            "densities": args.densities,
        }
        print(f"{network}: " + ", ".join(f"{k} {v}" for k, v in settings.items()), flush=True)
        train, test = load(settings["images"], settings["test_images"])
        run = partial(
            train_one,
            network=network,
            train=train,
            test=test,
            settings=settings,
            folder=args.checkpoints,
            device=args.device,
        )
        mine = []
        for seed in args.seeds:
            for lam in args.lams or lams:
                of = partial(is_of, network=network, settings=settings, lam=lam, seed=seed)
                record = next(filter(of, records), None)
                if record is None:
                    record = run(lam, seed)
                    records.append(record)
                    if args.output:
                        write(records, args.output)
                mine.append(record)
                print(
                    f"    lam {lam:g}, seed {seed}: {record[args.densities[0]]:.1f} bits, "
                    f"train loss {record['train_loss']:.4f}, test loss {record['test_loss']:.4f}, "
                    f"{record['seconds']:.0f} s and {record['measuring']:.0f} s to measure",
                    flush=True,
                )
        report(mine, args.densities)
        panels[network] = mine, args.densities[0]
    if args.plot:
        draw(panels, args.plot)


if __name__ == "__main__":
    main()

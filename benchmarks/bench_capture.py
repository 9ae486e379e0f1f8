"""Time and memory of capturing the gates of a network, against the plain forward pass."""

import argparse
import sys
from itertools import pairwise

import torch
from _common import (
    NONE,
    fresh_process,
    interleaved,
    machine_line,
    median,
    peak_mb,
    publish,
    rst_table,
    timed,
    verdict,
)
from torch import nn

from skgate import GateExtractor

NOTE = (
    "Random inputs, evaluation mode, the same batches for all. The runs take turns in one process, "
    "and the medians are shown; the peak memory is that of one call in a process of its own, on "
    "top of the network and its input, the captured gates included. Hooks keep the bool arrays "
    "x > 0 of the ReLUs alone; skgate packs the gates and has those of max pooling too."
)

PLAIN, HOOKS = "plain forward pass", "forward hooks, bool arrays"
TRANSFORM, FIT = "GateExtractor.transform", "GateExtractor.fit"
MOST = 1.3


class Block(nn.Module):
    """Basic residual block with the paper's shortcut without parameters (option A)."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(n_out), nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(n_out), nn.ReLU()
        self.stride, self.n_new = stride, n_out - n_in

    def forward(self, x):
        """Return the block's output."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.n_new:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0,) * 5 + (self.n_new,))
        return self.relu2(x + y)


def resnet20():
    """Return the CIFAR ResNet-20: three stages of three blocks, 16, 32 and 64 channels."""
    widths = [16] * 4 + [32] * 3 + [64] * 3
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg():
    """Return a small VGG with max pooling."""
    layers, n_in = [], 3
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            n_in = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(128 * 16, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, *head)


def mlp():
    """Return the perceptron 784-1024-256-128-64-10."""
    widths, layers = [784, 1024, 256, 128, 64], []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


# constructor, shape of a sample, batches: enough for runs of about a second
NETS = {
    "ResNet-20": (resnet20, (3, 32, 32), 4),
    "VGG, max-pool": (vgg, (3, 32, 32), 4),
    "MLP": (mlp, (784,), 64),
}


@torch.inference_mode()
def forward(net, X, batch_size):
    """Run the network on all batches and drop what it says."""
    for batch in X.split(batch_size):
        net(batch)


def hooked(net, X, batch_size):
    """Return ``x > 0`` of all ReLUs as bool arrays, from forward hooks."""
    layers = [module for module in net.modules() if isinstance(module, nn.ReLU)]
    kept = [[] for _ in layers]
    handles = [
        layer.register_forward_hook(lambda _, args, __, out=out: out.append(args[0] > 0))
        for layer, out in zip(layers, kept, strict=True)
    ]
    try:
        forward(net, X, batch_size)
    finally:
        for handle in handles:
            handle.remove()
    # a layer at a time, so that no more than one is there twice
    return [torch.cat(kept.pop(0)).flatten(1).numpy() for _ in layers]


def prepare(name, batch_size, n_batches):
    """Return the methods on one network, as functions without arguments."""
    torch.manual_seed(0)
    make, shape, default = NETS[name]
    net, X = make().eval(), torch.randn(batch_size * (n_batches or default), *shape)
    # a first pass loads torch's kernels, which is no part of any method
    extractor = GateExtractor(net, batch_size=batch_size).fit(X)
    forward(net, X[:8], batch_size)
    return {
        PLAIN: lambda: forward(net, X, batch_size),
        TRANSFORM: lambda: extractor.transform(X),
        HOOKS: lambda: hooked(net, X, batch_size),
        FIT: lambda: GateExtractor(net, batch_size=batch_size).fit(X),
    }


def measure_times(name, batch_size, n_batches, repeats):
    """Return the median seconds of each method, the methods taking turns."""
    seconds = interleaved(prepare(name, batch_size, n_batches), repeats)
    return {method: median(values) for method, values in seconds.items()}


def measure_peak(name, batch_size, n_batches, method):
    """Return the MB that one call adds to the peak of this process."""
    function = prepare(name, batch_size, n_batches)[method]
    before = peak_mb()
    timed(function)
    return peak_mb() - before


def tables(names, batch_size, n_batches, repeats):
    """Return the table of all measurements and that of the target."""
    rows, ratios = [], {}
    for name in names:
        print(name, file=sys.stderr)
        seconds = fresh_process(measure_times, name, batch_size, n_batches, repeats)
        ratios[name] = seconds[TRANSFORM] / seconds[PLAIN]
        n = batch_size * (n_batches or NETS[name][2])
        for method, value in seconds.items():
            peak = fresh_process(measure_peak, name, batch_size, n_batches, method)
            ratio = NONE if method == FIT else f"{value / seconds[PLAIN]:.2f}"
            rows.append([name, str(n), method, f"{value:.4g}", ratio, f"{peak:.0f}"])
    ratio = ratios.get("ResNet-20") if batch_size == 256 else None
    target = [
        f"ResNet-20, batch 256: <= {MOST}x the plain pass",
        NONE if ratio is None else f"{ratio:.2f}x",
        verdict(ratio and ratio <= MOST),
    ]
    header = ["network", "samples", "method", "seconds", "ratio to plain", "peak MB"]
    return [rst_table(header, rows), rst_table(["target", "measured", "verdict"], [target])]


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--batches", type=int, help="batches of a run; by network by default")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    parts = tables(args.nets, args.batch_size, args.batches, args.repeats)
    publish([machine_line("torch", "numpy", "scikit-learn"), NOTE, *parts], args.output)


if __name__ == "__main__":
    main()

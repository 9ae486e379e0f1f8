"""Time and memory of capturing the gates of a network, beside the plain forward pass.

A size, in place of all, is that of a batch and the number of batches.
"""

import torch
from torch import nn

from skgate import GateExtractor

from . import peers
from ._comparison import _Comparison, shape, sizes
from .networks import mlp, resnet20

PACKAGES = "torch", "numpy", "scikit-learn"
PLAIN, HOOKS = "plain forward pass", "forward hooks, bool arrays"
TRANSFORM, FIT = "GateExtractor.transform", "GateExtractor.fit"


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


# constructor, shape of a sample, batches: enough for runs of about a second
NETS = {
    "ResNet-20": (lambda: resnet20(16), (3, 32, 32), 4),
    "VGG, max-pool": (vgg, (3, 32, 32), 4),
    "MLP": (lambda: mlp([784, 1024, 256, 128, 64, 10]), (784,), 64),
}


@torch.inference_mode()
def forward(net, batches):
    """Run the network on all batches and drop its outputs."""
    for batch in batches:
        net(batch)


class Capture(_Comparison):
    """Random inputs in batches of 256, evaluation mode, the same batches for all. The ratio is to
    the plain forward pass. The peak memory is that of one call, on top of the network and its
    input, the captured gates included. Hooks keep the bool arrays x > 0 of the ReLUs alone; skgate
    packs the gates and captures those of max pooling too.
    """

    param_names = "network", "method"
    params = list(NETS), [PLAIN, TRANSFORM, HOOKS, FIT]
    rounds, repeat = 4, (3, 5, 10.0)
    compares = False
    targets = [
        ("ResNet-20: <= 1.3x the plain pass", ("ResNet-20", TRANSFORM), ("ResNet-20", PLAIN))
    ]

    def prepare(self, network, method):
        torch.manual_seed(0)
        make, sample, default = NETS[network]
        batch_size, n_batches = shape(sizes(f"256x{default}")[0])
        net, X = make().eval(), torch.randn(batch_size * n_batches, *sample)
        # a first pass loads torch's kernels, whose cost is no method's own
        extractor, batches = GateExtractor(net, batch_size=batch_size).fit(X), X.split(batch_size)
        forward(net, [X[:8]])
        return {
            PLAIN: lambda: forward(net, batches),
            TRANSFORM: lambda: extractor.transform(X),
            HOOKS: lambda: peers.hooked(net, batches),
            FIT: lambda: GateExtractor(net, batch_size=batch_size).fit(X),
        }[method], None


COMPARISONS = [Capture]

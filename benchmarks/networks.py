"""The networks that benchmarks measure, their inputs, and a short training."""

import os
import re
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from _resnet import resnet20 as resnet20
from sklearn.datasets import load_digits
from torch import nn

# --- networks: weights are random -----------------------------------------------------------------


def mlp(widths):
    """Return a ReLU network."""
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet():
    """Return a LeNet for MNIST, whose ReLU layers have 12,544, 6272 and 128 gates."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


class ResNet(nn.Module):
    """A ResNet for ImageNet, with torchvision's names, initial weights and use of one ReLU."""

    def __init__(self, block, n_blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        n_in = 64
        for stage, count in enumerate(n_blocks):
            width, blocks = 64 << stage, []
            for i in range(count):
                blocks.append(block(n_in, width, 2 if stage and not i else 1))
                n_in = width * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(n_in, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        """Return logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class _Block(nn.Module):
    """Convolutions ``(channels, width of the kernel, stride)`` beside a shortcut."""

    def __init__(self, n_in, *convolutions):
        super().__init__()
        n_out, stride = convolutions[-1][0], max(s for *_, s in convolutions)
        self.downsample = None
        if stride > 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )
        self.relu, self.convs, self.norms = nn.ReLU(inplace=True), nn.ModuleList(), nn.ModuleList()
        for width, kernel, own_stride in convolutions:
            padding = kernel // 2
            self.convs.append(nn.Conv2d(n_in, width, kernel, own_stride, padding, bias=False))
            self.norms.append(nn.BatchNorm2d(width))
            n_in = width

    def forward(self, x):
        """Return features, which are added to those of the input."""
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(self.relu(y) if i else y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(_Block):
    """Two convolutions 3 x 3."""

    expansion = 1

    def __init__(self, n_in, width, stride):
        super().__init__(n_in, (width, 3, stride), (width, 3, 1))


class Bottleneck(_Block):
    """A convolution 3 x 3 between two of single positions, the last of which has more channels."""

    expansion = 4

    def __init__(self, n_in, width, stride):
        super().__init__(n_in, (width, 1, 1), (width, 3, stride), (4 * width, 1, 1))


def resnet18():
    """Return a ResNet-18 for 224 pixels, with 4.1 million gates."""
    return ResNet(BasicBlock, [2, 2, 2, 2])


def resnet50():
    """Return a ResNet-50 for 224 pixels, with 11.4 million gates."""
    return ResNet(Bottleneck, [3, 4, 6, 3])


def vit_tiny():
    """Return a ViT of 12 blocks, 192 units and patches of 16 pixels, from its configuration."""
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
    return ViTModel(ViTConfig(**sizes), add_pooling_layer=False)


def gpt2():
    """Return a GPT-2 small, from its configuration."""
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config())


# --- inputs ---------------------------------------------------------------------------------------


def images(name, split="train"):
    """Return images (n, channels, height, width) in [0, 1] and labels, from SKGATE_DATA."""
    if "SKGATE_DATA" not in os.environ:
        raise SystemExit(f"This needs SKGATE_DATA, the folder that holds {name}.npz.")
    with np.load(Path(os.environ["SKGATE_DATA"]) / f"{name}.npz") as data:
        X, y = data[f"x_{split}"], data[f"y_{split}"].ravel().astype(int)
    X = X[:, None] if X.ndim == 3 else X.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(X, np.float32) / 255, y


def mnist_or_digits():
    """Return the data's name, flat images in [0, 1] and labels: digits without SKGATE_DATA."""
    if "SKGATE_DATA" in os.environ:
        X, y = images("mnist")
        return "mnist", X.reshape(len(X), -1), y
    X, y = load_digits(return_X_y=True)
    return "digits", (X / 16).astype(np.float32), y


def photos(n, size=224):
    """Return images of 3 channels, and what they are: CIFAR-10's enlarged, or smooth noise."""
    if "SKGATE_DATA" in os.environ:
        X, what = torch.from_numpy(images("cifar10", "test")[0][:n]), "test images of CIFAR-10"
    else:
        X = torch.randn(n, 3, 14, 14, generator=torch.Generator().manual_seed(0))
        what = "fields of noise of 14 pixels"
    X = (X - X.mean((0, 2, 3), keepdim=True)) / X.std((0, 2, 3), keepdim=True)
    enlarged = [nn.functional.interpolate(x, size, mode="bilinear") for x in X.split(64)]
    return torch.cat(enlarged), f"{what}, enlarged to {size} pixels"


def texts(n, length=128):
    """Return sequences of words of Python's standard library as numbers, by falling frequency."""
    sources = sorted(Path(os.__file__).parent.glob("*.py"))
    words = (w for path in sources for w in re.findall(r"\w+|[^\w\s]", path.read_text("utf-8")))
    words, numbers, counts = np.unique(
        list(islice(words, n * length)), return_inverse=True, return_counts=True
    )
    ranks = np.empty(len(words), int)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(words))
    tokens = torch.from_numpy(ranks[numbers].reshape(n, length))
    return tokens, f"sequences of {length} words of the sources of Python's standard library"


# --- training -------------------------------------------------------------------------------------


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
            net.eval()
            yield epoch

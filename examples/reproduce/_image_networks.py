"""Classifiers of the Complexity paper, their training, and the gates that are measured.

The paper gives widths, but no optimizer. Ours follows the code that its authors released later:
stochastic gradient descent with momentum 0.9 and weight decay 5e-4, batches of 128, pixels in
[-1, 1], and He's initialisation.
"""

from itertools import pairwise

import torch
from _data import load_images
from torch import nn

from skgate import GateExtractor

# Section 4.4
MLP_MNIST = (784, 1024, 256, 128, 64, 10)
MLP_CIFAR10 = (3072, 1024, 256, 128, 64, 10)
MLP_ALPHA = (784, 1024, 1024, 512, 512, 256, 256, 128, 128, 64, 16, 10)
MLP_BETA = (784, 1024, 256, 120, 84, 10)


def load(name, n_train, *, seed):
    """Return training and test images in [-1, 1], with a channel axis, and their labels."""
    X, y, X_test, y_test = load_images(name, n_train, 1000, seed=seed)
    images = [2 * A.reshape(len(A), -1, *A.shape[-2:]) - 1 for A in (X, X_test)]
    return images[0], y, images[1], y_test


def mlp(widths):
    """Return a fully connected ReLU network without biases."""
    layers = [nn.Flatten()]
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out, bias=False), nn.ReLU()]
    return _he_normal(nn.Sequential(*layers[:-1]))


def lenet(n_channels, size):
    """Return LeNet-5 with ReLU and max pooling, for images of 28 or 32 pixels a side."""
    return nn.Sequential(
        nn.Conv2d(n_channels, 6, 5, padding=2 if size == 28 else 0),
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


def lenet5(n_channels):
    """Return LeNet-5 with He's initialisation, for grey 28 x 28 or coloured 32 x 32 images."""
    return _he_normal(lenet(n_channels, 28 if n_channels == 1 else 32))


def vgg11(n_channels):
    """Return VGG-11 with one fully connected layer, for grey 28 x 28 or coloured 32 x 32 images."""
    layers = [nn.ZeroPad2d(2)] if n_channels == 1 else []
    n_in = n_channels
    for n_out in [64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"]:
        if n_out == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            n_in = n_out
    return _he_normal(nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)))


class Block(nn.Module):
    """Residual block with pre-activation; its shortcut has no parameters."""

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


def resnet(depth, n_channels, width=16):
    """Return a ResNet with pre-activation, of three stages; 16 is the published width."""
    n = (depth - 2) // 6
    widths = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
    return nn.Sequential(
        nn.Conv2d(n_channels, width, 3, padding=1, bias=False),
        *(Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


def resnet20(n_channels, width=16):
    """Return a ResNet-20 with He's initialisation."""
    return _he_normal(resnet(20, n_channels, width))


def _he_normal(net):
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def train(net, X, y, epochs, *, lr):
    """Yield after each of some epochs of training; 0 is before the first."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
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


def accuracy(net, X, y):
    """Return the share of images that are classified correctly, in percent."""
    with torch.inference_mode():
        guesses = net.eval()(torch.from_numpy(X)).argmax(1).numpy()
    return 100 * (guesses == y).mean()


def relu_states(net, X):
    """Return the gates of all ReLU layers, which the paper analyses."""
    return GateExtractor(net, layers=nn.ReLU).fit_transform(X)

"""A ResNet-20 for images of 32 pixels."""

from itertools import pairwise

from torch import nn


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
        """Return features, which are added to those of the input."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.n_new:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0,) * 5 + (self.n_new,))
        return self.relu2(x + y)


def resnet20(width):
    """Return a ResNet-20, whose first stage has ``width`` channels, 16 as published."""
    widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    blocks = [Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)]
    return nn.Sequential(*stem, *blocks, *head)

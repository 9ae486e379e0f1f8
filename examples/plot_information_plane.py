"""
A network in the information plane
==================================

How much does each layer know about the input, and how much about the label, while the network
learns? The images show one pattern in four orientations under noise. The orientation has 2 bits and
the label 1 bit.
"""

import warnings

import torch
from torch import nn

from skgate import BinnedLayerMI, ComplexityMonitor, GibbsLayerMI, InformationPlaneDisplay
from skgate.datasets import make_oriented_images

X, y, _ = make_oriented_images(random_state=0)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)


def history_of(activation):
    """Train a network of 8, 6 and 2 units, and return the records of its training."""
    torch.manual_seed(2)
    net = nn.Sequential(
        *(nn.Linear(1024, 8), activation(), nn.Linear(8, 6), activation()),
        nn.Linear(6, 2),
    )
    monitor = ComplexityMonitor([GibbsLayerMI(), BinnedLayerMI(bin_size=1.0)], X, y)
    # the first epochs are within one bin of some layers, which is said once for each
    warnings.filterwarnings("ignore", ".*All samples are in one cell", UserWarning)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(33):
        if epoch in (0, 1, 2, 3, 4, 6, 8, 16, 32):
            monitor.record(net, epoch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), y).backward()
        optimizer.step()
    return monitor.history_


# %%
# The Gibbs estimator: a path for each layer, in two networks. Layers of tanh cannot exceed 0.68
# bits (:doc:`/layers`).
histories = {"ReLU": history_of(nn.ReLU), "tanh": history_of(nn.Tanh)}
display = InformationPlaneDisplay.from_history(histories, measure="GibbsLayerMI")

# %%
# Binning. Information beyond 2 bits is about the noise.
display = InformationPlaneDisplay.from_history(histories, measure="BinnedLayerMI")

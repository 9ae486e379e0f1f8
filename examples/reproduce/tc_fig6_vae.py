"""
The sampling of a variational autoencoder
=========================================

In Fig. 6 of the Complexity paper, a classifier sits on the encoder of a variational autoencoder
(VAE). Its gates depend on the image and on the noise that the VAE samples, so that
:math:`H(\\Sigma_l)` exceeds :math:`I(X; \\Sigma_l)`. The paper finds that the difference between
them gradually decreases during training, on MNIST and on CIFAR-10: the impact of the input on the
transformations grows, and that of the noise shrinks.

The small version trains on 2000 images of each dataset for 32 epochs, with five seeds. Encoder and
decoder have two fully connected layers each, and the classifier has two hidden layers with ReLUs,
as published, and one for the logits. The paper gives neither the widths, nor the learning rates,
nor the weights of the losses; the values used here are our own. VAE and classifier are trained
together on the sum of their losses. The paper trains on all images, probably for 500 epochs.

The entropies are those of 1000 training images (2000 in the paper). :math:`I(X; \\Sigma_l)` is the
entropy of the gates with the sampling removed (Eq. 3). To the paper's kernel density, with
:math:`\\alpha = 0.01`, any two states are different, so its entropy is little more than the log of
their number, at most :math:`\\log n`. The statements are therefore judged by the Chow-Liu density,
which has no such ceiling; both are shown.

``--full`` has 512 and 256 gates, uses all images and 500 epochs, and measures 2000 images.

.. image:: /reproduction/tc_fig6_vae.png
"""

# sphinx_gallery_thumbnail_path = "reproduction/tc_fig6_vae.png"

import warnings
from itertools import pairwise

import numpy as np
import torch
from _complexity_training import measured_epochs, train
from _data import load_images
from _reproduction import Reproduction, at_least, below, show
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from skgate import GateExtractor, SaturationWarning, gating_entropy
from skgate.densities import ChowLiu, Kernel

paper = Reproduction(
    "Complexity paper, Fig. 6",
    "the difference between H(Σl) and I(X;Σl) in a classifier on a VAE shrinks during training",
    n_seeds=5,
)
DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
LAYERS = ["classifier.1", "classifier.3"]
DENSITIES = {"chow-liu": ChowLiu(), "kde": Kernel(alpha=0.01)}
if paper.full:
    SIZE = {"n_train": None, "n_measured": 2000, "n_epochs": 500, "widths": (1024, 32, 512, 256)}
else:
    SIZE = {"n_train": 2000, "n_measured": 1000, "n_epochs": 32, "widths": (256, 16, 128, 64)}

# %%
# The network: a VAE with a classifier on the sampled latent variables


class ClassifyingVAE(nn.Module):
    """VAE with a classifier on its latent variables; the output is the logits."""

    def __init__(self, n_pixels, widths):
        super().__init__()
        hidden, latent, first, second = widths
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(n_pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, n_pixels)
        )
        self.classifier = nn.Sequential(
            nn.Linear(latent, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, 10),
        )  # fmt: skip

    def sample(self, x):
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return z, mean, log_variance

    def forward(self, x):
        return self.classifier(self.sample(x)[0])


def loss(net, x, y):
    """Return the negative evidence lower bound of the images plus the cross entropy, in nats."""
    z, mean, log_variance = net.sample(x)
    error = F.binary_cross_entropy_with_logits(net.decoder(z), x.flatten(1), reduction="none")
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance) / 2
    bound = error.sum(dim=1) + divergence.sum(dim=1)
    return bound.mean() + F.cross_entropy(net.classifier(z), y)


# %%
# Train one network and measure its gates, with the sampling and without it


@paper.cache
def curves(dataset, seed, n_train, n_measured, n_epochs, widths):
    """Return epochs, entropies (epoch, density, sampling on or off, layer), and accuracy."""
    X, y, X_test, y_test = load_images(dataset, n_train, seed=seed)
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    torch.manual_seed(seed)
    net = ClassifyingVAE(X[0].size, widths)
    epochs = measured_epochs(n_epochs)
    found = []
    for _ in train(net, loss, tensors, epochs=epochs, lr=1e-3):
        states = [
            GateExtractor(net, layers=LAYERS, sampling=sampling, random_state=seed).fit_transform(
                X[:n_measured]
            )
            for sampling in ("on", "off")
        ]
        found.append([[entropies(s, density) for s in states] for density in DENSITIES.values()])
    with torch.inference_mode():
        z = net.sample(torch.from_numpy(X_test))[1]
        accuracy = (net.classifier(z).argmax(1).numpy() == y_test).mean()
    return epochs, np.array(found), accuracy


def entropies(states, density):
    """Return bits of each layer."""
    with warnings.catch_warnings():
        # the statements are not judged by the kernel density, because it saturates
        warnings.simplefilter("ignore", SaturationWarning)
        options = {"density": density, "standard_errors": False, "random_state": 0}
        return gating_entropy(states, **options).layer_entropy


# %%
# Do the differences shrink?

results = {}
for dataset, title in DATASETS.items():
    runs = [curves(dataset, seed, **SIZE) for seed in paper.seeds]
    epochs = runs[0][0]
    bits = np.array([run[1] for run in runs])  # (seed, epoch, density, sampling, layer)
    results[dataset] = bits
    paper.note(f"{title}: test accuracy {show([run[2] for run in runs])}")
    rows = [
        [str(epoch), density, layer, *(show(bits[:, e, d, s, i], 1) for s in (0, 1)),
         show(bits[:, e, d, 0, i] - bits[:, e, d, 1, i], 1)]
        for i, layer in enumerate(["1", "2"])
        for d, density in enumerate(DENSITIES)
        for e, epoch in enumerate(epochs)
    ]  # fmt: skip
    paper.table(["epoch", "density", "layer l", "H(Σl)", "I(X;Σl)", "difference"], rows)
    for i, layer in enumerate(["1", "2"]):
        gaps = bits[:, :, 0, 0, i] - bits[:, :, 0, 1, i]
        falls = below(gaps[:, -1] - gaps[:, 0])
        paper.claim(
            f"{title}, l = {layer}: H − I is smaller after {epochs[-1]} epochs than before "
            f"training: {show(gaps[:, -1], 1)} and {show(gaps[:, 0], 1)} bits",
            falls,
        )
        steps = [at_least(a, b) for a, b in pairwise(gaps.T)]
        paper.claim(
            f"{title}, l = {layer}: H − I does not rise between any two epochs measured one after "
            f"the other, in {sum(steps)} of {len(steps)} intervals",
            all(steps),
        )

# %%
# Draw the entropies over the epochs

figure = Figure(figsize=(9, 5), layout="constrained")
panels = figure.subplots(2, 4, sharex=True, sharey="row")
for row, name in enumerate(["Chow-Liu", "kernel, α = 0.01"]):
    columns = [(dataset, i) for dataset in DATASETS for i in range(len(LAYERS))]
    for panel, (dataset, i) in zip(panels[row], columns, strict=True):
        for s, (label, color) in enumerate([("H(Σl)", "C0"), ("I(X;Σl)", "C1")]):
            values = results[dataset][:, :, row, s, i]
            panel.errorbar(
                range(len(epochs)), values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5,
                fmt="os"[s] + "-", ms=3, lw=1.2, color=color, label=label,
            )  # fmt: skip
        panel.set_xticks(range(len(epochs)), epochs, fontsize=8)
        if row == 0:
            panel.set_title(f"{DATASETS[dataset]}, l = {i + 1}", fontsize=10)
        else:
            panel.set_xlabel("epoch")
    panels[row, 0].set(ylabel=f"{name}, bits", ylim=(0, None))
panels[0, 0].legend(frameon=False, fontsize=8)
paper.finish(figure)

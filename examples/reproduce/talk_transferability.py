"""
Transfer of adversarial perturbations
=====================================

The talk about the Complexity paper says that simple networks encode common knowledge: adversarial
perturbations made for simple networks transfer to complex ones, and those made for complex networks
hardly transfer to simple ones.

The talk names neither network, data nor attack. Simple networks are here those trained with a large
weight λ of the complexity penalty: the residual MLP of the paper's Section 4.3, on 1000 images of
MNIST (14 x 14 pixels, 196 units a layer) and of CIFAR-10 (8 x 8 pixels, 192 units), with 15 epochs;
the last four gating layers are penalised, and the values of λ are those of Fig. 7. The attack is
projected gradient descent, from the Adversarial Robustness Toolbox, on 300 test images, within an
L2 ball whose radius is slightly above the least perturbation that fools a network with λ = 0.

Take the images that the target, trained with λ_j, classifies correctly. Entry (i, j) of the matrix
is the share of them that it misclassifies once they carry the perturbation made for the source,
trained with λ_i. Source and target start from different seeds. There are four pairs.

A target with a large λ might resist perturbations from any source. Two kinds of statement are
therefore judged: between two values of λ, more perturbations transfer from the simple network to
the complex one than the other way; and a complex target is fooled more by a simple source than by a
complex source.

``--full`` uses all images at their own size, the published width for CIFAR-10 and 100 epochs.

.. image:: /reproduction/talk_transferability.png
"""

# sphinx_gallery_thumbnail_path = "reproduction/talk_transferability.png"

from functools import partial
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch
from _lambda_networks import RESIDUAL_MLP, images, residual_mlp, train
from _reproduction import Reproduction, below, show
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

paper = Reproduction(
    "Talk, transfer matrix",
    "perturbations made for simple networks transfer to complex ones more than the reverse",
    n_seeds=4,
)

# %%
# The settings, and the radius of the ball in standard deviations of a pixel.
settings = RESIDUAL_MLP[paper.full]
lams, training = settings["lams"], settings["training"]
radii = {"mnist": 4, "cifar10": 2.4} if paper.full else {"mnist": 2, "cifar10": 0.6}


# %%
# Train one network and attack it; return the perturbed images, and the network's weights.
@paper.cache
def attack(dataset, lam, seed, size, radius, n_images, **training):
    X, y, X_test, y_test = images(dataset, n_images, 300, size=size)
    classifier = train(partial(residual_mlp, X[0].size), X, y, lam=lam, seed=seed, **training)
    source = PyTorchClassifier(classifier.module_, nn.CrossEntropyLoss(), X.shape[1:], 10)
    descent = ProjectedGradientDescentPyTorch(
        source, norm=2, eps=radius, eps_step=radius / 5, max_iter=10, batch_size=300, verbose=False
    )
    weights = {k: v.cpu().numpy() for k, v in classifier.module_.state_dict().items()}
    return descent.generate(X_test, y_test), weights


def predictions(weights, X):
    net = residual_mlp(X[0].size)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    with torch.inference_mode():
        return net(torch.from_numpy(X)).argmax(1).numpy()


# %%
# The matrix of each pair of seeds: λ of the source by λ of the target.
found = {}
for dataset, size in settings["sizes"].items():
    _, _, X_test, y_test = images(dataset, training["n_images"], 300, size=size)
    made = {
        (lam, seed): attack(dataset, lam, seed, size, radii[dataset], **training)
        for lam in lams
        for seed in range(len(paper.seeds) + 1)
    }
    found[dataset] = fooled = np.empty((len(paper.seeds), len(lams), len(lams)))
    for s in paper.seeds:
        for j, target_lam in enumerate(lams):
            weights = made[target_lam, s + 1][1]
            right = predictions(weights, X_test) == y_test
            for i, source_lam in enumerate(lams):
                wrong = predictions(weights, made[source_lam, s][0]) != y_test
                fooled[s, i, j] = 100 * wrong[right].mean()

# %%
# The statements of the talk.
pairs = list(combinations(range(len(lams)), 2))
for dataset, fooled in found.items():
    paper.note(f"{dataset}: images fooled, in per cent, by λ of source (rows) and target (columns)")
    rows = [[f"{lam:g}", *row] for lam, row in zip(lams, fooled.mean(0), strict=True)]
    paper.table(["source", *(f"{lam:g}" for lam in lams)], rows)
    excess = np.mean([fooled[:, j, i] - fooled[:, i, j] for i, j in pairs], axis=0)
    text = "more transfers from the simpler to the more complex network than the other way"
    points = f"by {show(excess, 1)} points, over all pairs of λ"
    paper.claim(f"{dataset}: {text}, {points}", below(-excess))
    simple, same = fooled[:, -1, 0], fooled[:, 0, 0]
    text = f"a target with λ = 0 is fooled more by a source with λ = {lams[-1]:g} than with λ = 0"
    shares = f"{show(simple, 1)}% and {show(same, 1)}%"
    paper.claim(f"{dataset}: {text}: {shares}", below(same - simple))

# %%
# The matrices.
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, (dataset, fooled) in zip(axes, found.items(), strict=True):
    mean = fooled.mean(0)
    picture = ax.imshow(mean, cmap="cividis", vmin=0)
    for (i, j), share in np.ndenumerate(mean):
        colour = "white" if share < mean.max() / 2 else "black"
        ax.text(j, i, f"{share:.0f}", ha="center", va="center", color=colour)
    ticks = [f"{lam:g}" for lam in lams]
    ax.set_xticks(range(len(lams)), ticks)
    ax.set_yticks(range(len(lams)), ticks)
    ax.set(title=dataset, xlabel="λ of the target", ylabel="λ of the source")
    figure.colorbar(picture, label="images fooled [%]", shrink=0.8)

# %%
paper.finish(
    figure,
    tried="From seed 100 to 101, a plain MLP of 256-256-128-64 units on MNIST: 32% go from λ = "
    "0.01 to 0, 45% the other way, 48% from 0 to 0. A ResNet-20 of half the width on "
    "CIFAR-10: 7% go from λ = 0.03 to 0, 3% the other way, 7% from 0 to 0, of some 60 "
    "images. Radii of 1 and 3 on MNIST: no source differs from another, and λ = 0 resists "
    "most. The residual MLPs are close to linear at this size, so that all are fooled by "
    "much the same. The talk's data, networks and attack are not known, and no large "
    "training set was tried",
)

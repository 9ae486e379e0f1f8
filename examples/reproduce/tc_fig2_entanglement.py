r"""
Complexity and entanglement
===========================

According to Fig. 2 of the Complexity paper, networks with similar activation rates have a smaller
:math:`TC(\Sigma_l)` the larger their :math:`H(\Sigma_l)` is. The paper trains 21 LeNet-5 and 21
MLP-β from different initial parameters on MNIST, and measures their third and fourth gating layers,
of 120 and 84 gates in both; it also trains 21 ResNet-20 and measures their third layer.

:math:`H + TC = C` holds for every network, where :math:`C` is the entropy that independent gates
with the same activation rates would have. :math:`H` and :math:`TC` correlate negatively if
:math:`C` varies less than :math:`H`, that is, if the rates are similar enough. The paper says that
the rates of its networks are similar, but not how it achieves that. Here the 21 networks of an
architecture differ only in the seed. The statement is tested on the 11 networks whose :math:`C` is
nearest to the median: their rates are more similar, so the statement nearly follows from the
equation. It is also tested on all networks, where it need not hold.

There are as many networks as in the paper. They are trained on 2000 images in place of 60,000, for
6 epochs. The ResNet-20 has half the published width and sees images of 14 x 14, for 8 epochs. 2000
training images are measured. Two estimators are judged: the Chow-Liu density, and the kernel
density of the paper with :math:`\sigma_0^2 = \alpha d` for :math:`d` gates, as in the code that the
authors released later, and the published α: 0.01, and 0.04 after convolutions. The paper's Eq. 28
estimates the expectation over independent gates from random draws; here it is exact, because draws
overestimate TC, as the last step shows.

.. image:: /reproduction/tc_fig2_entanglement.png

``--full`` trains on all images for 100 epochs; ResNet-20 has the published width and sees images of
28 x 28.
"""

# sphinx_gallery_thumbnail_path = "reproduction/tc_fig2_entanglement.png"

import numpy as np
import torch
from _image_networks import MLP_BETA, accuracy, lenet5, load, mlp, relu_states, resnet20, train
from _reproduction import Reproduction, show
from matplotlib import pyplot as plt
from scipy.special import logsumexp
from scipy.stats import pearsonr
from torch.nn.functional import avg_pool2d

from skgate import TotalCorrelation, total_correlation
from skgate.densities import Kernel

paper = Reproduction(
    "Complexity paper, Fig. 2",
    "of networks with similar activation rates, those of larger H(Σ_l) have smaller TC(Σ_l)",
    n_seeds=21,
)
#: How a network is built, its learning rate, and which of its gating layers are measured.
NETWORKS = {
    "MLP-β": (lambda: mlp(MLP_BETA), 0.01, (2, 3)),
    "LeNet-5": (lambda: lenet5(1), 0.01, (2, 3)),
    "ResNet-20": (lambda: resnet20(1, 16 if paper.full else 8), 0.05, (2,)),
}
N_TRAIN, EPOCHS = (60_000, 100) if paper.full else (2000, 6)
ESTIMATORS = {
    "Chow-Liu": dict(density="chow-liu", random_state=0),
    "kernel": dict(density=Kernel(bandwidth="n_gates")),
}

# %%
# Train one network, and measure its layers.


@paper.cache
def measure(network, seed, n_train, n_epochs, small_images):
    """Return H, TC and C in bits (n_layers, n_estimators, 3), and the accuracy."""
    X, y, X_test, y_test = load("mnist", n_train, seed=0)  # networks differ only in the seed
    if small_images:
        X, X_test = (avg_pool2d(torch.from_numpy(A), 2).numpy() for A in (X, X_test))
    build, lr, layers = NETWORKS[network]
    torch.manual_seed(seed)
    net = build()
    for _ in train(net, X, y, [n_epochs], lr=lr):
        states = relu_states(net, X[:2000])
    found = []
    for layer in layers:
        only = states.select(layer)
        fits = [TotalCorrelation(**e).fit(only) for e in ESTIMATORS.values()]
        found.append([(f.entropy_, f.total_correlation_, f.independent_entropy_) for f in fits])
    return np.array(found), accuracy(net, X_test, y_test)


groups = {}  # (network, layer): values (n_networks, n_estimators, 3)
for network, (_, _, layers) in NETWORKS.items():
    small = network == "ResNet-20" and not paper.full
    n_epochs = EPOCHS + 2 * small
    runs = [measure(network, seed, N_TRAIN, n_epochs, small) for seed in paper.seeds]
    paper.note(f"{network}: accuracy {show([run[1] for run in runs], 1)} %, {len(runs)} networks")
    for i, layer in enumerate(layers):
        groups[network, layer + 1] = np.array([run[0][i] for run in runs])

# %%
# The statement of the paper, in each architecture and layer.


def correlation(values):
    """Return Pearson's r of H and TC, the upper end of its 95% interval, and a verdict on r < 0.

    The verdict is None if r is below 0, but its interval is not.
    """
    result = pearsonr(values[:, 0], values[:, 1])
    high = result.confidence_interval().high
    return result.statistic, high, False if result.statistic >= 0 else (high < 0 or None)


def similar(values):
    """Return the half of the networks whose C is nearest to the median."""
    distance = np.abs(values[:, 2] - np.median(values[:, 2]))
    return values[np.argsort(distance)[: len(values) // 2 + 1]]


rows = []
for e, estimator in enumerate(ESTIMATORS):
    below_0 = []
    for (network, layer), values in groups.items():
        name = f"layer {layer} of {network}"
        for which, chosen in [("all", values[:, e]), ("similar", similar(values[:, e]))]:
            r, high, holds = correlation(chosen)
            means = zip(chosen.mean(0), chosen.std(0, ddof=1), strict=True)
            spreads = [f"{mean:.4g} ±{deviation:.2g}" for mean, deviation in means]
            rows.append([estimator, name, f"{len(chosen)} {which}", *spreads, f"{r:.2f}"])
            if which == "all":
                below_0.append(r < 0)
                continue
            paper.claim(
                f"{estimator}, {name}, {len(chosen)} networks of similar rates: r of H and TC = "
                f"{r:.2f}, below 0 at 95% (its upper end is {high:.2f})",
                holds,
            )
    paper.claim(
        f"{estimator}, all networks: r of H and TC is below 0 in {sum(below_0)} of {len(below_0)} "
        "layers",
        all(below_0),
    )
paper.table(["mean ± deviation, bits", "layer", "networks", "H", "TC", "C", "r"], rows)

# %%
# The paper's figure: both architectures share a panel where their layers have the same width.

PANELS = {"layer 3": 3, "layer 4": 4, "ResNet-20, layer 3": None}
MARKERS = {"MLP-β": "o", "LeNet-5": "^", "ResNet-20": "s"}
figure, panels = plt.subplots(2, 3, figsize=(8, 4.8), layout="constrained")
for row, (e, estimator) in zip(panels, enumerate(ESTIMATORS), strict=True):
    for panel, (title, wanted) in zip(row, PANELS.items(), strict=True):
        for color, ((network, layer), values) in enumerate(groups.items()):
            if wanted == (None if network == "ResNet-20" else layer):
                h, tc, _ = values[:, e].T
                panel.plot(h, tc, MARKERS[network], color=f"C{color // 2}", ms=4, label=network)
        panel.set(title=f"{title}, {estimator}", xlabel="H(Σ_l), bits", ylabel="TC(Σ_l), bits")
        panel.legend(frameon=False, fontsize="small")

paper.finish(
    figure,
    tried="r follows from how much C varies beside H: in MLP-β and LeNet-5 it varies more, since "
    "seeds alone change the activation rates, and H and TC then rise together with C. Where C "
    "varies less than H does, as in the 11 ResNet-20 under the Chow-Liu density, r is near -1. Of "
    "MLP-β and the kernel, also the 7 and the 5 networks with the nearest C were tried, and the "
    "sampled reference of Eq. 28 in place of the exact one: r between -0.5 and 0.2, too few "
    "networks to tell. The paper does not say how it makes activation rates alike in each "
    "dimension; seeds alone do not.",
)

# %%
# Why the expectation is exact. Eq. 28 takes a mean over as many states with independent gates as
# there are samples. Hardly any of them is near a given state of many gates, so their density is
# underestimated and TC overestimated. Eight fair gates, each present twice, share 8 bits.


def sampled_total_correlation(gates, alpha):
    """Return TC in bits by Eq. 28."""
    gates, rates = gates.astype(float), gates.mean(axis=0)
    drawn = (np.random.default_rng(0).random(gates.shape) < rates).astype(float)
    bandwidth = alpha * np.sum(rates * (1 - rates))

    def log_density(centres):
        distances = gates @ (1 - centres.T) + (1 - gates) @ centres.T
        return logsumexp(-distances / (2 * bandwidth), axis=1) - np.log(len(centres))

    return np.mean(log_density(gates) - log_density(drawn)) / np.log(2)


eight = np.random.default_rng(0).integers(0, 2, size=(4000, 8))
pairs = np.hstack([eight, eight])
exact = total_correlation(pairs, density=Kernel(alpha=0.01)).total_correlation
sampled = sampled_total_correlation(pairs, alpha=0.01)
print(f"    eight gates, each present twice: TC = {exact:.1f} bits; {sampled:.1f} bits by Eq. 28")

"""
Test loss over λ
================

Fig. 8 of the Complexity paper: as the weight λ of the complexity penalty rises, the test loss of
the residual MLP on CIFAR-10 drops significantly below that at λ = 0. (It has ResNet-34 on ten
classes of Tiny ImageNet too, which are not at hand.) The text says: in some cases.

The small version has a residual MLP of 192 units a layer on 1000 images of 8 x 8 pixels, 15 epochs
and five seeds, and penalises the last four of its nine gating layers. The paper has 3072 units and
all images of 32 x 32, and gives no learning rate, epochs or values of λ. Those here are the ones of
Fig. 7, chosen on other seeds. The loss is that of the plain network on 2000 test images.

``--full`` takes all images, the published width and 100 epochs.

.. image:: /reproduction/tc_fig8_test_loss.png
"""

# sphinx_gallery_thumbnail_path = "reproduction/tc_fig8_test_loss.png"

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from _lambda_networks import images, residual_mlp
from _reproduction import Reproduction, below, show, standard_error
from scipy.stats import spearmanr
from sklearn.metrics import log_loss

from skgate import ComplexityRegularizedClassifier

paper = Reproduction(
    "Complexity paper, Fig. 8", "the test loss of the residual MLP drops with λ", n_seeds=5
)

# %%
# The size, and the weights λ.
if paper.full:
    n_images, n_test, size, epochs, lr = 50_000, 10_000, 32, 100, 1e-4
    lams = [0, 1e-5, 1e-4, 1e-3, 1e-2]
else:
    n_images, n_test, size, epochs, lr = 1000, 2000, 8, 15, 1e-3
    lams = [0, 1e-4, 1e-3, 3e-3, 1e-2]


# %%
# Train one network; return its test loss, and its accuracy in per cent.
@paper.cache
def measure(lam, seed, n_images, n_test, size, epochs, lr):
    X, y, X_test, y_test = images("cifar10", n_images, n_test, size=size)
    classifier = ComplexityRegularizedClassifier(
        partial(residual_mlp, 3 * size**2),
        lam=lam,
        lr=lr,
        max_epochs=epochs,
        device="cuda" if torch.cuda.is_available() else "cpu",
        random_state=seed,
    ).fit(X, y)
    test_loss = log_loss(y_test, classifier.predict_proba(X_test))
    return test_loss, 100 * classifier.score(X_test, y_test)


found = [
    [measure(lam, seed, n_images, n_test, size, epochs, lr) for seed in paper.seeds] for lam in lams
]
losses, accuracies = np.moveaxis(np.array(found), 2, 0)

# %%
# What the paper says. Differences are between networks of one seed.
differences = losses - losses[0]
paper.table(
    ["λ", "test loss, nats", "less that at 0", "accuracy, %"],
    [
        [f"{lam:g}", show(losses[i], 3), show(differences[i], 3), show(accuracies[i], 1)]
        for i, lam in enumerate(lams)
    ],
)
rho = [spearmanr(lams, losses[:, s]).statistic for s in range(losses.shape[1])]
paper.claim(f"the test loss drops with λ: rank correlation {show(rho)}", below(rho))
paper.claim(
    f"at the largest λ, {lams[-1]:g}, the test loss is below that at 0, by "
    f"{show(-differences[-1], 3)} nats",
    below(differences[-1]),
)

# %%
# Test loss over λ, and that at λ = 0 as a dashed line, as in the paper's figure.
figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
errors = [standard_error(d) for d in differences]
ax.errorbar(
    range(len(lams)), losses.mean(1), errors, fmt="o-", color="#0072B2", capsize=2, label="mean"
)
ax.axhline(losses[0].mean(), color="black", ls="--", lw=1, label="λ = 0")
ax.set_xticks(range(len(lams)), [f"{lam:g}" for lam in lams])
ax.set(title="residual MLP, CIFAR-10", xlabel="λ", ylabel="test loss [nats]")
ax.legend(title="bars: standard error of\nthe difference from λ = 0", frameon=False)

# %%
paper.finish(figure)

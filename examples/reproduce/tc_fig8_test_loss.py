"""
Test loss over λ
================

In Fig. 8 of the Complexity paper, the test loss of the residual MLP on CIFAR-10 drops significantly
below that at λ = 0 as the weight λ of the complexity penalty rises; the text says "in some cases".
(The figure also has ResNet-34 on ten classes of Tiny ImageNet, which is not at hand.)

The small version has a residual MLP of 192 units a layer on 1000 images of 8 x 8 pixels, 15 epochs
and five seeds, and penalises the last four of its nine gating layers. The paper has 3072 units and
all images of 32 x 32, and gives no learning rate, number of epochs or values of λ. Those used here
are the ones of Fig. 7, which were chosen on other seeds. The loss is that of the plain network on
2000 test images.

``--full`` uses all images, the published width and 100 epochs.

.. image:: /reproduction/tc_fig8_test_loss.png
"""

# sphinx_gallery_thumbnail_path = "reproduction/tc_fig8_test_loss.png"

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from _lambda_networks import RESIDUAL_MLP, images, rank_correlations, records, residual_mlp, train
from _reproduction import Reproduction, below, show
from sklearn.metrics import log_loss

from skgate import LambdaDisplay

paper = Reproduction(
    "Complexity paper, Fig. 8", "the test loss of the residual MLP drops with λ", n_seeds=5
)
settings = RESIDUAL_MLP[paper.full]
lams = settings["lams"]


# %%
# Train one network; return its test loss, and its accuracy in per cent.
@paper.cache
def measure(lam, seed, n_test, size, n_images, **training):
    X, y, X_test, y_test = images("cifar10", n_images, n_test, size=size)
    classifier = train(partial(residual_mlp, 3 * size**2), X, y, lam=lam, seed=seed, **training)
    test_loss = log_loss(y_test, classifier.predict_proba(X_test))
    return test_loss, 100 * classifier.score(X_test, y_test)


n_test, size = 10_000 if paper.full else 2000, settings["sizes"]["cifar10"]
found = [
    [measure(lam, seed, n_test, size, **settings["training"]) for seed in paper.seeds]
    for lam in lams
]
losses, accuracies = np.moveaxis(np.array(found), 2, 0)

# %%
# The statements of the paper. Differences are between networks of one seed.
differences = losses - losses[0]
paper.table(
    ["λ", "test loss, nats", "less that at 0", "accuracy, %"],
    [
        [f"{lam:g}", show(losses[i], 3), show(differences[i], 3), show(accuracies[i], 1)]
        for i, lam in enumerate(lams)
    ],
)
rho = rank_correlations(lams, losses)
paper.claim(f"the test loss drops with λ: rank correlation {show(rho)}", below(rho))
paper.claim(
    f"at the largest λ, {lams[-1]:g}, the test loss is below that at 0, by "
    f"{show(-differences[-1], 3)} nats",
    below(differences[-1]),
)

# %%
# Test loss over λ, with a line at that of λ = 0, as in the paper's figure.
figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
LambdaDisplay.from_records(records(lams, test_loss=losses), ax=ax)
ax.set(title="residual MLP, CIFAR-10", ylabel="test loss [nats]")
ax.get_legend().set_title("bars: standard error of\nthe difference from λ = 0")
paper.finish(figure)

"""
Monitor a network, and train a simpler one
==========================================

Two networks learn scikit-learn's digits, one of them with the entropy of its gates as a penalty.
A monitor measures both on held-out digits.

``python examples/plot_simpler_network.py FILE`` saves the figure.
"""

import sys

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgate import (
    ComplexityDisplay,
    ComplexityMonitor,
    ComplexityRegularizedClassifier,
    GatingEntropy,
    GibbsLayerMI,
    InformationPlaneDisplay,
)

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split((X / 16).astype("float32"), y, random_state=0)

# %%
# ``lam`` is the weight of the penalty. With 0, training is the usual one.
runs = {}
for lam in [0, 1e-3]:
    measures = [GatingEntropy(density="chow-liu"), GibbsLayerMI()]
    monitor = ComplexityMonitor(measures, X_test, y_test, every=2)
    clf = ComplexityRegularizedClassifier(
        hidden_layer_sizes=(128, 64), lam=lam, lr=5e-3, max_epochs=16, random_state=0,
        callbacks=[monitor],
    ).fit(X, y)  # fmt: skip
    runs[lam] = monitor.history_, clf.score(X_test, y_test)
    print(f"lam={lam}: test accuracy {runs[lam][1]:.3f}")

# %%
# The entropy of each layer's gates over the epochs, and the paths of the first network's layers in
# the information plane.
plt.rcParams.update({"font.size": 8, "svg.fonttype": "none", "lines.markersize": 4})
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for ax, (lam, (history, accuracy)) in zip(axes, runs.items(), strict=False):
    ComplexityDisplay.from_history(history, measure="GatingEntropy", ax=ax)
    words = f"penalty, λ = {lam:g}" if lam else "no penalty"
    ax.set(title=f"{words}: {100 * accuracy:.0f}% right", xlabel="epoch")
    ax.set_ylim(0, max(ax.get_ylim()[1], axes[0].get_ylim()[1]))
axes[0].get_legend().remove()
InformationPlaneDisplay.from_history(runs[0][0], measure="GibbsLayerMI", ax=axes[2])
axes[2].set_title("information plane, no penalty")
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1])

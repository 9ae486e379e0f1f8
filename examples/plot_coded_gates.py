r"""
Code gates in as many bytes as their surprisal
==============================================

An entropy coder turns probabilities into a file: what was expected with probability :math:`p` takes
:math:`-\log_2 p` bits, and whoever has the same probabilities decodes it. So a surprisal can be
proved without statistics: code held-out gates, count the bytes, and decode them.

``python examples/plot_coded_gates.py FILE`` saves the figure.
"""

import lzma
import sys

import constriction
import matplotlib.pyplot as plt
import numpy as np
import zstandard
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgate import ComplexityRegularizedClassifier, GatingEntropy
from skgate.densities import Autoregressive

# %%
# A network learns scikit-learn's digits. Its entropy is measured on these digits, with a density
# that gives the surprisal of its gates for others.
X, y = load_digits(return_X_y=True)
X, X_new, y, _ = train_test_split((X / 16).astype("float32"), y, test_size=0.4, random_state=0)
clf = ComplexityRegularizedClassifier(
    hidden_layer_sizes=(64, 32), lam=0, lr=5e-3, max_epochs=20, random_state=0
).fit(X, y)
measure = GatingEntropy(clf, density=Autoregressive(), random_state=0).fit(X)
reported = -measure.score_samples(X_new).sum() / 8  # bytes
print(f"digits learnt from: {measure.entropy_:.2f} ± {measure.entropy_se_:.2f} bits a digit")
print(f"other digits:       {8 * reported / len(X_new):.2f} bits a digit")


# %%
# Gates are coded one after the other, each for all digits. A probability depends on the gates
# before it alone, which the decoder has decoded by then. The encoder closes the gates that are not
# known yet too, so that both compute the same probability to the last digit.
BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)


def encode(density, gates):
    """Return the bytes of gates, (n_samples, n_gates)."""
    coder, known = constriction.stream.queue.RangeEncoder(), np.zeros_like(gates)
    for gate, column in enumerate(gates.T):
        p = density.conditional_probabilities(known)[:, gate]
        coder.encode(column.astype(np.int32), BERNOULLI, p)
        known[:, gate] = column
    return coder.get_compressed().tobytes()


def decode(density, file, shape):
    """Return the gates that were encoded."""
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(file, np.uint32))
    known = np.zeros(shape, bool)
    for gate in range(shape[1]):
        p = density.conditional_probabilities(known)[:, gate]
        known[:, gate] = coder.decode(BERNOULLI, p)
    return known


# %%
# General compressors read the gates as bits or bytes, by rows or by columns; the layout that suits
# one best counts. To know what the density knows, they compress the gates that it was fitted to as
# well, and only the bytes that the others add count.
def compressed(compress, gates):
    layouts = [gates, np.packbits(gates, axis=1), gates.T, np.packbits(gates.T, axis=1)]
    return np.array([len(compress(layout.tobytes())) for layout in layouts])


def xz(data):
    return lzma.compress(data, format=lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)


zstd = zstandard.ZstdCompressor(level=22).compress
seen, new = np.asarray(measure.states_), np.asarray(measure.extractor_.transform(X_new))
file = encode(measure.density_, new)
decoded = decode(measure.density_, file, new.shape)
sizes = {"one bit a gate": np.packbits(new).size}
for name, compress in [("zstd", zstd), ("xz", xz)]:
    sizes[name] = compressed(compress, new).min()
    added = compressed(compress, np.vstack([seen, new])) - compressed(compress, seen)
    sizes[f"{name}, other gates known"] = added.min()
sizes["entropy coder"] = len(file)
for name, size in sizes.items():
    print(f"{name:24}{size:6} bytes")
print(f"{'reported surprisal':24}{reported:6.0f} bytes ({100 * len(file) / reported - 100:+.2f}%)")
print("decoded:", "the same gates" if np.array_equal(decoded, new) else "other gates")

# %%
# The file has the size of the surprisal. Its decoder needs the fitted density, which a compressor's
# file does not.
figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
bars = ax.barh(list(sizes)[::-1], list(sizes.values())[::-1], color="#9ab8d8")
bars[0].set_color("#1f5fa8")
ax.bar_label(bars, padding=3)
ax.axvline(reported, color="k", linestyle=":", label="reported surprisal")
ax.set(xlabel=f"bytes of {new.shape[1]} gates for {len(new)} digits")
ax.legend(loc="lower right")
ax.spines[["top", "right"]].set_visible(False)
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1])

"""Time, memory and held-out bits of the densities, ours and by the peers.

The held-out comparison trains a perceptron on MNIST, or scikit-learn's digits without SKGATE_DATA,
and measures its layers before and after an epoch.
"""

import warnings

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV

from skgate import (
    GateExtractor,
    GateLayer,
    GatingEntropy,
    GatingStates,
    gating_entropy,
    permutation_test,
)
from skgate.densities import Kernel
from skgate.pairwise import Engine, kernel_masses

from . import peers
from ._comparison import ALPHAS, _Comparison, kernel_weight, make_states, shape, sizes
from .networks import mlp, mnist_or_digits, trained

PACKAGES = "torch", "numpy", "numkong", "scikit-learn", "scipy"
OURS, OURS_CV = "skgate, in sample", "skgate, cross-fitted"
FORESTS = {
    "dense matrix, scipy MST": peers.dense_forest,
    "sklearn mutual_info_score, scipy MST": peers.scored_forest,
}
N_ROWS, EPOCHS = 2000, [0, 1]


class Forest(_Comparison):
    """One layer of n samples and d gates, signs of random mixtures of 4 Gaussian factors. Ours
    starts from packed gates, the peers from float32 numbers, and making these does not count. All
    end with the in-sample entropy of the smoothed forest; cross-fitted means six forests, one of
    all samples and one without each fifth. Peak memory excludes each method's own input.
    """

    param_names = "size", "method"
    params = sizes("2000x128", "2000x1024", "2000x16384"), [OURS, OURS_CV, *FORESTS]
    columns = {"track_bits": ("H bits", ".4f")}
    targets = [
        ("Chow-Liu, 2000x1024: one forest < 0.3 s", ("2000x1024", OURS), None),
        ("Chow-Liu, 2000x16384: one forest < 10 s", ("2000x16384", OURS), None),
    ]

    def prepare(self, size, method):
        n, d = shape(size)
        states = make_states(n, d)
        if method in FORESTS:
            return FORESTS[method](states), d
        cv = 5 if method == OURS_CV else None
        return lambda d: chow_liu_bits(states, d, cv), d

    def track_bits(self, *param):
        return self.call()


def chow_liu_bits(states, d, cv):
    """Return the entropy of the first gates, a multiple of 8 of them."""
    packed = np.ascontiguousarray(states.packed[0][:, : d // 8])
    narrow = GatingStates([packed], [GateLayer("gates", 8 * packed.shape[1])])
    return gating_entropy(narrow, density="chow-liu", cv=cv, n_jobs=2, random_state=0).entropy


def fitted(density):
    """Return the method that is `GatingEntropy` without cross-fitting."""

    def surprisal(train, test):
        return -GatingEntropy(density=density, cv=None, random_state=0).fit(train).score(test)

    return surprisal


def kernel(train, test):
    """The kernel density with the bandwidth that predicts best."""
    grid = {"density__alpha": np.geomspace(1e-3, 1, 13)}
    return -GridSearchCV(GatingEntropy(density=Kernel()), grid).fit(train).score(test)


def _layer_bits(layer):
    def track_bits(self, gates, epoch, method):
        return self.bits(gates[epoch][layer], method)

    return track_bits


class HeldOut(_Comparison):
    """Fitted to four fifths of 2000 training images: bits per gate of the last fifth, by layer;
    seconds are those of all layers, fit and likelihood. The network is an MLP
    784-1024-256-128-64-10 on MNIST; without SKGATE_DATA a narrower one on scikit-learn's digits.
    Mixtures are of products of Bernoulli gates, by 60 steps of
    EM; the logistic model has weights of its own for all pairs of gates, by 150 full-batch steps of
    Adam, and takes the better of two weight decays on the held-out samples themselves. The
    bandwidth of the kernel density is chosen by five-fold cross-validation within the four fifths.
    """

    methods = {
        "skgate, kde, best alpha": kernel,
        "skgate, product": fitted("product"),
        "skgate, chow-liu": fitted("chow-liu"),
        "mixture of 10 products": peers.mixture(10),
        "mixture of 30 products": peers.mixture(30),
        "mixture of 100 products": peers.mixture(100),
        "logistic, Adam": peers.logistic,
        "skgate, autoregressive": fitted("autoregressive"),
    }
    param_names = "epoch", "method"
    params = EPOCHS, list(methods)
    rounds, repeat = 1, 1
    columns = {f"track_bits_{i}": (f"layer {i + 1}", ".4f") for i in range(4)}
    compares = False

    def setup_cache(self):
        """Return the gates of each layer, by epoch."""
        torch.manual_seed(0)
        data, X, y = mnist_or_digits()
        widths = [784, 1024, 256, 128, 64, 10] if data == "mnist" else [64, 128, 32, 16, 12, 10]
        net = mlp(widths)
        n = min(shape(size)[0] for size in sizes(f"{N_ROWS}x1"))
        rows = np.random.default_rng(0).permutation(len(X))[:n]
        gates = {}
        for epoch in trained(net, X, y, EPOCHS, 1e-3):
            states = GateExtractor(net).fit_transform(X[rows])
            gates[epoch] = [np.asarray(states.select(layer)) for layer in range(len(states.layers))]
        return gates

    def setup(self, gates, epoch, method):
        warnings.simplefilter("ignore")  # of saturation, which the kernel density is to show

    def time_run(self, gates, epoch, method):
        for x in gates[epoch]:
            self.bits(x, method)

    def bits(self, x, method):
        fifth = len(x) // 5
        return self.methods[method](x[fifth:], x[:fifth]) / x.shape[1]

    track_bits_0, track_bits_1, track_bits_2, track_bits_3 = map(_layer_bits, range(4))
    track_peak = None


class Errors(_Comparison):
    """The kernel density's entropy with its errors, beside its pass over the pairs alone."""

    param_names = "size", "method"
    params = (
        sizes("2000x1024", "10000x4096"),
        ["gating_entropy, with errors", "kernel_masses alone"],
    )

    def prepare(self, size, method):
        states = make_states(*shape(size))
        density, weights = Kernel(alpha=ALPHAS["unsaturated"]), [[kernel_weight(states)]]
        if "errors" in method:
            return lambda n: gating_entropy(states[:n], density=density, n_jobs=2), len(states)
        return lambda n: kernel_masses(states[:n], weights, engine=Engine(n_jobs=2)), len(states)


class Permutations(_Comparison):
    """The permutation test of 999 permutations, beside a kernel matrix held in float32 and
    multiplied by indicators of permuted classes.
    """

    param_names = "size", "method"
    params = sizes("2000x1024"), ["permutation_test", "kernel matrix, torch"]
    columns = {"track_p": ("p", ".3f")}
    compares = False

    def prepare(self, size, method):
        states = make_states(*shape(size))
        y = np.random.default_rng(1).integers(0, 10, len(states))
        if method == "kernel matrix, torch":
            return peers.kernel_matrix_test(states, kernel_weight(states), y, 999), None
        density = Kernel(alpha=ALPHAS["unsaturated"])
        options = {"density": density, "n_permutations": 999, "n_jobs": 2, "random_state": 0}
        return lambda: permutation_test(states, y, **options).p_value, None

    def track_p(self, *param):
        return self.call()


COMPARISONS = [Forest, HeldOut, Errors, Permutations]

"""Time and memory of measures of a wide layer with few open gates."""

import numpy as np

from skgate import GateLayer, GatingStates, gating_entropy, gating_mi
from skgate.densities import Kernel
from skgate.states import to_packed

from . import peers
from ._comparison import _Comparison, peak_mb, shape, sizes

PACKAGES = "numpy", "numkong", "scikit-learn", "scipy"
OURS, OURS_1, PACKED = "skgate, n_jobs=2", "skgate, n_jobs=1", "skgate, packed bits, n_jobs=2"
PEERS = {
    "scipy sparse product + exp": peers.scipy_product,
    "sklearn euclidean_distances, sparse": peers.sklearn_sparse_distances,
}
ALPHA, N_OPEN, N_OWN, N_CLASSES = 0.2, 32, 4, 10


def sparse_states(n, d, packed=False):
    """Return states with 32 open gates a row, and labels that four of them depend on."""
    rng = np.random.default_rng(0)
    y, rows = rng.integers(0, N_CLASSES, n), []
    for label in y:
        # the rate of a gate falls with its position; the first is open in a quarter of the rows
        drawn = np.unique((d * rng.random(3 * N_OPEN) ** 3).astype(int))
        own = d // 2 + 64 * label + rng.choice(64, N_OWN, replace=False)
        rows.append(np.union1d(own, rng.permutation(drawn)[: N_OPEN - N_OWN]))
    gates = GatingStates.from_arrays(_as_array(rows, d))
    if packed:
        gates = GatingStates([to_packed(gates.packed[0])], [GateLayer("layer0", d)])
    return gates, y


def _as_array(rows, d):
    starts = np.cumsum([0, *map(len, rows)])
    entries = np.ones(starts[-1], bool), np.concatenate(rows), starts
    return peers.csr_array(entries, shape=(len(rows), d))


class _SparseComparison(_Comparison):
    rounds, repeat = 1, 1
    columns = {"track_bits": ("bits", ".6f")}

    def track_peak(self, *param):
        self.call()
        return peak_mb()

    def track_bits(self, *param):
        return self.call()


class KernelEntropy(_SparseComparison):
    """Entropy by the kernel density of one layer with 32 open gates a sample, alpha 0.2, at which
    every kernel value counts. The rates of gates fall with a power of their rank; the first is open
    in a quarter of the samples. The positions of open gates take 3 MB for 20,000 samples, whatever
    the number of gates; the bits of 65,536 gates take 164 MB. Ours estimates the bandwidth within
    its time; the peers are given it, and hold sparse arrays. Peak memory is that of the process,
    with Python, torch and other libraries, and the data. One run each.
    """

    param_names = "size", "method"
    params = sizes("20000x65536", "20000x1048576"), [OURS, OURS_1, PACKED, *PEERS]

    def prepare(self, size, method):
        n, d = shape(size)
        states, _ = sparse_states(n, d, packed=method == PACKED)
        if method in PEERS:
            (rates,) = states.activation_rates()
            return PEERS[method](states, 0.5 / (ALPHA * np.sum(rates * (1 - rates)))), n
        options = {"density": Kernel(alpha=ALPHA), "standard_errors": False}
        options["n_jobs"] = 1 if method == OURS_1 else 2
        return lambda n: gating_entropy(states[:n], **options).entropy, n


class Measures(_SparseComparison):
    """Measures of the same layer with ten classes, by positions and by packed bits, n_jobs=2.
    Entropies and information have standard errors; fitted densities are cross-fitted in five folds,
    and those of classes are shrunk by an amount that inner folds choose. Information is I(X;Σ;Y),
    with shuffled labels in the same call. Two are not measured by bits: they take many minutes.
    """

    param_names = "size", "measure", "method"
    measures = {
        "H, kernel": (gating_entropy, Kernel(alpha=ALPHA)),
        "H, product": (gating_entropy, "product"),
        "H, chow-liu": (gating_entropy, "chow-liu"),
        "information, kernel": (gating_mi, Kernel(alpha=ALPHA)),
        "information, product": (gating_mi, "product"),
    }
    too_long = "H, chow-liu", "information, product"
    params = sizes("20000x65536")[:1], [*measures], [OURS, PACKED]

    def prepare(self, size, measure, method):
        if method == PACKED and measure in self.too_long:
            raise NotImplementedError("would exceed the limit")
        n, d = shape(size)
        states, y = sparse_states(n, d, packed=method == PACKED)
        function, density = self.measures[measure]
        options = {"density": density, "n_jobs": 2, "random_state": 0}

        def run():
            if function is gating_entropy:
                return gating_entropy(states, **options).entropy
            return gating_mi(states, y, **options).mi_xy

        return run, None


COMPARISONS = [KernelEntropy, Measures]

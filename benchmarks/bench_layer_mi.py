"""Time and memory of the information of a layer, ours and by the peers."""

import numpy as np

from skgate import binned_layer_mi, gibbs_layer_mi, kde_layer_mi

from . import peers
from ._comparison import _Comparison, shape, sizes

PACKAGES = "torch", "numpy", "scikit-learn", "scipy"
OURS, OURS_1 = "skgate, n_jobs=2", "skgate, n_jobs=1"
SINGLE, DOUBLE = 1e-4, 1e-10  # bits that values may differ by
_CHECKED_ROWS = 512  # on which values are compared before anything is timed


def make_data(kind, n, d):
    """Return random activations and labels, made in place so that making them sets no peak."""
    rng = np.random.default_rng(0)
    X, y = np.empty((n, d), np.float32), rng.integers(0, peers.N_CLASSES, n)
    if kind == "binned" and d > 16:
        known = rng.standard_normal((n // 3, d), dtype=np.float32)
        np.take(known, rng.integers(0, len(known), n), axis=0, out=X, mode="clip")
        X *= 3
    elif kind == "kde":
        factors = rng.standard_normal((n, 4), dtype=np.float32)
        np.matmul(factors, rng.standard_normal((4, d), dtype=np.float32), out=X)
        np.maximum(X, 0, out=X)
    else:
        rng.standard_normal(out=X, dtype=np.float32)
        X *= 3 if kind == "binned" else 2
        if kind == "gibbs":
            np.maximum(X, 0, out=X)
    return X, y


class _LayerMI(_Comparison):
    """A measure and its peers: a method's function and the bits that its values may be off."""

    param_names = "size", "method"
    columns = {"track_mi_x": ("I(X;T)", ".6f"), "track_mi_y": ("I(Y;T)", ".6f")}

    def prepare(self, size, method):
        X, y = make_data(self.kind, *shape(size))
        noise = 0.04 * float(X[:1000].var(axis=0, dtype=np.float64).sum())

        def ours(n):
            result = self.measure(X[:n], y[:n], noise, 2 if method == OURS else 1)
            return float(result.layer_mi_x[0]), float(result.layer_mi_y[0])

        n = min(_CHECKED_ROWS, len(X))
        expected = ours(n)
        if method not in self.methods:
            return ours, len(X)
        peer, tolerance = self.methods[method]
        run = peer(X, 0.5 / noise, y)
        if (values := run(n)) is not None:
            np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)
        return run, len(X)

    def track_mi_x(self, *param):
        return np.ravel(self.call())[0]

    def track_mi_y(self, *param):
        return np.ravel(self.call())[-1]


class Gibbs(_LayerMI):
    """Gibbs. The activations are float32, rectified, of a standard deviation of 2 before. The
    softmax of torch or SciPy is one step of the information plane, whose other steps are the class
    means and the entropies. The dense versions hold the probabilities and their logarithms of all
    samples. There are 10 classes, and labels are random, here and below. Peak memory excludes the
    activations. Before it was timed, each method agreed with ours on 512 rows to 1e-10 bits, or to
    1e-4 if it works in float32; off is the larger difference of the two values on all rows.
    """

    kind, power = "gibbs", 1
    methods = {
        "torch.softmax, 1 thread": (peers.torch_softmax(1, out=False), None),
        "torch.softmax, 2 threads": (peers.torch_softmax(2, out=False), None),
        "torch.softmax with out=, 1 thread": (peers.torch_softmax(1, out=True), None),
        "torch.softmax with out=, 2 threads": (peers.torch_softmax(2, out=True), None),
        "scipy softmax": (peers.scipy_softmax, None),
        "torch dense plane, float32, 1 thread": (peers.torch_plane("float32", 1), SINGLE),
        "torch dense plane, float32, 2 threads": (peers.torch_plane("float32", 2), SINGLE),
        "torch dense plane, float64, 2 threads": (peers.torch_plane("float64", 2), DOUBLE),
    }
    params = sizes("60000x1024"), [OURS, OURS_1, *methods]

    def measure(self, X, y, noise, n_jobs):
        return gibbs_layer_mi(X, y, n_jobs=n_jobs)


class KernelDensity(_LayerMI):
    """Kernel density. The activations are float32, rectified mixtures of 4 Gaussian factors, and
    the noise has 0.04 of their variance, so that every kernel value counts. The peers compute all
    pairs, a block of rows at a time, and the sums of each class by a product with indicators, or,
    with logsumexp, from the columns of the class.
    """

    kind, power = "kde", 2
    methods = {
        "torch GEMM + exp, float32": (peers.torch_gemm("float32"), SINGLE),
        "torch GEMM + exp, float64": (peers.torch_gemm("float64"), DOUBLE),
        "sklearn euclidean_distances + logsumexp": (peers.sklearn_distances, SINGLE),
        "scipy cdist + exp": (peers.scipy_cdist, DOUBLE),
    }
    params = sizes("2000x1024", "10000x1024", "10000x16"), [OURS, OURS_1, *methods]

    def measure(self, X, y, noise, n_jobs):
        return kde_layer_mi(X, y, noise_variance=noise, n_jobs=n_jobs, device="cpu")


class Binned(_LayerMI):
    """Binning. The activations are float32; the 1024 units repeat 20,000 vectors, the 10 units are
    Gaussian with a standard deviation of 3; bins are 2 wide. The peers hold the bins as int32, and
    count the classes in each cell by a second np.unique on the result of the first.
    """

    kind, power = "binned", 1
    methods = {
        "numpy unique of void views": (peers.unique_views, DOUBLE),
        "numpy unique(axis=0)": (peers.unique_rows, DOUBLE),
    }
    params = sizes("60000x1024", "60000x10"), ["skgate", *methods]

    def measure(self, X, y, noise, n_jobs):
        return binned_layer_mi(X, y, bin_size=2.0)


COMPARISONS = [Gibbs, KernelDensity, Binned]

"""Time and memory of the entropy of one layer, ours and by the peers."""

from skgate import gating_entropy
from skgate.densities import Kernel

from . import peers
from ._comparison import ALPHAS, _Comparison, kernel_weight, make_states, shape, sizes

PACKAGES = "torch", "numpy", "numkong", "scikit-learn", "scipy", "pykeops"
OURS, OURS_1 = "skgate, n_jobs=2", "skgate, n_jobs=1"
EXPERT, FLOOR = "torch GEMM, float32", "NumKong distances alone, 2 threads"
METHODS = {
    FLOOR: peers.numkong_distances,
    EXPERT: peers.torch_gemm("float32"),
    "torch.cdist + exp": peers.torch_cdist,
    "sklearn euclidean_distances + logsumexp": peers.sklearn_distances,
    "sklearn KernelDensity": peers.sklearn_density,
    "scipy cdist + exp": peers.scipy_cdist,
    "KeOps": peers.keops,
}


def ours(states, gates="unsaturated", **options):
    """Return the method that is `gating_entropy`."""
    options |= {"density": Kernel(alpha=ALPHAS[gates]), "standard_errors": False}
    return lambda n: gating_entropy(states[:n], **options).entropy


class Entropy(_Comparison):
    """Saturated: independent gates, open at a rate of 0.3, and the published alpha of 0.01 for
    gates without positions; all kernel values between samples round off, and ours leaves their
    exponentials out. Unsaturated: gates that are the signs of random mixtures of 4 Gaussian
    factors, and the published alpha of 0.04 for gates with positions; ours computes every kernel
    value. Ours starts from packed gates and estimates the bandwidth within its time; the peers are
    given the bandwidth and the gates as floating-point numbers, 4 or 8 bytes a gate, and neither
    counts. Peak memory excludes each method's own input.
    """

    param_names = "size", "gates", "method"
    params = (
        sizes("2000x1024", "2000x16384", "10000x4096", "50000x4096"),
        list(ALPHAS),
        [OURS, OURS_1, *METHODS],
    )
    columns = {"track_bits": ("H bits", ".6f")}
    targets = [
        (f"H {size}, {gates}: {bound}", (size, gates, measured), (size, gates, over))
        for gates in ALPHAS
        for size, measured, over, bound in [
            ("2000x16384", EXPERT, OURS, "expert GEMM >= 40x ours"),
            ("2000x1024", EXPERT, OURS, "expert GEMM >= 9x ours"),
            ("50000x4096", OURS, FLOOR, "ours <= 1.35x bare distance pass"),
        ]
    ]

    def prepare(self, size, gates, method):
        n, d = shape(size)
        states = make_states(n, d, gates)
        if method in METHODS:
            return METHODS[method](states, kernel_weight(states, gates)), n
        return ours(states, gates, n_jobs=2 if method == OURS else 1), n

    def track_bits(self, *param):
        return self.call()


COMPARISONS = [Entropy]

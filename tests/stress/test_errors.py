"""Whether 95% intervals cover their target, and permutation p-values are uniform.

Samples are drawn again and again from a known distribution, small enough to be enumerated: a label,
and gates that copy it, or each other, with noise.
"""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import binom, kstest, norm, t

from skgate import GatingStates, gating_entropy, gating_mi, permutation_test, total_correlation
from skgate.densities import NAMED, Kernel

NOTE = (
    "Each row: independent samples of a known distribution of a fair label and 10 gates, of which "
    "every other copies the label and the rest their left neighbour; {n} samples, {replications} "
    "times. Cover: share of the intervals estimate +- quantile x standard error that hold the "
    "target; of t with 15 degrees of freedom for the kernel density (jackknife), of the normal "
    "distribution for fitted densities (cross-fitted, 5 folds). Targets: *expectation* is the mean "
    "of the estimate over the replications. *Folds* is the expected loss of the very densities "
    "that the folds fitted, computed over all states of the distribution, with the folds weighted "
    "by their sizes; it moves with the training samples, whose noise the standard error leaves "
    "out. The p-values are those of labels without any relation to the gates, less a uniform "
    "number below 1 / (1 + B), which makes a continuous distribution of a discrete one."
)
N_GATES = 10
FLIPS = np.array([0.35, 0.15, 0.4, 0.2, 0.3, 0.1, 0.35, 0.25, 0.4, 0.15])
KERNEL = Kernel(alpha=0.3)
#: Measure, density, and the item whose standard error is at stake.
CASES = [
    ("gating_entropy", "kde", "entropy"),
    ("gating_entropy", "product", "entropy"),
    ("gating_entropy", "chow-liu", "entropy"),
    ("gating_entropy", "autoregressive", "entropy"),
    ("gating_mi", "kde", "mi_xy"),
    ("gating_mi", "product", "mi_xy"),
    ("gating_mi", "chow-liu", "mi_xy"),
    ("total_correlation", "chow-liu", "total_correlation"),
]

pytestmark = [
    pytest.mark.stress,
    pytest.mark.filterwarnings("ignore::skgate.SaturationWarning"),
]


def draw(rng, n):
    """Return gates and labels."""
    y = rng.integers(0, 2, n)
    gates = rng.random((n, N_GATES)) < FLIPS  # flips, so far
    for i in range(N_GATES):
        gates[:, i] ^= gates[:, i - 1] if i % 2 else y.astype(bool)
    return gates, y


def population():
    """Return all states, and their probabilities with each label, (n_states, 2)."""
    states = np.array(list(itertools.product([False, True], repeat=N_GATES)))
    shares = []
    for y in (False, True):
        before = np.where(np.arange(N_GATES) % 2, np.roll(states, 1, axis=1), y)
        shares.append(0.5 * np.where(states ^ before, FLIPS, 1 - FLIPS).prod(axis=1))
    return GatingStates.from_arrays(states), np.stack(shares, axis=1)


def recorded(density, made):
    """Return the density as one that adds each of its models to a list, in their order."""

    class Recorded(type(density)):
        def _fit_model(self, states, *args):
            made.append(super()._fit_model(states, *args))
            made[-1].n_fitted = len(states)
            return made[-1]

        def independent(self):
            return recorded(super().independent(), made)

    return Recorded(**density.get_params())


def measure(name, density, gates, y, seed):
    """Return a result, and the densities that were fitted on the way."""
    made = []
    density = KERNEL if density == "kde" else recorded(NAMED[density](), made)
    options = {"density": density, "random_state": seed}
    if name == "gating_mi":
        return gating_mi(gates, y, **options), made
    function = gating_entropy if name == "gating_entropy" else total_correlation
    return function(gates, **options), made


def expected_of_folds(name, made, states, shares, y):
    """Return the expectation under the folds' densities, in bits."""
    priors = np.bincount(y) / len(y)

    def mean(value_of, folds):
        weights = [len(y) - fold.n_fitted for fold in folds]  # samples that each is tried on
        return np.average([value_of(fold) for fold in folds], weights=weights) / np.log(2)

    def loss(fold):
        return -np.sum(shares.sum(axis=1) * fold.log_likelihoods(states, [(0, 1)])[0, :, 0])

    def information(fold):
        logs = fold.log_likelihoods(states, [(0, 1)])[0]  # (n_states, 2)
        return np.sum(shares * (logs - logsumexp(logs, axis=1, b=priors, keepdims=True)))

    if name == "total_correlation":  # the densities of independent units are fitted second
        return mean(loss, made[7:12]) - mean(loss, made[1:6])
    return mean(information if name == "gating_mi" else loss, made[1:6])  # 0 has all samples


def test_intervals_cover_their_targets(size, report):
    n, replications = size((200, 20), (400, 200))
    rows, (states, shares) = [], population()
    for name, density, item in CASES:
        rng, is_kernel = np.random.default_rng(0), density == "kde"
        quantile = t.ppf(0.975, 15) if is_kernel else norm.ppf(0.975)
        values, errors, targets = np.empty((3, replications))
        for i in range(replications):
            gates, y = draw(rng, n)
            result, made = measure(name, density, gates, y, i)
            values[i], errors[i] = result[item], result[item + "_se"]
            targets[i] = np.nan if is_kernel else expected_of_folds(name, made, states, shares, y)
        within = [
            np.abs(values - target) <= quantile * errors for target in (values.mean(), targets)
        ]
        cover = [f"{share.mean():.3f}" for share in within]
        numbers = [f"{x:.4f}" for x in (values.mean(), values.std(ddof=1), errors.mean())]
        rows.append([name, density, item, *numbers, cover[0], "–" if is_kernel else cover[1]])
        # intervals of 85%, which some of the table are, would fail once in a thousand runs
        assert all(
            share.sum() >= binom.ppf(1e-3, replications, 0.85) for share in within[: 2 - is_kernel]
        )
    found, tests = p_values(*size((60, 30, 99), (60, 200, 999)))
    assert found["KS p-value"] > 1e-3
    header = ["measure", "density", "value", "mean", "spread", "mean error"]
    table = [*header, "cover expectation", "cover folds"], rows
    note = NOTE.format(n=n, replications=replications)
    packages = ["numpy", "scipy", "scikit-learn", "numkong"]
    report(packages, note, table, tests, name="check_errors.inc")


def p_values(n, replications, n_permutations):
    """Return how p-values are distributed, as numbers and as a table."""
    rng, found = np.random.default_rng(1), np.empty(replications)
    options = {"n_permutations": n_permutations, "density": KERNEL}
    for i in range(replications):
        gates, y = draw(rng, n)[0], rng.integers(0, 2, n)
        found[i] = permutation_test(gates, y, random_state=i, **options).p_value
    spread = found - rng.random(replications) / (1 + n_permutations)
    shares = {f"p <= {level}": np.mean(found <= level) for level in (0.01, 0.05, 0.1)}
    shares["KS p-value"] = kstest(spread, "uniform").pvalue
    cells = [str(n), str(n_permutations), *(f"{share:.3f}" for share in shares.values())]
    return shares, (["n", "B", *shares], [cells])

"""How often 95% intervals cover their target, and whether permutation p-values are uniform.

Samples are drawn again and again from a known distribution, small enough to be enumerated: a label,
and gates that copy it, or each other, with noise.
"""

import argparse
import itertools
import sys
import warnings
from unittest import mock

import numpy as np
from _common import NONE, machine_line, publish, rst_table, timed
from scipy.stats import kstest, norm, t

from skgate import (
    GatingStates,
    SaturationWarning,
    _cross_fitting,
    gating_entropy,
    gating_mi,
    permutation_test,
    total_correlation,
)

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
KDE = {"alpha": 0.3}

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
        flipped = states ^ before
        shares.append(0.5 * np.where(flipped, FLIPS, 1 - FLIPS).prod(axis=1))
    return GatingStates.from_arrays(states), np.stack(shares, axis=1)


class Recorder(_cross_fitting.FittedDensity):
    """A fitted density that remembers, in the order of fits, those there are."""

    made = []

    def __init__(self, states, codes, n_classes, spans, kind, seed):
        super().__init__(states, codes, n_classes, spans, kind, seed)
        self.n_samples = len(states)
        self.made.append(self)


def measure(name, density, item, gates, y, seed):
    """Return a value, its standard error, and the densities that were fitted on the way."""
    function = {
        "gating_entropy": lambda **options: gating_entropy(gates, **options),
        "gating_mi": lambda **options: gating_mi(gates, y, **options),
        "total_correlation": lambda **options: total_correlation(gates, **options),
    }[name]
    Recorder.made.clear()
    with mock.patch.object(_cross_fitting, "FittedDensity", Recorder):
        result = function(density=density, random_state=seed, **KDE)
    return result[item], result[item + "_se"], list(Recorder.made)


def expected_of_folds(name, made, states, shares, y):
    """Return what the folds' densities give in expectation, in bits."""
    n, priors = len(y), np.bincount(y) / len(y)
    folds = made[1:6]  # the first is that of all samples

    def mean(values_of, folds):
        weights = [n - fold.n_samples for fold in folds]  # samples that each is tried on
        return np.average([values_of(fold) for fold in folds], weights=weights) / np.log(2)

    def loss(fold):
        return -np.sum(shares.sum(axis=1) * fold.log_likelihoods(states)[0, :, 0])

    def information(fold):
        logs = fold.log_likelihoods(states)[0]  # (n_states, 2)
        return np.sum(shares * (logs - _cross_fitting.mixture(logs, priors)[:, None]))

    if name == "gating_mi":
        return mean(information, folds)
    if name == "gating_entropy":
        return mean(loss, folds)
    return mean(loss, made[7:12]) - mean(loss, folds)  # those of independent units


def coverage_row(name, density, item, n, replications):
    """Return a row of the table of coverages."""
    rng, (states, shares) = np.random.default_rng(0), population()
    quantile = t.ppf(0.975, 15) if density == "kde" else norm.ppf(0.975)
    values, errors, targets = np.empty((3, replications))
    for i in range(replications):
        gates, y = draw(rng, n)
        values[i], errors[i], made = measure(name, density, item, gates, y, i)
        targets[i] = expected_of_folds(name, made, states, shares, y) if made else np.nan

    def cover(target):
        return f"{np.mean(np.abs(values - target) <= quantile * errors):.3f}"

    return [
        name,
        density,
        item,
        f"{values.mean():.4f}",
        f"{values.std(ddof=1):.4f}",
        f"{errors.mean():.4f}",
        cover(values.mean()),
        NONE if density == "kde" else cover(targets),
    ]


def permutation_row(n, replications, n_permutations):
    """Return a row of the table of p-values."""
    rng, found = np.random.default_rng(1), np.empty(replications)
    for i in range(replications):
        gates, y = draw(rng, n)[0], rng.integers(0, 2, n)
        result = permutation_test(gates, y, n_permutations=n_permutations, random_state=i, **KDE)
        found[i] = result.p_value
    spread = found - rng.random(replications) / (1 + n_permutations)
    at_most = [f"{np.mean(found <= level):.3f}" for level in (0.01, 0.05, 0.1)]
    return [str(n), str(n_permutations), *at_most, f"{kstest(spread, 'uniform').pvalue:.3f}"]


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400, help="of each replication")
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--permutations", type=int, default=999)
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    warnings.simplefilter("ignore", SaturationWarning)
    rows = []
    for case in CASES:
        seconds, row = timed(coverage_row, *case, args.samples, args.replications)
        print(*case, f"{seconds:.0f} s", sep=", ", file=sys.stderr)
        rows.append(row)
    header = ["measure", "density", "value", "mean", "spread", "mean error"]
    coverages = rst_table([*header, "cover expectation", "cover folds"], rows)
    tests = rst_table(
        ["n", "B", "p <= 0.01", "p <= 0.05", "p <= 0.1", "KS p-value"],
        [permutation_row(60, args.replications, args.permutations)],
    )
    machine = machine_line("numpy", "scipy", "scikit-learn", "numkong")
    note = NOTE.format(n=args.samples, replications=args.replications)
    publish([machine, note, coverages, tests], args.output)


if __name__ == "__main__":
    main()

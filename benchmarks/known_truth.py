"""Measures against distributions whose entropy and label information are known.

    python -m benchmarks.known_truth --write
    python -m benchmarks.known_truth --cases "xor triples" "low rank" --draws 5

``benchmarks/truth/`` has the distributions. ``--write`` writes doc/known_truth.inc.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from skgate import GatingEntropy, GatingMI

from .tables import NONE, ROOT, machine_line, publish, rst_table
from .truth import CASES

SIZES = (100, 500, 2000, 5000)
LABEL_SIZES = (500, 2000)
#: Share of the draws that each density measures: cheap ones measure more.
DENSITIES = {"product": 1.0, "chow-liu": 0.4, "auto": 0.04}
KERNEL_SHARE, LABEL_SHARE = 0.2, 0.08
#: Cases whose labels are shuffled as well, so that they are worth nothing.
SHUFFLED = ("net", "noisy copies", "weak gates", "low rank")


def draws(name, n, n_draws):
    """Yield gates, labels and groups of a case, the same ones at every call."""
    for seed in range(n_draws):
        yield CASES[name].sample(n, np.random.default_rng([seed, n]))


def measured(name, n, density, n_draws):
    """Return the fitted measures of entropy of a case."""
    return [
        GatingEntropy(density=density, random_state=0).fit(gates, groups=groups)
        for gates, _, groups in draws(name, n, n_draws)
    ]


# Entropies ----------------------------------------------------------------------------------------


def case_rows(names):
    """Return what is known of each case."""
    rows = []
    for name in names:
        case = CASES[name]
        mi_xy = NONE if case.mi_xy is None else f"{case.mi_xy:.3f}"
        values = f"{case.entropy:.2f}", f"{case.total_correlation:.2f}", mi_xy
        kind = "yes" if case.independent_rows else "no"
        rows.append([name, str(case.n_gates), *values, kind])
    return rows


def interval_cell(case, measures):
    """Return how many intervals have the entropy, the mean error, and the mean interval."""
    errors = [measure.entropy_ - case.entropy for measure in measures]
    ends = np.array([measure.entropy_interval_ for measure in measures])
    covered = (ends[:, 0] <= case.entropy) & (case.entropy <= ends[:, 1])
    low, high = ends.mean(axis=0)
    digits = 2 if case.entropy < 1 else 1
    ends = f"{low:.{digits}f} to {high:.{digits}f}"
    return f"{np.mean(errors):+.2f}; {ends}; {covered.sum()}/{len(covered)}", covered


def entropy_tables(names, n_draws):
    """Return the notes and tables of errors and intervals of each fitted density."""
    parts = []
    for density, share in DENSITIES.items():
        n_own = max(1, round(share * n_draws))
        rows, counts = [], []
        for name in names:
            row = [name, f"{CASES[name].entropy:.2f}"]
            for n in SIZES:
                cell, covered = interval_cell(CASES[name], measured(name, n, density, n_own))
                counts.append(covered.sum())
                row.append(cell)
            rows.append(row)
        parts += [
            f'``density="{density}"``, draws of each case and n: {n_own}. The entropy is in '
            f"{sum(counts)} of {n_own * len(counts)} intervals, and in at least {min(counts)} of "
            "those of each case and n.",
            rst_table(["case", "H", *(f"n = {n}" for n in SIZES)], rows),
        ]
    return parts


def kernel_table(names, n_draws):
    """Return the note and table of the kernel's errors and flags."""
    rows, off, near, flags = [], [], [], []
    for name in names:
        case, row = CASES[name], [name, f"{CASES[name].entropy:.2f}"]
        for n in SIZES:
            measures = measured(name, n, "kde", n_draws)
            errors = np.array([measure.entropy_ - case.entropy for measure in measures])
            off += list(abs(errors) > max(0.1 * case.entropy, 3 * errors.std()))
            near += list(abs(errors) < 0.02 * case.entropy)
            flags += [measure.saturated_ for measure in measures]
            row.append(f"{errors.mean():+.2f}; {sum(flags[-n_draws:])}/{n_draws}")
        rows.append(row)
    off, near, flags = map(np.array, (off, near, flags))
    note = (
        f'``density="kde"``, draws of each case and n: {n_draws}. Of the values more than 10% and '
        f"three standard deviations off, {flags[off].sum()} of {off.sum()} are flagged; of those "
        f"within 2%, {flags[near].sum()} of {near.sum()}."
    )
    return [note, rst_table(["case", "H", *(f"n = {n}" for n in SIZES)], rows)]


# Labels -------------------------------------------------------------------------------------------


def logistic_information(gates, y, groups):
    """Return H(Y) less the cross-validated log-loss of scikit-learn's logistic regression, bits."""
    model = LogisticRegressionCV(
        Cs=np.logspace(-4, 1, 6), cv=3, scoring="neg_log_loss", l1_ratios=(0,), max_iter=200,
        use_legacy_attributes=False,
    )  # fmt: skip
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    groups = np.arange(len(y)) if groups is None else groups
    options = {"cv": folds, "groups": groups, "method": "predict_proba"}
    p = cross_val_predict(model, gates.astype(float), y, **options)
    rates = np.bincount(y) / len(y)
    return (-rates @ np.log(rates) - log_loss(y, p)) / np.log(2)


def label_row(name, n, n_draws, shuffled):
    """Return the cells of the information about the label of one case and n."""
    ours, errors, peers = [], [], []
    for seed, (gates, y, groups) in enumerate(draws(name, n, n_draws)):
        if shuffled:
            y, groups = np.random.default_rng(seed).permutation(y), None
        measure = GatingMI(density="product", random_state=0).fit(gates, y, groups=groups)
        ours.append(measure.mi_xy_)
        errors.append(measure.mi_xy_se_)
        peers.append(logistic_information(gates, y, groups))
    true = 0.0 if shuffled else CASES[name].mi_xy
    value, error, peer = np.mean(ours), np.mean(errors), np.mean(peers)
    share = f"{100 * value / peer:.0f}%" if true and peer > 0 else NONE
    above = sum(v > true + 2 * e for v, e in zip(ours, errors, strict=True))
    title = f"{name}, shuffled" if shuffled else name
    numbers = f"{true:.3f}", f"{value:.3f} ± {error:.3f}", f"{peer:.3f}"
    return [title, str(n), *numbers, share, f"{above}/{len(ours)}"]


def label_table(names, n_draws):
    """Return the note and table of the information about labels."""
    labelled = [(name, False) for name in names if CASES[name].mi_xy is not None]
    labelled += [(name, True) for name in names if name in SHUFFLED]
    rows = [
        label_row(name, n, n_draws, shuffled) for name, shuffled in labelled for n in LABEL_SIZES
    ]  # fmt: skip
    header = ["case", "n", "I(Σ;Y)", "``mi_xy_``", "logistic", "share", "above by two errors"]
    return [f"I(X;Σ;Y), draws of each case and n: {n_draws}.", rst_table(header, rows)]


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--draws", type=int, default=50, help="of the cheapest density")
    parser.add_argument("--write", action="store_true", help="write the tables of the page")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.process_time()
    header = ["case", "gates", "H", "TC", "I(Σ;Y)", "independent rows"]
    parts = [rst_table(header, case_rows(args.cases))]
    parts += entropy_tables(args.cases, args.draws)
    parts += kernel_table(args.cases, max(1, round(KERNEL_SHARE * args.draws)))
    parts += label_table(args.cases, max(1, round(LABEL_SHARE * args.draws)))
    minutes = (time.process_time() - start) / 60
    parts.insert(0, f"{machine_line('numpy', 'scikit-learn')}; {minutes:.0f} minutes of a core.")
    publish(parts, ROOT / "doc/known_truth.inc" if args.write else None)


if __name__ == "__main__":
    main()

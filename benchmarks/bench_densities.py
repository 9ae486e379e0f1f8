"""Time, memory and held-out bits of the fitted densities, against other ways to the same.

The held-out comparison trains the network of ``examples/densities_over_training.py`` on MNIST, or
scikit-learn's digits without SKGATE_DATA, and measures its layers before and after an epoch.
"""

import argparse
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from _common import (
    NONE,
    fresh_process,
    interleaved,
    machine_line,
    median,
    peak_mb,
    publish,
    rst_table,
    timed,
    verdict,
)
from bench_entropy import make_states, unpacked

N = 2000
WIDTHS = [128, 1024, 16384]
TARGETS = [(1024, 0.3), (16384, 10.0)]
EPOCHS = [0, 1]

TREES_NOTE = (
    f"One layer of n = {N} samples and d gates, signs of random mixtures of 4 Gaussian factors. "
    "Ours starts from packed gates, the peers from float32 numbers, and making these does not "
    "count. All end with the in-sample entropy of the smoothed forest; cross-fitted means six "
    "forests, one of all samples and one without each fifth. Peak memory is what comes on top of "
    "each method's own input, MB of it."
)
BITS_NOTE = (
    "Fitted to four fifths of {n} training images: bits per gate of the last fifth; "
    "seconds are those of all layers, fit and likelihood, on two threads. {data}. Mixtures are of "
    "products of Bernoulli gates, by 60 steps of EM; the logistic model has weights of its own for "
    "all pairs of gates, by 150 full-batch steps of Adam, and is given the better of two weight "
    "decays on the held-out samples themselves. The bandwidth of the kernel density is chosen by "
    "five-fold cross-validation within the four fifths."
)
COSTS_NOTE = (
    "The kernel density's errors against its pass over the pairs alone, and the permutation test "
    "against a kernel matrix held in float32 and multiplied by indicators of permuted classes. "
    "Medians of runs that take turns."
)

OURS, OURS_CV = "skgate, in sample", "skgate, cross-fitted"
DENSE, SCORES = "dense matrix, scipy MST", "sklearn mutual_info_score, scipy MST"
GUESSES = {DENSE: 2048, SCORES: 64}  # gates of the run that tells how long a wider one takes


# --- trees -------------------------------------------------------------------------------------


def ours(cv):
    """Return the method that is `gating_entropy` on two threads."""

    def prepare(states):
        from skgate import gating_entropy

        return lambda d: (
            gating_entropy(
                narrowed(states, d), density="chow-liu", cv=cv, n_jobs=2, random_state=0
            ).entropy
        )

    return prepare


def narrowed(states, d):
    """Return the first gates, a multiple of 8 of them."""
    from skgate import GateLayer, GatingStates

    return GatingStates([np.ascontiguousarray(states.packed[0][:, : d // 8])], [GateLayer("g", d)])


def dense(states):
    """The matrix of all informations from one product, and scipy's minimum spanning tree."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    X = unpacked(states, np.float32)

    def run(d):
        x, n = np.ascontiguousarray(X[:, :d]), len(X)
        both = (x.T @ x).astype(np.int32)
        open_, terms = both.diagonal().copy(), np.arange(n + 1.0)
        terms[1:] *= np.log(terms[1:])
        own = terms[open_] + terms[n - open_]
        cost = np.empty((d, d), np.float32)
        for start in range(0, d, 256):
            rows = slice(start, start + 256)
            here, there, pair = open_[rows, None], open_, both[rows]
            block = terms[pair] + terms[here - pair] + terms[there - pair]
            block += terms[n - here - there + pair]
            block += terms[n] - own[rows, None] - own
            cost[rows] = -block / n
        tree = minimum_spanning_tree(_upper(cost), overwrite=True).tocoo()
        return forest_bits(x, tree.row, tree.col, -tree.data)

    return run


def _upper(cost):
    """Return the upper triangle as a sparse matrix, made without index arrays of the square."""
    from scipy.sparse import csr_array

    d = len(cost)
    lengths = np.arange(d - 1, -1, -1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    data, columns = np.empty(starts[-1]), np.empty(starts[-1], np.int32)
    for row in range(d):
        own = slice(starts[row], starts[row + 1])
        data[own], columns[own] = cost[row, row + 1 :], np.arange(row + 1, d)
    return csr_array((data, columns, starts.astype(np.int32)), shape=(d, d))


def pair_scores(states):
    """`mutual_info_score` of each pair, and scipy's minimum spanning tree."""
    from scipy.sparse.csgraph import minimum_spanning_tree
    from sklearn.metrics import mutual_info_score

    X = unpacked(states, np.float32)

    def run(d):
        x, cost = np.ascontiguousarray(X[:, :d]), np.zeros((d, d))
        columns = [column.astype(int) for column in x.T]
        for a in range(d):
            for b in range(a + 1, d):
                cost[a, b] = -mutual_info_score(columns[a], columns[b])
        tree = minimum_spanning_tree(_upper(cost)).tocoo()
        return forest_bits(x, tree.row, tree.col, -tree.data)

    return run


def forest_bits(x, children, parents, information):
    """Return the in-sample entropy of the smoothed forest without edges that may be chance."""
    n, d = x.shape
    kept = information > np.log(d * (d - 1) / 2) / n
    children, parents = children[kept], parents[kept]
    open_ = x.sum(axis=0, dtype=float)
    both = np.array([x[:, a] @ x[:, b] for a, b in zip(children, parents, strict=True)], float)

    def log_likelihood(counts, smoothing):
        rates = (counts + smoothing) / (n + 1)
        return np.log(rates), counts

    nodes, counts = log_likelihood(np.array([n - open_, open_]), 0.5)
    total = np.sum(nodes * counts)
    a, b = open_[children], open_[parents]
    cells = np.array([[n - a - b + both, b - both], [a - both, both]])
    joint, counts = log_likelihood(cells, 0.25)
    total += np.sum((joint - nodes[:, None, children] - nodes[None, :, parents]) * counts)
    return -total / n / np.log(2)


TREES = {OURS: ours(None), OURS_CV: ours(5), DENSE: dense, SCORES: pair_scores}


def measure_tree(method, d, repeats, limit):
    """Return a record of one method in this process: seconds, peak and value, or why not."""
    try:
        run = TREES[method](make_states(N, d, "unsaturated"))
        before, small = peak_mb(), min(d, GUESSES.get(method, d))
        run(min(d, 64))  # warms up
        first = timed(run, small)
        expected = first[0] * (d / small) ** 2
        if expected > limit and small < d:
            return {"failure": f"skipped (est. {expected:.0f} s)"}
        runs = [first] if small == d else []
        wanted = int(np.clip(10 / expected, 1, repeats))
        runs += [timed(run, d) for _ in range(wanted - len(runs))]
    except MemoryError:
        return {"failure": "failed (memory)"}
    return {
        "seconds": median(s for s, _ in runs),
        "peak": peak_mb() - before,
        "bits": runs[0][1],
    }


def tree_tables(repeats, limit):
    """Return the table of trees and that of targets."""
    rows, targets = [], []
    for d in WIDTHS:
        records = {}
        for method in TREES:
            print("tree", d, method, sep=", ", file=sys.stderr)
            try:
                records[method] = fresh_process(measure_tree, method, d, repeats, limit)
            except BrokenProcessPool:
                records[method] = {"failure": "failed (killed, for memory perhaps)"}
        own = records[OURS]
        for method, record in records.items():
            if "failure" in record:
                rows.append([str(d), method, record["failure"], *[NONE] * 4])
                continue
            compared = method != OURS_CV and "bits" in own
            off = f"{record['bits'] - own['bits']:.0e}" if compared else NONE
            rows.append(
                [
                    str(d),
                    method,
                    f"{record['seconds']:.4g}",
                    f"{record['seconds'] / own['seconds']:.2f}" if "seconds" in own else NONE,
                    f"{record['peak']:.0f}",
                    f"{record['bits']:.4f}",
                    off,
                ]
            )
        for wide, most in TARGETS:
            if wide == d:
                seconds = own.get("seconds")
                name = f"Chow-Liu, n={N}, d={d}: one forest < {most:g} s"
                measured = NONE if seconds is None else f"{seconds:.3g} s"
                targets.append([name, measured, verdict(seconds and seconds < most)])
    header = ["d", "method", "seconds", "ratio", "peak MB", "H bits", "off ours"]
    return rst_table(header, rows), rst_table(["target", "measured", "verdict"], targets)


# --- held-out bits -----------------------------------------------------------------------------
# Each method takes gates to fit and gates to judge, and returns the mean surprisal, bits.


def fitted(density):
    """Return the method that is `GatingEntropy` without cross-fitting."""

    def surprisal(train, test):
        from skgate import GatingEntropy

        return -GatingEntropy(density=density, cv=None, random_state=0).fit(train).score(test)

    return surprisal


def kde(train, test):
    """The kernel density with the bandwidth that predicts best."""
    from sklearn.model_selection import GridSearchCV

    from skgate import GatingEntropy

    grid = {"alpha": np.geomspace(1e-3, 1, 13)}
    return -GridSearchCV(GatingEntropy(), grid).fit(train).score(test)


def mixture(n_components, steps=60):
    """Return the method that is a mixture of independent gates."""

    def surprisal(train, test):
        from scipy.special import logsumexp

        x, rng = train.astype(float), np.random.default_rng(0)
        rates = 0.25 + 0.5 * x[rng.choice(len(x), n_components, replace=False)]
        weights = np.full(n_components, 1 / n_components)

        def log_joint(x):
            return x @ np.log(rates / (1 - rates)).T + np.log1p(-rates).sum(1) + np.log(weights)

        for _ in range(steps):
            logs = log_joint(x)
            shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
            sizes = shares.sum(axis=0)
            rates = (shares.T @ x + 2 * x.mean(axis=0)) / (sizes[:, None] + 2)
            rates = rates.clip(1e-4, 1 - 1e-4)
            weights = (sizes + 0.01) / (sizes + 0.01).sum()
        return -logsumexp(log_joint(test.astype(float)), axis=1).mean() / np.log(2)

    return surprisal


def logistic(decay, steps=150, lr=0.02):
    """Return the method that is a logistic regression of each gate on those before it."""

    def surprisal(train, test):
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

        a, b = (torch.from_numpy(x.astype(np.float32)) for x in (train, test))
        n, d = a.shape
        mean, rates = a.mean(0), (a.sum(0) + 0.5) / (n + 1)
        weights = torch.zeros(d, d, requires_grad=True)
        biases = torch.log(rates / (1 - rates)).requires_grad_()
        optimizer = torch.optim.Adam([weights, biases], lr)
        for step in range(steps):
            optimizer.zero_grad()
            before = weights.tril(-1)
            loss = loss_of((a - mean) @ before.T + biases, a, reduction="sum") / n
            (loss + decay / 2 * before.square().sum()).backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        with torch.no_grad():
            z = (b - mean) @ weights.tril(-1).T + biases
            return loss_of(z, b, reduction="none").double().sum(1).mean().item() / np.log(2)

    return surprisal


METHODS = {
    "skgate, kde, best alpha": [kde],
    "skgate, product": [fitted("product")],
    "skgate, chow-liu": [fitted("chow-liu")],
    "mixture of 10 products": [mixture(10)],
    "mixture of 30 products": [mixture(30)],
    "mixture of 100 products": [mixture(100)],
    "logistic, Adam": [logistic(0.003), logistic(0.01)],
    "skgate, autoregressive": [fitted("autoregressive")],
}


def bits_table():
    """Return the note and the table of held-out bits per gate."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from densities_over_training import load, mlp, trained

    from skgate import GateExtractor

    warnings.simplefilter("ignore")  # of saturation, which the kernel density is meant to show
    torch.manual_seed(0)
    data, X, y = load("mlp")
    widths = [784, 1024, 256, 128, 64, 10] if data == "mnist" else [64, 128, 32, 16, 12, 10]
    net, names = mlp(widths)
    rows = np.random.default_rng(0).permutation(len(X))[:N]
    cells = {method: [] for method in METHODS}
    for epoch in trained(net, X, y, EPOCHS, 1e-3):
        states = GateExtractor(net, layers=names).fit_transform(X[rows])
        gates = [np.asarray(states.select(name)) for name in names]
        for method, variants in METHODS.items():
            print("bits", epoch, method, sep=", ", file=sys.stderr)
            total, fifth = 0.0, len(rows) // 5
            for x in gates:
                tries = [timed(run, x[fifth:], x[:fifth]) for run in variants]
                seconds, bits = min(tries, key=lambda pair: pair[1])
                total += seconds
                cells[method].append(f"{bits / x.shape[1]:.4f}")
            cells[method].append(f"{total:.2f}")
    header = ["method"]
    for epoch in EPOCHS:
        header += [f"epoch {epoch}, d={d}" for d in widths[1:-1]] + [f"seconds, epoch {epoch}"]
    note = BITS_NOTE.format(n=len(rows), data=f"MLP {'-'.join(map(str, widths))} on {data}")
    return note, rst_table(header, [[method, *row] for method, row in cells.items()])


# --- errors and permutations -------------------------------------------------------------------


def error_seconds(n, d, repeats):
    """Return seconds by name of the entropy with its error, and of its pass alone."""
    from skgate import gating_entropy
    from skgate.pairwise import Engine, kernel_masses

    warnings.simplefilter("ignore")
    states = make_states(n, d, "unsaturated")
    rates = states.activation_rates()[0]
    weights = np.array([[0.5 / (0.04 * np.sum(rates * (1 - rates)))]])
    return interleaved(
        {
            "gating_entropy, with errors": lambda: gating_entropy(states, alpha=0.04, n_jobs=2),
            "kernel_masses alone": lambda: kernel_masses(states, weights, engine=Engine(n_jobs=2)),
        },
        repeats,
    )


def permutation_seconds(n, d, repeats, n_permutations=999, n_classes=10):
    """Return seconds by name of the permutation test, and its p-values."""
    import torch

    from skgate import permutation_test

    warnings.simplefilter("ignore")
    states = make_states(n, d, "unsaturated")
    rates = states.activation_rates()[0]
    scale = -0.5 / (0.04 * np.sum(rates * (1 - rates)))
    X = torch.from_numpy(unpacked(states, np.float32))
    y = np.random.default_rng(1).integers(0, n_classes, n)
    options = {"alpha": 0.04, "n_permutations": n_permutations, "n_jobs": 2, "random_state": 0}

    @torch.inference_mode()
    def matrix():
        rng, squares = np.random.RandomState(0), X.sum(1)
        kernel = torch.addmm(squares, X, X.T, alpha=-2).add_(squares[:, None]).mul_(scale).exp_()
        orders = [y] + [rng.permutation(y) for _ in range(n_permutations)]
        sizes, given = torch.from_numpy(np.bincount(y)), []
        for start in range(0, len(orders), 100):
            codes = torch.from_numpy(np.stack(orders[start : start + 100], axis=1))  # (n, B)
            classes = torch.nn.functional.one_hot(codes, n_classes).float()
            sums = (kernel @ classes.flatten(1)).view(classes.shape)
            own = sums.gather(2, codes[..., None])[..., 0]
            given.append((own.log().double() - sizes[codes].log()).mean(0))
        values = torch.cat(given)
        return (values >= values[0] - 1e-7).double().mean().item()

    p = permutation_test(states, y, **options).p_value
    seconds = interleaved(
        {
            "permutation_test": lambda: permutation_test(states, y, **options),
            "kernel matrix, torch": matrix,
        },
        repeats,
    )
    return seconds, {"permutation_test": p, "kernel matrix, torch": matrix()}


def cost_table(repeats):
    """Return the table of errors and permutations, and the targets' measured ratios."""
    rows = []
    for n, d in [(2000, 1024), (10000, 4096)]:
        print("errors", n, d, sep=", ", file=sys.stderr)
        seconds = fresh_process(error_seconds, n, d, repeats)
        rows += _cost_rows(f"errors, n={n}, d={d}", seconds)
    print("permutations", file=sys.stderr)
    seconds, p_values = fresh_process(permutation_seconds, N, 1024, max(1, repeats // 3))
    rows += _cost_rows(f"999 permutations, n={N}, d=1024", seconds, p_values)
    return rst_table(["work", "method", "seconds", "ratio", "p"], rows)


def _cost_rows(work, seconds, p_values=None):
    medians = {name: median(runs) for name, runs in seconds.items()}
    own = next(iter(medians.values()))
    return [
        [
            work,
            name,
            f"{value:.4g}",
            f"{value / own:.2f}",
            NONE if p_values is None else f"{p_values[name]:.3f}",
        ]
        for name, value in medians.items()
    ]


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs of a process, at most")
    parser.add_argument("--limit", type=float, default=60, help="seconds a single tree may take")
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    trees, targets = tree_tables(args.repeats, args.limit)
    note, bits = bits_table()
    costs = cost_table(args.repeats)
    machine = machine_line("torch", "numpy", "numkong", "scikit-learn", "scipy")
    parts = [machine, TREES_NOTE, trees, targets, note, bits, COSTS_NOTE, costs]
    publish(parts, args.output)


if __name__ == "__main__":
    main()

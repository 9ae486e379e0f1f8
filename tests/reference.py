"""The measures once more, as float64 double loops that share no code with skgate."""

import itertools
import math
from collections import Counter

SCALES = {"upper": 2.0, "lower": 8.0}


def hamming(a, b):
    return sum(int(x != y) for x, y in zip(a, b, strict=True))


def variance(gates):
    n = len(gates)
    rates = [sum(int(row[i]) for row in gates) / n for i in range(len(gates[0]))]
    return sum(a * (1 - a) for a in rates)


def bandwidth(layers, kind, alphas):
    """sigma0^2 of several layers concatenated."""
    if kind == "variance":
        return sum(a * variance(gates) for gates, a in zip(layers, alphas, strict=True))
    if kind == "n_gates":
        return sum(a * len(gates[0]) for gates, a in zip(layers, alphas, strict=True))
    return kind


def kernel(layers, bandwidths, bound="upper"):
    """Matrix exp(-sum_l D_l / (2 or 8) sigma_l^2) as nested lists."""
    n = len(layers[0])
    values = [[0.0] * n for _ in range(n)]
    for j, k in itertools.product(range(n), range(n)):
        exponent = 0.0
        for gates, sigma2 in zip(layers, bandwidths, strict=True):
            distance = hamming(gates[j], gates[k])
            exponent += distance / (SCALES[bound] * sigma2) if distance else 0.0
        values[j][k] = math.exp(-exponent)
    return values


def entropy(values, rows=None):
    """H in bits from a matrix of kernel values, over some of the rows and columns."""
    rows = range(len(values)) if rows is None else rows
    total = 0.0
    for j in rows:
        total -= math.log2(math.fsum(values[j][k] for k in rows) / len(rows))
    return total / len(rows)


def conditional_entropy(values, y):
    total = 0.0
    for label in set(y):
        rows = [j for j, other in enumerate(y) if other == label]
        total += len(rows) / len(y) * entropy(values, rows)
    return total


def independent_entropy(layers, bandwidths, bound="upper", rows=None):
    """C in bits: the expectation over independent gates by the product formula, gate by gate."""
    rows = range(len(layers[0])) if rows is None else rows
    total = 0.0
    for j in rows:
        for gates, sigma2 in zip(layers, bandwidths, strict=True):
            c = math.exp(-1 / (SCALES[bound] * sigma2)) if sigma2 else 0.0
            for i, gate in enumerate(gates[j]):
                same = sum(int(gates[k][i] == gate) for k in rows) / len(rows)
                total -= math.log2(same + c * (1 - same))
    return total / len(rows)


def log_likelihood(query, layers, bandwidths, bound="upper"):
    """log2 of the normalised kernel density at one state, given layer by layer."""
    weights = [1 / (SCALES[bound] * sigma2) for sigma2 in bandwidths]
    exponents = []
    for k in range(len(layers[0])):
        pairs = zip(query, layers, weights, strict=True)
        exponents.append(-sum(w * hamming(q, gates[k]) for q, gates, w in pairs))
    top = max(exponents)
    log_sum = top + math.log(math.fsum(math.exp(e - top) for e in exponents))
    pairs = zip(query, weights, strict=True)
    log_norm = sum(len(q) * math.log1p(math.exp(-w)) for q, w in pairs)
    return (log_sum - math.log(len(exponents)) - log_norm) / math.log(2)


# Activations of layers ---------------------------------------------------------------------------


def plogp(probabilities):
    """Entropy in bits of one distribution."""
    return -math.fsum(p * math.log2(p) for p in probabilities if p > 0)


def gibbs_distribution(row):
    top = max(float(t) for t in row)
    values = [math.exp(float(t) - top) for t in row]
    total = math.fsum(values)
    return [v / total for v in values]


def class_weights(y, class_weight):
    """Weight of each class, by label."""
    counts = Counter(y)
    if class_weight == "uniform":
        return {label: 1 / len(counts) for label in counts}
    return {label: count / len(y) for label, count in counts.items()}


def _mean_rows(rows):
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def gibbs(activations, y, class_weight="prior"):
    """I(X;T), I(Y;T), I(X_bar;T) in bits, each from its own definition."""
    y = list(y)
    weights = class_weights(y, class_weight)
    distributions = [gibbs_distribution(row) for row in activations]
    of_class = {
        label: [p for p, other in zip(distributions, y, strict=True) if other == label]
        for label in weights
    }
    given = {label: _mean_rows(rows) for label, rows in of_class.items()}
    marginal = [
        math.fsum(weights[label] * given[label][i] for label in weights)
        for i in range(len(distributions[0]))
    ]
    given_y = math.fsum(w * plogp(given[label]) for label, w in weights.items())
    given_x = math.fsum(
        w / len(of_class[label]) * plogp(p) for label, w in weights.items() for p in of_class[label]
    )
    total = plogp(marginal)
    return total - given_x, total - given_y, given_y - given_x


def gibbs_score(fitted, fitted_y, activations, y, class_weight="prior"):
    """Mean of sum_n P(n|x) log2 P(n|y)/P(n), the latter two of other samples."""
    fitted_y, y = list(fitted_y), list(y)
    weights = class_weights(fitted_y, class_weight)
    given = {}
    for label in weights:
        rows = [row for row, other in zip(fitted, fitted_y, strict=True) if other == label]
        given[label] = _mean_rows([gibbs_distribution(row) for row in rows])
    gains = {label: [] for label in y}
    for row, label in zip(activations, y, strict=True):
        gain = 0.0
        for i, p in enumerate(gibbs_distribution(row)):
            marginal = math.fsum(w * given[m][i] for m, w in weights.items())
            gain += p * math.log2(given[label][i] / marginal)
        gains[label].append(gain)
    if class_weight == "uniform":
        return math.fsum(math.fsum(g) / len(g) for g in gains.values()) / len(gains)
    return math.fsum(math.fsum(g) for g in gains.values()) / len(y)


def _cells(activations, bin_size):
    return [tuple(math.floor(float(t) / bin_size) for t in row) for row in activations]


def binned(activations, y, bin_size):
    """I(X;T) and I(Y;T) in bits of binned activations."""
    y, cells = list(y), _cells(activations, bin_size)
    total = plogp(count / len(cells) for count in Counter(cells).values())
    given = 0.0
    for label, count in Counter(y).items():
        own = Counter(cell for cell, other in zip(cells, y, strict=True) if other == label)
        given += count / len(y) * plogp(c / count for c in own.values())
    return total, total - given


def binned_score(fitted, fitted_y, activations, y, bin_size):
    """Mean of log2 of the smoothed p(y|c) over p(y)."""
    cells = Counter(_cells(fitted, bin_size))
    pairs = Counter(zip(_cells(fitted, bin_size), fitted_y, strict=True))
    classes = Counter(fitted_y)
    total = 0.0
    for cell, label in zip(_cells(activations, bin_size), y, strict=True):
        prior = classes[label] / len(fitted_y)
        total += math.log2((pairs[cell, label] + prior) / (cells[cell] + 1) / prior)
    return total / len(y)


def squared_distance(a, b):
    return math.fsum((float(s) - float(t)) ** 2 for s, t in zip(a, b, strict=True))


def log_kernel_mean(row, activations, noise_variance, bound="upper"):
    """log2 of the mean over other samples of exp(-|t - t_k|^2 / (2 or 8) sigma^2)."""
    scale = SCALES[bound] * noise_variance
    exponents = [-squared_distance(row, other) / scale for other in activations]
    top = max(exponents)
    total = math.fsum(math.exp(e - top) for e in exponents)
    return (top + math.log(total / len(exponents))) / math.log(2)


def kde(activations, y, noise_variance, bound="upper"):
    """I(X;T) and I(Y;T) in bits by kernel density."""
    y = list(y)
    total = given = 0.0
    for row, label in zip(activations, y, strict=True):
        own = [other for other, m in zip(activations, y, strict=True) if m == label]
        total -= log_kernel_mean(row, activations, noise_variance, bound) / len(y)
        given -= log_kernel_mean(row, own, noise_variance, bound) / len(y)
    return total, total - given


def kde_score(fitted, fitted_y, activations, y, noise_variance, bound="upper"):
    """Mean of log2 p(t|y)/p(t) under the density of other samples."""
    total = 0.0
    for row, label in zip(activations, y, strict=True):
        own = [other for other, m in zip(fitted, fitted_y, strict=True) if m == label]
        total += log_kernel_mean(row, own, noise_variance, bound)
        total -= log_kernel_mean(row, fitted, noise_variance, bound)
    return total / len(y)


def correlation(a, b):
    """Pearson correlation of two vectors."""
    a, b = [float(s) for s in a], [float(t) for t in b]
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    product = math.fsum((s - mean_a) * (t - mean_b) for s, t in zip(a, b, strict=True))
    norms = squared_distance(a, [mean_a] * len(a)) * squared_distance(b, [mean_b] * len(b))
    return product / math.sqrt(norms)


def sample_correlation(activations, y):
    """Means of R over pairs of the same and of different classes, then of |R|."""
    values = {True: [], False: []}
    for j, k in itertools.permutations(range(len(y)), 2):
        values[bool(y[j] == y[k])].append(correlation(activations[j], activations[k]))
    signed = [math.fsum(v) / len(v) for v in (values[True], values[False])]
    absolute = [math.fsum(map(abs, v)) / len(v) for v in (values[True], values[False])]
    return [*signed, *absolute]


# Densities that do not saturate -------------------------------------------------------------------


def binary_entropy(rate):
    return -sum(p * math.log2(p) for p in (rate, 1 - rate) if p > 0)


def product_entropy(gates):
    """C in bits: the sum of the gates' own entropies, at their observed rates."""
    rates = [sum(map(int, column)) / len(gates) for column in zip(*gates, strict=True)]
    return sum(binary_entropy(rate) for rate in rates)


def pair_counts(gates, a, b):
    """2 x 2 table of how often gates a and b take each pair of values."""
    table = [[0, 0], [0, 0]]
    for row in gates:
        table[int(row[a])][int(row[b])] += 1
    return table


def mutual_information(gates, a, b):
    """I(a; b) in nats at the observed rates."""
    table, n = pair_counts(gates, a, b), len(gates)
    total = 0.0
    for u, v in itertools.product((0, 1), (0, 1)):
        if table[u][v]:
            other = sum(table[u]) * (table[0][v] + table[1][v])
            total += table[u][v] / n * math.log(table[u][v] * n / other)
    return total


def forest_edges(gates):
    """Edges of the maximum spanning forest (Kruskal), without those that may be chance."""
    n, d, pairs = len(gates), len(gates[0]), {}
    for a, b in itertools.combinations(range(d), 2):
        pairs[a, b] = mutual_information(gates, a, b)
    least = math.log(d * (d - 1) / 2) / n if d > 1 else 0.0
    tree_of, edges = list(range(d)), []
    for (a, b), information in sorted(pairs.items(), key=lambda item: -item[1]):
        if tree_of[a] != tree_of[b] and information > least:
            edges.append((a, b))
            old, new = tree_of[b], tree_of[a]
            tree_of = [new if tree == old else tree for tree in tree_of]
    return edges


def forest_log_likelihood(query, gates, edges, prior, kappa):
    """log2 p of one state under the smoothed forest of some gates.

    ``edges`` are pairs of child and parent, ``prior`` is that of the rates of open gates, and
    ``kappa`` the samples that draw those given the parent to the child's own.
    """
    n, (a, b) = len(gates), prior

    def hits(rows, values):
        return sum(all(int(row[i]) == v for i, v in values.items()) for row in rows)

    def pooled(i, value):
        return (hits(gates, {i: value}) + (a if value else b)) / (n + a + b)

    def pooled_pair(child, v, parent, w):
        given = hits(gates, {child: v, parent: w}) + kappa * pooled(child, v)
        return pooled(parent, w) * given / (hits(gates, {parent: w}) + kappa)

    values = [int(value) for value in query]
    one = [pooled(i, v) for i, v in enumerate(values)]
    total = sum(map(math.log2, one))
    for child, parent in edges:
        v, w = values[child], values[parent]
        pair = pooled_pair(child, v, parent, w)
        total += math.log2(pair / (one[child] * one[parent]))
    return total


def solve(matrix, vector):
    """Solution of a linear system, by elimination."""
    rows = [[*map(float, row), float(v)] for row, v in zip(matrix, vector, strict=True)]
    n = len(rows)
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(i + 1, n):
            factor = rows[r][i] / rows[i][i]
            rows[r] = [x - factor * z for x, z in zip(rows[r], rows[i], strict=True)]
    x = [0.0] * n
    for i in reversed(range(n)):
        known = sum(rows[i][j] * x[j] for j in range(i + 1, n))
        x[i] = (rows[i][n] - known) / rows[i][i]
    return x


def ridge_predictions(queries, gates, rates, ridge):
    """Predictions less rates, one explicit ridge regression per gate on all before it.

    ``rates`` are what gates are centred at.
    """
    n, d = len(gates), len(gates[0])
    scale = sum((int(g) - a) ** 2 for row in gates for g, a in zip(row, rates, strict=True)) / n / d
    data, rows = (
        [[int(g) - a for g, a in zip(row, rates, strict=True)] for row in of]
        for of in (gates, queries)
    )
    predictions = [[] for _ in rows]
    for i in range(d):
        before = range(i)
        gram = [[math.fsum(r[a] * r[b] for r in data) / n for b in before] for a in before]
        for a in before:
            gram[a][a] += scale * ridge
        target = [math.fsum(r[a] * r[i] for r in data) / n for a in before]
        weights = solve(gram, target)
        for row, found in zip(rows, predictions, strict=True):
            found.append(sum(w * row[a] for w, a in zip(weights, before, strict=True)))
    return predictions


def logistic_log_likelihood(query, predictions, intercepts, slopes):
    """log2 p of one state, gate by gate."""
    total = 0.0
    for gate, x, a, b in zip(query, predictions, intercepts, slopes, strict=True):
        z = a + b * x
        total -= math.log2(1 + math.exp(-z if gate else z))
    return total


# Standard errors ----------------------------------------------------------------------------------


def jackknife_error(statistic, parts):
    """Standard error from recomputing a statistic of rows without each of some parts of them."""
    left_out = []
    for part in parts:
        rows = [j for other in parts if other is not part for j in other]
        left_out.append(statistic(sorted(rows)))
    g = len(parts)
    mean = sum(left_out) / g
    return math.sqrt((g - 1) / g * sum((x - mean) ** 2 for x in left_out))


def cluster_error(values, groups):
    """Standard error of the mean of values whose rows depend on each other inside groups."""
    mean, sums = sum(values) / len(values), {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    n_groups = len(sums)
    squares = sum(total**2 for total in sums.values())
    return math.sqrt(n_groups / (n_groups - 1) * squares) / len(values)


# Training with a penalty -------------------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def relaxed(z, line, kinks, sharpness):
    """a + b z + sum of c (z - t), each from its t on, with sigmoids in place of the steps."""
    a, b = line
    return a + b * z + sum(c * (z - t) * sigmoid(sharpness * (z - t)) for t, c in kinks)


def running_rates(batches, momentum=0.9):
    """Activation rates after some batches; the first one sets them."""
    rates = None
    for gates in batches:
        new = [
            math.fsum(float(g) for g in column) / len(gates) for column in zip(*gates, strict=True)
        ]
        if rates is None:
            rates = new
        else:
            rates = [momentum * a + (1 - momentum) * b for a, b in zip(rates, new, strict=True)]
    return rates


def log_prior(row, rates):
    """log of the product of Bernoulli gates (nats), of one row of relaxed gates."""
    total = 0.0
    for gate, rate in zip(row, rates, strict=True):
        p = min(max(rate, 1e-3), 1 - 1e-3)
        total += math.log(1 - p + float(gate) * (2 * p - 1))
    return total


def _leak(x):
    return x if x > 0 else 0.2 * x


def dense_energy(row, weights, biases):
    """f of one row: leaky layers, weights as lists (inputs, outputs)."""
    x = [float(g) for g in row]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = [_leak(v) for v in x] if i else x
        x = [
            bias[o] + math.fsum(x[k] * weight[k][o] for k in range(len(x)))
            for o in range(len(bias))
        ]
    return x[0]


def convolutional_energy(image, weights, biases):
    """f of one (channels, height, width): convolutions of 3 x 3 by loops, summed at the end.

    Positions are halved, rounding up, while there are more than four on the shorter axis.
    """
    x = [[[float(g) for g in line] for line in plane] for plane in image]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = [[[_leak(v) for v in line] for line in plane] for plane in x] if i else x
        height, width = len(x[0]), len(x[0][0])
        stride = 2 if min(height, width) > 4 else 1
        x = [
            [
                [_tap(x, weight[o], bias[o], r, c) for c in range(0, width, stride)]
                for r in range(0, height, stride)
            ]
            for o in range(len(bias))
        ]
    return math.fsum(v for line in x[0] for v in line)


def _tap(x, weight, bias, row, column):
    height, width = len(x[0]), len(x[0][0])
    total = bias
    for k, r, c in itertools.product(range(len(x)), range(3), range(3)):
        at, to = row + r - 1, column + c - 1
        if 0 <= at < height and 0 <= to < width:
            total += x[k][at][to] * weight[k][r][c]
    return total


def tree_probability(state, parents, rate, copies):
    """p of one state of gates that copy their parent with some probability, or turn it over."""
    total = rate if state[0] else 1 - rate
    for i in range(1, len(state)):
        total *= copies[i] if state[i] == state[parents[i]] else 1 - copies[i]
    return total

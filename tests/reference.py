"""The measures once more, as float64 double loops that share no code with skgate."""

import itertools
import math

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

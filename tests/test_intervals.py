"""Intervals: bounds against loops, direct sums and slow grids; how often they hold; edges."""

import math
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binom
from sklearn.base import BaseEstimator

from skgate import (
    GateLayer,
    GatingEntropy,
    GatingStates,
    TotalCorrelation,
    gating_entropy,
    gating_mi,
    total_correlation,
)
from skgate.densities import ChowLiu, Kernel, LayerRanges
from skgate.densities._betting import upper_means
from skgate.densities._coincidences import lower_entropies
from skgate.densities._intervals import _IndependentUnits
from skgate.densities._state_numbers import state_numbers
from skgate.states import is_sparse
from skgate.utils.samples import Samples

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")

ERROR = 0.025
WEIGHTS = [(0, math.inf), (3, 0), (3, 3), (10, 0.1), (30, 0.3)]


def rows(n):
    return Samples(None, n)


def lower(numbers, error=ERROR, groups=None):
    return lower_entropies([np.asarray(numbers)], Samples(groups, len(numbers)), error, 0)[0]


def upper(values, limit, error=ERROR, groups=None, seed=0):
    values = np.asarray(values, dtype=float)
    samples = Samples(groups, len(values))
    return upper_means(values[None], np.array([limit]), samples, error, seed)[0]


def not_too_many(missed, n_runs, error):
    """Whether so few intervals miss that an error as large as promised explains it."""
    return missed <= binom.ppf(0.999, n_runs, error)


# Lower end: counts of equal rows ------------------------------------------------------------------


def harmonic(j):
    return math.fsum(1 / i for i in range(1, j + 1))


def bound_of_few(numbers, error):
    n, counts = len(numbers), Counter(numbers)
    mean = math.fsum(harmonic(n - 1) - harmonic(counts[state] - 1) for state in numbers) / n
    return mean - (harmonic(n - 1) + 1) * math.sqrt(math.log(2 / error) / (2 * n))


def exponent(rate, g):
    """-log E exp(-g(N)) / rate of a Poisson number N, term by term."""
    total, term = 0.0, math.exp(-rate)
    for j in range(int(rate + 10 * math.sqrt(rate) + 40)):
        total += term * math.exp(-g(j))
        term *= rate / (j + 1)
    return -math.log(total) / rate


def bound_of_many(numbers, error):
    """B on a grid; the minorant is the highest of the lines below, slope by slope."""
    n, counts, terms = len(numbers), Counter(numbers).values(), []
    us = np.linspace(0, 2 * math.log(n) + 5, 700)
    for scale, eta in WEIGHTS:
        s = scale / (math.sqrt(n) * math.log(n))

        def g(j, s=s, eta=eta):
            return s * j * harmonic(j - 1) + eta if j > 1 else 0.0

        values = np.array([exponent(n * math.exp(-u), g) for u in us])
        slopes = -np.geomspace(1e-7, 1, 500)
        intercepts = np.min(values - slopes[:, None] * us, axis=1)
        minorant = np.max(intercepts[:, None] + slopes[:, None] * us, axis=0)
        terms.append(np.exp(n * minorant - sum(g(c) for c in counts)))
    return us[np.flatnonzero(np.mean(terms, axis=0) < 4 / error)[0]]


def test_few_states_have_the_bound_of_their_formula(rng):
    numbers = rng.choice(4, size=300, p=[0.4, 0.3, 0.2, 0.1])
    expected = bound_of_few(numbers.tolist(), ERROR)
    assert expected > 0.3  # of 1.28
    assert_allclose(lower(numbers), expected, rtol=1e-12)


@pytest.mark.parametrize("counts", [[1] * 40, [2] * 3 + [1] * 44, [4, 3, 2, 2] + [1] * 60])
def test_many_states_have_the_bound_of_direct_sums(counts):
    numbers = np.repeat(np.arange(len(counts)), counts)
    expected = bound_of_many(numbers.tolist(), ERROR)
    assert expected > bound_of_few(numbers.tolist(), ERROR) + 0.1
    # a step or two of the two grids lower, and never higher
    assert -0.05 < lower(numbers) - expected < 0.01


def test_the_bound_does_not_exceed_twice_the_logarithm_of_the_number_of_rows():
    for n in (2, 10, 1000):
        assert 0 <= lower(np.arange(n)) < 2 * math.log(n)
    assert lower(np.arange(1000)) > 2 * math.log(1000) - 3


@pytest.mark.parametrize(
    "p", [[1.0], np.full(8, 1 / 8), [0.9, *np.full(50, 0.002)], np.full(3000, 1 / 3000)]
)
@pytest.mark.parametrize("n", [5, 60])
def test_lower_bounds_hold(rng, p, n):
    # at an error of a half, so that a bound that is too high by a little would show
    p, error, n_runs = np.array(p), 0.5, 150
    entropy = -np.sum(p * np.log(p))
    missed = sum(lower(rng.choice(len(p), size=n, p=p), error) > entropy for _ in range(n_runs))
    assert not_too_many(missed, n_runs, error)


def test_one_row_of_a_sample_counts():
    numbers = np.random.default_rng(0).integers(50, size=200)
    repeated, groups = np.repeat(numbers, 5), np.repeat(np.arange(200), 5)
    assert lower(repeated, groups=groups) == lower(numbers)
    assert lower(repeated) > lower(numbers)  # as if they were independent


def test_rows_of_larger_samples_have_the_same_chance(rng):
    # half of the samples have nine rows in one state, half have one row in one of many states
    n = 2000
    large = rng.random(n) < 0.5
    groups = np.repeat(np.arange(n), np.where(large, 9, 1))
    numbers = np.where(large[groups], 0, 1 + rng.integers(4096, size=n)[groups])
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1) + 0.1 * math.log(4096)  # of rows
    assert 0.3 * entropy < lower(numbers, groups=groups) < entropy
    assert lower(numbers[np.unique(groups, return_index=True)[1]]) > entropy  # of samples


def test_equal_rows_have_equal_numbers(rng):
    few = [rng.integers(2, size=(40, d)) > 0 for d in (2, 1, 3)]
    wide = np.zeros((40, 70_000), bool)
    wide[:, -1] = rng.integers(2, size=40)
    layers = [few[0], wide, few[1], few[2]]
    states = GatingStates.from_arrays(layers)
    assert [is_sparse(gates) for gates in states.packed] == [False, True, False, False]
    ranges = LayerRanges(4, prefixes=True)
    for (first, stop), found in zip(ranges.bounds, state_numbers(states, ranges), strict=True):
        states_of_rows = [row.tobytes() for row in np.hstack(layers[first:stop])]
        pairs = set(zip(found.tolist(), states_of_rows, strict=True))
        assert len(pairs) == len(set(found.tolist())) == len(set(states_of_rows)) < 40


# Upper end: bets ----------------------------------------------------------------------------------


def capital_reaches(values, limit, error, mean):
    """Whether bets on a mean of at most ``mean`` reach 1 / error, one after the other."""
    n, capital, seen, spread = len(values), 1.0, [], (0.1 * limit) ** 2
    for x in values:
        variance = spread / max(len(seen), 1)
        stake = math.sqrt(2 * math.log(1 / error) / (n * variance))
        capital *= 1 + min(stake, 0.9 / (limit - mean)) * (mean - x)
        if capital >= 1 / error:
            return True
        seen.append(x)
        spread += (x - sum(seen) / len(seen)) ** 2
    return False


@pytest.mark.parametrize("kind", ["uniform", "skewed", "constant", "below zero"])
def test_bets_are_those_of_a_slow_grid(rng, kind):
    values = {
        "uniform": rng.random(60) * 3,
        "skewed": (rng.random(60) < 0.05) * 3.0,
        "constant": np.full(60, 0.4),
        "below zero": rng.normal(-40, 2, size=60),
    }[kind]
    found = upper(values, 4.0, seed=5)
    order = np.random.default_rng(5).permutation(60)
    grid = np.linspace(values.mean(), 4.0, 4000)[1:-1]
    expected = next(m for m in grid if capital_reaches(values[order], 4.0, ERROR, m))
    assert abs(found - expected) <= grid[1] - grid[0]


@pytest.mark.parametrize("p", [0.02, 0.3, 0.97])
@pytest.mark.parametrize("n", [10, 100])
def test_upper_bounds_hold(rng, p, n):
    n_runs, error = 200, 0.2
    missed = sum(
        upper(2.0 * (rng.random(n) < p), 2.0, error, seed=i) < 2 * p for i in range(n_runs)
    )
    assert not_too_many(missed, n_runs, error)


def test_bounds_are_near_those_of_a_normal_distribution(rng):
    values = rng.random(5000)
    z = values.mean() + 1.96 * values.std() / math.sqrt(5000)
    assert values.mean() < upper(values, 1.0) < values.mean() + 1.6 * (z - values.mean())


def test_a_sample_is_one_observation(rng):
    values = rng.random(80)
    repeated, groups = np.repeat(values, 4), np.repeat(np.arange(80), 4)
    assert_allclose(upper(repeated, 1.5, groups=groups), upper(values, 1.5), rtol=1e-9)


def test_means_are_those_of_rows_where_samples_differ_in_size(rng):
    # rows of large samples are higher: their mean is 0.9 * 0.9 + 0.1 * 0.1
    missed, n_runs, error = 0, 150, 0.2
    for seed in range(n_runs):
        sizes = np.where(rng.random(100) < 0.5, 9, 1)
        groups = np.repeat(np.arange(100), sizes)
        high = rng.random(100) < np.where(sizes == 9, 0.9, 0.1)
        missed += upper(high[groups], 1.0, error, groups=groups, seed=seed) < 0.82
    assert not_too_many(missed, n_runs, error)
    assert upper(high[groups], 1.0, groups=groups) < 1


# Independent units --------------------------------------------------------------------------------


def unit_states(rng, n, kind, n_values):
    """Return states of five units, and their values."""
    values = rng.binomial(n_values - 1, 0.3, size=(n, 5))
    if kind == "one hot":
        gates = values[..., None] == np.arange(n_values)
        layer = GateLayer("units", 5 * n_values, kind, n_values, one_hot=True)
    else:
        gates = values[..., None] > np.arange(n_values - 1)
        layer = GateLayer("units", 5 * (n_values - 1), kind, n_values - 1)
    return GatingStates([np.packbits(gates.reshape(n, -1), axis=1)], [layer]), values


@pytest.mark.parametrize(("kind", "n_values"), [("gates", 2), ("one hot", 4), ("in order", 3)])
def test_independent_units_are_counted_in_the_other_folds(rng, kind, n_values):
    states, values = unit_states(rng, 47, kind, n_values)
    units = _IndependentUnits(states, LayerRanges(1), seed=3)
    plug_in = 0.0
    for unit in range(5):
        counts = Counter(values[:, unit].tolist())
        plug_in -= sum(c / 47 * math.log(c / 47) for c in counts.values())
    for train, test in rows(47).folds(10, 3):
        for row in test:
            expected = 0.0
            for unit in range(5):
                seen = sum(values[other, unit] == values[row, unit] for other in train)
                expected -= math.log((seen + 0.5) / (len(train) + n_values / 2))
            assert_allclose(units.surprisals[0, row], expected, rtol=1e-10)
    assert_allclose(units.excess, units.surprisals.mean() - plug_in, rtol=1e-10)
    assert_allclose(units.limits, 5 * math.log(2 * 47 + n_values), rtol=1e-12)


def test_a_sample_is_not_among_those_that_its_units_are_counted_in():
    gates = np.repeat(np.eye(6, dtype=bool), 4, axis=0)
    states = GatingStates.from_arrays(gates, groups=np.repeat(np.arange(6), 4))
    units = _IndependentUnits(states, LayerRanges(1), seed=0)
    closed = 5 * math.log((16 + 0.5) / 21)  # of the four rows of each other sample, open in one
    assert_allclose(units.surprisals, -math.log(0.5 / 21) - closed, rtol=1e-12)


# Measures -----------------------------------------------------------------------------------------


def copies(rng, n, d=12, flip=0.1):
    return (rng.random((n, 1)) < 0.5) ^ (rng.random((n, d)) < flip)


def entropy_of_copies(d=12, flip=0.1):
    total = 0.0
    for k in range(d + 1):
        p = 0.5 * (flip**k * (1 - flip) ** (d - k) + (1 - flip) ** k * flip ** (d - k))
        total -= math.comb(d, k) * p * math.log2(p)
    return total


def rare_event(rng, n):
    """One row in a hundred has all gates open."""
    return np.repeat(rng.random((n, 1)) < 0.01, 20, axis=1)


DISTRIBUTIONS = {
    "copies": (copies, entropy_of_copies(), 12 - entropy_of_copies()),
    "rare gate": (lambda rng, n: rng.random((n, 1)) < 0.02, 0.1414405, 0.0),
    "coins": (lambda rng, n: rng.random((n, 5)) < 0.5, 5.0, 0.0),
    "rare gates": (lambda rng, n: rng.random((n, 100)) < 0.02, 14.14405, 0.0),
    "rare event": (rare_event, 0.0807931, 1.5350697),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_intervals_hold(rng, name):
    draw, entropy, correlation = DISTRIBUTIONS[name]
    n_runs, missed = 30, np.zeros(2)
    for seed in range(n_runs):
        result = total_correlation(draw(rng, 100), density="chow-liu", random_state=seed)
        found = result.entropy_interval, result.total_correlation_interval
        for i, ((low, high), true) in enumerate(zip(found, [entropy, correlation], strict=True)):
            missed[i] += not low - 1e-6 <= true <= high + 1e-6
    assert not_too_many(missed.max(), n_runs, 0.05)


def test_intervals_are_informative(rng):
    result = total_correlation(copies(rng, 2000), density=ChowLiu(), random_state=0)
    low, high = result.entropy_interval
    assert entropy_of_copies() - 1 < low < entropy_of_copies() < high < result.entropy + 0.3
    low, high = result.total_correlation_interval
    assert result.total_correlation - 0.6 < low < result.total_correlation < high < 7


@pytest.mark.parametrize("density", ["product", Kernel(alpha=0.1)])
def test_each_range_has_the_interval_of_its_layers(rng, density):
    layers = [copies(rng, 60, 3), rng.random((60, 2)) < 0.3, copies(rng, 60, 4)]
    result = gating_entropy(layers, density=density, random_state=0)
    alone = {
        "layer_": [layers[:1], layers[1:2], layers[2:]],
        "prefix_": [layers[:1], layers[:2], layers],
        "suffix_": [layers, layers[1:], layers[2:]],
    }
    for prefix, parts in alone.items():
        expected = [
            gating_entropy(part, density=density, random_state=0).entropy_interval for part in parts
        ]
        assert_allclose(result[f"{prefix}entropy_interval"], expected, rtol=1e-12)
    assert result.entropy_interval.shape == (2,)
    found = total_correlation(layers, density=density, random_state=0)
    assert_allclose(found.layer_entropy_interval, result.layer_entropy_interval)
    assert found.layer_total_correlation_interval.shape == (3, 2)


def test_ends_are_those_of_half_the_error(rng):
    gates = copies(rng, 200)
    found = [
        gating_entropy(gates, density="chow-liu", confidence=c, random_state=0).entropy_interval
        for c in (0.999, 0.95, 0.5)
    ]
    lows, highs = np.transpose(found)
    assert (np.diff(lows) > 0).all()
    assert (np.diff(highs) < 0).all()
    counted = lower(np.unique(gates, axis=0, return_inverse=True)[1].ravel(), error=0.25)
    assert_allclose(lows[2], counted / np.log(2), rtol=1e-12)


@pytest.mark.parametrize(
    "options", [{"density": Kernel(alpha=0.1)}, {"density": "product", "cv": None}]
)
def test_what_is_scored_in_sample_has_no_upper_end_but_the_number_of_states(rng, options):
    gates = copies(rng, 100)
    cross_fitted = gating_entropy(gates, density="product", random_state=0).entropy_interval
    result = total_correlation(gates, random_state=0, **options)
    assert_array_equal(result.entropy_interval, [cross_fitted[0], 12])
    assert result.total_correlation_interval[0] == 0
    units = GatingStates(
        [np.packbits(np.repeat(np.eye(4, dtype=bool), 5, axis=0), axis=1)],
        [GateLayer("pool", 4, "max_pool1d", 4, one_hot=True)],
    )
    assert_allclose(gating_entropy(units, **options).entropy_interval[1], 2)  # not 4 gates


def test_several_bandwidths_have_the_same_interval(rng):
    density = Kernel(alpha=[0.1, 1.0, 2.0], bound=["upper", "lower"])
    layers = [copies(rng, 50, 4), copies(rng, 50, 3)]
    result = gating_entropy(layers, density=density)
    assert result.entropy_interval.shape == (3, 2, 2)
    assert result.layer_entropy_interval.shape == (3, 2, 2, 2)
    single = gating_entropy(layers, density=Kernel(alpha=0.1))
    assert (result.layer_entropy_interval == single.layer_entropy_interval).all()


def test_constant_gates_may_vary():
    for measure in (GatingEntropy, TotalCorrelation):
        fitted = measure(density="product", random_state=0).fit(np.zeros((50, 3)))
        low, high = fitted.entropy_interval_
        assert low == 0 < 0.1 < high < 1
    low, high = fitted.total_correlation_interval_
    assert low == 0 < 0.1 < high < 2


def test_one_unit_has_no_total_correlation(rng):
    result = total_correlation(rng.random((30, 1)) < 0.5, density="product", random_state=0)
    assert_array_equal(result.total_correlation_interval, [0, 0])


@pytest.mark.parametrize(
    ("n", "density", "cv"), [(1, "kde", 5), (1, "product", None), (2, "product", 2)]
)
def test_few_rows_have_wide_intervals(n, density, cv):
    gates = np.arange(n * 6).reshape(n, 6) % 5 > 1
    for measure in (gating_entropy, total_correlation):
        result = measure(gates, density=density, cv=cv, random_state=0)
        assert_array_equal(result.entropy_interval, [0, 6])
    assert_allclose(result.total_correlation_interval, [0, 5], rtol=1e-12)


def test_repeated_rows_never_make_an_interval_without_numbers():
    gates = np.repeat(np.random.default_rng(0).random((3, 40)) < 0.5, 100, axis=0)
    result = total_correlation(gates, density="product", random_state=0)
    for low, high in (result.entropy_interval, result.total_correlation_interval):
        assert 0 <= low <= high <= 40


def test_intervals_are_in_units_of_base(rng):
    gates = copies(rng, 80)
    bits, nats = (
        total_correlation(gates, density="product", base=b, random_state=0) for b in (2, np.e)
    )
    for name in ("entropy_interval", "total_correlation_interval"):
        assert_allclose(nats[name], bits[name] * np.log(2), rtol=1e-12)


@pytest.mark.parametrize("confidence", [0, 1, 95, "high"])
def test_confidence_is_between_0_and_1(confidence):
    gates = np.eye(10)
    for measure in (gating_entropy, total_correlation):
        with pytest.raises(ValueError, match="'confidence' parameter"):
            measure(gates, confidence=confidence)
    for kind in (GatingEntropy, TotalCorrelation):
        with pytest.raises(ValueError, match="'confidence' parameter"):
            kind(confidence=confidence).fit(gates)


class Closed(BaseEstimator):
    """An estimator of somebody else's, quite sure that gates are closed."""

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.sum(np.where(X > 0, np.log(1e-9), np.log1p(-1e-9)), axis=1)


def test_surprisals_of_the_upper_end_are_bounded(rng):
    gates = rng.random((50, 30)) < 0.02
    result = gating_entropy(gates, density=Closed(), base=np.e, random_state=0)
    # 50 of 51 parts are the density, one part is uniform
    p = [50 / 51 * 1e-9 ** row.sum() + 1 / 51 * 0.5**30 for row in gates]
    seed = np.random.RandomState(0).randint(2**31 - 1)
    expected = upper(-np.log(p), 30 * math.log(2) + math.log(51), seed=seed)
    assert_allclose(result.entropy_interval[1], expected, rtol=1e-6)
    assert expected < 30 * math.log(2)


def test_information_about_the_input_has_the_interval_of_the_entropy(rng):
    gates, y = rng.random((400, 5)) < 0.5, rng.integers(0, 2, 400)  # 5 bits
    wide, narrow = (
        gating_mi({"a": gates, "b": gates}, y, density="product", confidence=c, random_state=0)
        for c in (0.99, 0.5)
    )
    for result in (wide, narrow):
        for ends in (result.layer_mi_x_interval, result.suffix_mi_x_interval):
            assert ends.shape == (2, 2)
        lower, upper = result.layer_mi_x_interval[0]
        assert lower <= 5 <= upper
    assert wide.layer_mi_x_interval[0, 0] < narrow.layer_mi_x_interval[0, 0]
    assert_array_equal(wide.mi_x_interval, wide.suffix_mi_x_interval[0])

"""Tests of the prior of rates: against SciPy's beta-binomial, and what it makes of constants."""

import numpy as np
import pytest
from scipy.stats import betabinom, dirichlet_multinomial

from skgate.densities._rates import (
    beta_prior,
    conditional_rates,
    conditional_strength,
    value_priors,
    value_rates,
)

RNG = np.random.default_rng(0)
FAIR = RNG.binomial(200, 0.5, 10)
COUNTS = {
    "spread": (RNG.binomial(500, RNG.beta(0.7, 3, 300)), 500),
    "alike": (RNG.binomial(200, 0.3, 1000), 200),
    "closed but ten": (np.append(np.zeros(2000, int), FAIR), 200),
    "open but ten": (200 - np.append(np.zeros(2000, int), FAIR), 200),
    "constants of both kinds": (np.concatenate([np.zeros(900, int), np.full(90, 200), FAIR]), 200),
    "all closed": (np.zeros(2000, int), 200),
    "one gate": (np.array([70]), 200),
    "one sample": (np.array([0, 1, 1]), 1),
    "other numbers of samples": (np.array([3, 0, 5, 0]), np.array([9, 2, 5, 0])),
    "a matrix": (RNG.binomial(50, 0.2, (6, 4)), 50),
}


def log_posterior(a, b, n_open, n):
    hyperprior = np.log(a * b) - 2 * np.log((1 + a) * (1 + b))
    return betabinom.logpmf(n_open, n, a, b).sum() + hyperprior


@pytest.mark.parametrize("case", COUNTS)
def test_no_prior_near_by_or_far_away_explains_the_counts_better(case):
    a, b = beta_prior(*COUNTS[case])
    best = log_posterior(a, b, *COUNTS[case])
    near, far = [0.9, 0.97, 1, 1.03, 1.1], [1e-4, 1e-2, 0.3, 1, 3, 100]
    for factors, scale in [(near, (a, b)), (far, (1, 1)), (far, (a, b))]:
        for f in factors:
            for g in factors:
                other = log_posterior(scale[0] * f, scale[1] * g, *COUNTS[case])
                assert other <= best + 1e-6 * abs(best)


def test_the_prior_of_many_gates_is_the_distribution_of_their_rates():
    rates = np.random.default_rng(1).beta(0.5, 2.0, 20_000)
    n_open = np.random.default_rng(2).binomial(100, rates)
    np.testing.assert_allclose(beta_prior(n_open, 100), (0.5, 2.0), rtol=0.03)


def test_twenty_thousand_constants_cost_a_fraction_of_a_bit():
    for n_open in (np.zeros(20_000, int), np.full(20_000, 200)):
        a, b = beta_prior(np.append(n_open, FAIR), 200)
        rate = np.max([(n_open + a) / (200 + a + b), (200 - n_open + b) / (200 + a + b)])
        assert -20_000 * np.log2(rate) < 0.05


def test_a_prior_without_counts_is_the_median_of_the_hyperprior():
    np.testing.assert_allclose(beta_prior(np.zeros(0, int), 5), (1.0, 1.0))


def test_rates_are_never_zero_or_one_where_all_counts_are_equal():
    for count in (0, 1000, 2000):
        a, b = beta_prior(np.full(100_000, count), 2000)
        rate = (count + a) / (2000 + a + b)
        assert 0 < rate < 1
        assert rate == pytest.approx(count / 2000, abs=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.6])
def test_no_other_strength_explains_the_counts_of_pairs_better(noise):
    rng, rates = np.random.default_rng(0), np.array([0.5, 0.3, 0.2])
    tables = np.stack([rng.multinomial(40, rates, 4) for _ in range(30)])  # given 4 values
    copies = np.broadcast_to(40 * np.eye(4, 3, dtype=int), tables.shape)
    counts = np.where(rng.random((30, 1, 1)) < noise, tables, copies).swapaxes(1, 2)
    own = np.broadcast_to(rates, (30, 3))
    kappa = conditional_strength(counts, own)

    def log_posterior(value):
        total = np.log(value) - 2 * np.log(1 + value)
        for table in counts:
            for given in table.T:
                if given.sum():
                    total += dirichlet_multinomial.logpmf(given, value * rates, given.sum())
        return total

    for factor in (1e-2, 0.1, 0.5, 0.9, 1.1, 2, 10, 100):
        assert log_posterior(kappa * factor) <= log_posterior(kappa) + 1e-3


def test_rates_given_another_unit_are_shares_drawn_to_its_own():
    counts = np.random.default_rng(0).integers(0, 9, (5, 3, 2))
    own = np.full((5, 3), 1 / 3)
    kappa = conditional_strength(counts, own)
    found = conditional_rates(counts, own, kappa)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    table = counts[2]
    for v in range(3):
        for w in range(2):
            expected = (table[v, w] + kappa / 3) / (table[:, w].sum() + kappa)
            np.testing.assert_allclose(found[2, v, w], expected)


def test_values_of_units_are_broken_off_one_after_the_other():
    counts = np.random.default_rng(0).multinomial(50, [0.2, 0.5, 0.3], 40)
    found = value_rates(counts, value_priors(counts))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    a, b = beta_prior(counts[:, 0], 50)
    first = (counts[:, 0] + a) / (50 + a + b)
    a, b = beta_prior(counts[:, 1], counts[:, 1:].sum(axis=1))
    second = (counts[:, 1] + a) / (counts[:, 1:].sum(axis=1) + a + b)
    np.testing.assert_allclose(found[:, 0], first)
    np.testing.assert_allclose(found[:, 1], (1 - first) * second)
    np.testing.assert_allclose(found[:, 2], (1 - first) * (1 - second))

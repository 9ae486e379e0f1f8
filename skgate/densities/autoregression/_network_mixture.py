"""A mixture of linear regressions and of networks with orders and penalties of their own."""

import numpy as np
from scipy.special import logit, logsumexp

from ...utils.samples import Samples
from ._linear_autoregression import Moments, fit_linear
from ._masked_network import MaskedNetwork, Schedule, train

#: Penalties of the networks.
_PENALTIES = (1.0, 3.0, 10.0)
#: One in so many samples judges the networks.
_JUDGED = 10
#: Models of less weight are left out.
_LEAST_WEIGHT = 0.02
_EM_STEPS = 200
#: Steps of a network, and multiplications of all networks, which determine them.
_MIN_STEPS, _MAX_STEPS, _WORK = 100, 4000, 2e12
_MIN_BATCH, _MAX_BATCH, _N_BATCHES = 100, 512, 100


def schedule(n_rows, n_columns, n_predicted, n_hidden):
    """Return the `Schedule` of networks, which depends on sizes alone."""
    batch = int(np.clip(n_rows // _N_BATCHES, _MIN_BATCH, _MAX_BATCH))
    work = step_work(batch, n_columns, n_predicted, n_hidden) * 2 * len(_PENALTIES)
    return Schedule(n_hidden, int(np.clip(_WORK / work, _MIN_STEPS, _MAX_STEPS)), batch)


def seconds_of_networks(n_rows, n_columns, n_predicted, n_hidden):
    """Return an estimate of the seconds that one core takes to train the networks."""
    plan = schedule(n_rows, n_columns, n_predicted, n_hidden)
    step = step_work(plan.batch, n_columns, n_predicted, n_hidden) / 5e10 + 3e-4
    return 2 * len(_PENALTIES) * plan.n_steps * step


def step_work(batch, n_columns, n_predicted, n_hidden):
    """Return the operations of a step: three products with each weight."""
    n_weights = n_hidden * (n_columns + n_predicted) + n_columns * n_predicted
    return 6.0 * batch * n_weights


def fit_mixture(columns, groups, code, first, n_hidden, seed):
    """Return models of the columns from ``first`` on, and their weights.

    Networks are stopped, and models weighed, by the first tenth of the samples, whose order is
    random; then all are fitted to all samples.
    """
    samples = Samples(groups, len(columns))
    if len(samples) < 2 * _JUDGED or len(columns.gates[0]) < 2:
        return [fit_linear(columns, groups, first)], np.ones(1)
    is_judged = samples.of_rows < len(samples) // _JUDGED
    judged, fitted = columns[is_judged], columns[~is_judged]
    networks = _Networks(code, first, n_hidden, len(columns), seed)
    linear = fit_linear(fitted, None if groups is None else groups[~is_judged], first)
    trained, stops = networks.fit(fitted, linear, judged)
    weights = _weigh([linear, *trained], judged, first)
    kept = weights >= _LEAST_WEIGHT
    stops = [stop if keep else None for stop, keep in zip(stops, kept[1:], strict=True)]
    linear = fit_linear(columns, groups, first)
    trained, _ = networks.fit(columns, linear, stops=stops)
    return [linear] * int(kept[0]) + trained, weights[kept] / weights[kept].sum()


class _Networks:
    """Networks, each with an order, a penalty and a seed."""

    def __init__(self, code, first, n_hidden, n_rows, seed):
        self._first = first
        self._schedule = schedule(n_rows, len(code.columns), len(code.columns) - first, n_hidden)
        self._seeds = [(seed, i) for i in range(len(_PENALTIES))]
        self._orders = [_order(code, np.random.default_rng((*s, 1))) for s in self._seeds]

    def fit(self, columns, linear, judged=None, stops=None):
        """Return the networks, and when each was stopped; without a stop, one is left out."""
        ridge, slope = linear.choices
        moments = Moments(columns)
        networks, found = [], []
        for i, (penalty, order) in enumerate(zip(_PENALTIES, self._orders, strict=True)):
            if stops is not None and stops[i] is None:
                continue
            regression = moments.regression(ridge, order)
            start = self._start(regression, order, slope)
            stop = None if stops is None else stops[i]
            options = penalty, self._schedule, self._seeds[i], judged, stop
            network, stop = train(columns, start, *options)
            networks.append(network)
            found.append(stop)
        return networks, found

    def _start(self, regression, order, slope):
        predicted = order[self._first :]
        weights = logit(regression.rates[predicted]), slope * regression.weights()[self._first :]
        return MaskedNetwork(order, regression.rates, weights)


def _order(code, rng):
    """Return columns in random order, layers and the gates of units in theirs."""
    layers = np.repeat(np.arange(len(code.ends) - 1), np.diff(code.ends))
    keys = layers + rng.random(code.units.max() + 1)[code.units]
    return np.argsort(keys, kind="stable")


def _weigh(models, judged, first):
    """Return the weights of the mixture that predicts the judged columns best, by EM."""
    logs = np.array([judged.log_bernoulli(m.logits(judged), first).sum(axis=1) for m in models])
    weights = np.full(len(models), 1 / len(models))
    for _ in range(_EM_STEPS):
        joint = np.log(weights)[:, None] + logs
        weights = np.exp(joint - logsumexp(joint, axis=0)).mean(axis=1)
        weights = np.maximum(weights, 1e-12)
    return weights / weights.sum()

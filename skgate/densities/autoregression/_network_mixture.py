"""A mixture of linear regressions and of networks with orders and penalties of their own."""

from dataclasses import replace

import numpy as np
from scipy.special import logit, logsumexp

from ...utils.samples import Samples
from .._cross_fitting import pointwise_information
from ._linear_autoregression import Moments, fit_linear, of_classes
from ._masked_network import MaskedNetwork, Schedule, train

#: Penalties of the networks.
_PENALTIES = (1.0, 3.0, 10.0)
#: One in so many samples judges the networks.
_JUDGED = 10
#: Models of less weight are left out.
_LEAST_WEIGHT = 0.02
_EM_STEPS = 200
#: What the hidden layers add to the log-odds of the classes.
_GAINS = (0.0, 0.25, 0.5, 0.75, 1.0)
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


def fit_mixture(columns, y_encoded, n_classes, groups, code, first, n_hidden, seed):
    """Return models of the columns from ``first`` on, and their weights.

    Networks are stopped, and models weighed, by the first tenth of the samples, whose order is
    random; then all are fitted to all samples.
    """
    samples = Samples(groups, len(columns))
    options = y_encoded, n_classes, groups, first
    if len(samples) < 2 * _JUDGED or len(columns.gates[0]) < 2:
        return [fit_linear(columns, *options)], np.ones(1)
    is_judged = samples.of_rows < len(samples) // _JUDGED
    judged, fitted = columns[is_judged], columns[~is_judged]
    networks = _Networks(code, first, n_hidden, len(columns), seed)
    of_fitted = y_encoded[~is_judged], n_classes, None if groups is None else groups[~is_judged]
    linear = fit_linear(fitted, *of_fitted, first)
    trained, stops = networks.fit(fitted, *of_fitted[:2], linear, judged)
    models = [linear, *trained]
    weights = _weigh(models, judged, first)
    gain = 0.0
    if np.isfinite(linear.choices[-1]):
        priors = np.bincount(of_fitted[0], minlength=n_classes) / len(fitted)
        gain = _choose_gain(models, weights, judged, y_encoded[is_judged], priors)
    kept = weights >= _LEAST_WEIGHT
    stops = [stop if keep else None for stop, keep in zip(stops, kept[1:], strict=True)]
    linear = fit_linear(columns, *options)
    trained, _ = networks.fit(columns, y_encoded, n_classes, linear, stops=stops)
    models = [linear] * int(kept[0]) + [_with_gain(network, gain) for network in trained]
    return models, weights[kept] / weights[kept].sum()


class _Networks:
    """Networks, each with an order, a penalty and a seed."""

    def __init__(self, code, first, n_hidden, n_rows, seed):
        self._first = first
        self._schedule = schedule(n_rows, len(code.columns), len(code.columns) - first, n_hidden)
        self._seeds = [(seed, i) for i in range(len(_PENALTIES))]
        self._orders = [_order(code, np.random.default_rng((*s, 1))) for s in self._seeds]

    def fit(self, columns, y_encoded, n_classes, linear, judged=None, stops=None):
        """Return the networks, and when each was stopped; without a stop, one is left out."""
        ridge, slope, label_ridge = linear.choices
        moments = Moments(columns, y_encoded, n_classes)
        networks, found = [], []
        for i, (penalty, order) in enumerate(zip(_PENALTIES, self._orders, strict=True)):
            if stops is not None and stops[i] is None:
                continue
            regression = moments.regression(ridge, label_ridge, order)
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
        offsets = slope * regression.class_offsets[:, self._first :]
        offsets = offsets[:, np.argsort(predicted)]
        return MaskedNetwork(order, regression.rates, weights, offsets)


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


def _choose_gain(models, weights, judged, y_encoded, priors):
    """Return the weight of the class in the networks that tells the label best."""
    linear, *networks = models
    found = []
    for gain in _GAINS:
        logs = [of_classes(m, judged) for m in [linear, *(_with_gain(n, gain) for n in networks)]]
        mixed = logsumexp(np.log(weights)[:, None, None] + logs, axis=0)  # (n_rows, n_classes)
        found.append(pointwise_information(mixed, y_encoded, priors).mean())
    return _GAINS[int(np.argmax(found))]


def _with_gain(network, gain):
    return replace(network, class_logits=gain * network.class_logits)

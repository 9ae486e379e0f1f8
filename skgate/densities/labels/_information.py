"""`label_information`: of each row and range of layers, from models fitted to other rows."""

from dataclasses import dataclass

import numpy as np

from ...states import stack_rows
from ...utils.samples import Samples
from ._calibration import Calibration, best_weight, weighted
from ._folds import N_FOLDS, LabelFolds, Labels
from ._scores import ClassifierScores, OwnScores, require_memory


def label_information(states, label_sets, ranges, seed, classifier=None):
    r"""Return log q(y|sigma) / p(y) of each row, (n_ranges, n_rows), nats, for each set of labels.

    By default, :math:`q` is a mixture of two, of class rates and of linear discriminants, whose
    weight is chosen on held-out rows.

    Parameters
    ----------
    states : GatingStates or LayersInTurn
    label_sets : list of ndarray of shape (n_rows,), int
    ranges : LayerRanges
    seed : int
    classifier : object with ``fit`` and ``predict_proba``, default=None
        What :math:`q` is made of instead.
    """
    samples, n = Samples(states.groups, len(states)), len(states)
    if len(samples) < 2 * N_FOLDS:
        return [np.zeros((len(ranges), n)) for _ in label_sets]  # too few to find any
    folds, values = LabelFolds.crossing(samples, seed), []

    def read(index):
        return states.select([index])[folds.order]

    labels = [y[folds.order] for y in label_sets]
    for found in _log_ratios(read, states.n_gates, labels, folds, ranges.bounds, seed, classifier):
        values.append(np.empty_like(found))
        values[-1][:, folds.order] = found
    return values


def label_log_ratios(states, y_encoded, new_states, new_y, seed, classifier=None):
    """Return log q(y|sigma) / p(y) of new rows, all layers together, (n_new,), nats.

    ``states`` and ``new_states`` are GatingStates of the same layers.
    """
    samples, n = Samples(states.groups, len(states)), len(states)
    if len(samples) < 2 * N_FOLDS:
        return np.zeros(len(new_states))
    folds = LabelFolds.with_new(samples, len(new_states), seed)

    def read(index):
        return stack_rows(states.select([index]), new_states.select([index]))[folds.order]

    labels, bounds = np.append(y_encoded, new_y)[folds.order], np.array([(0, len(states.layers))])
    (found,) = _log_ratios(read, states.n_gates, [labels], folds, bounds, seed, classifier)
    return found[0, n:]


def _log_ratios(read, n_gates, label_sets, folds, bounds, seed, classifier):
    """Return the log-ratios of the labels of the targets' rows, (n_ranges, n_rows), by label set.

    ``read`` takes the index of a layer, and returns its rows in the order of the folds.
    """
    ranges = [np.arange(*bound) for bound in bounds]
    labels = [Labels.of(y, folds) for y in label_sets]
    require_memory(n_gates, len(folds.order), labels, classifier)
    if classifier is None:
        scores = OwnScores(n_gates, folds, labels, ranges, seed)
    else:
        scores = ClassifierScores(classifier, folds, labels)
    for index in range(len(n_gates)):
        scores.add(index, read(index))
    values = np.zeros((len(labels), len(ranges), len(folds.order)))
    for key, layers in enumerate(ranges):
        for of_set, y, sources in zip(values, labels, scores.of_range(key, layers), strict=True):
            of_set[key] = _calibrated(sources, y, folds)
    return values


def _calibrated(sources, labels, folds):
    """Return log q(y|sigma) / p(y) of the targets' rows, (n_rows,), from one source or two."""
    values = np.zeros(len(labels.encoded))
    for target in folds.targets:
        pairs = folds.calibrating(target)
        judged = _Rows.of(pairs, labels, folds)
        own, found = _Rows.of([(target, (target,))], labels, folds), []
        for scores in sources:
            calibration = Calibration.fit(judged.options(scores), judged.y, judged.log_shares)
            found.append(
                [
                    calibration(rows.options(scores), rows.y, rows.log_shares)
                    for rows in (judged, own)
                ]
            )
        weight = best_weight(*(inner for inner, _ in found)) if len(found) > 1 else 0.0
        ratios = weighted(found[0][1], found[-1][1], weight)
        if ratios.any():  # relative to the shares that the model knows; or nothing is found
            of_rows = np.take_along_axis(own.log_shares, own.y[:, None], axis=1)[:, 0]
            ratios += of_rows - labels.log_shares[own.y]
        values[folds.rows(target)] = ratios
    return values


@dataclass
class _Rows:
    """Rows of some parts, each of which a model scores; ``counts`` are its classes' sizes."""

    places: list
    counts: list
    y: np.ndarray
    log_shares: np.ndarray

    @classmethod
    def of(cls, pairs, labels, folds):
        y = [labels.encoded[folds.rows(part)] for part, _ in pairs]
        places = [(model, part) for part, model in pairs]
        counts = [labels.counts_without(folds, model) for model, _ in places]
        shares = [np.log((c + 0.5) / (c.sum() + 0.5 * len(c))) for c in counts]
        shares = np.repeat(shares, [len(own) for own in y], axis=0)
        return cls(places, counts, np.concatenate(y), shares)

    def options(self, scores):
        """Return each option of the scores, (n_rows, n_classes).

        Those of classes that a model does not know are the mean of the others: that a class is
        missing there tells that it is elsewhere.
        """
        found = []
        for place, counts in zip(self.places, self.counts, strict=True):
            known = counts > 0
            found.append([options.copy() for options in scores[place]])
            for options in found[-1]:
                options[:, ~known] = options[:, known].mean(axis=1, keepdims=True)
        return [np.concatenate(options) for options in zip(*found, strict=True)]

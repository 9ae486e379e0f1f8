"""Scores of classes of ranges of layers, from one source or two."""

import numpy as np
from sklearn.base import clone

from ...utils.memory import physical_memory
from ._class_rates import class_rate_scores
from ._coordinates import Features
from ._discriminants import N_OPTIONS, discriminant_scores

_LEAST = 1e-12


class OwnScores:
    """Class rates, and linear discriminants.

    Layers are added one by one; ``ranges`` are those that are asked for, arrays of indices.
    """

    def __init__(self, n_gates, folds, labels, ranges, seed):
        self._folds, self._labels, self._ranges = folds, labels, ranges
        self._features = Features(n_gates, folds.fitted, seed)
        self._rates = [[{} for _ in ranges] for _ in labels]

    def add(self, index, layer):
        """Take in a layer, rows in the order of the folds."""
        inside = [(key, of) for key, of in enumerate(self._ranges) if index in of]
        self._features.add(index, layer, inside)
        for own, of_ranges in zip(self._labels, self._rates, strict=True):
            found = class_rate_scores(layer, self._folds, own.indicators)
            for key, _ in inside:
                for place, scores in found.items():
                    of_ranges[key][place] = of_ranges[key].get(place, 0.0) + scores

    def of_range(self, key, layers):
        """Yield the scores of a range from each source, for each set of labels."""
        coordinates = self._features.coordinates(key, layers)
        for own, of_ranges in zip(self._labels, self._rates, strict=True):
            rates = {place: [scores] for place, scores in of_ranges[key].items()}
            yield [rates, discriminant_scores(coordinates, self._folds, own.indicators)]


class ClassifierScores:
    """Those of a classifier of scikit-learn, or of a user, which has ``predict_proba``.

    It is fitted to float32 arrays of 0 and 1.
    """

    def __init__(self, classifier, folds, labels):
        self._classifier, self._folds, self._labels = classifier, folds, labels
        self._gates = {}

    def add(self, index, layer):
        """Take in a layer, rows in the order of the folds."""
        self._gates[index] = layer.__array__(np.float32)

    def of_range(self, key, layers):
        """Yield the scores of a range, for each set of labels."""
        gates, folds = np.hstack([self._gates[index] for index in layers]), self._folds
        for own in self._labels:
            scores = {}
            for model in folds.models:
                kept = own.indicators.any(axis=1)
                for part in model:
                    kept[folds.rows(part)] = False
                score = _fitted_classifier(self._classifier, gates[kept], own, kept)
                for part in folds.scored(model):
                    scores[model, part] = [score(gates[folds.rows(part)])]
            yield [scores]


def _fitted_classifier(classifier, gates, labels, kept):
    """Return a function from gates to scores of the classes, (n_rows, n_classes)."""
    y = labels.encoded[kept]
    seen, counts = np.unique(y, return_counts=True)
    n_classes = labels.n_classes
    if len(seen) == 1:
        return lambda rows: np.zeros((len(rows), n_classes))
    own = clone(classifier, safe=False).fit(gates, y)

    def scores(rows):
        found = np.full((len(rows), n_classes), np.log(_LEAST))
        if not len(rows):
            return found
        p = np.asarray(own.predict_proba(rows))
        if p.shape != (len(rows), len(seen)):
            raise ValueError(
                f"classifier={classifier!r}: predict_proba returned shape {p.shape} for "
                f"{len(rows)} rows and {len(seen)} classes; need {(len(rows), len(seen))}."
            )
        found[:, seen] = np.log(np.maximum(p, _LEAST)) - np.log(counts / counts.sum())
        return found

    return scores


def require_memory(n_gates, n_rows, labels, classifier):
    """Raise, before any work, if the scores or a classifier's gates do not fit in memory."""
    n_classes, memory = max(own.n_classes for own in labels), physical_memory()
    n_bytes = 8.0 * 5 * n_rows * n_classes * N_OPTIONS
    if n_bytes > memory / 2:
        raise ValueError(
            f"The information about {n_classes} classes needs about {n_bytes / 1e9:.0f} GB for "
            f"{n_rows} rows, and this machine has {memory / 1e9:.0f} GB. max_samples takes fewer."
        )
    n_bytes = 4.0 * n_rows * sum(n_gates)
    if classifier is not None and n_bytes > memory / 4:
        raise ValueError(
            f"{classifier!r} needs all {sum(n_gates)} gates of {n_rows} rows as numbers, about "
            f"{n_bytes / 1e9:.0f} GB, and this machine has {memory / 1e9:.0f} GB. classifier=None "
            "has no such limit; or measure single layers, states.select(name)."
        )

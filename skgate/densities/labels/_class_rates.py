r"""Scores of classes from the rates of gates in each, as if gates were independent given the class.

With :math:`r_{iy}` the rate of gate :math:`i` in class :math:`y`, drawn to that of all samples,

.. math::

    \ell_y = \sum_i \log \frac{p(\sigma_i \mid y)}{p(\sigma_i)}, \qquad
    r_{iy} = \frac{k_{iy} + \kappa r_i}{n_y + \kappa}.

Gates that follow from earlier ones of their unit are left out.
"""

import numpy as np

from ...states import is_sparse
from ...utils.parallel import slices
from ...utils.samples import Samples
from .._units import free_gates
from ._folds import LabelFolds, Labels

#: Samples by which the rates of a class are drawn to those of all: where scores are calibrated, and
#: where they are chosen by held-out rows.
_KAPPA = 10.0
_KAPPAS = (3.0, 10.0, 30.0, 100.0, 1e3, np.inf)
_BLOCK_BYTES = 1 << 27


def class_rate_scores(layer, folds, indicators, kappa=_KAPPA):
    """Return scores of the rows that each model has to score, by model and part.

    Parameters
    ----------
    layer : GatingStates
        Of one layer, rows in the order of the folds.
    folds : LabelFolds
    indicators : ndarray of shape (n_rows, n_classes)
    kappa : float

    Returns
    -------
    scores : dict of (tuple, int) to ndarray of shape (n_rows_of_part, n_classes)
    """
    scores = {
        (model, part): np.zeros_like(indicators[folds.rows(part)])
        for model in folds.models
        for part in folds.scored(model)
    }
    sizes = folds.sums(indicators)
    by_part = [indicators[folds.rows(part)].T for part in range(folds.n_parts)]
    for gates, free in _blocks(layer):
        n_open = np.stack([of @ gates[folds.rows(p)] for p, of in enumerate(by_part)])
        n_free = np.broadcast_to(sizes[..., None], n_open.shape)
        if free is not None:
            n_free = np.stack([of @ free[folds.rows(p)] for p, of in enumerate(by_part)])
        for model in folds.models:
            counts = folds.without(n_open, model), folds.without(n_free, model)
            odds, closed = _log_ratios(*counts, kappa)
            for part in folds.scored(model):
                rows, found = folds.rows(part), scores[model, part]
                found += gates[rows] @ odds.T
                found += closed.sum(axis=1) if free is None else free[rows] @ closed.T
    return scores


def _log_ratios(n_open, n_free, kappa):
    """Return what open gates add to the scores, and what free ones do, (n_classes, n_gates)."""
    rate = (n_open.sum(axis=0) + 0.5) / (n_free.sum(axis=0) + 1)
    weight = n_free / (n_free + kappa)
    rates = weight * n_open / np.maximum(n_free, 1) + (1 - weight) * rate
    closed = np.log1p(-rates) - np.log1p(-rate)
    return np.log(rates) - np.log(rate) - closed, closed


def _blocks(layer):
    """Yield free gates that are open, and which are free (None: all), some gates at a time."""
    (of_layer,), (packed,), n = layer.layers, layer.packed, len(layer)
    unit = of_layer.unit_size
    step = max(1, _BLOCK_BYTES // (64 * n * unit)) * 8 * unit  # whole bytes, and whole units
    by_column = packed.tocsc() if is_sparse(packed) else None
    for own in slices(0, of_layer.n_gates, step):
        if by_column is not None:
            gates = by_column[:, own].toarray()
        else:
            bits = packed[:, own.start // 8 : -(-own.stop // 8)]
            gates = np.unpackbits(bits, axis=1, count=own.stop - own.start).astype(bool)
        if unit == 1:
            yield gates.astype(float), None
        else:
            free = free_gates(gates.reshape(n, -1, unit), of_layer).reshape(gates.shape)
            yield (gates & free).astype(float), free.astype(float)


def class_rate_gains(states, y_encoded, ranges, seed):
    """Return log p(sigma|y) / p(sigma) of independent units in each range, (n_ranges, n_rows).

    Each row is scored by rates of other rows, and so is the strength chosen by which those of the
    classes are drawn to those of all, a layer at a time.
    """
    folds = LabelFolds.crossing(Samples(states.groups, len(states)), seed)
    labels = Labels.of(y_encoded[folds.order], folds)
    gains = np.zeros((len(states.layers), len(states)))
    for index in range(len(states.layers)):
        layer, found = states.select([index])[folds.order], []
        for kappa in _KAPPAS:
            scores = class_rate_scores(layer, folds, labels.indicators, kappa)
            found.append({place: _own(v, labels, folds, place[1]) for place, v in scores.items()})
        for target in folds.targets:
            judged = [(model, part) for part, model in folds.calibrating(target)]
            sums = [sum(own[place].sum() for place in judged) for own in found]
            best = found[int(np.argmax(sums))]
            gains[index, folds.order[folds.rows(target)]] = best[(target,), target]
    return ranges.mask @ gains


def _own(scores, labels, folds, part):
    """Return the scores of the rows' own classes."""
    return np.take_along_axis(scores, labels.encoded[folds.rows(part), None], axis=1)[:, 0]

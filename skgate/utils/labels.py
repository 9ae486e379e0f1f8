"""Input checks of class labels, and their encoding as integers."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length

from .arrays import holds_mappings, to_numpy

#: Keys under which a mapping of inputs holds labels.
LABEL_KEYS = ("labels", "label")


def labels_in(X):
    """Return the labels in a mapping of inputs, or in a list of such, None if there are none."""
    if isinstance(X, Mapping):
        return next((X[key] for key in LABEL_KEYS if key in X), None)
    if not holds_mappings(X):
        return None
    labels = [labels_in(sample) for sample in X]
    return None if any(label is None for label in labels) else labels


def check_labels(y, n_rows, groups=None):
    """Return ``(classes, y_encoded)`` of rows; raise if ``y`` is not one class label per sample.

    With the ``groups`` of `GatingStates`, ``y`` has one label a row, or one a sample, in the order
    of ``np.unique(groups)``.
    """
    if y is None:
        raise ValueError(
            "This measure requires y to be passed, but the target y is None. Pass one class label "
            "per sample, or a Dataset or DataLoader that yields (inputs, label). If there are no "
            "labels, y=np.zeros(n_samples) gives the information about the input."
        )
    y = np.asarray(to_numpy(y))
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {y.shape} instead. Convert one-hot "
            "labels with y.argmax(axis=1)."
        )
    y = in_own_type(column_or_1d(y, warn=True))
    if groups is not None and len(y) != n_rows:
        y = _given_to_rows(y, groups)
    check_consistent_length(range(n_rows), y)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("Input y contains NaN or infinity; class labels must be finite.")
    refuse_missing(y)
    if type_of_target(y) == "continuous":
        raise ValueError(
            "Unknown label type: continuous. A measure of information about the label needs "
            "classes; bin y first, for example with pandas.qcut(y, 10, labels=False)."
        )
    classes, y_encoded = np.unique(y, return_inverse=True)
    return classes, y_encoded.astype(np.int64)


def in_own_type(y):
    """Return objects as numbers if they are all numbers."""
    if y.dtype != object:
        return y
    natural = np.array(y.tolist())
    return natural if natural.dtype.kind in "biuf" else y


def refuse_missing(y):
    """Raise if a label is missing, among objects or dates."""
    y = np.asarray(y)
    if y.ndim == 1 and y.dtype.kind in "OmM" and any(map(is_missing, y)):
        raise ValueError("Input y misses labels (None, NA, NaN or NaT). Leave these samples out.")


def is_missing(label):
    """Return whether a label is None, NA, NaN or NaT."""
    # NA is neither equal to itself nor different
    return label is None or type(label).__name__ == "NAType" or bool(label != label)


def require_classes(y, *, by_position=False):
    """Raise unless labels of a first batch are classes: one a sample, or perhaps one a position."""
    y = None if y is None else np.asarray(to_numpy(y))
    if y is not None and y.size > len(y) and not by_position:
        raise ValueError(
            f"Labels of shape {y.shape} came with the data; need one class label per sample. "
            "Labels of tokens need a GateExtractor with samples='position'."
        )
    check_labels(None if y is None else y.ravel(), 0 if y is None else y.size)


def _given_to_rows(y, groups):
    """Return the labels of samples, one for each of their rows."""
    samples, sample_of_row = np.unique(groups, return_inverse=True)
    if len(y) != len(samples):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: y has {len(y)} labels "
            f"for {len(samples)} samples of {len(groups)} rows in all. Pass one for each sample "
            "that has rows, in the order of np.unique(states.groups), or one for each row."
        )
    return y[sample_of_row]


def encode_known(y, n_rows, classes, groups=None):
    """Return labels of new data as indices of the fitted ``classes``; raise on other labels."""
    labels, y_encoded = check_labels(y, n_rows, groups)
    if unknown := set(labels.tolist()) - set(classes.tolist()):
        raise ValueError(
            f"y holds the labels {sorted(unknown, key=str)}, which were not in the fitted y "
            f"({classes.tolist()}); split with StratifiedKFold so that each fold has every class."
        )
    return np.searchsorted(classes, labels)[y_encoded]
